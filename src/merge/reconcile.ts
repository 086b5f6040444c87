// Asks npm's diff3 about the conflicts of a merge, each by itself. Looking at the segment alone it can find
// partners that the diff of the whole file passed over. But it does not slide its changes, so that insertions of
// both sides at one place may come to lie a line apart, and both be taken: its word alone is not enough.
import { createRequire } from 'node:module';
import type { LineFile, LineFiles, Range } from './lines.ts';
import type { Conflict, Piece } from './three-way.ts';

type Block = { ok: number[] } | { conflict: unknown };

/**
 * diff3 0.0.4 assigns a variable that it does not declare (`ed`), which throws in the strict mode of every ES
 * module; as CommonJS it is sloppy, and works.
 */
const diff3 = createRequire(import.meta.url)('diff3') as (a: number[], o: number[], b: number[]) => Block[];

/**
 * diff3 takes time with the square of a segment. A longer one, its lines in all files counted, is a conflict
 * unseen; so is what is left once the segments of one merge have used up their steps, squares of lines.
 */
const LONGEST_SEGMENT = 4000;
const MOST_STEPS = 10 * LONGEST_SEGMENT ** 2;

/** The pieces with every conflict reconciled, or null if one cannot be. */
export function reconcile(files: LineFiles, pieces: readonly Piece[]): Piece[] | null {
  const reconciled: Piece[] = [];
  let stepsLeft = MOST_STEPS;
  for (const piece of pieces) {
    if (piece.kind !== 'conflict') {
      reconciled.push(piece);
      continue;
    }
    const lines = lengthOf(piece.overlay) + lengthOf(piece.ancestor) + lengthOf(piece.base);
    stepsLeft -= lines ** 2;
    if (lines > LONGEST_SEGMENT || stepsLeft < 0) return null;
    const ids = reconciledLines(files, piece);
    if (ids === null) return null;
    reconciled.push({ kind: 'ids', ids });
  }
  return reconciled;
}

function reconciledLines(files: LineFiles, conflict: Conflict): number[] | null {
  const a = idsOf(files.overlay, conflict.overlay);
  const o = idsOf(files.ancestor, conflict.ancestor);
  const b = idsOf(files.base, conflict.base);
  const known = new Set(o);
  const replaced = (ids: number[]) => !ids.some((id) => known.has(id));
  if (replaced(a) || replaced(b)) return null;
  const lines: number[] = [];
  for (const block of diff3(a, o, b)) {
    if (!('ok' in block)) return null;
    for (const id of block.ok) lines.push(id);
  }
  return lines;
}

function idsOf(file: LineFile, range: Range): number[] {
  return Array.from(file.ids.subarray(range.from, range.to));
}

function lengthOf(range: Range): number {
  return range.to - range.from;
}
