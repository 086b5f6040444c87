// Which directories of the base are watched, and for which nodes. A watch is on an inode, which may serve several
// nodes; a node has one for each of its parts. A base file with several names has one of its own, for a change by
// another name is seen in no directory of ours. The rule is: watch first, look afterwards.
import { E } from '../lib/errno.ts';
import {
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_DONT_FOLLOW,
  IN_MODIFY,
  IN_MOVE_SELF,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_ONLYDIR,
} from '../sys/constants.ts';
import { inotifyAdd, inotifyRm } from '../sys/poll.ts';
import type { DirPart, Node } from './node.ts';

const OF_DIRECTORY =
  IN_MODIFY |
  IN_CLOSE_WRITE |
  IN_ATTRIB |
  IN_CREATE |
  IN_DELETE |
  IN_MOVED_FROM |
  IN_MOVED_TO |
  IN_DELETE_SELF |
  IN_MOVE_SELF |
  IN_ONLYDIR;
const OF_FILE = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW;
/** After the limit has been met nothing is tried for so long. */
const REST_MS = 5000;

/** What adds and removes watches: inotify, or a test's own. */
export interface Watching {
  add(dirFd: number, name: string, mask: number): number;
  remove(watch: number): void;
}

export function inotifyWatching(fd: number): Watching {
  return {
    add: (dirFd, name, mask) => inotifyAdd(fd, dirFd, name, mask),
    remove: (watch) => {
      inotifyRm(fd, watch);
    },
  };
}

export class Watches {
  readonly #watching: Watching | null;
  readonly #nodes = new Map<number, Node | Set<Node>>();
  #refusedUntil = 0;
  /** How often a watch was refused for the limit of the user's. */
  refused = 0;

  /** null: nothing is watched (`check`, `ttl`). */
  constructor(watching: Watching | null) {
    this.#watching = watching;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** The open descriptor of a part is watched from now on: for what is looked at through it afterwards. */
  directory(node: Node, part: DirPart): void {
    if (this.#watching === null) return;
    const before = part.watch;
    part.watch = this.#add(node, part.fd, '', OF_DIRECTORY);
    if (before !== part.watch) this.#let(node, before);
  }

  /** A file of the base by its name. True: it had not been watched, so what was seen of it is to be looked at anew. */
  file(node: Node, dirFd: number, name: string): boolean {
    if (this.#watching === null) return false;
    const before = node.watch;
    node.watch = this.#add(node, dirFd, name, OF_FILE);
    if (before === node.watch) return false;
    this.#let(node, before);
    return node.watch >= 0;
  }

  /** A part is not the node's any more. */
  leave(node: Node, part: DirPart): void {
    const { watch } = part;
    part.watch = -1;
    this.#let(node, watch);
  }

  /** The node has gone. */
  drop(node: Node): void {
    for (const part of node.dir?.parts ?? []) this.leave(node, part);
    const { watch } = node;
    node.watch = -1;
    this.#let(node, watch);
  }

  /** The nodes of a watch, as they are now. */
  of(watch: number): Node[] {
    const found = this.#nodes.get(watch);
    return found === undefined ? [] : found instanceof Set ? [...found] : [found];
  }

  /** The kernel has taken the watch away: its inode has gone. */
  gone(watch: number): void {
    for (const node of this.of(watch)) {
      if (node.watch === watch) node.watch = -1;
      if (node.dir === null) continue;
      node.dir.watched = false;
      for (const part of node.dir.parts) if (part.watch === watch) part.watch = -1;
    }
    this.#nodes.delete(watch);
  }

  #add(node: Node, dirFd: number, name: string, mask: number): number {
    if (this.#refusedUntil > 0 && performance.now() < this.#refusedUntil) return -1;
    this.#refusedUntil = 0;
    const watch = this.#watching?.add(dirFd, name, mask) ?? -1;
    if (watch === -E.ENOSPC || watch === -E.ENOMEM) {
      this.refused += 1;
      this.#refusedUntil = performance.now() + REST_MS;
    }
    if (watch < 0) return -1;
    const known = this.#nodes.get(watch);
    if (known === undefined) this.#nodes.set(watch, node);
    else if (known instanceof Set) known.add(node);
    else if (known !== node) this.#nodes.set(watch, new Set([known, node]));
    return watch;
  }

  /** One use of a watch less, unless the node has it by another part as well. */
  #let(node: Node, watch: number): void {
    if (watch < 0 || node.watch === watch || node.dir?.parts.some((part) => part.watch === watch)) return;
    const known = this.#nodes.get(watch);
    if (known === undefined) return;
    if (known instanceof Set) {
      known.delete(node);
      if (known.size > 0) return;
    } else if (known !== node) {
      return;
    }
    this.#nodes.delete(watch);
    this.#watching?.remove(watch);
  }
}
