// Removing names: unlink and rmdir. Where the base has the name, a whiteout takes its place, with the origin of
// what it hides; it is made in work/ and put there by one rename, so that there is no moment in between.

import { readNames } from '../branch/listing.ts';
import { releasing, unlinkReleasing } from '../branch/origin-store.ts';
import { noteWhiteouts, placeWhiteout } from '../branch/overlay.ts';
import { E } from '../lib/errno.ts';
import { deviceOf, isDirectory, type Stat } from '../lib/stat.ts';
import {
  AT_REMOVEDIR,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import { newRecord } from '../versions/journal.ts';
import type { Origin } from '../versions/origin.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { nameCovered } from './directory-links.ts';
import { nameHidden, nameRemoved } from './hard-links.ts';
import { severalAt } from './hidden-names.ts';
import { listDirectory } from './listing.ts';
import { ownHandle } from './locate.ts';
import { findAgain, forgetPlace, instantiate, keepFound } from './lookup.ts';
import { metacopyOf, openContent } from './metacopy.ts';
import { IN_BASE, IN_OVERLAY, NONE, type Node, WHITEOUT } from './node.ts';
import { originsOf, readOrigins, writeOrigins } from './origins.ts';
import { ensureOverlayDir, tolerate } from './overlay-dir.ts';
import { isApart } from './passthrough.ts';
import { pathAt } from './place.ts';
import { publish } from './publish.ts';
import { leavingVersion, rememberLeft } from './take.ts';
import { type Union, waitFor } from './union.ts';
import type { Version } from './version.ts';

/** Before a whiteout comes into a directory of the overlay, which is known by its node where it has one. */
export function expectWhiteout(union: Union, dirFd: number, node: Node | null): number {
  const { overlay, config } = union;
  const dir = node?.dir ?? null;
  if (dir !== null && dir.whiteoutsIn === dir.overlayIno) return 0;
  const error = tolerate(noteWhiteouts(overlay, dirFd), !config.privileged);
  // What announces those that are files depends on the directory's place.
  if (error === 0 && dir !== null && !overlay.whiteoutFiles) dir.whiteoutsIn = dir.overlayIno;
  return error;
}

/** Makes a whiteout in work/ under the given name; 0 or a negative errno. */
export function makeWhiteout(union: Union, temp: string, origin: Origin | null): number {
  const made = placeWhiteout(union.overlay, union.workFd, temp);
  if (made < 0 || origin === null) return made;
  const error = writeOrigins(union, union.workFd, temp, [origin]);
  if (error < 0) unlinkat(union.workFd, temp, 0);
  return error;
}

/** What all removals begin with: 0, or a negative errno; union.found tells of the name. */
function prepare(union: Union, parent: Node, name: string): number {
  if (union.config.readOnly) return -E.EROFS;
  if (parent.dir === null) return -E.ENOTDIR;
  const error = findAgain(union, parent, name);
  if (error < 0) return error;
  if (union.found.state !== IN_BASE && union.found.state !== IN_OVERLAY) return -E.ENOENT;
  return union.found.inBase ? ensureOverlayDir(union, parent) : 0;
}

/** UNLINK: 0, WAIT or a negative errno. */
export function unlink(union: Union, parent: Node, name: string, callerPid: number): number {
  const error = prepare(union, parent, name);
  if (error < 0) return error;
  if (isDirectory(union.found.stat.mode)) return -E.EISDIR;
  const child = instantiate(union, parent, name);
  if (typeof child === 'number') return child;
  if (child.busy) return waitFor(union, child.busy);
  const { inBase, state } = union.found;
  const dirFd = state === IN_OVERLAY || inBase ? overlayDirFd(union, parent) : -E.ENOENT;
  if (dirFd < 0) return dirFd;
  // While it has its name: by the descriptor that is kept of it an attribute costs three times as much.
  const recorded = !inBase && originsOf(union, child, union.found.stat).list.length > 0;
  if (!inBase) keepObject(union, parent, name, child);
  const removed = inBase
    ? putWhiteout(union, parent, name, dirFd, callerPid, child)
    : removeOwn(union, parent, name, dirFd, recorded);
  if (removed < 0) {
    union.table.letGoKept(child);
    return removed;
  }
  if (inBase) nameHidden(union, severalAt(union, parent, name));
  forgetPlace(union, parent, name);
  if (child.layer < 0) nameRemoved(union, child.ino);
  if (parent.dir) parent.dir.version += 1;
  union.found.state = inBase ? WHITEOUT : NONE;
  keepFound(union, parent, name);
  return 0;
}

/** What the base has not (any more); `recorded`: with an origin, so it has a record, which goes with it. */
function removeOwn(union: Union, parent: Node, name: string, dirFd: number, recorded: boolean): number {
  const path = pathAt(parent, name);
  const notes = recorded && path !== null ? [newRecord('removed', path, null, true)] : [];
  return publish(union, 'remove', notes, () => unlinkReleasing(union.overlay.origins, dirFd, name, 0));
}

/**
 * Who has it open goes on by its handle; an object that the kernel still knows keeps a descriptor of its own: the one by
 * which its content has just been read (`left`), or one that is opened.
 */
export function keepObject(
  union: Union,
  parent: Node,
  name: string,
  node: Node,
  left: Version | null = null,
): void {
  if (node.others.length > 0 || node.orphanFd >= 0 || node.lookups === 0) return;
  const copied = metacopyOf(union, node) !== null;
  if (!copied && ownHandle(node) !== undefined && !isApart(node)) return;
  if (copied && node.handles.size === 0) {
    const content = openContent(union, node);
    if (typeof content !== 'number') node.dataFd = content.fd;
  }
  const closed = copied ? -1 : union.table.takeLingering(node);
  if (closed >= 0) {
    node.orphanFd = closed;
    return;
  }
  if (left !== null && node.layer >= 0 && isReadFrom(left, union.found.baseStat)) {
    node.orphanFd = left.fd;
    left.fd = -1;
    return;
  }
  const part = node.layer < 0 ? null : parent.dir?.parts.find((one) => one.layer === node.layer);
  const dirFd = part ? partFd(union, parent, part) : overlayDirFd(union, parent);
  const fd = dirFd < 0 ? dirFd : openat(dirFd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) node.orphanFd = fd;
}

/** Whether a version's descriptor is of that object itself, and nobody has to read from it any more. */
function isReadFrom({ fd, witness, origin }: Version, stat: Stat): boolean {
  return fd >= 0 && origin.content !== '' && witness?.ino === stat.ino && witness.dev === deviceOf(stat);
}

/**
 * Puts a whiteout in place of a non-directory, told by its node, of a directory of the overlay, or of one that only the
 * base has.
 */
function putWhiteout(
  union: Union,
  parent: Node,
  name: string,
  dirFd: number,
  callerPid: number,
  what: Node | 'directory' | 'of the base',
): number {
  const directory = what === 'directory';
  const leaf = typeof what === 'string' ? null : what;
  const path = pathAt(parent, name);
  if (path === null) return -E.ENOENT;
  const noted = expectWhiteout(union, dirFd, parent);
  if (noted < 0) return noted;
  const left = leavingVersion(union, parent, name, callerPid);
  if (typeof left === 'number') return left;
  if (leaf !== null) keepObject(union, parent, name, leaf, left);
  const origin = left?.origin ?? null;
  const { origins } = union.overlay;
  const temp = union.tempName();
  const note = newRecord('whiteout', path, origin, leaf !== null);
  const made = makeWhiteout(union, temp, origin);
  const error =
    made < 0
      ? made
      : publish(union, 'whiteout', [note], () =>
          directory
            ? renameat2(union.workFd, temp, dirFd, name, RENAME_EXCHANGE)
            : releasing(origins, dirFd, name, () => renameat2(union.workFd, temp, dirFd, name, 0)),
        );
  if (made === 0 && error < 0) unlinkReleasing(origins, union.workFd, temp, 0);
  else if (made === 0 && directory) emptyAndRemove(union, temp);
  rememberLeft(union, path, left, error === 0);
  if (error === 0) union.found.origins = origin === null ? [] : [origin];
  return error;
}

/** RMDIR: 0 or a negative errno. */
export function rmdir(union: Union, parent: Node, name: string, callerPid: number): number {
  const error = prepare(union, parent, name);
  if (error < 0) return error;
  if (!isDirectory(union.found.stat.mode)) return -E.ENOTDIR;
  const node = instantiate(union, parent, name);
  if (typeof node === 'number') return node;
  const empty = isEmpty(union, node);
  if (empty !== 1) return empty === 0 ? -E.ENOTEMPTY : empty;
  const { inBase, state } = union.found;
  const dirFd = overlayDirFd(union, parent);
  const path = pathAt(parent, name);
  if (dirFd < 0 || path === null) return dirFd < 0 ? dirFd : -E.ENOENT;
  const removed =
    inBase && state === IN_BASE
      ? putWhiteout(union, parent, name, dirFd, callerPid, 'of the base')
      : inBase
        ? putWhiteout(union, parent, name, dirFd, callerPid, 'directory')
        : removeOverlayDir(union, dirFd, name, path);
  if (removed < 0) return removed;
  if (state === IN_BASE) nameCovered(union, parent);
  forgetPlace(union, parent, name);
  if (parent.dir) parent.dir.version += 1;
  return 0;
}

/** A directory of the overlay that is empty in the union: plainly, or by way of work/ if whiteouts lie in it. */
export function removeOverlayDir(union: Union, dirFd: number, name: string, path: string): number {
  const notes = [newRecord('removed', path, null)];
  const remove = () => unlinkReleasing(union.overlay.origins, dirFd, name, AT_REMOVEDIR);
  // One that the base has removed may have a record.
  const recorded = readOrigins(union, dirFd, name).length > 0;
  const plain = recorded ? publish(union, 'remove', notes, remove) : remove();
  if (plain !== -E.ENOTEMPTY && plain !== -E.EEXIST) return plain;
  const temp = union.tempName();
  const error = publish(union, 'remove', notes, () =>
    renameat2(dirFd, name, union.workFd, temp, RENAME_NOREPLACE),
  );
  return error < 0 ? error : emptyAndRemove(union, temp);
}

/** Takes away a directory in work/ that holds whiteouts at most. What is left is cleared at the next start. */
export function emptyAndRemove(union: Union, temp: string): number {
  const fd = openat(union.workFd, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const names: string[] = [];
  readNames(fd, (one) => names.push(one));
  const { origins } = union.overlay;
  for (const one of names) unlinkReleasing(origins, fd, one, 0);
  close(fd);
  const error = unlinkReleasing(origins, union.workFd, temp, AT_REMOVEDIR);
  if (error < 0) union.host.log.warn(`work/${temp}: cannot be removed (errno ${-error})`);
  return 0;
}

/** 1: nothing in it that a guest sees; 0: something; or a negative errno. */
export function isEmpty(union: Union, node: Node): number {
  const entries = listDirectory(union, node);
  return typeof entries === 'number' ? entries : entries.length === 0 ? 1 : 0;
}
