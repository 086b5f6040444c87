// Directory descriptors are kept open while they are used, but never one per node: RLIMIT_NOFILE may be
// 20,000 or far less, and a walk of an OS tree meets more directories than that.
import { mostOpenFiles } from '../sys/creds.ts';
import { close } from '../sys/file.ts';
import type { DirPart, Node } from './node.ts';

/** Nodes whose directory descriptors may be open at a time; each holds one per branch. */
const MOST_OPEN = 1000;
/** As many as one operation needs, and some more. */
const LEAST_OPEN = 16;

export class FdCache {
  readonly #open = new Set<Node>();
  readonly #most: number;
  /** The last of `#open`, if still there: what a request is about, it uses several times. */
  #latest: Node | null = null;

  /** They take a quarter of what the process may open: the rest is for what guests have open. */
  constructor(branches: number) {
    const most = Math.floor(mostOpenFiles() / 4 / branches);
    this.#most = Math.min(Math.max(most, LEAST_OPEN), MOST_OPEN);
  }

  get size(): number {
    return this.#open.size;
  }

  /** Called after a descriptor of `node` was opened; closes those of the node that was used longest ago. */
  opened(node: Node): void {
    this.#renew(node);
    if (this.#open.size <= this.#most) return;
    const oldest = this.#open.values().next().value as Node;
    this.#open.delete(oldest);
    closeAll(oldest);
  }

  /** Called when a descriptor that is open is used: it is not the next to go. */
  used(node: Node): void {
    if (node !== this.#latest && this.#open.size >= this.#most / 2) this.#renew(node);
  }

  #renew(node: Node): void {
    this.#open.delete(node);
    this.#open.add(node);
    this.#latest = node;
  }

  /** The node is no more. Its descriptors are its owner's to close. */
  gone(node: Node): void {
    this.#open.delete(node);
    if (node === this.#latest) this.#latest = null;
  }

  clear(): void {
    for (const node of this.#open) closeAll(node);
    this.#open.clear();
    this.#latest = null;
  }
}

function closeAll(node: Node): void {
  const dir = node.dir;
  if (!dir) return;
  if (dir.overlayFd >= 0) close(dir.overlayFd);
  dir.overlayFd = -1;
  for (const part of dir.parts) closePart(part);
}

export function closePart(part: DirPart): void {
  if (part.fd >= 0) close(part.fd);
  part.fd = -1;
}
