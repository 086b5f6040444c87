// Bytes to lines and lines to small integers, so that the diffs compare numbers. A line is its bytes as a
// latin1 string with its terminator: CRLF, LF and "no newline at the end" are three different lines, and
// joining the lines gives back the bytes whatever they are.

export interface LineFile {
  bytes: Buffer;
  /** Equal numbers are equal lines. */
  ids: Int32Array;
  /** Byte offset of each line, and behind the last one the length: line i is starts[i] to starts[i + 1]. */
  starts: Int32Array;
}

/** Lines of a file, `to` not included. */
export interface Range {
  from: number;
  to: number;
}

export interface LineFiles {
  ancestor: LineFile;
  overlay: LineFile;
  base: LineFile;
  /** The line of each id. */
  table: string[];
  /** What ends a line in these files, beside the end of the file. */
  terminator: '\n' | '\r';
}

export function readLines(ancestor: Buffer, overlay: Buffer, base: Buffer): LineFiles {
  const terminator = [ancestor, overlay, base].some((bytes) => bytes.includes(10)) ? '\n' : '\r';
  const known = new Map<string, number>();
  const table: string[] = [];
  const read = (bytes: Buffer): LineFile => intern(bytes, terminator, known, table);
  return { ancestor: read(ancestor), overlay: read(overlay), base: read(base), table, terminator };
}

/**
 * A lone CR ends a line only where no file has an LF (the old Macintosh's text); elsewhere it is part of its
 * line as for every Unix tool, and a merge within that line would be a guess.
 */
function intern(bytes: Buffer, terminator: string, known: Map<string, number>, table: string[]): LineFile {
  const text = bytes.toString('latin1');
  const ids: number[] = [];
  const starts: number[] = [];
  for (let start = 0; start < text.length; ) {
    const found = text.indexOf(terminator, start);
    const end = found < 0 ? text.length : found + 1;
    const line = text.slice(start, end);
    let id = known.get(line);
    if (id === undefined) {
      id = table.length;
      known.set(line, id);
      table.push(line);
    }
    ids.push(id);
    starts.push(start);
    start = end;
  }
  starts.push(text.length);
  return { bytes, ids: Int32Array.from(ids), starts: Int32Array.from(starts) };
}

/** The bytes of lines: a view, not a copy. */
export function bytesOfLines(file: LineFile, from: number, to: number): Buffer {
  return file.bytes.subarray(file.starts[from]!, file.starts[to]!);
}

export function sameLines(a: LineFile, inA: Range, b: LineFile, inB: Range): boolean {
  if (inA.to - inA.from !== inB.to - inB.from) return false;
  for (let i = inA.from, j = inB.from; i < inA.to; i++, j++) if (a.ids[i] !== b.ids[j]) return false;
  return true;
}
