// The nodes by their ids. Ids are handed out one after the other, and what was met together is mostly forgotten
// together: so they lie in pieces of an array, a third of what a Map takes.
import type { Node } from './node.ts';

const PIECE = 32;

interface Piece {
  nodes: (Node | undefined)[];
  count: number;
}

export class IdTable {
  /** By the id of its first node, divided by PIECE. None is empty. */
  readonly #pieces = new Map<number, Piece>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): Node | undefined {
    return this.#pieces.get(Math.floor(id / PIECE))?.nodes[id % PIECE];
  }

  set(id: number, node: Node): void {
    const number = Math.floor(id / PIECE);
    let piece = this.#pieces.get(number);
    if (piece === undefined) {
      piece = { nodes: new Array(PIECE), count: 0 };
      this.#pieces.set(number, piece);
    }
    if (piece.nodes[id % PIECE] === undefined) {
      piece.count += 1;
      this.#size += 1;
    }
    piece.nodes[id % PIECE] = node;
  }

  /** False: there was none. */
  delete(id: number): boolean {
    const number = Math.floor(id / PIECE);
    const piece = this.#pieces.get(number);
    if (piece?.nodes[id % PIECE] === undefined) return false;
    piece.nodes[id % PIECE] = undefined;
    piece.count -= 1;
    this.#size -= 1;
    if (piece.count === 0) this.#pieces.delete(number);
    return true;
  }

  /** As with a Map, nodes may come and go meanwhile. */
  *values(): IterableIterator<Node> {
    for (const { nodes } of this.#pieces.values()) {
      for (const node of nodes) if (node !== undefined) yield node;
    }
  }
}
