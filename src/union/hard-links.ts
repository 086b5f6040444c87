// A base file with several names that has been copied up stays one file under all of its names. Its copy has a link
// in links/, named by the base's file; whoever comes to another of the names, also to one that the base gives it
// later, finds a link to the copy there, made on the spot without any copying. The link in links/ goes with the copy's
// last name. A merge takes the names along that the base has moved together, and the link in links/ with them. The
// rules are in native-notes/semantics.md, "Link counts".
import { readBeneath } from '../branch/listing.ts';
import { metacopyAt } from '../branch/metacopy.ts';
import { branchIno, NUMBERS } from '../branch/numbers.ts';
import { unlinkReleasing } from '../branch/origin-store.ts';
import { E } from '../lib/errno.ts';
import { copyStat, isRegular, newStat, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, RENAME_NOREPLACE } from '../sys/constants.ts';
import { linkat, renameat2, unlinkat } from '../sys/names.ts';
import { statx } from '../sys/stat.ts';
import { newRecord } from '../versions/journal.ts';
import { type Origin, pathHash } from '../versions/origin.ts';
import { overlayDirFd } from './dir-fds.ts';
import { expireNode } from './expiry.ts';
import { type HardLink, linkFile, parseLinkFile } from './hard-link-table.ts';
import {
  type BaseName,
  hasSeveral,
  hiddenNames,
  hide,
  loadHidden,
  severalAt,
  unhide,
} from './hidden-names.ts';
import { ownIno } from './identity.ts';
import { type Found, IN_BASE, IN_OVERLAY, type Node } from './node.ts';
import { numberIn, originFor } from './origin-list.ts';
import { baseFingerprint, readOrigins, writeOrigins } from './origins.ts';
import { ensureOverlayDir, keepingTimes } from './overlay-dir.ts';
import { basePathAt, originPathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import type { Union } from './union.ts';

/** What the base has at a place. */
interface InBase {
  layer: number;
  stat: Stat;
}

function linkOf(union: Union, { layer, stat }: InBase): HardLink | undefined {
  const identity = union.layers[layer]?.identity ?? '';
  return union.hardLinks.find(identity, layer, branchIno(union.layers, layer, stat), stat);
}

/** Whether the base's file is the one that a link is for. */
function isIts(union: Union, link: HardLink, base: InBase | null): boolean {
  return base !== null && isRegular(base.stat.mode) && linkOf(union, base) === link;
}

/** Where nothing tells a file from one that gets its number later, it is known no longer than names are missing. */
function isForgettable({ btimeSec, btimeNsec }: Pick<Stat, 'btimeSec' | 'btimeNsec'>): boolean {
  return btimeSec === 0 && btimeNsec === 0;
}

/** Learns what links/ holds, at the start of a mount; 0 or a negative errno. */
export function loadHardLinks(union: Union): number {
  const { linksFd } = union;
  const found: HardLink[] = [];
  const error = readBeneath(linksFd, (file) => {
    const key = loadHidden(union, file) ? null : parseLinkFile(file);
    if (key === null || statx(linksFd, file, AT_SYMLINK_NOFOLLOW, union.stat) < 0) return;
    const copyIno = union.stat.ino;
    const origins = readOrigins(union, linksFd, file);
    const number = numberIn(origins);
    const shown = number || ownIno(union.numbers, copyIno);
    const taken = new Set(origins.filter(({ ino }) => ino === number).map(({ path }) => path));
    found.push({ ...key, file, copyIno, shown, taken, untaken: 0, lost: false });
  });
  for (const link of found) {
    link.untaken = untakenOf(link, link.nlink, knownHidden(union, link));
    union.hardLinks.add(link);
    // Its last name may have gone without us.
    nameRemoved(union, link.copyIno);
  }
  return error;
}

/** A file in work/ is about to be published, whose base file has several names: those will find it. */
export function keepHardLink(union: Union, layer: number, base: Stat, temp: string, origin: Origin): number {
  const link = newLink(union, { layer, stat: base }, origin);
  // The guest has hidden the others.
  if (link.untaken === 0 && isForgettable(link)) return 0;
  const error = placeLink(union, link, union.workFd, temp);
  return error < 0 ? error : addLink(union, link);
}

/** It was not published after all. */
export function dropHardLink(union: Union, layer: number, base: Stat): void {
  const link = linkOf(union, { layer, stat: base });
  if (link !== undefined) dropLink(union, link);
}

function newLink(union: Union, { layer, stat }: InBase, origin: Origin): HardLink {
  const { btimeSec, btimeNsec, nlink } = stat;
  const identity = union.layers[layer]?.identity ?? '';
  const key = { identity, layer, ino: branchIno(union.layers, layer, stat), btimeSec, btimeNsec };
  const link = {
    ...key,
    file: linkFile(key, nlink),
    copyIno: 0,
    shown: origin.ino,
    nlink,
    taken: new Set([origin.path]),
    untaken: 0,
    lost: false,
  };
  link.untaken = untakenOf(link, nlink, hiddenNames(union, layer, stat));
  return link;
}

/** Makes its link in links/, in place of one that may lie there. */
function placeLink(union: Union, { file }: HardLink, dirFd: number, name: string): number {
  const error = linkat(dirFd, name, union.linksFd, file, 0);
  if (error !== -E.EEXIST) return error;
  const temp = union.tempName();
  const made = linkat(dirFd, name, union.workFd, temp, 0);
  if (made < 0) return made;
  const put = renameat2(union.workFd, temp, union.linksFd, file, 0);
  // Of two links to one file a rename leaves both.
  unlinkat(union.workFd, temp, 0);
  return put;
}

function addLink(union: Union, link: HardLink): number {
  const known = statx(union.linksFd, link.file, AT_SYMLINK_NOFOLLOW, union.stat);
  if (known < 0) return known;
  link.copyIno = union.stat.ino;
  union.hardLinks.add(link);
  return 0;
}

/**
 * A name of the base whose file has been copied up under another name becomes one of the overlay: 1. 0: it has
 * not been; or a negative errno.
 */
export function followHardLink(union: Union, parent: Node, name: string, layer: number, base: Stat): number {
  if (!isRegular(base.mode) || union.config.readOnly) return 0;
  const link = linkOf(union, { layer, stat: base });
  const basePath = basePathAt(parent, name);
  const unionPath = pathAt(parent, name);
  if (!link || basePath === null || unionPath === null) return 0;
  const above = ensureOverlayDir(union, parent);
  if (above < 0) return above;
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const origins = readOrigins(union, union.linksFd, link.file);
  const number = numberIn(origins);
  const first = origins.find(({ path }) => link.taken.has(path)) ?? origins.find(({ ino }) => ino === number);
  if (!first) return 0;
  const origin = { ...first, path: pathHash(basePath) };
  const known = origins.some(({ path, ino }) => path === origin.path && ino === origin.ino);
  const others = origins.filter(({ path }) => path !== origin.path);
  const written = known ? 0 : writeOrigins(union, union.linksFd, link.file, [...others, origin]);
  if (written < 0) return written;
  const temp = union.tempName();
  const made = linkat(union.linksFd, link.file, union.workFd, temp, 0);
  if (made < 0) return made;
  const note = newRecord('copy-up', unionPath, origin);
  const error = publish(union, 'hard-link', [note], () =>
    keepingTimes(dirFd, () => renameat2(union.workFd, temp, dirFd, name, RENAME_NOREPLACE)),
  );
  if (error < 0) {
    unlinkat(union.workFd, temp, 0);
    return error;
  }
  link.taken.add(origin.path);
  count(union, link, layer, base);
  return 1;
}

/** Names of the base's file that are neither taken nor hidden. */
function untakenOf({ taken }: HardLink, nlink: number, hidden: ReadonlyMap<string, string>): number {
  let untaken = nlink - taken.size;
  for (const hash of hidden.keys()) if (!taken.has(hash)) untaken -= 1;
  return Math.max(0, untaken);
}

/** The base's file, as it is now. */
function count(union: Union, link: HardLink, layer: number, base: Stat): void {
  const { nlink } = base;
  link.untaken = untakenOf(link, nlink, hiddenNames(union, layer, base));
  if (link.untaken === 0 && isForgettable(link)) dropLink(union, link);
  else if (nlink !== link.nlink) recount(union, link, nlink);
}

function recount(union: Union, link: HardLink, nlink: number): void {
  if (union.config.readOnly) return;
  const file = linkFile(link, nlink);
  if (renameat2(union.linksFd, link.file, union.linksFd, file, 0) === 0) link.file = file;
  link.nlink = nlink;
}

function dropLink(union: Union, link: HardLink): void {
  if (union.config.readOnly) return;
  unlinkReleasing(union.overlay.origins, union.linksFd, link.file, 0);
  union.hardLinks.delete(link);
}

/** Looked at is a name of the overlay: of a copy it tells how many names the base's file has by now. */
export function noteNames(union: Union, parent: Node, name: string, found: Found): void {
  const link = union.hardLinks.of(found.stat.ino);
  if (link === undefined) return;
  const base = inBase(parent, found);
  if (!isIts(union, link, base)) {
    nameLost(link, parent, name);
    return;
  }
  if (found.baseStat.nlink === link.nlink && !link.lost) return;
  const path = basePathAt(parent, name);
  if (path !== null) link.taken.add(pathHash(path));
  count(union, link, link.layer, found.baseStat);
}

/** Looked at is a name that the base gives to a file with several: whether the guest hides it. */
export function noteSeveral(union: Union, parent: Node, name: string, found: Found): void {
  if (found.state === IN_BASE) {
    nameInView(union, parent, name);
    return;
  }
  const link = found.state === IN_OVERLAY ? union.hardLinks.of(found.stat.ino) : undefined;
  if (link !== undefined && isIts(union, link, inBase(parent, found))) return;
  if (nameHidden(union, severalAt(union, parent, name))) tellOthers(union, inBase(parent, found));
}

/** Other names of a file of the base show another count from now on. */
function tellOthers(union: Union, base: InBase | null): void {
  const node = base === null ? undefined : union.table.ofObject(base.layer, base.stat);
  if (node) union.kernel.changedLate(node);
}

/**
 * The guest hides a name that the base gives to a file with several: one less leads to the copy, if there is one. Whether
 * that was not known.
 */
export function nameHidden(union: Union, base: BaseName | null): boolean {
  if (base === null || !hide(union, base)) return false;
  const { identity, layer, ino, nlink } = base;
  const link = union.hardLinks.find(identity, layer, ino, base);
  if (link !== undefined) link.untaken = untakenOf(link, nlink, knownHidden(union, link));
  return true;
}

/** What the base has there, as union.found has it, is in view, or is about to be: it leads to the copy, if there is one. */
export function nameInView(union: Union, parent: Node, name: string): void {
  const { found } = union;
  const base = inBase(parent, found);
  if (base === null || union.hidden.isEmpty || !hasSeveral(found)) return;
  const hash = unhide(union, parent, name);
  if (hash === null) return;
  tellOthers(union, base);
  const link = linkOf(union, base);
  if (link === undefined) return;
  link.taken.delete(hash);
  link.untaken = untakenOf(link, base.stat.nlink, knownHidden(union, link));
}

/** As hiddenNames, without a look at the base. */
function knownHidden({ hidden }: Union, link: HardLink): ReadonlyMap<string, string> {
  return hidden.find(link.identity, link.layer, link.ino, link)?.names ?? new Map();
}

function inBase(parent: Node, { inBase: there, part, baseStat }: Found): InBase | null {
  return there ? { layer: parent.dir?.parts[part]?.layer ?? 0, stat: baseStat } : null;
}

/** The base's file has this name no more. */
function nameLost(link: HardLink, parent: Node, name: string): void {
  const path = originPathAt(parent, name);
  if (path === null || !link.taken.delete(pathHash(path))) return;
  link.lost = true;
}

/** The link count that a guest sees of an overlay object: without ours, with the base's names that lead to it. */
export function shownLinks(union: Union, stat: Stat): number {
  const link = union.hardLinks.of(stat.ino);
  return link === undefined ? stat.nlink : stat.nlink - 1 + link.untaken;
}

/** An overlay object has lost a name. A copy that has none, and none of the base's leads to it, goes. */
export function nameRemoved(union: Union, copyIno: number): void {
  const link = union.hardLinks.of(copyIno);
  if (link === undefined || link.untaken > 0) return;
  if (namesOf(union, link) === 0) dropLink(union, link);
}

/** Names of a copy in the overlay. */
function namesOf(union: Union, { file }: HardLink): number {
  return statx(union.linksFd, file, AT_SYMLINK_NOFOLLOW, union.stat) < 0 ? 0 : union.stat.nlink - 1;
}

/** A place where a copy was; what the base has there tells whether names follow what is there now. */
export interface Replaced {
  parent: Node;
  name: string;
  copyIno: number;
  base: InBase | null;
}

/** Before something else comes to the place in union.found. */
export function replacedAt(union: Union, parent: Node, name: string): Replaced {
  const { found } = union;
  const base = inBase(parent, found);
  const stat = newStat();
  if (base !== null) copyStat(base.stat, stat);
  return {
    parent,
    name,
    copyIno: found.stat.ino,
    base: base && isRegular(stat.mode) ? { ...base, stat } : null,
  };
}

/** A copy has gone from a name, and the base's file shows there: no name of that file leads to the copy any more. */
export function nameDropped(union: Union, { parent, name, copyIno, base }: Replaced): void {
  const link = union.hardLinks.of(copyIno);
  if (link === undefined) return;
  if (isIts(union, link, base)) {
    dropLink(union, link);
    return;
  }
  nameLost(link, parent, name);
  nameRemoved(union, copyIno);
}

/** A merge has put another object in the place of a copy, or (its origin is another) that one itself is up to date. */
export function nameReplaced(union: Union, replaced: Replaced, dirFd: number): void {
  const { parent, name, copyIno, base } = replaced;
  const link = union.hardLinks.of(copyIno);
  const its = link !== undefined && isIts(union, link, base);
  if (its && moved(union, link, replaced, dirFd)) return;
  if (link !== undefined && !its) {
    nameLost(link, parent, name);
    nameRemoved(union, copyIno);
    // What no name of the base's file is known of any more need not be found by it.
    if (link.taken.size === 0 && link.untaken === 0 && union.hardLinks.of(copyIno) === link) {
      dropLink(union, link);
    }
  }
  if (base !== null) join(union, parent, name, dirFd, base);
}

/** The copy that a merge has made goes on for the names of the old one, if it has all of them. */
function moved(union: Union, link: HardLink, { parent, name, base }: Replaced, dirFd: number): boolean {
  if (base === null || statx(dirFd, name, AT_SYMLINK_NOFOLLOW, union.stat) < 0) return false;
  const { ino } = union.stat;
  if (ino === link.copyIno) return true;
  const origins = readOrigins(union, dirFd, name);
  const now = baseFingerprint(union, base.layer, base.stat);
  const has = (path: string) => origins.some((one) => one.path === path && one.fingerprint === now);
  const path = originPathAt(parent, name);
  if (path === null || !has(pathHash(path))) return false;
  if (namesOf(union, link) > 0 && ![...link.taken].every(has)) return false;
  if (placeLink(union, link, dirFd, name) < 0) return false;
  union.hardLinks.move(link, ino);
  link.shown = numberIn(origins) || ownIno(union.numbers, ino);
  return true;
}

/** What lies at a place follows the base's file there, which has several names by now: those are to find it. */
function join(union: Union, parent: Node, name: string, dirFd: number, base: InBase): void {
  const basePath = originPathAt(parent, name);
  if (base.stat.nlink < 2 || isForgettable(base.stat) || basePath === null) return;
  if (statx(dirFd, name, AT_SYMLINK_NOFOLLOW, union.stat) < 0 || !isRegular(union.stat.mode)) return;
  const copyIno = union.stat.ino;
  const origin = originFor(readOrigins(union, dirFd, name), basePath);
  // What has taken the name of a file of the base is another file.
  if (origin === null || origin.ino < NUMBERS) return;
  if (origin.fingerprint !== baseFingerprint(union, base.layer, base.stat)) return;
  const known = linkOf(union, base);
  if (known !== undefined) {
    if (known.copyIno !== copyIno) return;
    known.taken.add(origin.path);
    count(union, known, base.layer, base.stat);
    return;
  }
  // A content that lies in the base lies there under this name.
  if (union.hardLinks.of(copyIno) !== undefined || metacopyAt(union.overlay, dirFd, name) !== null) return;
  const link = newLink(union, base, origin);
  if (placeLink(union, link, dirFd, name) < 0 || addLink(union, link) < 0) return;
  // The kernel may know other names already, for those of the base's file.
  const before = union.table.ofObject(base.layer, base.stat);
  if (before) expireNode(union, before, true);
}

/** Whether the base's file has been copied up under another name meanwhile. */
export function hasHardLink(union: Union, layer: number, base: Stat): boolean {
  return union.hardLinks.size > 0 && linkOf(union, { layer, stat: base }) !== undefined;
}

/** st_ino of what the base has under a name that leads to a copy; 0: it leads to none. */
export function linkedIno(union: Union, layer: number, stat: Stat): number {
  // Names that lead to a copy only after something has been written show the base's file until then.
  if (union.config.readOnly) return 0;
  return (isRegular(stat.mode) && linkOf(union, { layer, stat })?.shown) || 0;
}
