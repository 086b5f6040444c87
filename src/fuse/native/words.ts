// What libfuse 2 is told of an object, in the words that the addon takes: 32 bits for an inode number, times in
// milliseconds since 1970.
import type { Stat } from '../../lib/stat.ts';
import type { Statfs } from '../../sys/file.ts';
import { encodeDev } from '../attr.ts';

const WORD = 2 ** 32;
const STAT_WORDS = 18;
const STATFS_WORDS = 11;

export function newStatWords(): Uint32Array {
  return new Uint32Array(STAT_WORDS);
}

export function newStatfsWords(): Uint32Array {
  return new Uint32Array(STATFS_WORDS);
}

function putDouble(words: Uint32Array, at: number, value: number): void {
  words[at] = value % WORD;
  words[at + 1] = Math.floor(value / WORD);
}

/** There is no way to say a time before 1970: its beginning is nearest. */
function milliseconds(seconds: number, nanoseconds: number): number {
  return Math.max(0, seconds * 1000 + Math.floor(nanoseconds / 1e6));
}

/** Returns 0, as the answer of whoever fills it. */
export function putStat(words: Uint32Array, stat: Stat, ino: number): 0 {
  words[0] = stat.mode;
  words[1] = stat.uid;
  words[2] = stat.gid;
  putDouble(words, 3, stat.size);
  words[6] = stat.nlink;
  words[7] = ino;
  words[8] = encodeDev(stat.rdevMajor, stat.rdevMinor);
  words[9] = stat.blksize;
  putDouble(words, 10, stat.blocks);
  putDouble(words, 12, milliseconds(stat.atimeSec, stat.atimeNsec));
  putDouble(words, 14, milliseconds(stat.mtimeSec, stat.mtimeNsec));
  putDouble(words, 16, milliseconds(stat.ctimeSec, stat.ctimeNsec));
  return 0;
}

/** Of an entry of a directory: all that libfuse passes on. */
export function entryWords(ino: number, type: number): Uint32Array {
  const words = newStatWords();
  words[0] = type << 12;
  words[7] = ino;
  return words;
}

/** A file system with more blocks than fit is told in larger ones. */
export function putStatfs(words: Uint32Array, from: Statfs): 0 {
  let scale = 1;
  while (from.blocks / scale >= WORD) scale *= 2;
  const scaled = (count: number) => Math.floor(count / scale);
  const clamped = (count: number) => Math.min(count, WORD - 1);
  words[0] = from.bsize;
  words[1] = clamped(from.frsize * scale);
  words[2] = scaled(from.blocks);
  words[3] = scaled(from.bfree);
  words[4] = scaled(from.bavail);
  words[5] = clamped(from.files);
  words[6] = clamped(from.ffree);
  words[7] = clamped(from.ffree);
  words[10] = 255;
  return 0;
}

/**
 * Inode numbers of the union (52 bits, the branch in the uppermost) in 32, no two alike: a tar that takes two files
 * for one would lose one of them. Stable for numbers below 2^28, which is nearly all there are; others get the next
 * one of the last range.
 */
export class ShortInodes {
  readonly #others = new Map<number, number>();

  of(ino: number): number {
    const branch = Math.floor(ino / BRANCH);
    const own = ino % BRANCH;
    if (branch < LAST_RANGE && own < RANGE) return branch * RANGE + own;
    const known = this.#others.get(ino);
    if (known !== undefined) return known;
    const next = LAST_RANGE * RANGE + this.#others.size;
    this.#others.set(ino, next);
    return next;
  }
}

const BRANCH = 2 ** 48;
const RANGE = 2 ** 28;
const LAST_RANGE = 15;
