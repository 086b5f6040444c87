// Slides each group of changed lines to the place where git shows it. A group can move down by a line where
// the line behind it equals its first one, and up likewise; the files it describes stay the same. Where it lies
// decides whether it touches a change of the other side, so a merge that is to agree with git has to choose as
// git does: as far down as it goes, but if on the way it stands beside a change of the other file, there, so
// that a deletion and an insertion become one replacement. git's indentation heuristic is for reading diffs:
// its merges do not use it, and neither does this.
import type { Marks } from './marks.ts';

export function compact(oldIds: Int32Array, newIds: Int32Array, marks: Marks): void {
  slideGroups(oldIds, marks.old, changedGaps(marks.new));
  slideGroups(newIds, marks.new, changedGaps(marks.old));
}

/** For each gap between unchanged lines (0 is before the first): whether changed lines lie in it. */
function changedGaps(flags: Uint8Array): Uint8Array {
  const gaps = new Uint8Array(flags.length + 1);
  let gap = 0;
  for (let i = 0; i < flags.length; i++) {
    if (flags[i] === 0) gap++;
    else gaps[gap] = 1;
  }
  return gaps;
}

/** A group in motion: lines start to end, in the gap'th gap between unchanged lines. */
interface Group {
  ids: Int32Array;
  flags: Uint8Array;
  start: number;
  end: number;
  gap: number;
}

function slideGroups(ids: Int32Array, flags: Uint8Array, otherGaps: Uint8Array): void {
  let gap = 0;
  for (let i = 0; i < flags.length; ) {
    if (flags[i] === 0) {
      gap++;
      i++;
      continue;
    }
    const group: Group = { ids, flags, start: i, end: i, gap };
    while (group.end < flags.length && flags[group.end] === 1) group.end++;
    settle(group, otherGaps);
    gap = group.gap;
    i = group.end;
  }
}

function settle(group: Group, otherGaps: Uint8Array): void {
  let size: number;
  let beside = -1;
  do {
    size = group.end - group.start;
    while (slideUp(group)) {}
    beside = otherGaps[group.gap] === 1 ? group.gap : -1;
    while (slideDown(group)) if (otherGaps[group.gap] === 1) beside = group.gap;
  } while (group.end - group.start !== size);
  if (beside >= 0) while (group.gap > beside) slideUp(group);
}

/** One line up; takes in the group that it then touches. */
function slideUp(group: Group): boolean {
  const { ids, flags, start, end } = group;
  if (start === 0 || ids[start - 1] !== ids[end - 1]) return false;
  group.start--;
  group.end--;
  group.gap--;
  flags[group.start] = 1;
  flags[group.end] = 0;
  while (group.start > 0 && flags[group.start - 1] === 1) group.start--;
  return true;
}

function slideDown(group: Group): boolean {
  const { ids, flags, start, end } = group;
  if (end === flags.length || ids[start] !== ids[end]) return false;
  flags[start] = 0;
  flags[end] = 1;
  group.start++;
  group.end++;
  group.gap++;
  while (group.end < flags.length && flags[group.end] === 1) group.end++;
  return true;
}
