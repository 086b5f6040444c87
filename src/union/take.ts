// Taking a name that the base has, or had: whatever comes there (renamed over it, created after unlink, linked)
// has that name's origin, which is the version that the writer had seen (rules 1, 2, 4 and 5 of
// native-notes/versioning.md). The hash of that version is read by a job before the name is taken.
import { readXattrs } from '../branch/copy.ts';
import { E } from '../lib/errno.ts';
import { hash128 } from '../lib/hash.ts';
import { isDirectory, isRegular, isSymlink, newStat } from '../lib/stat.ts';
import { isIgnored, mergeable } from '../merge/policy.ts';
import { O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { readlinkat } from '../sys/names.ts';
import { newRecord } from '../versions/journal.ts';
import type { Origin } from '../versions/origin.ts';
import { learnAtOnce } from './at-once.ts';
import { openBaseFile, topOf } from './base-content.ts';
import { copyUpSet } from './copy-up.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { expireNode } from './expiry.ts';
import { locate } from './locate.ts';
import { find, findAgain } from './lookup.ts';
import { type DirPart, IN_BASE, IN_OVERLAY, type Node, WHITEOUT } from './node.ts';
import { newOrigin, originFor, originWith } from './origin-list.ts';
import { baseFingerprint, readOrigins, writeOrigins } from './origins.ts';
import { isWrittenUnseen } from './passthrough.ts';
import { originPathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import type { Seen } from './seen.ts';
import { type Union, waitFor } from './union.ts';
import { fromSeen, rememberContent, type Version, withoutFd } from './version.ts';
import { witnessOf } from './witness.ts';
import { hashXattrs } from './xattr-set.ts';

/** What is created over a whiteout so soon continues its origin; later it is an addition of the guest's. */
const CONTINUES_SECONDS = 86_400;

/** Result of takeName: the origin for the new object, null when the name is the guest's alone. */
export interface Taken {
  origin: Origin | null;
}

/**
 * Finds the origin of what is about to come to a place; 0, or WAIT while its content is read (and `synced`,
 * the new file, is written to the disk), or a negative errno. union.found tells of the place afterwards.
 */
export function takeName(
  union: Union,
  parent: Node,
  name: string,
  callerPid: number,
  synced: Node | null,
  out: Taken,
): number {
  out.origin = null;
  let error = findAgain(union, parent, name);
  if (error < 0) return error;
  const basePath = originPathAt(parent, name);
  if (basePath === null) return 0;
  if (union.found.inBase) {
    const set = copyUpSet(union, parent, name, callerPid);
    if (set < 0) return set;
    error = set === 0 ? 0 : find(union, parent, name);
    if (error < 0) return error;
  }
  const path = pathAt(parent, name) ?? name;
  // Of what is the guest's own whatever the base does, nobody asks what the base had there: a cache may be large.
  const found = versionFor(union, parent, name, basePath, callerPid, isIgnored(path) === null);
  if (typeof found === 'number') return found;
  if (found === null) return 0;
  const version = learnAtOnce(union, path, found);
  const { origin, fd: baseFd } = version;
  const mustSync =
    union.found.inBase && synced !== null && !isSynced(union, synced) && !union.config.volatile;
  const syncFd = mustSync ? openForSync(union, synced) : -1;
  if (baseFd < 0 && syncFd < 0) {
    out.origin = origin;
    return 0;
  }
  return learn(union, path, version, syncFd, () => {
    if (syncFd >= 0 && synced) synced.dataSynced = true;
  });
}

/** Whether all that was written is on the disk. Of what is written past us that was so at the sync, and is no more. */
function isSynced(union: Union, node: Node): boolean {
  const { dataSynced } = node;
  if (dataSynced && isWrittenUnseen(union, node)) node.dataSynced = false;
  return dataSynced;
}

/** Has the content of a version read by a job: WAIT. */
function learn(union: Union, path: string, version: Version, syncFd: number, then: () => void): number {
  const { origin, fd: baseFd, witness } = version;
  const { osTree } = union.config;
  const work = union.host.startJob({ kind: 'take', baseFd, witness, path, syncFd, osTree }, (done) => {
    if (done.result < 0) return done.result;
    if (baseFd >= 0) rememberContent(union, origin.fingerprint, done.content);
    then();
    return 0;
  });
  return waitFor(union, work);
}

/** The overlay's file, for a sync of its data; -1 for what has none. */
function openForSync(union: Union, node: Node): number {
  if (node.dir !== null || node.layer >= 0) return -1;
  const at = locate(union, node);
  if (typeof at === 'number') return -1;
  const fd = at.name === '' ? reopen(at.dirFd, O_RDONLY) : openat(at.dirFd, at.name, O_RDONLY | O_NONBLOCK);
  return fd < 0 ? -1 : fd;
}

/**
 * What a whiteout holds of the name in union.found, which is about to go; null: nothing. Of what policy would merge
 * it has the content, for an update may meet it: at once, or by `rememberLeft`, which lets go of its descriptor.
 */
export function leavingVersion(
  union: Union,
  parent: Node,
  name: string,
  callerPid: number,
): Version | null | number {
  const basePath = originPathAt(parent, name);
  if (basePath === null) return null;
  const path = pathAt(parent, name);
  const { inBase, baseStat } = union.found;
  const wanted = path !== null && inBase && mergeable(path, union.config.osTree, baseStat.size);
  let version = versionFor(union, parent, name, basePath, callerPid, wanted);
  // The guest's own, beneath which the base has something, too: from now on that is what is hidden.
  if (version === null && inBase) version = fromBase(union, parent, name, basePath, wanted);
  if (version === null || typeof version === 'number') return version;
  version.origin.taken = Math.floor(Date.now() / 1000);
  if (wanted) return learnAtOnce(union, path, version, true);
  if (version.fd >= 0) close(version.fd);
  return withoutFd(version.origin);
}

/** The name has gone: a content that is not known yet is hashed in the background. Else it is let go of. */
export function rememberLeft(union: Union, path: string | null, left: Version | null, gone: boolean): void {
  if (left === null || left.fd < 0) return;
  const { origin, fd, witness } = left;
  const unknown = gone && path !== null && witness !== null && origin.content === '';
  if (unknown) union.host.remember(path, origin.fingerprint, fd, witness);
  else close(fd);
}

function versionFor(
  union: Union,
  parent: Node,
  name: string,
  basePath: string,
  callerPid: number,
  /** The content, too. */
  wholly: boolean,
): Version | null | number {
  const { state, inBase, baseStat } = union.found;
  const kept = state === WHITEOUT || state === IN_OVERLAY ? originAt(union, parent, name, basePath) : null;
  if (typeof kept === 'number') return kept;
  // The guest's own name, that the base has added too: an ancestor there is none, and none is made up.
  if (kept === null && state === IN_OVERLAY) return null;
  const fresh = state === IN_OVERLAY || Date.now() / 1000 - (kept?.taken ?? 0) < CONTINUES_SECONDS;
  const before = fresh ? kept : null;
  // Who removes or renames a directory knows it for one, whatever file of that name anybody has read; not who makes
  // something where it is hidden.
  const leavesDirectory = isDirectory(before?.mode ?? (inBase && state === IN_BASE ? baseStat.mode : 0));
  const seen = leavesDirectory ? null : union.seen.of(basePath, callerPid);
  const older = seen !== null && (before === null || isOlder(union, basePath, seen, before));
  if (before !== null && !older) {
    if (!inBase || before.content !== '') return withoutFd(originWith(before, 0, before.content));
    const now = fromBase(union, parent, name, basePath, wholly);
    if (typeof now === 'number') return now;
    if (now.origin.fingerprint === before.fingerprint) {
      now.origin = originWith(before, 0, now.origin.content);
      return now;
    }
    if (now.fd >= 0) close(now.fd);
    return withoutFd(originWith(before, 0, union.contents.get(before.fingerprint) ?? ''));
  }
  if (before !== null && older) return fromSeen(union, basePath, seen);
  if (!inBase) return null;
  const now = fromBase(union, parent, name, basePath, wholly);
  if (typeof now === 'number') return now;
  if (!older || state === WHITEOUT || seen.fingerprint === now.origin.fingerprint) return now;
  if (now.fd >= 0) close(now.fd);
  return fromSeen(union, basePath, seen);
}

/** What was undone stays so, whatever the writer has read: the pin lies in the origin. */
function isOlder(union: Union, basePath: string, seen: Seen, before: Origin): boolean {
  return before.pin === null && union.seen.isOlder(basePath, seen, before.fingerprint);
}

function originAt(union: Union, parent: Node, name: string, basePath: string): Origin | null | number {
  const fd = overlayDirFd(union, parent);
  if (fd < 0) return fd;
  return originFor(union.found.origins ?? readOrigins(union, fd, name), basePath);
}

/** A base file that cannot be opened has a content that nobody knows; anything else is an error. */
const unreadable: readonly number[] = [-E.EACCES, -E.EPERM, -E.ENOENT, -E.ENODATA];

/** What the base has now at the place in union.found, which it has. */
function fromBase(
  union: Union,
  parent: Node,
  name: string,
  basePath: string,
  wholly: boolean,
): Version | number {
  const part = parent.dir?.parts[union.found.part] as DirPart;
  const partDir = partFd(union, parent, part);
  if (partDir < 0) return partDir;
  const { baseStat } = union.found;
  const readStat = newStat();
  const opened =
    wholly && isRegular(baseStat.mode)
      ? openBaseFile(union, parent, union.found.part, name, readStat)
      : -E.ENOENT;
  if (typeof opened === 'number' && !unreadable.includes(opened)) return opened;
  const file = typeof opened === 'number' ? null : opened;
  const fd = file?.fd ?? -1;
  // The name may lead to another version by now; the descriptor is what is read.
  const stat = file === null ? baseStat : readStat;
  const origin = newOrigin(basePath, stat, baseFingerprint(union, part.layer, stat), '');
  origin.xattrs = hashXattrs(file === null ? readXattrs(partDir, name) : readXattrs(topOf(file), ''));
  if (file !== null && file.topFd >= 0) close(file.topFd);
  if (isSymlink(stat.mode)) {
    const target = readlinkat(partDir, name);
    if (typeof target === 'string') origin.content = hash128(Buffer.from(target, 'latin1'));
  }
  const cached = union.contents.get(origin.fingerprint);
  if (fd < 0 || cached === undefined) return { origin, fd, witness: file?.witness ?? witnessOf(stat) };
  close(fd);
  origin.content = cached;
  return withoutFd(origin);
}

/**
 * Before a copy is written to: a writer who has read an older version than its origin sets the origin back to
 * that, so that what came between is merged and not reverted. `reads`: it will read what is there now, so what
 * others have read says nothing. 0, WAIT or a negative errno; `out` tells what the origin was before.
 */
export function ageOrigin(union: Union, node: Node, callerPid: number, reads: boolean, out: Taken): number {
  const place = node.place;
  if (!place || node.layer >= 0) return 0;
  const path = pathAt(place.parent, place.name);
  const basePath = originPathAt(place.parent, place.name);
  if (path === null || basePath === null) return 0;
  const seen = reads ? union.seen.by(basePath, callerPid) : union.seen.of(basePath, callerPid);
  if (seen === null) return 0;
  const error = find(union, place.parent, place.name);
  if (error < 0 || union.found.state !== IN_OVERLAY || union.found.stat.ino !== node.ino) return 0;
  const dirFd = overlayDirFd(union, place.parent);
  if (dirFd < 0) return dirFd;
  const list = readOrigins(union, dirFd, place.name);
  const before = originFor(list, basePath);
  if (before === null || !isOlder(union, basePath, seen, before)) return 0;
  const version = fromSeen(union, basePath, seen);
  if (version.fd >= 0) return learn(union, path, version, -1, () => {});
  out.origin = before;
  const origin = { ...version.origin, ino: before.ino };
  // It is stale by this, which the next look-up has to notice.
  expireNode(union, node, false);
  return publish(union, 'age', [newRecord('taken', path, origin)], () =>
    writeOrigins(union, dirFd, place.name, [...list.filter((one) => one.path !== origin.path), origin]),
  );
}
