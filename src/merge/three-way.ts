// Puts two diffs against one ancestor together. Where only one side changed lines, they are taken; where changes
// of both sides overlap or touch, they have to be the same. Touching is a conflict, as it is for git: adjacent
// lines often belong together.
import { type LineFiles, type Range, sameLines } from './lines.ts';
import type { Hunk } from './marks.ts';

export interface Conflict {
  kind: 'conflict';
  overlay: Range;
  ancestor: Range;
  base: Range;
}

/** The merge in order: lines of one file, lines by their ids, or a conflict. */
export type Piece =
  | { kind: 'lines'; side: 'ancestor' | 'overlay' | 'base'; from: number; to: number }
  | { kind: 'ids'; ids: readonly number[] }
  | Conflict;

/** What the overlay and the base changed in the ancestor. */
export interface Changes {
  overlay: readonly Hunk[];
  base: readonly Hunk[];
}

export function hasConflict(pieces: readonly Piece[]): boolean {
  return pieces.some((piece) => piece.kind === 'conflict');
}

export function combine(files: LineFiles, changes: Changes): Piece[] {
  const { overlay, base } = changes;
  const pieces: Piece[] = [];
  let done = 0;
  for (let i = 0, j = 0; i < overlay.length || j < base.length; ) {
    const firstOfOverlay = i;
    const firstOfBase = j;
    const start = Math.min(overlay[i]?.start ?? Infinity, base[j]?.start ?? Infinity);
    let end = start;
    for (;;) {
      if (i < overlay.length && overlay[i]!.start <= end) end = Math.max(end, overlay[i++]!.end);
      else if (j < base.length && base[j]!.start <= end) end = Math.max(end, base[j++]!.end);
      else break;
    }
    if (done < start) pieces.push({ kind: 'lines', side: 'ancestor', from: done, to: start });
    const inOverlay = rangeOf(overlay, firstOfOverlay, i, start, end);
    const inBase = rangeOf(base, firstOfBase, j, start, end);
    if (inOverlay === null) pieces.push({ kind: 'lines', side: 'base', ...inBase! });
    else if (inBase === null || sameLines(files.overlay, inOverlay, files.base, inBase))
      pieces.push({ kind: 'lines', side: 'overlay', ...inOverlay });
    else
      pieces.push({ kind: 'conflict', overlay: inOverlay, ancestor: { from: start, to: end }, base: inBase });
    done = end;
  }
  const length = files.ancestor.ids.length;
  if (done < length) pieces.push({ kind: 'lines', side: 'ancestor', from: done, to: length });
  return pieces;
}

/** What a side has in place of the ancestor's lines start to end, which its hunks first to last lie in. */
function rangeOf(
  hunks: readonly Hunk[],
  first: number,
  last: number,
  start: number,
  end: number,
): Range | null {
  if (first === last) return null;
  const top = hunks[first]!;
  const bottom = hunks[last - 1]!;
  return { from: top.from - (top.start - start), to: bottom.to + (end - bottom.end) };
}
