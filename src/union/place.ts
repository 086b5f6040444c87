// Paths of places: in the union, and in the base (they differ beneath a directory that carries a redirect).
import { joinPath } from '../lib/names.ts';
import { type Node, ROOT_ID } from './node.ts';

/** The reserved name at the root of every branch and of the union. */
export const CONTROL_NAME = '.kasane';

/**
 * Whether a name in a directory is the reserved one. The name comes first: what is first compared when somebody looks
 * into the root, maybe after days, V8 compiles the whole look-up anew for.
 */
export function isControlName(dir: number, name: string): boolean {
  return name === CONTROL_NAME && dir === ROOT_ID;
}

/** Path of a node from the root of the union; null when it has no place any more. */
export function pathOf(node: Node): string | null {
  let path = '';
  let current = node;
  while (current.id !== ROOT_ID) {
    const place = current.place;
    if (!place) return null;
    path = path === '' ? place.name : `${place.name}/${path}`;
    current = place.parent;
  }
  return path;
}

/** The path of a name in a directory; null when the directory has been removed. */
export function pathAt(parent: Node, name: string): string | null {
  const dir = pathOf(parent);
  return dir === null ? null : joinPath(dir, name);
}

/**
 * The base's path that an origin at this place is of: also where the base's directory has gone. null when the
 * directory has been removed.
 */
export function originPathAt(parent: Node, name: string): string | null {
  const here = basePathAt(parent, name);
  if (here !== null || parent.id === ROOT_ID) return here ?? name;
  const place = parent.place;
  if (!place) return null;
  const redirect = parent.dir?.redirect ?? null;
  const dir = redirect?.startsWith('/')
    ? redirect.slice(1)
    : originPathAt(place.parent, redirect ?? place.name);
  return dir === null ? null : joinPath(dir, name);
}

/** Where the base has (or would have) a name; null where no layer has the directory. */
export function basePathAt(parent: Node, name: string): string | null {
  const { dir } = parent;
  return dir !== null && dir.parts.length > 0 ? joinPath(dir.basePath, name) : null;
}

/** Where a redirect leads, or a name, in a directory that the base has at this path. */
export function redirectedPath(basePath: string, redirect: string): string {
  return redirect.startsWith('/') ? redirect.slice(1) : joinPath(basePath, redirect);
}
