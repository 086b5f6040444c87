// Finding an object again by a NodeId that the kernel, or this process, has forgotten: what an NFS server's
// handles come down to. The identity log knows the places; the way there is walked as by look-ups, and what lies
// there must be the object that was meant.
import { E } from '../lib/errno.ts';
import { getattr } from './attributes.ts';
import { isMarked, lookup } from './lookup.ts';
import type { Node } from './node.ts';
import type { Union } from './union.ts';

/** Fills union.entry with the object of `id`; -ESTALE where it is gone. */
export function revive(union: Union, id: number): number {
  const node = find(union, id, 0);
  return typeof node === 'number' ? node : 0;
}

/**
 * The node of an id that the kernel knows. One whose object has been replaced while it was open goes over to what
 * is there now, once nobody has it open any more.
 */
export function current(union: Union, id: number): Node | undefined {
  const node = union.table.get(id);
  if (!node || node.dir !== null || node.place !== null || node.handles.size > 0 || node.busy) return node;
  if (!union.table.identity?.get(node.id)) return node;
  const now = fromPlaces(union, node.id, 0, node);
  if (typeof now === 'number') return node;
  union.table.retire(node, now);
  return now;
}

/**
 * GETATTR for who comes by a handle: -ESTALE where the object is gone. Of a directory, too, that the base has removed
 * or replaced: nobody asks for it by name.
 */
export function revisit(union: Union, node: Node): number {
  const { dir, place } = node;
  // The root has no place, nor has what a guest has removed and somebody has open still.
  const error =
    dir === null || place === null ? getattr(union, node) : lookup(union, place.parent, place.name);
  if (error === -E.ENOENT) return -E.ESTALE;
  if (error < 0 || union.entry.node === node) return error;
  union.table.release(union.entry.node);
  return -E.ESTALE;
}

/** Deeper than any path can be. */
const DEEPEST = 4096;

function find(union: Union, id: number, depth: number): Node | number {
  return union.table.get(id) ?? fromPlaces(union, id, depth, null);
}

/** `replaced`: the node that has the id, and is at none of its places any more. */
function fromPlaces(union: Union, id: number, depth: number, replaced: Node | null): Node | number {
  const entry = union.table.identity?.get(id);
  if (!entry || depth > DEEPEST) return -E.ESTALE;
  for (const { parent, name, mark } of [...entry.places].reverse()) {
    const above = find(union, parent, depth + 1);
    if (typeof above === 'number') continue;
    if (lookup(union, above, name) < 0) {
      union.table.release(above);
      continue;
    }
    const { node } = union.entry;
    if (node.id === id) return node;
    // Another id has come to be the one of what is there: the base has replaced it while it was open.
    const same = node.type === entry.type && node.dir === null && isMarked(union, node, above, name, mark);
    if (same && replaced === null) union.table.alias(id, node);
    if (same) return node;
    union.table.release(node);
  }
  return -E.ESTALE;
}
