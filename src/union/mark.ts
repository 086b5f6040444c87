// The mark by which the identity log knows an object again. What the base has is known by where it lies there:
// who replaces it, or puts another tree in its place, updates it. What the overlay has is the very object.
import { hash128 } from '../lib/hash.ts';
import { pathHash } from '../versions/origin.ts';
import type { Node } from './node.ts';
import { basePathAt } from './place.ts';

/** What of a node a mark speaks of. */
export type Shown = Pick<Node, 'dir' | 'layer' | 'ino' | 'btimeSec' | 'btimeNsec'>;

/** Of what is shown at a place. */
export function markOf(node: Shown, parent: Node, name: string): string {
  if (node.dir === null) return node.layer < 0 ? ownMark(node) : pathHash(basePathAt(parent, name) ?? '');
  const { opaque, parts, basePath } = node.dir;
  return opaque || parts.length === 0 ? ownMark(node) : pathHash(basePath);
}

/** Of the overlay's object, by its inode number and its birth. No path has a NUL. */
export function ownMark({ dir, ino, btimeSec, btimeNsec }: Shown): string {
  const text = `\0${dir?.overlayIno ?? ino} ${btimeSec}.${btimeNsec}`;
  return hash128(Buffer.from(text, 'latin1')).slice(0, 16);
}
