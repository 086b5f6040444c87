// The merge as bytes, with diff3-style markers around what conflicts. Markers stand on lines of their own, with
// the terminator that the file uses, whether or not a side's last line has one.
import { bytesOfLines, type LineFiles, type Range } from './lines.ts';
import type { Conflict, Piece } from './three-way.ts';

export function render(files: LineFiles, pieces: readonly Piece[]): Buffer {
  const out: Buffer[] = [];
  for (const piece of pieces) {
    if (piece.kind === 'lines') out.push(bytesOfLines(files[piece.side], piece.from, piece.to));
    else if (piece.kind === 'ids') out.push(bytesOfIds(files, piece.ids));
    else renderConflict(files, piece, out);
  }
  return Buffer.concat(out);
}

function bytesOfIds(files: LineFiles, ids: readonly number[]): Buffer {
  return Buffer.from(ids.map((id) => files.table[id]!).join(''), 'latin1');
}

/** What both sides begin and end with is no conflict, and stands once, outside of the markers. */
function renderConflict(files: LineFiles, conflict: Conflict, out: Buffer[]): void {
  const { head, tail } = common(files, conflict);
  const { overlay, ancestor, base } = conflict;
  const end = newlineAt(files, conflict);
  const lineEnd = files.terminator.charCodeAt(0);
  if (head > 0) out.push(bytesOfLines(files.overlay, overlay.from, overlay.from + head));
  const section = (marker: string, bytes: Buffer) => {
    out.push(Buffer.from(marker + end, 'latin1'), bytes);
    if (bytes.length > 0 && bytes[bytes.length - 1] !== lineEnd) out.push(Buffer.from(end, 'latin1'));
  };
  section('<<<<<<< overlay', bytesOfLines(files.overlay, overlay.from + head, overlay.to - tail));
  section('||||||| ancestor', bytesOfLines(files.ancestor, ancestor.from, ancestor.to));
  section('=======', bytesOfLines(files.base, base.from + head, base.to - tail));
  out.push(Buffer.from(`>>>>>>> base${end}`, 'latin1'));
  if (tail > 0) out.push(bytesOfLines(files.overlay, overlay.to - tail, overlay.to));
}

function common(files: LineFiles, { overlay, base }: Conflict): { head: number; tail: number } {
  const length = (range: Range) => range.to - range.from;
  const shorter = Math.min(length(overlay), length(base));
  const a = files.overlay.ids;
  const b = files.base.ids;
  let head = 0;
  while (head < shorter && a[overlay.from + head] === b[base.from + head]) head++;
  let tail = 0;
  while (tail < shorter - head && a[overlay.to - 1 - tail] === b[base.to - 1 - tail]) tail++;
  return { head, tail };
}

/** As the lines in the conflict end, or else those at the top of the files. */
function newlineAt(files: LineFiles, { overlay, ancestor, base }: Conflict): string {
  const near = [
    [files.overlay, overlay.from],
    [files.base, base.from],
    [files.ancestor, ancestor.from],
    [files.overlay, 0],
    [files.base, 0],
    [files.ancestor, 0],
  ] as const;
  for (const [file, line] of near) {
    const id = file.ids[line];
    const text = id === undefined ? '' : files.table[id]!;
    if (text.endsWith('\r\n')) return '\r\n';
    if (text.endsWith(files.terminator)) return files.terminator;
  }
  return files.terminator;
}
