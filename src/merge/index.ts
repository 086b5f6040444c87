// The three-way merge of text: bytes in, bytes out, nothing else touched. Offered to others as `kasane/merge`.
import { constants } from 'node:buffer';
import { readLines } from './lines.ts';
import { render } from './markers.ts';
import { mergeLines } from './opinions.ts';
import { hasConflict } from './three-way.ts';

export interface TextMerge {
  conflict: boolean;
  /**
   * The merge; in a conflict, the merge with diff3-style markers labelled `overlay`, `ancestor` and `base`.
   * If an input is refused, `conflict` is true and this is a copy of the overlay's bytes, without markers.
   */
  out: Buffer;
}

/**
 * Merges what the overlay and the base each did to the ancestor, line by line. Touching or overlapping changes
 * are a conflict unless they are the same, and so is what can be read in two ways. Refused is an input with a
 * NUL byte, which is no text, or of half a gigabyte. What is clean is so for `git merge-file`, too, with the
 * same bytes, unless the changes are so many that its cost limits or those here come into play.
 */
export function mergeText(ancestor: Uint8Array, overlay: Uint8Array, base: Uint8Array): TextMerge {
  const files = [ancestor, overlay, base].map(view) as [Buffer, Buffer, Buffer];
  const [o, a, b] = files;
  if (files.some(isRefused)) return { conflict: true, out: Buffer.from(a) };
  if (o.equals(a) || a.equals(b)) return { conflict: false, out: Buffer.from(b) };
  if (o.equals(b)) return { conflict: false, out: Buffer.from(a) };
  const lines = readLines(o, a, b);
  const pieces = mergeLines(lines);
  return { conflict: hasConflict(pieces), out: render(lines, pieces) };
}

function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function isRefused(bytes: Buffer): boolean {
  return bytes.includes(0) || bytes.length > constants.MAX_STRING_LENGTH;
}
