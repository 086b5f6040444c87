// What Myers' algorithm is spared of, and kept from being misled by: lines that the other file does not have, and
// frequent lines (braces, blank lines) in the midst of such. The rules and limits are those that git's diffs are
// known for, because another choice here gives another, equally short diff.
import { type Region, trimmed } from './marks.ts';

/** Places for every id, all zero, and given back so: occurrences in the two files. */
export interface Scratch {
  inOld: Int32Array;
  inNew: Int32Array;
}

/** The lines of one file that are to be compared. */
export interface Sifted {
  ids: Int32Array;
  /** Where each one was. */
  at: Int32Array;
}

/** So often in the other file makes a line frequent, however long the files are. */
const ALWAYS_FREQUENT = 1024;
/** So many lines around a frequent one are looked at, each way. */
const NEIGHBOURS = 100;

export function newScratch(idCount: number): Scratch {
  return { inOld: new Int32Array(idCount), inNew: new Int32Array(idCount) };
}

/** `rest` is the region less the equal lines at its ends; what is in it and in neither list has changed. */
export function sift(
  oldIds: Int32Array,
  newIds: Int32Array,
  region: Region,
  scratch: Scratch,
): { a: Sifted; b: Sifted; rest: Region } {
  const { inOld, inNew } = scratch;
  const { oldLow, oldHigh, newLow, newHigh } = region;
  for (let i = oldLow; i < oldHigh; i++) inOld[oldIds[i]!]!++;
  for (let i = newLow; i < newHigh; i++) inNew[newIds[i]!]!++;
  const rest = trimmed(oldIds, newIds, region);
  const a = kept(oldIds, rest.oldLow, rest.oldHigh, inNew, roughRoot(oldHigh - oldLow));
  const b = kept(newIds, rest.newLow, rest.newHigh, inOld, roughRoot(newHigh - newLow));
  for (let i = oldLow; i < oldHigh; i++) inOld[oldIds[i]!] = 0;
  for (let i = newLow; i < newHigh; i++) inNew[newIds[i]!] = 0;
  return { a, b, rest };
}

/** The least power of two whose square exceeds n. */
export function roughRoot(n: number): number {
  return 2 ** Math.ceil((32 - Math.clz32(n)) / 2);
}

function kept(ids: Int32Array, low: number, high: number, inOther: Int32Array, root: number): Sifted {
  const frequent = Math.min(root, ALWAYS_FREQUENT);
  const at = new Int32Array(high - low);
  let length = 0;
  for (let i = low; i < high; i++) {
    const partners = inOther[ids[i]!]!;
    if (partners === 0) continue;
    if (partners >= frequent && lostInChanges(ids, low, high, i, inOther, frequent)) continue;
    at[length++] = i;
  }
  const found = at.subarray(0, length);
  return { ids: found.map((i) => ids[i]!), at: found };
}

/**
 * Whether the run of lines without partners and of frequent lines around a frequent one has lines without
 * partners on both sides of it, and more than three of them to each frequent one, itself counted twice.
 */
function lostInChanges(
  ids: Int32Array,
  low: number,
  high: number,
  line: number,
  inOther: Int32Array,
  frequent: number,
): boolean {
  let lonely = 0;
  let crowd = 2;
  for (const step of [-1, 1]) {
    let lonelyHere = 0;
    const last = step < 0 ? Math.max(low, line - NEIGHBOURS) : Math.min(high - 1, line + NEIGHBOURS);
    for (let i = line + step; (last - i) * step >= 0; i += step) {
      const partners = inOther[ids[i]!]!;
      if (partners > 0 && partners < frequent) break;
      if (partners === 0) lonelyHere++;
      else crowd++;
    }
    if (lonelyHere === 0) return false;
    lonely += lonelyHere;
  }
  return lonely > 3 * crowd;
}
