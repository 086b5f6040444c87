// Which directories of the base are watched, and for which nodes. A watch is on an inode, which may serve several
// nodes; a node has one for each of its parts. A base file with several names has one of its own, for a change by
// another name is seen in no directory of ours. The rule is: watch first, look afterwards.
import { E } from '../lib/errno.ts';
import {
  IN_ATTRIB,
  IN_CHANGES,
  IN_CLOSE_WRITE,
  IN_DELETE_SELF,
  IN_DONT_FOLLOW,
  IN_MODIFY,
  IN_ONLYDIR,
} from '../sys/constants.ts';
import type { DirPart, Node } from './node.ts';

const OF_DIRECTORY = IN_CHANGES | IN_ONLYDIR;
const OF_FILE = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW;
/** After the limit has been met nothing is tried for so long. */
const REST_MS = 5000;

/** What adds and removes watches: an event source, or a test's own. */
export interface Watching {
  /** Its numbers begin with this one, and those of other kinds lie all below or all above. */
  readonly first: number;
  /** `layer` of the base; ENOSPC: the limit of the user's is met. The same object has the same number. */
  add(dirFd: number, name: string, mask: number, layer: number): number;
  remove(watch: number): void;
  /** What happens in a directory of the overlay is not to be told. */
  ignore(dirFd: number): void;
}

/** When there are more watches than one wants to have: at so many, or at the limit. It is said once. */
export interface ManyWatches {
  at: number;
  call(full: boolean): void;
}

export class Watches {
  #watching: Watching | null;
  /** What watched before, until all that it watches has been carried over. */
  #former: Watching | null = null;
  #many: ManyWatches | null;
  readonly #nodes = new Map<number, Node | Set<Node>>();
  #refusedUntil = 0;
  /** How often a watch was refused for the limit of the user's. */
  refused = 0;

  /** null: nothing is watched (`check`, `ttl`). */
  constructor(watching: Watching | null, many: ManyWatches | null = null) {
    this.#watching = watching;
    this.#many = many;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** From now on something else watches; what the former watches it goes on watching until it is let go (change-over.ts). */
  exchange(watching: Watching, many: ManyWatches | null): void {
    this.#former = this.#watching;
    this.#watching = watching;
    this.#many = many;
    this.#refusedUntil = 0;
    this.refused = 0;
  }

  /** The open descriptor of a part is watched from now on: for what is looked at through it afterwards. */
  directory(node: Node, part: DirPart): void {
    if (this.#watching === null) return;
    const before = part.watch;
    // One that is watched already takes no further watch.
    const again = before >= 0 && !this.#isFormer(before);
    part.watch = this.#add(node, part.fd, '', OF_DIRECTORY, part.layer, again);
    if (before !== part.watch && !this.#isFormer(before)) this.#let(node, before);
  }

  /** A file of the base by its name. True: it had not been watched, so what was seen of it is to be looked at anew. */
  file(node: Node, dirFd: number, name: string, layer: number): boolean {
    if (this.#watching === null) return false;
    const before = node.watch;
    node.watch = this.#add(node, dirFd, name, OF_FILE, layer);
    if (before === node.watch) return false;
    if (!this.#isFormer(before)) this.#let(node, before);
    return node.watch >= 0;
  }

  ignore(dirFd: number): void {
    this.#watching?.ignore(dirFd);
  }

  /** Watches of the former, so many at most. */
  ofFormer(most: number): number[] {
    const found: number[] = [];
    for (const watch of this.#nodes.keys()) {
      if (this.#isFormer(watch)) found.push(watch);
      if (found.length >= most) break;
    }
    return found;
  }

  /** What a watch of the former tells is taken note of still. False: it cannot be watched, and is not any more. */
  carryDirectory(node: Node, part: DirPart, fd: number): boolean {
    part.watch = fd < 0 ? -1 : this.#add(node, fd, '', OF_DIRECTORY, part.layer);
    return part.watch >= 0;
  }

  /** The same of a file with a watch of its own. */
  carryFile(node: Node, dirFd: number, name: string, layer: number): boolean {
    node.watch = this.#add(node, dirFd, name, OF_FILE, layer);
    return node.watch >= 0;
  }

  /** These have been carried over; none: it was all. */
  letFormer(watches: readonly number[]): void {
    for (const watch of watches) {
      if (!this.#nodes.has(watch)) continue;
      this.gone(watch);
      this.#former?.remove(watch);
    }
    if (watches.length === 0) this.#former = null;
  }

  #isFormer(watch: number): boolean {
    if (this.#former === null || this.#watching === null || watch < 0) return false;
    const higher = Math.max(this.#former.first, this.#watching.first);
    return watch >= higher === this.#former.first >= higher;
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
      for (const part of node.dir.parts) {
        if (part.watch !== watch) continue;
        part.watch = -1;
        node.dir.watched = false;
      }
    }
    this.#nodes.delete(watch);
  }

  #add(node: Node, dirFd: number, name: string, mask: number, layer: number, again = false): number {
    if (!again && this.#refusedUntil > 0 && performance.now() < this.#refusedUntil) return -1;
    if (!again) this.#refusedUntil = 0;
    const watch = this.#watching?.add(dirFd, name, mask, layer) ?? -1;
    if (watch === -E.ENOSPC || watch === -E.ENOMEM) {
      this.refused += 1;
      this.#refusedUntil = performance.now() + REST_MS;
      this.#tooMany(true);
    }
    if (watch < 0) return -1;
    const known = this.#nodes.get(watch);
    if (known === undefined) this.#nodes.set(watch, node);
    else if (known instanceof Set) known.add(node);
    else if (known !== node) this.#nodes.set(watch, new Set([known, node]));
    if (this.#many !== null && this.#nodes.size >= this.#many.at) this.#tooMany(false);
    return watch;
  }

  #tooMany(full: boolean): void {
    const many = this.#many;
    this.#many = null;
    many?.call(full);
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
    (this.#isFormer(watch) ? this.#former : this.#watching)?.remove(watch);
  }
}
