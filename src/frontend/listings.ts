// Listings that are being read. The kernel asks for one page after the other by its offset, and does not say for whom:
// so a listing is known by its directory, and whoever reads on in it does so in the latest. Offsets hold in all of them
// (union/list-order.ts).
import type { ListEntry } from '../union/list-order.ts';
import type { Node } from '../union/node.ts';

export interface Listing {
  readonly entries: readonly ListEntry[];
  /** Every change from before it was read on is heard of. */
  readonly kept: boolean;
  /** What the node had for `toldIn` then. */
  readonly told: number;
  /**
   * Offset of its last entry: of one that is not kept no other listing has it, for the kernel takes what it has got for
   * whole where somebody is told that there is no more at the offset to which it has come.
   */
  readonly last: number | null;
  /** One of the directory was kept before: somebody may be reading its pages. */
  readonly wasKept: boolean;
  /** performance.now() */
  usedAt: number;
}

/** So many are kept for who reads on, and so many names in all but for who reads now. One that is gone is read again. */
const MOST = 256;
const MOST_NAMES = 100_000;
const NOW_MS = 2000;
/** Who has not read on for so many milliseconds has stopped. */
const ABANDONED_MS = 60_000;

/** Above all offsets of names. */
let ends = 2 ** 52 + 2 ** 20;

/** An offset that no other entry has had. */
export function endOffset(): number {
  return ++ends;
}

export class Listings {
  /** The one that was used last is the last. */
  readonly #of = new Map<Node, Listing>();
  readonly #ended: (node: Node, listing: Listing) => void;
  #names = 0;
  /**
   * What was not kept, and not read to its end either: the offset at which the kernel's pages have come to stand. Only
   * who ends there makes it begin anew.
   */
  readonly #unfinished = new WeakMap<Node, number>();
  readonly #wereKept = new WeakSet<Node>();

  /** `ended` is told of each that goes, read to its end or not. */
  constructor(ended: (node: Node, listing: Listing) => void) {
    this.#ended = ended;
  }

  get size(): number {
    return this.#of.size;
  }

  begin(node: Node, entries: readonly ListEntry[], keeps: boolean): Listing {
    this.#drop(node, false);
    const unfinished = this.#unfinished.get(node);
    const kept = keeps && unfinished === undefined;
    const last = kept ? null : (unfinished ?? endOffset());
    const now = performance.now();
    const wasKept = this.#wereKept.has(node);
    const listing = { entries, kept, told: node.toldIn, last, wasKept, usedAt: now };
    if (kept) this.#wereKept.add(node);
    this.#of.set(node, listing);
    this.#names += entries.length;
    for (const [other, { usedAt }] of this.#of) {
      const isSpare = this.#names > MOST_NAMES && usedAt < now - NOW_MS;
      if (other === node || (this.#of.size <= MOST && !isSpare)) break;
      this.#drop(other, false);
    }
    return listing;
  }

  /** To read on in. */
  of(node: Node): Listing | undefined {
    const listing = this.#of.get(node);
    if (listing === undefined) return undefined;
    listing.usedAt = performance.now();
    this.#of.delete(node);
    this.#of.set(node, listing);
    return listing;
  }

  /** It has been read to its end. */
  end(node: Node): void {
    this.#drop(node, true);
  }

  #drop(node: Node, finished: boolean): void {
    const listing = this.#of.get(node);
    if (listing === undefined) return;
    this.#of.delete(node);
    this.#names -= listing.entries.length;
    if (finished || listing.last === null) this.#unfinished.delete(node);
    else this.#unfinished.set(node, listing.last);
    this.#ended(node, listing);
  }

  /** To be called now and then. */
  dropAbandoned(): void {
    if (this.#of.size === 0) return;
    const before = performance.now() - ABANDONED_MS;
    for (const [node, { usedAt }] of this.#of) {
      if (usedAt >= before) break;
      this.#drop(node, false);
    }
  }
}
