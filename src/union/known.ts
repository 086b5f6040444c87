// What the node table knows of a path, without asking any file system.
import { type Node, placesOf } from './node.ts';
import { pathAt } from './place.ts';
import type { Union } from './union.ts';

/** The node at a path, if it is known. */
export function nodeAt(union: Union, path: string): Node | undefined {
  let node: Node | undefined = union.table.root;
  for (const name of path.split('/')) node = node && union.table.child(node, name);
  return node;
}

/** Paths of the object at a path, itself among them, as far as they are known. */
export function namesOf(union: Union, path: string): string[] {
  const node = nodeAt(union, path);
  const places = node === undefined ? [] : placesOf(node);
  return places.map(({ parent, name }) => pathAt(parent, name)).filter((found) => found !== null);
}
