// What a diff of two files is while it is being made: a flag for each line that the other file does not have.
// The lines without a flag are pairs, in order. Diffs set flags, compaction moves them, hunks are read off.

export interface Marks {
  old: Uint8Array;
  new: Uint8Array;
}

/** Lines start to end of the old file have become lines from to `to` of the new one. One range may be empty. */
export interface Hunk {
  start: number;
  end: number;
  from: number;
  to: number;
}

/** A rectangle of the two files that is still to be compared, ends not included. */
export interface Region {
  oldLow: number;
  oldHigh: number;
  newLow: number;
  newHigh: number;
}

export function markAll(marks: Marks, region: Region): void {
  marks.old.fill(1, region.oldLow, region.oldHigh);
  marks.new.fill(1, region.newLow, region.newHigh);
}

/** What is left of a region without the lines at its ends that both files have. */
export function trimmed(oldIds: Int32Array, newIds: Int32Array, region: Region): Region {
  let { oldLow, oldHigh, newLow, newHigh } = region;
  while (oldLow < oldHigh && newLow < newHigh && oldIds[oldLow] === newIds[newLow]) {
    oldLow++;
    newLow++;
  }
  while (oldLow < oldHigh && newLow < newHigh && oldIds[oldHigh - 1] === newIds[newHigh - 1]) {
    oldHigh--;
    newHigh--;
  }
  return { oldLow, oldHigh, newLow, newHigh };
}

export function hunksOf(marks: Marks): Hunk[] {
  const hunks: Hunk[] = [];
  const oldLength = marks.old.length;
  const newLength = marks.new.length;
  let i = 0;
  let j = 0;
  while (i < oldLength || j < newLength) {
    if (i < oldLength && j < newLength && marks.old[i] === 0 && marks.new[j] === 0) {
      i++;
      j++;
      continue;
    }
    const start = i;
    const from = j;
    while (i < oldLength && marks.old[i] === 1) i++;
    while (j < newLength && marks.new[j] === 1) j++;
    hunks.push({ start, end: i, from, to: j });
  }
  return hunks;
}
