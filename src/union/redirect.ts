// Where the base has what an overlay's redirect speaks of, as overlayfs writes it: an absolute path from the root
// of the base, or a name beside the object's own.
import { descend, descendPath, type LayerDir, rootsOf } from '../branch/descent.ts';
import type { Node } from './node.ts';
import type { Union } from './union.ts';

/**
 * A renamed directory of the base (overlayfs's redirect): absolute from the root, or a name beside it. None where
 * the target has left the base: the directory is served as a plain one.
 */
export function redirectedParts({ layers }: Union, parent: Node, redirect: string): LayerDir[] {
  if (redirect.startsWith('/')) return descendPath(layers, rootsOf(layers), redirect.slice(1));
  return descend(layers, parent.dir?.parts ?? [], redirect);
}
