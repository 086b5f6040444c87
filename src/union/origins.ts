// The origins of an overlay object: read from where they lie, kept on the node while its ctime stands,
// and made for what takes a name that the base has. The rules are those of native-notes/versioning.md.
import { readOriginBytes, writeOriginBytes } from '../branch/origin-store.ts';
import { E } from '../lib/errno.ts';
import { fingerprintOf, hashFingerprint, isOf } from '../lib/fingerprint.ts';
import { hash128 } from '../lib/hash.ts';
import type { Stat } from '../lib/stat.ts';
import { decodeOrigins, encodeOrigins, type Origin } from '../versions/origin.ts';
import { locate } from './locate.ts';
import { learn, type Node, type OriginCache, type Print } from './node.ts';
import { numberIn } from './origin-list.ts';
import type { Union } from './union.ts';
import { encodeXattrs, hashXattrs, type XattrSet } from './xattr-set.ts';

const NONE: OriginCache = { ctimeSec: 0, ctimeNsec: 0, written: 0, list: [], ino: 0 };

/** Origins read from an object by descriptor and name; an unreadable attribute is none, and `check` names it. */
export function readOrigins(union: Union, dirFd: number, name: string): Origin[] {
  return listed(readOriginBytes(union.overlay.origins, dirFd, name));
}

function listed(value: Buffer | number): Origin[] {
  return typeof value === 'number' ? [] : (decodeOrigins(value) ?? []);
}

/** Origins of an overlay object whose stat is `stat`. Of one that lies in the base: none. */
export function originsOf(union: Union, node: Node, stat: Stat): OriginCache {
  if (node.layer >= 0) return NONE;
  const known = node.learned?.origins;
  if (known) {
    const { ctimeSec, ctimeNsec, written } = known;
    // A file that is written to moves its ctime, and not its origins: those only we change.
    if (written === union.originsWritten || (ctimeSec === stat.ctimeSec && ctimeNsec === stat.ctimeNsec))
      return known;
  }
  const at = locate(union, node);
  if (typeof at === 'number') return NONE;
  const value = readOriginBytes(union.overlay.origins, at.dirFd, at.name);
  const isRead = typeof value !== 'number' || value === -E.ENODATA;
  const noted = noteOrigins(union, node, stat, listed(value));
  // What cannot be read now may be read once its mode is another, which moves its ctime.
  if (!isRead) noted.written = -1;
  return noted;
}

/** The object has these, as is known. */
export function noteOrigins(
  union: Union,
  node: Node,
  { ctimeSec, ctimeNsec }: Stat,
  list: readonly Origin[],
): OriginCache {
  const noted = { ctimeSec, ctimeNsec, written: union.originsWritten, list, ino: numberIn(list) };
  learn(node).origins = noted;
  return noted;
}

/** The object was made a moment ago, with this origin or none, and its content is its own. */
export function noteMade(union: Union, node: Node, stat: Stat, origin: Origin | null): void {
  noteOrigins(union, node, stat, origin === null ? NONE.list : [origin]);
  learn(node).metacopy = null;
}

/** Writes the list; 0 or a negative errno. An empty list leaves nothing to read. */
export function writeOrigins(union: Union, dirFd: number, name: string, list: readonly Origin[]): number {
  union.originsWritten += 1;
  return writeOriginBytes(union.overlay.origins, dirFd, name, encodeOrigins(list));
}

/** `known`, where it is that of a base object, or a new one. */
function printOf(union: Union, layer: number, stat: Stat, known: Print | null): Print {
  const identity = union.layers[layer]?.identity ?? '';
  if (known !== null && isOf(known.of, stat, identity)) return known;
  const of = fingerprintOf(stat, identity);
  return { of, hash: hashFingerprint(of) };
}

/** Hash of the fingerprint of a base object. Who removes one, makes another in its place and looks at that asks each time. */
export function baseFingerprint(union: Union, layer: number, stat: Stat): string {
  union.printed = printOf(union, layer, stat, union.printed);
  return union.printed.hash;
}

/** The same of what a node of the base shows, which is asked for at each of its opens. */
export function printOfNode(union: Union, node: Node, stat: Stat): Print {
  const learned = learn(node);
  learned.print = printOf(union, node.layer, stat, learned.print);
  return learned.print;
}

/** Hash of the attributes of a base object, as an origin has it; they are kept for a merge of them. */
export function keepXattrs(union: Union, xattrs: XattrSet): string {
  if (xattrs.size === 0) return '';
  const bytes = encodeXattrs(xattrs);
  union.host.keepAncestor(bytes, hash128(bytes));
  return hashXattrs(xattrs);
}
