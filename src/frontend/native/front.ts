// What the operations of the fuse-native transport share: the union, which nodes are held, what is open, and how an
// operation waits. libfuse 2 asks by path, so each request walks the union from its root.
import type { Answer } from '../../fuse/native/handlers.ts';
import type { ShortInodes } from '../../fuse/native/words.ts';
import { E } from '../../lib/errno.ts';
import { baseName, parentPath } from '../../lib/names.ts';
import { setUmask } from '../../sys/names.ts';
import { getattr } from '../../union/attributes.ts';
import type { Caller } from '../../union/caller.ts';
import { lookup } from '../../union/lookup.ts';
import type { Handle, Node, PendingWork } from '../../union/node.ts';
import { CONTROL_NAME } from '../../union/place.ts';
import { type Union, WAIT } from '../../union/union.ts';
import { type AskControl, onResult } from '../front.ts';

export interface NativeFront {
  union: Union;
  askControl: AskControl;
  owner: { uid: number; gid: number };
  /** Of this thread, for what it makes besides. */
  umask: number;
  held: HeldNodes;
  files: OpenFiles;
  inodes: ShortInodes;
}

/** libfuse tells it to others than the addon's JavaScript: who asks is not known. */
export const UNKNOWN_PID = 0;

/** Nodes that stay known between requests, as the kernel would have them; the least recently used go. */
const MOST_NODES = 16_384;

export class HeldNodes {
  readonly #union: Union;
  /** Least recently used first. */
  readonly #nodes = new Set<Node>();

  constructor(union: Union) {
    this.#union = union;
  }

  touch(node: Node): void {
    const { table } = this.#union;
    if (node === table.root) return;
    if (!this.#nodes.delete(node)) table.hold(node);
    this.#nodes.add(node);
    if (this.#nodes.size <= MOST_NODES) return;
    const [oldest] = this.#nodes;
    if (oldest) this.letGo(oldest);
  }

  letGo(node: Node): void {
    if (this.#nodes.delete(node)) this.#union.table.letGo(node);
  }
}

/** A file of the union, or one of the control directory by its path and the handle that the main thread knows. */
export type OpenFile = Handle | { path: string; control: number };

/** Handles as libfuse has them: small positive numbers, used again. */
export class OpenFiles {
  readonly #files: (OpenFile | null)[] = [null];
  readonly #free: number[] = [];

  add(file: OpenFile): number {
    const at = this.#free.pop() ?? this.#files.length;
    this.#files[at] = file;
    return at;
  }

  get(at: number): OpenFile | null {
    return this.#files[at] ?? null;
  }

  remove(at: number): void {
    this.#files[at] = null;
    this.#free.push(at);
  }
}

/** A node at a path, whose object union.entry tells of; a negative errno. */
export function nodeAt(front: NativeFront, path: string): Node | number {
  const { union, held } = front;
  let node: Node = union.table.root;
  if (path === '') {
    const error = getattr(union, node);
    return error < 0 ? error : node;
  }
  for (const name of path.split('/')) {
    if (node.dir === null) return -E.ENOTDIR;
    const error = lookup(union, node, name);
    if (error < 0) return error;
    node = union.entry.node;
    held.touch(node);
  }
  return node;
}

/** Runs `work` with the node at a path. */
export function atNode(front: NativeFront, path: string, work: (node: Node) => number): number {
  const node = nodeAt(front, path);
  return typeof node === 'number' ? node : work(node);
}

/** Runs `work` with the directory in which a path lies, and the name there. */
export function atParent(
  front: NativeFront,
  path: string,
  work: (parent: Node, name: string) => number,
): number {
  return atNode(front, parentPath(path), (parent) => work(parent, baseName(path)));
}

/** The path within the control directory; null: it does not lie there. */
export function controlPath(path: string): string | null {
  if (path === CONTROL_NAME) return '';
  return path.startsWith(`${CONTROL_NAME}/`) ? path.slice(CONTROL_NAME.length + 1) : null;
}

/** Files are the mount owner's. The kernel has applied the caller's umask. */
export function asOwner(front: NativeFront, work: (caller: Caller) => number): number {
  try {
    return work({ ...front.owner, pid: UNKNOWN_PID, umask: 0, groups: [] });
  } finally {
    setUmask(front.umask);
  }
}

/** Runs an operation, and again from the start each time that what it waited for is done. */
export function rerunning(front: NativeFront, operation: (hasWaited: boolean) => number): Answer {
  const result = operation(false);
  return result === WAIT ? again(front, operation) : result;
}

async function again(front: NativeFront, operation: (hasWaited: boolean) => number): Promise<number> {
  for (;;) {
    const error = await resultOf(front.union.waiting as PendingWork);
    if (error < 0) return error;
    const result = operation(true);
    if (result !== WAIT) return result;
  }
}

/** Runs an operation; the result of what it waits for is the answer. */
export function resulting(front: NativeFront, operation: () => number): Answer {
  const result = operation();
  return result === WAIT ? resultOf(front.union.waiting as PendingWork) : result;
}

function resultOf(work: PendingWork): Promise<number> {
  return new Promise((resolve) => onResult(work, resolve));
}
