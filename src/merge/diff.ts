// The difference of two files as hunks, placed as git places them; by either of two algorithms.
import { compact } from './compact.ts';
import { markByHistogram } from './histogram.ts';
import { type Hunk, hunksOf, type Marks, trimmed } from './marks.ts';
import { markByMyers } from './myers.ts';
import { newScratch } from './sift.ts';

export type Algorithm = 'histogram' | 'myers';

/** Ids are below `idCount`. */
export function diffLines(
  algorithm: Algorithm,
  oldIds: Int32Array,
  newIds: Int32Array,
  idCount: number,
): Hunk[] {
  const marks: Marks = { old: new Uint8Array(oldIds.length), new: new Uint8Array(newIds.length) };
  const whole = { oldLow: 0, oldHigh: oldIds.length, newLow: 0, newHigh: newIds.length };
  if (algorithm === 'myers') markByMyers(oldIds, newIds, marks, whole, newScratch(idCount));
  else markByHistogram(oldIds, newIds, marks, trimmed(oldIds, newIds, whole), idCount);
  compact(oldIds, newIds, marks);
  return hunksOf(marks);
}
