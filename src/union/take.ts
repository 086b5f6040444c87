// Taking a name that the base has, or had: whatever comes there (renamed over it, created after unlink, linked)
// has that name's origin, which is the version that the writer had seen (rules 1, 2, 4 and 5 of
// native-notes/versioning.md). The hash of that version is read by a job before the name is taken.
import { E } from '../lib/errno.ts';
import { hash128 } from '../lib/hash.ts';
import { isRegular, isSymlink } from '../lib/stat.ts';
import { O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { readlinkat } from '../sys/names.ts';
import type { Origin } from '../versions/origin.ts';
import { copyUpSet, openSource } from './copy-up.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { locate } from './locate.ts';
import { find } from './lookup.ts';
import { type DirPart, IN_OVERLAY, type Node, WHITEOUT } from './node.ts';
import { newOrigin, originFor } from './origin-list.ts';
import { baseFingerprint, readOrigins, writeOrigins } from './origins.ts';
import { basePathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import type { Seen } from './seen.ts';
import { type Union, waitFor } from './union.ts';

/** What is created over a whiteout so soon continues its origin; later it is an addition of the guest's. */
const CONTINUES_SECONDS = 86_400;

/** Result of takeName: the origin for the new object, null when the name is the guest's alone. */
export interface Taken {
  origin: Origin | null;
}

/** Fingerprint and content of the version that counts, as far as known. */
interface Version {
  origin: Origin;
  /** To read the content from; -1: it is known, or cannot be had. The caller closes it if `owned`. */
  fd: number;
  owned: boolean;
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
  let error = find(union, parent, name);
  if (error < 0) return error;
  const basePath = basePathAt(parent, name);
  if (basePath === null) return 0;
  if (union.found.inBase) {
    const set = copyUpSet(union, parent, name, callerPid);
    if (set < 0) return set;
    error = find(union, parent, name);
    if (error < 0) return error;
  }
  const version = versionFor(union, parent, name, basePath, callerPid, true);
  if (typeof version === 'number') return version;
  if (version === null) return 0;
  const { origin } = version;
  const baseFd = origin.content === '' ? version.fd : -1;
  const mustSync = union.found.inBase && synced !== null && !synced.dataSynced && !union.config.volatile;
  const syncFd = mustSync ? openForSync(union, synced) : -1;
  if (baseFd < 0 && syncFd < 0) {
    if (version.owned && version.fd >= 0) close(version.fd);
    out.origin = origin;
    return 0;
  }
  const work = union.host.startJob(
    {
      kind: 'take',
      baseFd,
      closeBase: version.owned,
      path: pathAt(parent, name) ?? name,
      syncFd,
      osTree: union.config.osTree,
    },
    (done) => {
      if (done.result < 0) return done.result;
      if (syncFd >= 0 && synced) synced.dataSynced = true;
      // What cannot be read is 'unknown', which is remembered too, or the request would ask for ever.
      if (baseFd >= 0) remember(union, origin.fingerprint, done.content === '' ? '-' : done.content);
      return 0;
    },
  );
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

function remember(union: Union, fingerprint: string, content: string): void {
  union.contents.set(fingerprint, content);
  if (union.contents.size <= 4096) return;
  const [oldest] = union.contents.keys();
  if (oldest !== undefined) union.contents.delete(oldest);
}

/** Hash of a version's content as an origin holds it: '' where it is not known. */
function known(content: string): string {
  return content === '-' ? '' : content;
}

/** The origin that a whiteout gets when the name in union.found is removed; null: it has none. */
export function leavingOrigin(
  union: Union,
  parent: Node,
  name: string,
  callerPid: number,
): Origin | null | number {
  const basePath = basePathAt(parent, name);
  if (basePath === null) return null;
  const version = versionFor(union, parent, name, basePath, callerPid, false);
  if (version === null || typeof version === 'number') return version;
  return { ...version.origin, taken: Math.floor(Date.now() / 1000) };
}

function versionFor(
  union: Union,
  parent: Node,
  name: string,
  basePath: string,
  callerPid: number,
  withContent: boolean,
): Version | null | number {
  const { state, inBase } = union.found;
  const path = pathAt(parent, name) ?? basePath;
  const seen = union.seen.of(path, callerPid);
  if (state === WHITEOUT || state === IN_OVERLAY) {
    const fd = overlayDirFd(union, parent);
    if (fd < 0) return fd;
    const before = originFor(readOrigins(union, fd, name), basePath);
    if (before !== null) {
      const fresh = state === IN_OVERLAY || Date.now() / 1000 - before.taken < CONTINUES_SECONDS;
      if (fresh && seen !== null && union.seen.isOlder(path, seen, before.fingerprint)) {
        return fromSeen(union, basePath, seen);
      }
      if (fresh) return { origin: { ...before, ino: 0 }, fd: -1, owned: false };
    }
  }
  if (!inBase) return null;
  const { baseStat } = union.found;
  const part = parent.dir?.parts[union.found.part] as DirPart;
  const fingerprint = baseFingerprint(union, part.layer, baseStat);
  if (seen !== null && seen.fingerprint !== fingerprint && state !== WHITEOUT) {
    return fromSeen(union, basePath, seen);
  }
  const origin = newOrigin(basePath, baseStat, fingerprint, '');
  const partDir = partFd(union, parent, part);
  if (partDir < 0) return partDir;
  if (isSymlink(baseStat.mode)) {
    const target = readlinkat(partDir, name);
    if (typeof target === 'string') origin.content = hash128(Buffer.from(target, 'latin1'));
    return { origin, fd: -1, owned: false };
  }
  const cached = union.contents.get(fingerprint);
  if (!withContent || !isRegular(baseStat.mode) || cached !== undefined) {
    origin.content = known(cached ?? '');
    return { origin, fd: -1, owned: false };
  }
  const fd = openSource(partDir, name);
  if (fd < 0 && fd !== -E.EACCES && fd !== -E.ENOENT) return fd;
  return { origin, fd: fd < 0 ? -1 : fd, owned: fd >= 0 };
}

function fromSeen(union: Union, basePath: string, seen: Seen): Version {
  const content = seen.content || known(union.contents.get(seen.fingerprint) ?? '');
  const origin: Origin = {
    ...newOrigin(
      basePath,
      { ...union.found.baseStat, mode: seen.mode, uid: seen.uid, gid: seen.gid },
      seen.fingerprint,
      content,
    ),
  };
  const asked = union.contents.has(seen.fingerprint);
  return { origin, fd: content === '' && !asked ? seen.fd : -1, owned: false };
}

/**
 * Before a copy is written to: a writer who has read an older version than its origin sets the origin back to
 * that, so that what came between is merged and not reverted. 0, WAIT or a negative errno.
 */
export function ageOrigin(union: Union, node: Node, callerPid: number): number {
  const place = node.names[0];
  if (!place || node.layer >= 0 || (place.parent.dir?.parts.length ?? 0) === 0) return 0;
  const path = pathAt(place.parent, place.name);
  const basePath = basePathAt(place.parent, place.name);
  if (path === null || basePath === null) return 0;
  const seen = union.seen.of(path, callerPid);
  if (seen === null) return 0;
  const error = find(union, place.parent, place.name);
  if (error < 0 || union.found.state !== IN_OVERLAY || union.found.stat.ino !== node.ino) return 0;
  const dirFd = overlayDirFd(union, place.parent);
  if (dirFd < 0) return dirFd;
  const list = readOrigins(union, dirFd, place.name);
  const before = originFor(list, basePath);
  if (before === null || !union.seen.isOlder(path, seen, before.fingerprint)) return 0;
  const version = fromSeen(union, basePath, seen);
  if (version.fd >= 0) {
    const fingerprint = version.origin.fingerprint;
    const job = {
      kind: 'take',
      baseFd: version.fd,
      closeBase: false,
      path,
      syncFd: -1,
      osTree: union.config.osTree,
    } as const;
    const finished = (done: { result: number; content: string }) => {
      remember(union, fingerprint, done.content === '' ? '-' : done.content);
      return done.result;
    };
    return waitFor(union, union.host.startJob(job, finished));
  }
  const origin = { ...version.origin, ino: before.ino };
  return publish(union, 'age', [{ kind: 'taken', path, time: Date.now(), origin }], () =>
    writeOrigins(union, dirFd, place.name, [...list.filter((one) => one.path !== origin.path), origin]),
  );
}
