// Listing ahead. Who walks a tree looks at the names of one directory for about as long as it takes to list the next,
// and the worker would wait meanwhile. So when directories have been asked for in the order of a walk, the next one is
// listed in small pieces while no request is there. What was found is told under the conditions under which the kernel
// keeps it: the directory has been watched before. Whatever else is asked for or heard of meanwhile throws it away.
import type { Handler, Handlers } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { copyStat, newStat, type Stat } from '../lib/stat.ts';
import { DT_DIR } from '../sys/constants.ts';
import { fstat } from '../sys/stat.ts';
import { partFd } from '../union/dir-fds.ts';
import { indexAfter, type ListEntry, nameOffset } from '../union/list-order.ts';
import { listDirectory } from '../union/listing.ts';
import { lookupListed } from '../union/lookup.ts';
import type { DirPart, Node } from '../union/node.ts';
import type { Union } from '../union/union.ts';
import { keepsNames } from '../union/validity.ts';

/** So many directories in the order of a walk are taken for one. */
const SURE = 2;
/** Names that are looked up before the device is asked again: what a request waits for at most. */
const PIECE = 4;
/** Of a larger directory, in bytes, already its names would keep a request waiting. */
const LARGEST_DIRECTORY = 32 * 1024;
const MOST_NAMES = 512;
/** Of a listing of more names the directories alone are kept, for who lists it has not asked for its memory for long. */
const MOST_KEPT = 16_384;

function isDirectory({ type }: ListEntry): boolean {
  return type === DT_DIR;
}

/** What READDIRPLUS tells of a name; with a reference to its node, which goes over to who takes it. */
interface Told {
  /** null: the name alone. */
  node: Node | null;
  readonly stat: Stat;
  ino: number;
}

interface Listed {
  node: Node;
  entries: readonly ListEntry[];
}

/** What changes nothing that a listing tells, and looks at no name again. */
const harmless: ReadonlySet<string> = new Set([
  'OPENDIR',
  'READDIR',
  'READDIRPLUS',
  'RELEASEDIR',
  'FORGET',
  'BATCH_FORGET',
  'READ',
  'READLINK',
  'GETXATTR',
  'LISTXATTR',
  'RELEASE',
  'STATFS',
]);

export class Ahead {
  readonly #union: Union;
  /** From the directory that was listed last up to the first one above it that was. */
  readonly #walk: Listed[] = [];
  #expected: Node | null = null;
  #inOrder = 0;
  #target: Node | null = null;
  #entries: ListEntry[] | null = null;
  readonly #told: Told[] = [];
  #found = 0;
  readonly #size = newStat();

  constructor(union: Union) {
    this.#union = union;
  }

  /** The handlers, before each of which that is not harmless what was listed ahead is thrown away. */
  guard(handlers: Handlers): Handlers {
    const guarded: Record<string, Handler> = {};
    for (const [name, handler] of Object.entries(handlers)) {
      guarded[name] = harmless.has(name)
        ? handler
        : (r) => {
            this.drop();
            return handler(r);
          };
    }
    return guarded;
  }

  /** The names of a directory that is read from its beginning, if they are known already. */
  entriesOf(node: Node): ListEntry[] | null {
    return node === this.#target ? this.#entries : null;
  }

  /**
   * What is to be told of the entry at `index` of a listing: 1 with union.entry filled and a reference to its node
   * counted; -ENOENT: the name alone; 0: not known.
   */
  take(entries: readonly ListEntry[], index: number): number {
    if (entries !== this.#entries || index >= this.#found) return 0;
    const told = this.#told[index] as Told;
    if (told.node === null) return -E.ENOENT;
    const { entry } = this.#union;
    entry.node = told.node;
    copyStat(told.stat, entry.stat);
    entry.ino = told.ino;
    entry.keepName = true;
    entry.keepAttributes = true;
    told.node = null;
    return 1;
  }

  /** A directory has been read from its beginning. */
  listed(node: Node, entries: readonly ListEntry[]): void {
    this.#inOrder = node === this.#expected ? this.#inOrder + 1 : 0;
    const above = node.place?.parent;
    const walk = this.#walk;
    while (walk.length > 0 && walk.at(-1)?.node !== above) walk.pop();
    walk.push({ node, entries: entries.length <= MOST_KEPT ? entries : entries.filter(isDirectory) });
    this.#expected = this.#next();
    if (this.#inOrder < SURE || this.#expected === this.#target) return;
    this.drop();
    if (this.#expected !== null && this.#mayList(this.#expected)) this.#target = this.#expected;
  }

  /** The directory that comes next in a walk: the first in this one, or else the next beside it or one above it. */
  #next(): Node | null {
    const walk = this.#walk;
    let after = 0;
    for (let level = walk.length - 1; level >= 0; level--) {
      const { node, entries } = walk[level] as Listed;
      for (let i = indexAfter(entries, after); i < entries.length; i++) {
        const { type, name } = entries[i] as ListEntry;
        if (type === DT_DIR) return this.#union.table.child(node, name) ?? null;
      }
      const { place } = node;
      if (place === null || place.parent !== walk[level - 1]?.node) return null;
      after = nameOffset(place.name);
    }
    return null;
  }

  /** What the guests have not touched, and what every change of is heard. */
  #mayList(node: Node): boolean {
    const { dir } = node;
    if (dir === null || dir.hasOverlay || dir.parts.length !== 1) return false;
    if (this.#union.kernel.keeping !== 'watched' || !keepsNames(this.#union, node)) return false;
    const fd = partFd(this.#union, node, dir.parts[0] as DirPart);
    return fd >= 0 && fstat(fd, this.#size) === 0 && this.#size.size <= LARGEST_DIRECTORY;
  }

  /** Does a piece; whether there was one. */
  work(): boolean {
    const target = this.#target;
    if (target === null) return false;
    if (this.#entries === null) {
      const entries = listDirectory(this.#union, target);
      if (typeof entries === 'number') this.drop();
      else this.#entries = entries;
      return true;
    }
    const end = Math.min(this.#found + PIECE, this.#entries.length, MOST_NAMES);
    if (this.#found >= end) return false;
    for (; this.#found < end; this.#found++) this.#lookUp(target, this.#entries[this.#found] as ListEntry);
    return true;
  }

  #lookUp(parent: Node, { name }: ListEntry): void {
    if (this.#told.length === this.#found) this.#told.push({ node: null, stat: newStat(), ino: 0 });
    const told = this.#told[this.#found] as Told;
    told.node = null;
    if (lookupListed(this.#union, parent, name) < 0) return;
    const { node, stat, ino } = this.#union.entry;
    this.#union.table.refer(node, node.id);
    told.node = node;
    told.ino = ino;
    copyStat(stat, told.stat);
  }

  drop(): void {
    if (this.#target === null) return;
    for (let i = 0; i < this.#found; i++) {
      const told = this.#told[i] as Told;
      if (told.node !== null) this.#union.table.forget(told.node.id, 1);
      told.node = null;
    }
    this.#target = null;
    this.#entries = null;
    this.#found = 0;
  }
}
