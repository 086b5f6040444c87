// The merge of three files, by two opinions. What a side changed is a guess wherever lines repeat, and another
// diff can guess otherwise: then two clean merges differ, or one is clean and one a conflict. So histogram diff
// (as in git's own merges) and the shortest diff (as in `git merge-file`) each merge, and a clean result is one
// that both come to. Where histogram diff is left with a conflict, diff3 may speak for it.
import { type Algorithm, diffLines } from './diff.ts';
import type { LineFiles } from './lines.ts';
import { render } from './markers.ts';
import type { Hunk } from './marks.ts';
import { reconcile } from './reconcile.ts';
import { type Changes, combine, hasConflict, type Piece } from './three-way.ts';

export function mergeLines(files: LineFiles): Piece[] {
  const first = changesOf(files, 'histogram');
  const pieces = combine(files, first);
  const conflict = hasConflict(pieces);
  const proposal = conflict ? reconcile(files, pieces) : pieces;
  if (proposal === null) return pieces;
  const second = changesOf(files, 'myers');
  if (sameHunks(first.overlay, second.overlay) && sameHunks(first.base, second.base)) return pieces;
  const others = combine(files, second);
  if (hasConflict(others)) return conflict ? pieces : others;
  if (render(files, proposal).equals(render(files, others))) return proposal;
  return conflict ? pieces : ambiguous(files, first, second);
}

function changesOf(files: LineFiles, algorithm: Algorithm): Changes {
  const { ancestor, overlay, base, table } = files;
  return {
    overlay: diffLines(algorithm, ancestor.ids, overlay.ids, table.length),
    base: diffLines(algorithm, ancestor.ids, base.ids, table.length),
  };
}

function sameHunks(a: readonly Hunk[], b: readonly Hunk[]): boolean {
  if (a.length !== b.length) return false;
  return a.every((hunk, i) => {
    const other = b[i]!;
    return (
      hunk.start === other.start && hunk.end === other.end && hunk.from === other.from && hunk.to === other.to
    );
  });
}

/** Only what both opinions hold to be unchanged is taken as such, which joins the hunks that they dispute. */
function ambiguous(files: LineFiles, first: Changes, second: Changes): Piece[] {
  const { ancestor, overlay, base } = files;
  const length = ancestor.ids.length;
  const pieces = combine(files, {
    overlay: agreed(first.overlay, second.overlay, length, overlay.ids.length),
    base: agreed(first.base, second.base, length, base.ids.length),
  });
  if (hasConflict(pieces)) return pieces;
  const all = (to: number) => ({ from: 0, to });
  return [
    {
      kind: 'conflict',
      overlay: all(overlay.ids.length),
      ancestor: all(length),
      base: all(base.ids.length),
    },
  ];
}

function agreed(a: readonly Hunk[], b: readonly Hunk[], oldLength: number, newLength: number): Hunk[] {
  const inA = partners(a, oldLength, newLength);
  const inB = partners(b, oldLength, newLength);
  const hunks: Hunk[] = [];
  let start = 0;
  let from = 0;
  for (let i = 0; i <= oldLength; i++) {
    const partner = i === oldLength ? newLength : inA[i]!;
    if (i < oldLength && (partner < 0 || inB[i] !== partner)) continue;
    if (start < i || from < partner) hunks.push({ start, end: i, from, to: partner });
    start = i + 1;
    from = partner + 1;
  }
  return hunks;
}

/** For each line of the old file its line in the new one, or -1. */
function partners(hunks: readonly Hunk[], oldLength: number, newLength: number): Int32Array {
  const found = new Int32Array(oldLength).fill(-1);
  let i = 0;
  let j = 0;
  for (const { start, end, from, to } of [...hunks, { start: oldLength, end: 0, from: newLength, to: 0 }]) {
    while (i < start && j < from) found[i++] = j++;
    i = end;
    j = to;
  }
  return found;
}
