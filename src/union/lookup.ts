// Resolving names: the four states of a name, and the nodes for what is found. With --coherence check every
// look-up asks both branches, so nothing that the base removed or replaced survives here.
import { performance } from 'node:perf_hooks';
import { type BaseLayer, statAt } from '../branch/base.ts';
import { descend, type LayerDir, readably } from '../branch/descent.ts';
import { branchIno, NUMBERS } from '../branch/numbers.ts';
import { redirectOf } from '../branch/overlay.ts';
import { readingOwn } from '../branch/own-attribute.ts';
import { isNamedAway, isOpaque, isWhiteout } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { joinPath } from '../lib/names.ts';
import {
  copyStat,
  inPlace,
  isDirectory,
  isLater,
  newStat,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  type Stat,
} from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import type { Origin } from '../versions/origin.ts';
import { showContentBeneath } from './base-content.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { mergedLinks } from './directory-links.ts';
import { expireBeneath, showOther } from './expiry.ts';
import { closePart } from './fd-cache.ts';
import { followHardLink, noteNames, noteSeveral, shownLinks } from './hard-links.ts';
import { baseLinks, hasSeveral } from './hidden-names.ts';
import { objectIno } from './identity.ts';
import { markOf, ownMark } from './mark.ts';
import { hasOutlived, metacopyOf, showContent } from './metacopy.ts';
import {
  type DirPart,
  type DirState,
  type Found,
  IN_BASE,
  IN_OVERLAY,
  NO_NUMBER,
  NONE,
  type Node,
  placesOf,
  ROOT_ID,
  WHITEOUT,
} from './node.ts';
import { readOrigins } from './origins.ts';
import { divide } from './passthrough.ts';
import { isControlName, redirectedPath } from './place.ts';
import { redirectedParts } from './redirect.ts';
import { isSettled, noticeIfStale } from './stale.ts';
import { partsFor } from './table.ts';
import type { Union } from './union.ts';
import { keepsAttributes, keepsNames } from './validity.ts';

/** How often the base's own path is looked at, in milliseconds: another tree may have been put there. */
const BASE_CHECK_MS = 10;
/** For so long what was found of a name serves the request that follows, in milliseconds. */
const AGAIN_MS = 1;

/**
 * Asks both branches for `name` in a directory; fills union.found and returns 0, or a negative errno of
 * looking (never ENOENT for the name itself).
 */
export function find(union: Union, parent: Node, name: string): number {
  const found = union.found;
  const dir = parent.dir;
  found.state = NONE;
  found.inBase = false;
  found.parent = null;
  found.goodFor = -1;
  found.origins = null;
  if (dir === null) return -E.ENOTDIR;
  if (name.length > 255) return -E.ENAMETOOLONG;
  if (isControlName(parent.id, name)) return 0;
  found.lookedAt = performance.now();
  if (dir.parts.length > 0) checkBasePaths(union, found.lookedAt);
  if (dir.hasOverlay) {
    const error = findInOverlay(union, parent, name, found);
    if (error < 0) return error;
  }
  for (let i = 0; i < dir.parts.length; i++) {
    const part = dir.parts[i] as DirPart;
    const fd = partFd(union, parent, part);
    if (fd === -E.ENOENT || fd === -E.ENOTDIR || fd === -E.ELOOP) continue;
    if (fd < 0) return fd;
    const { marks } = union.layers[part.layer] as BaseLayer;
    const error = statAt(fd, name, found.baseStat);
    if (error === -E.ENOENT || error === -E.ENOTDIR) {
      if (isNamedAway(marks, fd, name)) break;
      continue;
    }
    if (error < 0) return error;
    // A whiteout that lies in the base itself hides what is beneath it, and is nothing that a guest sees.
    if (isWhiteout(marks, fd, name, found.baseStat)) break;
    found.inBase = true;
    found.part = i;
    showContentBeneath(union, parent, i, fd, name, found.baseStat);
    break;
  }
  if (found.state === NONE && found.inBase && !dir.opaque) {
    found.state = IN_BASE;
    copyStat(found.baseStat, found.stat);
  }
  if (hasSeveral(found)) noteSeveral(union, parent, name, found);
  const error = union.hardLinks.size > 0 ? followToOverlay(union, parent, name, found) : 0;
  if (error < 0) return error;
  found.parent = parent;
  found.name = name;
  return 0;
}

/**
 * As find, for a request that comes right after another about the same name (the kernel looks a name up before anything
 * comes to it, or goes): what was found for that one serves, where changes of the base are heard of and none was. What
 * changes a name without a look of its own calls `union.forgetFound`.
 */
export function findAgain(union: Union, parent: Node, name: string): number {
  const { found } = union;
  const same = found.parent === parent && found.name === name && found.goodFor === parent.dir?.version;
  return same && performance.now() - found.lookedAt < AGAIN_MS ? 0 : find(union, parent, name);
}

/** union.found tells how the name is, after all that has been done: it may serve `findAgain`. */
export function keepFound(union: Union, parent: Node, name: string): void {
  const { found, kernel } = union;
  if (found.parent !== parent || found.name !== name || parent.dir === null) return;
  if (kernel.keeping === 'watched' && keepsNames(union, parent)) found.goodFor = parent.dir.version;
}

/** The base's object may have been copied up under another of its names. */
function followToOverlay(union: Union, parent: Node, name: string, found: Found): number {
  if (found.state === IN_OVERLAY) noteNames(union, parent, name, found);
  if (found.state !== IN_BASE) return 0;
  const layer = parent.dir?.parts[found.part]?.layer ?? 0;
  const followed = followHardLink(union, parent, name, layer, found.baseStat);
  return followed === 1 ? findInOverlay(union, parent, name, found) : followed;
}

function findInOverlay(union: Union, parent: Node, name: string, found: Found): number {
  const fd = overlayDirFd(union, parent);
  if (fd < 0) return fd;
  const error = statAt(fd, name, found.stat);
  if (error === -E.ENOENT) return 0;
  if (error < 0) return error;
  found.state = isWhiteout(union.overlay.marks, fd, name, found.stat) ? WHITEOUT : IN_OVERLAY;
  return 0;
}

function checkBasePaths(union: Union, now: number): void {
  if (now - union.baseChecked < BASE_CHECK_MS) return;
  union.baseChecked = now;
  for (const layer of union.layers) union.host.baseMoved(layer.index);
}

/**
 * LOOKUP: fills union.entry, whose node got no reference yet (the front end counts the one it sends).
 * -ENOENT where there is nothing. A stale object is noticed, and answered as it is now.
 */
export function lookup(union: Union, parent: Node, name: string): number {
  const error = findAbsentAgain(union, parent, name);
  if (error < 0) return error;
  const state = union.found.state;
  if (state === NONE || state === WHITEOUT) {
    forgetPlace(union, parent, name);
    keepFound(union, parent, name);
    return -E.ENOENT;
  }
  const node = instantiate(union, parent, name);
  if (typeof node === 'number') return node;
  noticeIfStale(union, node, parent, name);
  if (!union.kernel.keeps) return fillEntry(union, node, union.found.stat);
  const filled = fillKept(union, node, parent, name);
  keepFound(union, parent, name);
  return filled;
}

/** As findAgain, for what has just gone. What is there has attributes, which the guest may have changed without us. */
function findAbsentAgain(union: Union, parent: Node, name: string): number {
  const { state } = union.found;
  return state === NONE || state === WHITEOUT ? findAgain(union, parent, name) : find(union, parent, name);
}

/**
 * For a listing with attributes: as lookup, but only what the kernel may keep (else -ENOENT), and nothing is started:
 * who lists a directory has not asked for the merge of all that lies in it.
 */
export function lookupListed(union: Union, parent: Node, name: string): number {
  if (!union.kernel.keeps || find(union, parent, name) < 0) return -E.ENOENT;
  const { state } = union.found;
  if (state !== IN_BASE && state !== IN_OVERLAY) return -E.ENOENT;
  const node = instantiate(union, parent, name);
  if (typeof node === 'number') return node;
  fillKept(union, node, parent, name);
  if (union.entry.keepName && union.entry.keepAttributes) return 0;
  union.table.release(node);
  return -E.ENOENT;
}

/** As fillEntry; and whether the kernel may keep what it tells. */
function fillKept(union: Union, node: Node, parent: Node, name: string): number {
  const { found } = union;
  const wasWatched = node.dir === null || node.dir.watched;
  const heard = keepsNames(union, parent) && isHeard(union, node, parent, name);
  const settled = heard && isSettled(union, node, parent, name);
  // A directory of the base is watched from now on: what its attributes are is to be seen after that.
  const fresh = !wasWatched && keepsNames(union, node) && found.state === IN_BASE;
  const fd = node.dir?.parts[0]?.fd ?? -1;
  const looked = fresh && fd >= 0 ? fstat(fd, found.stat) : 0;
  fillEntry(union, node, found.stat);
  // What a renamed directory of the base shows is found by a look-up of its name alone.
  union.entry.keepName = settled && !node.dir?.elsewhere;
  union.entry.keepAttributes &&= settled && looked === 0;
  return 0;
}

/** Whether changes of what the base has under the name are heard of; those of a file with several names are not. */
function isHeard(union: Union, node: Node, parent: Node, name: string): boolean {
  const { inBase, baseStat, part } = union.found;
  if (!inBase || isDirectory(baseStat.mode) || baseStat.nlink < 2) return true;
  if (union.kernel.keeping === 'timed') return true;
  const at = parent.dir?.parts[part] as DirPart;
  const fd = partFd(union, parent, at);
  return fd >= 0 && !union.watches.file(node, fd, name, at.layer) && node.watch >= 0;
}

/** Nothing is at this place any more; open files go on with their descriptors. */
export function forgetPlace(union: Union, parent: Node, name: string): void {
  const child = union.table.child(parent, name);
  if (child) union.table.unlink(child, parent, name);
  else union.table.identity?.vacate({ parent: parent.id, name });
}

/** The node for union.found at a place; a negative errno if a directory cannot be read. */
export function instantiate(union: Union, parent: Node, name: string): Node | number {
  const found = union.found;
  const type = found.stat.mode & S_IFMT;
  const known = union.table.child(parent, name);
  if (type === S_IFDIR) {
    const node = known?.dir ? known : union.table.draft(S_IFDIR);
    const error = refreshDirectory(union, node, parent, name);
    if (error < 0) return error;
    if (node !== known) enter(union, node, parent, name);
    return node;
  }
  const layer = found.state === IN_OVERLAY ? -1 : (parent.dir?.parts[found.part]?.layer ?? 0);
  if (known && union.table.shows(known, layer, found.stat)) {
    if (known.handles.size === 0 || !hasOutlived(union, known, found.stat)) return known;
    divide(union, known);
    return instantiate(union, parent, name);
  }
  // Another object of the same type under the name: the nodeid stays, unless somebody has the old one open.
  const stays = known?.type === type && mayShowOther(known);
  const object = union.table.ofObject(layer, found.stat);
  if (object && object !== known) {
    // One that has a single name in the base had its others before.
    const moved = layer >= 0 && found.stat.nlink === 1;
    // It has been renamed over what was here. Who has just walked this name comes with the id of that.
    if (stays && moved && mayShowOther(object) && union.table.identity === null) {
      leaveAll(union, object);
      showOther(union, known, layer, found.stat);
      return known;
    }
    union.table.link(object, parent, name);
    if (moved) leaveOthers(union, object, parent, name);
    return object;
  }
  if (stays) {
    showOther(union, known, layer, found.stat);
    return known;
  }
  const node = union.table.draft(type);
  union.table.show(node, layer, found.stat);
  enter(union, node, parent, name);
  return node;
}

/** Nobody has its object open or works with it. A symlink is never open, and the kernel keeps its target. */
function mayShowOther(node: Node): boolean {
  return (
    node.type !== S_IFLNK &&
    node.handles.size === 0 &&
    node.place !== null &&
    node.others.length === 0 &&
    node.busy === null
  );
}

function leaveAll(union: Union, node: Node): void {
  for (const { parent, name } of placesOf(node)) union.kernel.expire(parent, name);
  union.table.part(node);
}

function leaveOthers(union: Union, node: Node, parent: Node, name: string): void {
  for (const place of placesOf(node)) {
    if (place.parent === parent && place.name === name) continue;
    union.kernel.expire(place.parent, place.name);
    union.table.leave(node, place.parent, place.name);
  }
}

function enter(union: Union, node: Node, parent: Node, name: string): void {
  union.table.enter(node, parent, name, (mark) => isMarked(union, node, parent, name, mark));
}

/** Whether the node that was found at a place shows the object that has this mark in the identity log. */
export function isMarked(union: Union, node: Node, parent: Node, name: string, mark: string): boolean {
  if (mark === markOf(node, parent, name)) return true;
  const { dir } = node;
  if (dir !== null ? !dir.hasOverlay : node.layer >= 0) return false;
  if (mark === ownMark(node)) return true;
  // The mark may be from before the copy-up.
  const dirFd = overlayDirFd(union, parent);
  const origins = dirFd < 0 ? [] : readOrigins(union, dirFd, name);
  const brought = (origin: Origin) => (dir === null ? origin.ino >= NUMBERS : isDirectory(origin.mode));
  return origins.some((origin) => origin.path === mark && brought(origin));
}

/** Brings a directory's parts up to what union.found says of it. */
function refreshDirectory(union: Union, node: Node, parent: Node, name: string): number {
  const dir = node.dir;
  const found = union.found;
  if (dir === null || parent.dir === null) return -E.ENOTDIR;
  const inOverlay = found.state === IN_OVERLAY;
  let redirect: string | null = null;
  if (inOverlay) {
    const moved = !dir.hasOverlay || dir.overlayIno !== found.stat.ino;
    if (moved && dir.overlayFd >= 0) {
      close(dir.overlayFd);
      dir.overlayFd = -1;
    }
    const same = !moved && dir.ctimeSec === found.stat.ctimeSec && dir.ctimeNsec === found.stat.ctimeNsec;
    if (!same) {
      const fd = overlayDirFd(union, parent);
      if (fd < 0) return fd;
      const known = !moved && dir.ctimeSec !== -1;
      const read = readMarks(union, dir, fd, name, known);
      if (read < 0) return read;
      dir.ctimeSec = found.stat.ctimeSec;
      dir.ctimeNsec = found.stat.ctimeNsec;
      dir.overlayIno = found.stat.ino;
      node.btimeSec = inPlace(found.stat.btimeSec);
      node.btimeNsec = found.stat.btimeNsec;
    }
    redirect = dir.redirect;
    // Beneath an opaque directory nothing of the base is seen but by a redirect.
    dir.opaque = dir.ownOpaque || (parent.dir.opaque && redirect === null);
  } else if (dir.hasOverlay) {
    if (dir.overlayFd >= 0) close(dir.overlayFd);
    dir.overlayFd = -1;
    dir.whiteoutsIn = NO_NUMBER;
    dir.opaque = false;
    dir.redirect = null;
  }
  dir.hasOverlay = inOverlay;
  dir.elsewhere = redirect !== null || parent.dir.elsewhere;
  return refreshParts(union, node, parent, name, redirect);
}

/** Opaque and redirect of the overlay's directory that was found. `known`: they have been read at this place before. */
function readMarks(union: Union, dir: DirState, dirFd: number, name: string, known: boolean): number {
  const { overlay, config, found } = union;
  const read = () => {
    dir.ownOpaque = isOpaque(overlay.marks, dirFd, name);
    dir.redirect = redirectOf(overlay, dirFd, name);
  };
  if ((found.stat.mode & 0o400) !== 0 || config.readOnly) {
    read();
    return 0;
  }
  // To read what its owner may not read moves its ctime. So that is done once, and nobody changes it thereafter.
  if (known) return 0;
  readingOwn(dirFd, name, overlay.redirect, read);
  return statAt(dirFd, name, found.stat);
}

/** 0, or a negative errno: what cannot be read is not shown as if it were not there. */
function refreshParts(union: Union, node: Node, parent: Node, name: string, redirect: string | null): number {
  const dir = node.dir;
  if (dir === null || parent.dir === null) return -E.ENOTDIR;
  const wanted = redirect === null ? partsAt(union, parent, name) : redirectedParts(union, parent, redirect);
  if (typeof wanted === 'number') return wanted;
  if (union.layers.length === 1) dir.basePath = wanted[0]?.path ?? '';
  else {
    const { basePath } = parent.dir;
    dir.basePath = redirectedPath(basePath, redirect ?? name);
    if (wanted.some(({ path }) => path !== dir.basePath)) dir.elsewhere = true;
  }
  const same =
    wanted.length === dir.parts.length &&
    wanted.every((one, i) => {
      const part = dir.parts[i] as DirPart;
      return part.layer === one.layer && part.ino === one.ino && part.path === one.path;
    });
  if (same) return 0;
  for (const part of dir.parts) {
    closePart(part);
    union.watches.leave(node, part);
  }
  dir.parts = partsFor(wanted);
  // The former may come back, and what the guest does here until then is not counted.
  union.covered.delete(node);
  dir.watched = false;
  dir.version += 1;
  if (node.id === 0) return 0;
  expireBeneath(union, node);
  return 0;
}

/** Directories of the base at a name, as union.found has it. */
function partsAt(union: Union, parent: Node, name: string): LayerDir[] | number {
  const { inBase, baseStat, part: from } = union.found;
  const parts = parent.dir?.parts ?? [];
  const top = parts[from];
  if (!inBase || !isDirectory(baseStat.mode) || top === undefined) return [];
  const { layer, path } = top;
  if (layer === union.layers.length - 1)
    return [{ layer, path: joinPath(path, name), ino: branchIno(union.layers, layer, baseStat) }];
  const fdOf = (index: number) => partFd(union, parent, parts[index] as DirPart);
  return readably((unreadable) => descend(union.layers, parts, name, { from, fdOf, unreadable }));
}

/** Copies what is known of a node into union.entry. `stat` is of the object that answers for it. */
export function fillEntry(union: Union, node: Node, stat: Stat): number {
  const entry = union.entry;
  entry.node = node;
  if (entry.stat !== stat) copyStat(stat, entry.stat);
  entry.ino = objectIno(union, node, entry.stat);
  entry.keepName = false;
  entry.keepAttributes = keepsAttributes(union, node, entry.stat);
  if (node.layer < 0 && node.dir === null) {
    showContent(union, node, entry.stat);
    // No event tells of a content that lies elsewhere.
    const far = node.learned?.contentBeneath || metacopyOf(union, node)?.redirect;
    if (union.kernel.keeping === 'watched' && far) entry.keepAttributes = false;
  } else if (entry.stat.contentPrint !== '' && union.kernel.keeping === 'watched') {
    entry.keepAttributes = false;
  }
  if (union.hardLinks.size > 0 && node.layer < 0) entry.stat.nlink = shownLinks(union, entry.stat);
  if (node.dir === null && node.layer >= 0) entry.stat.nlink = baseLinks(union, node, entry.stat);
  if (node.dir !== null && isMerged(node.dir)) {
    entry.stat.nlink = mergedLinks(union, node, entry.stat);
    if (union.table.identity !== null) newestChange(union, node, entry.stat);
  }
  // Removed, and still open somewhere.
  if (node.dir !== null && node.place === null && node.id !== ROOT_ID) entry.stat.nlink = 0;
  return 0;
}

/** More than one directory of the branches shows in it. */
function isMerged({ hasOverlay, opaque, parts }: DirState): boolean {
  return hasOverlay ? !opaque && parts.length > 0 : parts.length > 1;
}

const partStat = newStat();

/** Clients of NFS keep listings as long as ctime stands: of a merged directory it moves when the base's does, too. */
function newestChange(union: Union, node: Node, stat: Stat): void {
  for (const part of node.dir?.parts ?? []) {
    const fd = partFd(union, node, part);
    if (fd < 0 || fstat(fd, partStat) < 0) continue;
    const { ctimeSec, ctimeNsec } = partStat;
    if (!isLater(ctimeSec, ctimeNsec, stat.ctimeSec, stat.ctimeNsec)) continue;
    stat.ctimeSec = ctimeSec;
    stat.ctimeNsec = ctimeNsec;
  }
}

/**
 * The node at a path, made as a look-up makes it; null where there is nothing. For callers inside: the node is held
 * for them, and they let go of it by `table.letGo`.
 */
export function walk(union: Union, path: string): Node | null {
  const { table } = union;
  let node: Node = table.root;
  table.hold(node);
  for (const name of path === '' ? [] : path.split('/')) {
    const next = step(union, node, name);
    if (next !== null) table.hold(next);
    table.letGo(node);
    if (next === null) return null;
    node = next;
  }
  return node;
}

function step(union: Union, node: Node, name: string): Node | null {
  if (node.dir === null || find(union, node, name) < 0) return null;
  if (union.found.state === NONE || union.found.state === WHITEOUT) return null;
  const next = instantiate(union, node, name);
  return typeof next === 'number' ? null : next;
}
