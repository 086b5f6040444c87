// Which base files with several names have been copied up: what links/ holds, in memory. Found by the base's object,
// and by the copy.
import type { Stat } from '../lib/stat.ts';

/** Tells a file of the base from all others, also from one that gets its inode number later. */
export interface BaseFileKey {
  /** Of the layer's tree. */
  identity: string;
  layer: number;
  ino: number;
  btimeSec: number;
  btimeNsec: number;
}

export type Birth = Pick<Stat, 'btimeSec' | 'btimeNsec'>;

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
export function linkFile({ identity, layer, ino, btimeSec, btimeNsec }: BaseFileKey, nlink: number): string {
  return `${identity}-${layer}-${ino}-${btimeSec}.${btimeNsec}+${nlink}`;
}

const filePattern = /^([0-9a-f]*)-(\d+)-(\d+)-(-?\d+)\.(\d+)\+(\d+)$/;

/** What the name of a file in links/ says; null: it is none of ours. */
export function parseLinkFile(file: string): (BaseFileKey & { nlink: number }) | null {
  const [, identity, ...numbers] = filePattern.exec(file) ?? [];
  if (identity === undefined) return null;
  const [layer, ino, btimeSec, btimeNsec, nlink] = numbers.map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  return { identity, layer, ino, btimeSec, btimeNsec, nlink };
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
    for (const link of this.#byBase.get(ino) ?? []) {
      if (
        link.layer === layer &&
        link.identity === identity &&
        link.btimeSec === birth.btimeSec &&
        link.btimeNsec === birth.btimeNsec
      )
        return link;
    }
    return undefined;
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
