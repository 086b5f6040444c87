// Which base objects with several names have been copied up: what links/ holds, in memory.

export interface HardLink {
  /** Its name in links/: KEY+NLINK, with the base's link count when it was last seen. */
  file: string;
  /** Inode number of the overlay's object. */
  ino: number;
  /** Names of the base's object that the overlay has not taken over. */
  remaining: number;
  nlink: number;
}

export class HardLinks {
  readonly #byKey = new Map<string, HardLink>();
  readonly #byIno = new Map<number, HardLink>();
  /** How many there are of each layer and number: a number may have been several objects', one after another. */
  readonly #objects = new Map<string, number>();

  get size(): number {
    return this.#byKey.size;
  }

  get(key: string): HardLink | undefined {
    return this.#byKey.get(key);
  }

  /** Of an overlay object, by its inode number. */
  of(ino: number): HardLink | undefined {
    return this.#byIno.get(ino);
  }

  keyOf(ino: number): string | undefined {
    const link = this.#byIno.get(ino);
    if (!link) return undefined;
    for (const [key, one] of this.#byKey) if (one === link) return key;
    return undefined;
  }

  /** Whether an object of a layer with this number has been copied up. */
  hasObject(layer: number, ino: number): boolean {
    return this.#objects.size > 0 && this.#objects.has(`${layer}-${ino}`);
  }

  set(key: string, link: HardLink): void {
    if (!this.#byKey.has(key)) this.#count(key, 1);
    this.#byKey.set(key, link);
    this.#byIno.set(link.ino, link);
  }

  delete(key: string): void {
    const link = this.#byKey.get(key);
    if (!link) return;
    this.#byIno.delete(link.ino);
    this.#byKey.delete(key);
    this.#count(key, -1);
  }

  #count(key: string, more: 1 | -1): void {
    // Layer, number and birth time are its last parts.
    const object = key.split('-').slice(-3, -1).join('-');
    const count = (this.#objects.get(object) ?? 0) + more;
    if (count > 0) this.#objects.set(object, count);
    else this.#objects.delete(object);
  }
}
