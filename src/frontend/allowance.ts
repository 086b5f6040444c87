// How many names of a huge directory are told with their attributes (READDIRPLUS). Each costs a look at the branches,
// a node here, and an inode in the kernel for as long as that remembers it. It spares a LOOKUP to who looks at the
// names, and is lost on who only lists them. The kernel does not say which of the two is reading, but what comes next
// does: so some are told at first, and then as many as the LOOKUPs of names that were told alone show to be wanted.
import type { Node } from '../union/node.ts';

/** More names make a huge directory. find, du, rm and others of fts(3) read so many before they look at the first. */
const AT_FIRST = 100_000;
/** For each LOOKUP: who looks at all names asks for so few of them that it does not count. */
const FOR_EACH = 256;

export interface Allowance {
  /** So many names may still be told with attributes. */
  left: number;
}

/** Of the huge directories that are being listed. */
export class Allowances {
  readonly #of = new Map<Node, Allowance>();

  /** A directory of so many names is read from its beginning. */
  begin(node: Node, names: number): void {
    if (names <= AT_FIRST) return;
    const known = this.#of.get(node);
    if (known === undefined) this.#of.set(node, { left: AT_FIRST });
    else known.left = Math.max(known.left, AT_FIRST);
  }

  /** undefined: all may be told. */
  of(node: Node): Allowance | undefined {
    return this.#of.get(node);
  }

  /** A name in the directory is looked up. */
  asked(node: Node): void {
    if (this.#of.size === 0) return;
    const allowance = this.#of.get(node);
    if (allowance !== undefined) allowance.left += FOR_EACH;
  }

  /** It has been read to its end, or nobody reads on. */
  end(node: Node): void {
    this.#of.delete(node);
  }
}
