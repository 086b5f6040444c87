// Which base files with several names have been copied up: what links/ holds, in memory. Found by the base's object,
// and by the copy.
import { type BaseFileKey, type Birth, keyText, ofFile, parseKey } from './base-file-key.ts';

export interface HardLink extends BaseFileKey {
  /** Its name in links/. */
  file: string;
  /** Inode number of the copy, in the overlay. */
  copyIno: number;
  /** st_ino of the copy. */
  shown: number;
  /** The base's link count when it was last seen. */
  nlink: number;
  /** Names of the base's file, by pathHash, that the overlay has taken over and the base has not taken away since. */
  taken: Set<string>;
  /** Names of the base's file that the overlay has not taken over: they lead to the copy. */
  untaken: number;
  /** The base has been seen to take a name away: it may give it back. */
  lost: boolean;
}

/** Name in links/: with the base's link count when it was last seen. */
export function linkFile(key: BaseFileKey, nlink: number): string {
  return `${keyText(key)}+${nlink}`;
}

/** What the name of a file in links/ says; null: it is none of ours. */
export function parseLinkFile(file: string): (BaseFileKey & { nlink: number }) | null {
  const [, text = '', nlink] = /^(.*)\+(\d+)$/.exec(file) ?? [];
  const key = parseKey(text);
  return key === null ? null : { ...key, nlink: Number(nlink) };
}

export class HardLinks {
  /** By inode number in the base: it may have been several files', one after another, or several layers'. */
  readonly #byBase = new Map<number, HardLink[]>();
  readonly #byCopy = new Map<number, HardLink>();

  get size(): number {
    return this.#byCopy.size;
  }

  /** Of a file of the base. */
  find(identity: string, layer: number, ino: number, birth: Birth): HardLink | undefined {
    return ofFile(this.#byBase.get(ino), identity, layer, birth);
  }

  /** Of a copy, by its inode number in the overlay. */
  of(copyIno: number): HardLink | undefined {
    return this.#byCopy.get(copyIno);
  }

  /** Whether a file of the base with this number has been copied up; it may have had the number before another one. */
  hasNumber(ino: number): boolean {
    return this.#byBase.has(ino);
  }

  add(link: HardLink): void {
    const others = this.#byBase.get(link.ino) ?? [];
    this.#byBase.set(link.ino, [...others, link]);
    this.#byCopy.set(link.copyIno, link);
  }

  delete(link: HardLink): void {
    const others = (this.#byBase.get(link.ino) ?? []).filter((one) => one !== link);
    if (others.length > 0) this.#byBase.set(link.ino, others);
    else this.#byBase.delete(link.ino);
    this.#byCopy.delete(link.copyIno);
  }

  /** Another copy stands for the file of the base from now on. */
  move(link: HardLink, copyIno: number): void {
    this.#byCopy.delete(link.copyIno);
    link.copyIno = copyIno;
    this.#byCopy.set(copyIno, link);
  }
}
