// Inode numbers as the union shows them: unique within the mount, the same before and after a copy-up. The
// overlay's own numbers stay as they are; those of base layer k go to a range of their own, so that equal
// numbers of two file systems never meet. A copy shows the number that the base's object had. That may be another's
// by now, for file systems give freed numbers out again: what the base has elsewhere by it is shown with another one.
// So it is with the overlay's own numbers, where a merge has put one file in the place of another.
import { branchIno, NUMBERS } from '../branch/numbers.ts';
import type { Stat } from '../lib/stat.ts';
import { pathHash } from '../versions/origin.ts';
import { statNode } from './locate.ts';
import type { Node } from './node.ts';
import { originsOf } from './origins.ts';
import { basePathAt } from './place.ts';
import type { Union } from './union.ts';

/** The numbers that stand for one of a layer lie so far from each other. Larger file systems than that are rare. */
const APART = 2 ** 40;
const ALTERNATIVES = NUMBERS / APART;

function alternative(layer: number, ino: number, n: number): number {
  return (layer + 1) * NUMBERS + ((ino + n * APART) % NUMBERS);
}

/** st_ino of what a layer has at a name: its own, unless a copy of what lay elsewhere shows that already. */
export function baseIno(union: Union, layer: number, ino: number, parent: Node, name: string): number {
  const usual = alternative(layer, ino, 0);
  const { numbers } = union;
  if (!numbers.has(usual)) return usual;
  const path = basePathAt(parent, name);
  const own = path === null ? '' : pathHash(path);
  for (let n = 0; n < ALTERNATIVES; n++) {
    const shown = alternative(layer, ino, n);
    const by = numbers.get(shown);
    if (by === undefined || by === own) return shown;
  }
  return usual;
}

/** The same of a node that has a place; without one it keeps its own. */
export function nodeIno(union: Union, node: Node, layer: number, ino: number): number {
  const { place, dir } = node;
  if (dir === null && union.hardLinks.hasNumber(ino)) {
    const link = union.hardLinks.find(union.layers[layer]?.identity ?? '', layer, ino, node);
    if (link !== undefined) return link.shown;
  }
  return place === null ? alternative(layer, ino, 0) : baseIno(union, layer, ino, place.parent, place.name);
}

/** The number of an object of the overlay, as long as no other one shows it. */
export function overlayIno(ino: number): number {
  return ino % NUMBERS;
}

/**
 * st_ino of an object of the overlay's own: its number, unless a merged file has that from what it has replaced, whose
 * number the file system has given out again.
 */
export function ownIno(numbers: ReadonlyMap<number, string>, ino: number): number {
  const usual = overlayIno(ino);
  if (!numbers.has(usual)) return usual;
  for (let n = 1; n < ALTERNATIVES; n++) {
    const other = (usual + n * APART) % NUMBERS;
    if (!numbers.has(other)) return other;
  }
  return usual;
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
    if (part && !node.dir.opaque) return nodeIno(union, node, part.layer, part.ino);
    return ownIno(union.numbers, stat.ino);
  }
  if (node.layer >= 0) return nodeIno(union, node, node.layer, branchIno(union.layers, node.layer, stat));
  const shown = originsOf(union, node, stat).ino;
  if (shown !== 0) return shown;
  // What has lost its name to a merged file is open somewhere, and keeps its number, too.
  return node.place === null ? overlayIno(stat.ino) : ownIno(union.numbers, stat.ino);
}
