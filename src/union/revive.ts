// Finding an object again by a NodeId that the kernel, or this process, has forgotten: what an NFS server's
// handles come down to. The identity log knows the places; the way there is walked as by look-ups.
import { E } from '../lib/errno.ts';
import { lookup } from './lookup.ts';
import { type Node, ROOT_ID } from './node.ts';
import type { Union } from './union.ts';

/** Fills union.entry with the object of `id`; -ESTALE where it is gone. */
export function revive(union: Union, id: number): number {
  const node = nodeById(union, id, 0);
  return typeof node === 'number' ? node : 0;
}

/** Deeper than any path can be. */
const DEEPEST = 4096;

function nodeById(union: Union, id: number, depth: number): Node | number {
  const known = union.table.get(id);
  if (id === ROOT_ID && known) return known;
  const identity = union.table.identity;
  const entry = identity?.get(id);
  if (!entry || depth > DEEPEST) return -E.ESTALE;
  for (const { parent, name } of [...entry.places].reverse()) {
    const above = union.table.get(parent) ?? nodeById(union, parent, depth + 1);
    if (typeof above === 'number') continue;
    if (lookup(union, above, name) < 0) continue;
    const { node } = union.entry;
    if (node.type !== entry.type) continue;
    if (node.id === id) return node;
    if (node.dir !== null) continue;
    // The base has replaced the object since: the old handle leads to what is there now.
    const alias = union.table.alias(id, node.type, { parent: above, name }, node);
    union.entry.node = alias;
    return alias;
  }
  return -E.ESTALE;
}
