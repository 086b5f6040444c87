// Inode numbers as the union shows them: unique within the mount, the same before and after a copy-up. The
// overlay's own numbers stay as they are; those of base layer k go to a range of their own, so that equal
// numbers of two file systems never meet.
import { branchIno, NUMBERS } from '../branch/numbers.ts';
import type { Stat } from '../lib/stat.ts';
import { statNode } from './locate.ts';
import type { Node } from './node.ts';
import { originsOf } from './origins.ts';
import type { Union } from './union.ts';

export function baseIno(layer: number, ino: number): number {
  return (layer + 1) * NUMBERS + (ino % NUMBERS);
}

export function overlayIno(ino: number): number {
  return ino % NUMBERS;
}

/** st_ino of a node as a listing tells it of `.` and `..`: any, where there is no way to the object. */
export function listedIno(union: Union, node: Node): number {
  const { stat } = union;
  return statNode(union, node, stat) < 0 ? 1 : objectIno(union, node, stat);
}

/** st_ino of a node whose object has the given stat. */
export function objectIno(union: Union, node: Node, stat: Stat): number {
  if (node.dir !== null) {
    const part = node.dir.parts[0];
    if (part && !node.dir.opaque) return baseIno(part.layer, part.ino);
    return overlayIno(stat.ino);
  }
  if (node.layer >= 0) return baseIno(node.layer, branchIno(union.layers, node.layer, stat));
  const shown = originsOf(union, node, stat).ino;
  return shown !== 0 ? shown : overlayIno(stat.ino);
}
