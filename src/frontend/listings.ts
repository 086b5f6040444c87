// Listings that are being read. The kernel asks for one page after the other by its offset, and does not say for whom:
// so a listing is known by its directory, and whoever reads on in it does so in the latest. Offsets hold in all of them
// (union/list-order.ts).
import type { ListEntry } from '../union/list-order.ts';
import type { Node } from '../union/node.ts';

export interface Listing {
  readonly entries: readonly ListEntry[];
  /** Every change since it was read is heard of. */
  readonly kept: boolean;
  /** performance.now() */
  usedAt: number;
}

/** So many are kept for who reads on. One that is gone is read again. */
const MOST = 16;
/** Who has not read on for so many milliseconds has stopped: a listing may have a million names. */
const ABANDONED_MS = 10_000;

export class Listings {
  /** The one that was begun last is the last. */
  readonly #of = new Map<Node, Listing>();
  readonly #ended: (node: Node) => void;

  /** `ended` is told when a listing goes. */
  constructor(ended: (node: Node) => void) {
    this.#ended = ended;
  }

  get size(): number {
    return this.#of.size;
  }

  begin(node: Node, entries: readonly ListEntry[], kept: boolean): Listing {
    const listing = { entries, kept, usedAt: performance.now() };
    this.#of.delete(node);
    this.#of.set(node, listing);
    if (this.#of.size > MOST) this.end(this.#of.keys().next().value as Node);
    return listing;
  }

  /** To read on in. */
  of(node: Node): Listing | undefined {
    const listing = this.#of.get(node);
    if (listing !== undefined) listing.usedAt = performance.now();
    return listing;
  }

  /** It has been read to its end. */
  end(node: Node): void {
    if (this.#of.delete(node)) this.#ended(node);
  }

  /** To be called now and then. */
  dropAbandoned(): void {
    if (this.#of.size === 0) return;
    const before = performance.now() - ABANDONED_MS;
    for (const [node, { usedAt }] of this.#of) if (usedAt < before) this.end(node);
  }
}
