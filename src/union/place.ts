// Paths of places: in the union, and in the base (they differ beneath a directory that carries a redirect).
import { joinPath } from '../lib/names.ts';
import type { Node } from './node.ts';
import { pathOf } from './table.ts';

/** The reserved name at the root of every branch and of the union. */
export const CONTROL_NAME = '.kasane';

/** The path of a name in a directory; null when the directory has been removed. */
export function pathAt(parent: Node, name: string): string | null {
  const dir = pathOf(parent);
  return dir === null ? null : joinPath(dir, name);
}

/** Where the base has (or would have) a name; null where no layer has the directory. */
export function basePathAt(parent: Node, name: string): string | null {
  const part = parent.dir?.parts[0];
  return part ? joinPath(part.path, name) : null;
}
