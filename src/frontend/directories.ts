// Operations on open directories. A listing that asks for attributes too (READDIRPLUS) spares a LOOKUP for each name,
// but only where the kernel may keep what it is told; of other names it gives the name alone.
import { writeOpenOut } from '../fuse/attr.ts';
import { readers } from '../fuse/codec.ts';
import { addDirent, addDirentPlus, addNameOnly, direntSize } from '../fuse/dirent.ts';
import { HEADER } from '../fuse/protocol.ts';
import type { FuseRequest, Handlers } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { DT_DIR } from '../sys/constants.ts';
import { listedIno } from '../union/identity.ts';
import { awaitLeft, isLookedInto } from '../union/left-listed.ts';
import { indexAfter, type ListEntry } from '../union/list-order.ts';
import { listDirectory } from '../union/listing.ts';
import { lookupListed } from '../union/lookup.ts';
import { type Node, type PendingWork, ROOT_ID } from '../union/node.ts';
import { fsyncDirectory } from '../union/open.ts';
import { WAIT } from '../union/union.ts';
import { keepsNames } from '../union/validity.ts';
import type { Allowance } from './allowance.ts';
import { controlEntry, isControl, listControl } from './control-files.ts';
import {
  dropListing,
  type Front,
  nodeOf,
  parkForResult,
  resultOf,
  tellAttributes,
  uniqueOf,
  validFor,
} from './front.ts';
import type { Listing } from './listings.ts';

export function directoryHandlers(front: Front): Handlers {
  return {
    OPENDIR: (r) => openDirectory(front, r),
    READDIR: (r) => readDirectory(front, r, false),
    READDIRPLUS: (r) => readDirectory(front, r, true),
    RELEASEDIR: () => 0,
    FSYNCDIR: (r) => doFsyncDirectory(front, r),
  };
}

function doFsyncDirectory(front: Front, r: FuseRequest): number {
  if (isControl(r.nodeId)) return 0;
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  const { union } = front;
  if (union.config.volatile) return -E.ENOSYS;
  const result = fsyncDirectory(union, node);
  if (result !== WAIT) return result;
  union.kernel.lock([node.id], union.waiting as PendingWork);
  return parkForResult(front, () => undefined);
}

/**
 * Where changes of the base are heard of, the kernel opens no directory by us: it keeps every listing until it is told
 * otherwise, and a listing that it has costs no request. It asks once for all (ENOSYS). Else it is to keep none.
 */
function openDirectory(front: Front, r: FuseRequest): number {
  if (front.union.kernel.keeping !== 'watched') return writeOpenOut(r, 0, 0);
  front.opensDirectories = false;
  return -E.ENOSYS;
}

function readDirectory(front: Front, r: FuseRequest, plus: boolean): number {
  const { offset, size } = readers.read_in(r.view, HEADER);
  if (isControl(r.nodeId)) return listControl(front, r.nodeId, offset, size, plus);
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  const { union, listings } = front;
  if (offset === 0) {
    const unique = uniqueOf(r.view);
    // Once: what a look has come to by now is what is listed.
    if (!front.opening.delete(unique) && awaitLeft(union, node) === WAIT) {
      front.opening.set(unique, []);
      return resultOf(front, WAIT, [node.id]);
    }
  }
  // A new pass (rewinddir) shows what is there by then.
  const listing = (offset === 0 ? undefined : listings.of(node)) ?? read(front, node, offset === 0);
  if (typeof listing === 'number') return listing;
  const { entries, last } = listing;
  const limit = Math.min(size, r.replyLimit);
  const page: Page = { front, r, node, plus, allowance: front.allowances.of(node), limit, last, length: 0 };
  addDots(page, offset, entries.length === 0);
  addEntries(page, entries, offset);
  if (offset === 0 && plus && !front.exported) front.ahead.listed(node, entries);
  if (page.length === 0) listings.end(node);
  return page.length;
}

/** The names in a directory, or a negative errno. `whole`: from its beginning; what has been told before is older. */
function read(front: Front, node: Node, whole: boolean): Listing | number {
  const { union } = front;
  // Before it is read: what has been watched only since may have changed in between.
  const watched = union.kernel.keeping === 'watched' && keepsNames(union, node);
  const kept = whole && watched && isLookedInto(union, node);
  const entries = front.ahead.entriesOf(node) ?? listDirectory(union, node);
  if (typeof entries === 'number') return entries;
  if (front.exported && node.id === ROOT_ID) {
    entries.splice(indexAfter(entries, controlEntry.offset), 0, controlEntry);
  }
  const listing = front.listings.begin(node, entries, kept);
  front.allowances.begin(node, entries.length);
  return listing;
}

/** Of what it may not keep the kernel has pages, at least until somebody comes to the end of it. */
export function listingEnded(front: Front, node: Node, { kept, wasKept, told }: Listing): void {
  front.allowances.end(node);
  const { kernel } = front.union;
  // An answer from before that was told may have come into the cache after it.
  if (kept && kernel.keeping === 'watched' && told === node.toldIn && node.dir?.watched === true) return;
  if ((kept || wasKept) && kernel.keeping === 'watched') kernel.changed(node, true);
  else dropListing(front, node.id);
}

/** An answer in the making. */
interface Page {
  front: Front;
  r: FuseRequest;
  node: Node;
  plus: boolean;
  allowance: Allowance | undefined;
  limit: number;
  /** Offset of the last entry, where it is not that of its name. */
  last: number | null;
  length: number;
}

function fits({ limit, length }: Page, size: number): boolean {
  return length + size <= limit;
}

/** `.` and `..` at offsets 1 and 2. */
function addDots(page: Page, offset: number, alone: boolean): void {
  const { front, node, plus } = page;
  const parent = node.place?.parent ?? node;
  for (const [name, at, which] of [
    ['.', 1, node],
    ['..', 2, parent],
  ] as const) {
    if (offset >= at || !fits(page, direntSize(name, plus))) continue;
    const told = alone && at === 2 ? (page.last ?? at) : at;
    addName(page, name, listedIno(front.union, which), DT_DIR, told);
  }
}

/** Names whose offsets are equal go into one answer, or the next would leave some of them out. */
function addEntries(page: Page, entries: readonly ListEntry[], offset: number): void {
  let i = indexAfter(entries, offset);
  while (i < entries.length) {
    const { offset: at } = entries[i] as ListEntry;
    let end = i;
    let size = 0;
    for (; entries[end]?.offset === at; end++)
      size += direntSize((entries[end] as ListEntry).name, page.plus);
    if (!fits(page, size)) return;
    for (; i < end; i++) addEntry(page, entries, i);
  }
}

function addEntry(page: Page, entries: readonly ListEntry[], index: number): void {
  const { front, r, limit } = page;
  const { name, ino, type, offset: own } = entries[index] as ListEntry;
  const offset = index === entries.length - 1 ? (page.last ?? own) : own;
  if (!page.plus || !findListed(page, entries, index)) {
    addName(page, name, ino, type, offset);
    return;
  }
  const { entry } = front.union;
  const nameValid = validFor(front, entry.keepName);
  const attrValid = tellAttributes(front);
  const { id } = entry.node;
  page.length = addDirentPlus(
    r,
    page.length,
    limit,
    offset,
    type,
    name,
    id,
    1,
    nameValid,
    attrValid,
    entry.stat,
    entry.ino,
  );
}

/** Fills union.entry, and counts the reference that the kernel gets; false: it is told of the name alone. */
function findListed(page: Page, entries: readonly ListEntry[], index: number): boolean {
  const { front, node: parent, allowance } = page;
  if (allowance !== undefined) {
    if (allowance.left <= 0) return false;
    allowance.left -= 1;
  }
  const { ahead, union } = front;
  const taken = ahead.take(entries, index);
  if (taken !== 0) return taken > 0;
  ahead.drop();
  if (lookupListed(union, parent, (entries[index] as ListEntry).name) < 0) return false;
  union.table.refer(union.entry.node, union.entry.node.id);
  return true;
}

/** The name alone; it has been seen that there is room. */
function addName(page: Page, name: string, ino: number, type: number, offset: number): void {
  const { r, plus, limit, length } = page;
  page.length = (plus ? addNameOnly : addDirent)(r, length, limit, ino, offset, type, name);
}
