// Where the base has what an overlay's redirect speaks of, as overlayfs writes it: an absolute path from the root
// of the base, or a name beside the object's own.
import { descend, descendPath, type LayerDir, readably, rootsOf } from '../branch/descent.ts';
import type { Node } from './node.ts';
import type { Union } from './union.ts';

/**
 * A renamed directory of the base (overlayfs's redirect): absolute from the root, or a name beside it. None where
 * the target has left the base: the directory is served as a plain one. A negative errno: it cannot be looked for.
 */
export function redirectedParts({ layers }: Union, parent: Node, redirect: string): LayerDir[] | number {
  return readably((unreadable) =>
    redirect.startsWith('/')
      ? descendPath(layers, rootsOf(layers), redirect.slice(1), { unreadable })
      : descend(layers, parent.dir?.parts ?? [], redirect, { unreadable }),
  );
}
