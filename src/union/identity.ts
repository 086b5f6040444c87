// Inode numbers as the union shows them: unique within the mount, the same before and after a copy-up. The
// overlay's own numbers stay as they are; those of base layer k go to a range of their own, so that equal
// numbers of two file systems never meet.
import type { Stat } from '../lib/stat.ts';
import type { Node } from './node.ts';
import { originsOf } from './origins.ts';
import type { Union } from './union.ts';

const RANGE = 2 ** 48;

export function baseIno(layer: number, ino: number): number {
  return (layer + 1) * RANGE + (ino % RANGE);
}

/** Numbers beyond 48 bits (some 64-bit file systems) are folded; that two then meet is very unlikely. */
export function overlayIno(ino: number): number {
  return ino % RANGE;
}

/** st_ino of a node whose object has the given stat. */
export function objectIno(union: Union, node: Node, stat: Stat): number {
  if (node.dir !== null) {
    const part = node.dir.parts[0];
    if (part && !node.dir.opaque) return baseIno(part.layer, part.ino);
    return overlayIno(stat.ino);
  }
  if (node.layer >= 0) return baseIno(node.layer, stat.ino);
  const shown = originsOf(union, node, stat).ino;
  return shown !== 0 ? shown : overlayIno(stat.ino);
}
