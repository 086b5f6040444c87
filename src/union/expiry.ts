// Taking back what the kernel was told to keep: of a place, of everything beneath a directory, of everything.
import type { BaseLayer } from '../branch/base.ts';
import type { Stat } from '../lib/stat.ts';
import { closePart } from './fd-cache.ts';
import { type Node, placesOf } from './node.ts';
import type { Union } from './union.ts';

/** The name of a node that nobody has open leads to another object: the node goes over to it, and the kernel is told. */
export function showOther(union: Union, node: Node, layer: number, stat: Stat): void {
  union.table.show(node, layer, stat);
  union.kernel.switched(node);
}

/** A name in a directory leads, or may lead, to something else; what it led to may have changed. */
export function expirePlace(union: Union, parent: Node, name: string, content: boolean): void {
  union.kernel.expire(parent, name);
  const child = union.table.child(parent, name);
  if (child) union.kernel.changed(child, content);
}

/** The same for all names of a node. */
export function expireNode(union: Union, node: Node, content: boolean): void {
  for (const { parent, name } of placesOf(node)) union.kernel.expire(parent, name);
  union.kernel.changed(node, content);
}

/**
 * A directory, and what lies beneath it, is to be listed and looked up anew: the base has another tree there, or nobody
 * knows what has happened. Descriptors of directories are opened anew by path, and watched then.
 */
export function expireBeneath(union: Union, top: Node): void {
  if (!union.kernel.keeps) return;
  const open = [top];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    const { dir } = node;
    if (dir === null) continue;
    for (const part of dir.parts) closePart(part);
    dir.watched = false;
    for (const name of dir.absent?.keys() ?? []) union.kernel.expire(node, name);
    for (const [name, child] of dir.children) {
      union.kernel.expire(node, name);
      if (child.dir === null) union.kernel.changed(child, true);
      else open.push(child);
    }
    union.kernel.changed(node, true);
  }
}

/** Events were lost, or the whole base is another one. What is mounted on names stays: nothing is detached. */
export function expireAll(union: Union): void {
  if (!union.kernel.keeps) return;
  expireBeneath(union, union.table.root);
  for (const node of union.table.nodes()) {
    if (node.place === null) union.kernel.changed(node, true);
  }
}

/** The base's path names another tree by now: everything is found anew by path, nodes stay. */
export function replaceLayer(union: Union, layer: BaseLayer): void {
  union.layers[layer.index] = layer;
  union.holdings.clear();
  union.covered.clear();
  union.fds.clear();
  for (const node of union.table.nodes()) {
    if (node.dir === null) {
      if (node.layer !== layer.index || node.handles.size === 0) continue;
      // Its names are not beneath their directories any more.
      expireNode(union, node, false);
      union.table.part(node);
      continue;
    }
    for (const part of node.dir.parts) closePart(part);
    node.dir.ctimeSec = -1;
  }
  union.table.estrange(layer.index);
  const { root } = union.table;
  for (const part of root.dir?.parts ?? []) union.watches.leave(root, part);
  union.resetRoot();
  union.verdicts.clear();
  union.baseChecked = Number.NEGATIVE_INFINITY;
  union.changes.exchanged();
  expireAll(union);
}
