// The last step of what the reconciler decided, on the serving worker and in one go: nobody writes to the file
// (lease), both sides are what they were when the decision was computed, rename. On any difference the answer
// is EAGAIN, and the reconciler begins again.
import { metacopyAt, setMetacopy } from '../branch/metacopy.ts';
import { releasing, unlinkReleasing } from '../branch/origin-store.ts';
import { E } from '../lib/errno.ts';
import { isDirectory, isLater, isRegular, type Stat } from '../lib/stat.ts';
import {
  AT_REMOVEDIR,
  F_RDLCK,
  F_UNLCK,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RENAME_NOREPLACE,
  UTIME_OMIT,
} from '../sys/constants.ts';
import { close, ftruncate, openat, setLease } from '../sys/file.ts';
import { renameat2 } from '../sys/names.ts';
import { utimensat } from '../sys/stat.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
import { overlayDirFd } from './dir-fds.ts';
import { expireAll, expirePlace } from './expiry.ts';
import { failPoint } from './fail-point.ts';
import { nameDropped, nameInView, nameReplaced, replacedAt } from './hard-links.ts';
import { isLocked } from './locks.ts';
import { find, forgetPlace, instantiate, walk } from './lookup.ts';
import { markOf } from './mark.ts';
import { IN_OVERLAY, isOpenForWriting, NONE, type Node, WHITEOUT } from './node.ts';
import { numberIn, originFor } from './origin-list.ts';
import { baseFingerprint, readOrigins, writeOrigins } from './origins.ts';
import { ensureOverlayDir, firstError, keepingTimes } from './overlay-dir.ts';
import { originPathAt, pathAt } from './place.ts';
import { keepObject } from './remove.ts';
import { scatter } from './scatter.ts';
import type { Union } from './union.ts';

/** The overlay's object as the decision saw it. */
export interface OverlaySignature {
  ino: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

export interface CommitRequest {
  /** In the union. */
  path: string;
  /** What the overlay must have; null: no object (a whiteout does not count as one). */
  overlay: OverlaySignature | null;
  /** Hash of the base's fingerprint that the decision used, '' absent; null: it does not matter. */
  base: string | null;
  /**
   * replace: work/TEMP comes under the name; with a displacedFd displaced/TEMP does. drop: the copy goes, the base
   * shows. origins: only the origins are written. displace: the object moves to displaced/TEMP. scatter: what a
   * directory holds moves into the directory TARGET, as far as names are free there; the directory stays.
   */
  action: 'replace' | 'drop' | 'origins' | 'displace' | 'scatter';
  /** Path of a directory of the union, for `scatter`. */
  target: string;
  temp: string;
  /** Encoded origins, base64, for `origins`. */
  origins: string;
  /** Refuse (EBUSY) while somebody has the overlay's file open for writing. */
  noWriter: boolean;
  displacedFd: number;
}

export function signatureOf(stat: Stat): OverlaySignature {
  const { ino, size, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = stat;
  return { ino, size, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec };
}

export function sameSignature(a: OverlaySignature, b: OverlaySignature): boolean {
  return (
    a.ino === b.ino &&
    a.size === b.size &&
    a.mtimeSec === b.mtimeSec &&
    a.mtimeNsec === b.mtimeNsec &&
    a.ctimeSec === b.ctimeSec &&
    a.ctimeNsec === b.ctimeNsec
  );
}

/** A step that can be taken: its place, which is held, and a lease to let go of afterwards. */
interface Ready {
  request: CommitRequest;
  parent: Node;
  name: string;
  dirFd: number;
  lease: number;
}

/**
 * Takes steps together: none of them, where one cannot be taken. How many were taken, which is all unless the
 * system failed on the way; -EAGAIN a side has moved; -EBUSY somebody writes to it; another negative errno.
 */
export function commit(union: Union, requests: readonly CommitRequest[]): number {
  const ready: Ready[] = [];
  let result = 0;
  for (const request of requests) {
    const step = prepare(union, request);
    if (typeof step === 'number') {
      result = step;
      break;
    }
    ready.push(step);
  }
  if (result === 0) {
    failPoint('commit-before-rename');
    result = performAll(union, ready);
    if (result > 0) failPoint('commit-after-rename');
  }
  for (const { lease, parent } of ready) {
    union.table.letGo(parent);
    if (lease < 0) continue;
    setLease(lease, F_UNLCK);
    close(lease);
  }
  return result;
}

function performAll(union: Union, ready: readonly Ready[]): number {
  let taken = 0;
  for (const [at, { request, parent, name, dirFd }] of ready.entries()) {
    // union.found tells of the last that was prepared.
    const found = find(union, parent, name);
    const ino = request.overlay?.ino;
    // Those that have gone already count in the object's links no more.
    const names = ready.slice(at).filter(({ request: other }) => other.overlay?.ino === ino).length;
    const error = found < 0 ? found : perform(union, parent, name, dirFd, request, names);
    if (error < 0) return taken > 0 ? taken : error;
    taken += 1;
    if (taken < ready.length) failPoint('commit-between');
  }
  return taken;
}

function prepare(union: Union, request: CommitRequest): Ready | number {
  const slash = request.path.lastIndexOf('/');
  const name = request.path.slice(slash + 1);
  const parent = walk(union, slash < 0 ? '' : request.path.slice(0, slash));
  if (parent === null) return -E.EAGAIN;
  const ready = prepareAt(union, parent, name, request);
  if (typeof ready === 'number') union.table.letGo(parent);
  return ready;
}

function prepareAt(union: Union, parent: Node, name: string, request: CommitRequest): Ready | number {
  if (parent.dir === null) return -E.EAGAIN;
  const moved = checkSides(union, parent, name, request);
  if (moved < 0) return moved;
  // A device may do something when it is opened.
  const isFile = request.overlay !== null && isRegular(union.found.stat.mode);
  if (request.overlay === null) {
    const above = ensureOverlayDir(union, parent);
    if (above < 0) return above;
  }
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const lease = request.noWriter && isFile ? takeLease(dirFd, name) : -1;
  if (lease === -E.EAGAIN || lease === -E.EBUSY) return -E.EBUSY;
  return { request, parent, name, dirFd, lease };
}

function checkSides(union: Union, parent: Node, name: string, request: CommitRequest): number {
  const error = find(union, parent, name);
  if (error < 0) return error;
  const { state, stat, inBase, baseStat, part } = union.found;
  if (request.overlay === null) {
    if (state === IN_OVERLAY) return -E.EAGAIN;
  } else if (state !== IN_OVERLAY || !sameSignature(signatureOf(stat), request.overlay)) {
    return -E.EAGAIN;
  }
  const child = union.table.child(parent, name);
  if (child?.busy) return -E.EBUSY;
  // Its lease cannot tell of one that the kernel is about to open by itself.
  if (request.noWriter && child && isOpenForWriting(child)) return -E.EBUSY;
  if (request.noWriter && request.action === 'drop' && child && isLocked(child)) return -E.EBUSY;
  if (request.base === null) return 0;
  const layer = parent.dir?.parts[part]?.layer ?? 0;
  const now = inBase ? baseFingerprint(union, layer, baseStat) : '';
  return now === request.base ? 0 : -E.EAGAIN;
}

/**
 * A read lease on the overlay's file, which nobody can get while it is open for writing: a descriptor to let
 * go again; -EAGAIN: somebody writes. -1 where no lease is to be had (no right, no support).
 */
function takeLease(dirFd: number, name: string): number {
  const fd = openat(dirFd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return -1;
  const error = setLease(fd, F_RDLCK);
  if (error === 0) return fd;
  close(fd);
  return error === -E.EAGAIN || error === -E.EBUSY ? error : -1;
}

function perform(
  union: Union,
  parent: Node,
  name: string,
  dirFd: number,
  request: CommitRequest,
  /** How many names of the overlay's object are acted upon from now on. */
  names: number,
): number {
  const { action, overlay, temp } = request;
  if (action === 'origins') {
    const list = decodeOrigins(Buffer.from(request.origins, 'base64'));
    if (list === null) return -E.EINVAL;
    const followed = followContent(union, parent, dirFd, name, list);
    const written = followed < 0 ? followed : writeOrigins(union, dirFd, name, list);
    if (written === 0) nameReplaced(union, replacedAt(union, parent, name), dirFd);
    expirePlace(union, parent, name, false);
    return written;
  }
  if (action === 'scatter') {
    const scattered = scatter(union, parent, name, request.target);
    expireAll(union);
    return scattered;
  }
  const child = union.table.child(parent, name) ?? null;
  if (child !== null && child.dir === null) keepObject(union, parent, name, child);
  const replaced = overlay === null ? null : replacedAt(union, parent, name);
  const whiteout = overlay === null && union.found.state === WHITEOUT;
  const { origins } = union.overlay;
  let error: number;
  if (action === 'replace') {
    const flags = overlay === null && !whiteout ? RENAME_NOREPLACE : 0;
    const from = request.displacedFd >= 0 ? request.displacedFd : union.workFd;
    const put = () => renameat2(from, temp, dirFd, name, flags);
    error = keepingTimes(dirFd, () => (flags === 0 ? releasing(origins, dirFd, name, put) : put()));
  } else if (action === 'displace') {
    error = renameat2(dirFd, name, request.displacedFd, temp, RENAME_NOREPLACE);
  } else {
    const remove = () => removeObject(union, dirFd, name);
    error = keepingTimes(dirFd, () => leaving(union, parent, name, dirFd, names, remove));
  }
  if (error < 0) {
    if (child !== null) union.table.letGoKept(child);
    return error;
  }
  if (action === 'replace') noteNumbers(union, dirFd, name);
  if (replaced !== null && action === 'replace') nameReplaced(union, replaced, dirFd);
  else if (replaced !== null) nameDropped(union, replaced);
  if (action === 'drop') nameInView(union, parent, name);
  union.covered.delete(parent);
  if (parent.dir) parent.dir.version += 1;
  showAnew(union, parent, name, child);
  tell(union, parent, name, child);
  return 0;
}

/** What came to a name shows the number of what was there: that is nobody else's. */
function noteNumbers(union: Union, dirFd: number, name: string): void {
  for (const { ino, path } of readOrigins(union, dirFd, name)) {
    if (ino !== 0 && !union.numbers.has(ino)) union.numbers.set(ino, path);
  }
}

/**
 * Takes a name from a copy, and the origin with it. If the copy has others it goes on showing its number there, and the
 * base's file, which shows under the name from now on, has another one.
 */
function leaving(
  union: Union,
  parent: Node,
  name: string,
  dirFd: number,
  names: number,
  remove: () => number,
): number {
  const { ino, nlink, mode } = union.found.stat;
  const others = nlink - names - (union.hardLinks.of(ino) === undefined ? 0 : 1);
  if (isDirectory(mode) || others < 1) return remove();
  const list = readOrigins(union, dirFd, name);
  const number = numberIn(list);
  const fd = openat(dirFd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  const error = remove();
  const path = originPathAt(parent, name);
  if (error === 0 && number !== 0) {
    union.numbers.set(number, '');
    const left = path === null ? list : list.filter((one) => one !== originFor(list, path));
    if (fd >= 0 && left.some((one) => one.ino === number)) writeOrigins(union, fd, '', left);
  }
  if (fd >= 0) close(fd);
  return error;
}

/** -EAGAIN: a directory is not empty by now. */
function removeObject(union: Union, dirFd: number, name: string): number {
  const flags = isDirectory(union.found.stat.mode) ? AT_REMOVEDIR : 0;
  const error = unlinkReleasing(union.overlay.origins, dirFd, name, flags);
  return error === -E.ENOTEMPTY || error === -E.EEXIST ? -E.EAGAIN : error;
}

/** Also who has what was there before: it has a name less. */
function tell(union: Union, parent: Node, name: string, child: Node | null): void {
  union.kernel.expire(parent, name);
  if (child !== null && child.handles.size > 0) union.kernel.renamed(child);
  else if (child !== null) union.kernel.changed(child, true);
  union.kernel.changed(parent, true);
  const path = pathAt(parent, name);
  if (path !== null) union.announcements.noteOwn(path, child ?? undefined);
}

/**
 * A copy of metadata alone has another version of the base for content from now on: for who reads the overlay
 * without Kasane its size is that one's, and its mtime not older. A digest that it may carry was another's.
 */
function followContent(
  union: Union,
  parent: Node,
  dirFd: number,
  name: string,
  origins: readonly Origin[],
): number {
  const { state, stat, inBase, baseStat } = union.found;
  const basePath = originPathAt(parent, name);
  if (state !== IN_OVERLAY || !inBase || !isRegular(stat.mode) || !isRegular(baseStat.mode)) return 0;
  if (basePath === null || metacopyAt(union.overlay, dirFd, name)?.redirect !== null) return 0;
  const before = originFor(readOrigins(union, dirFd, name), basePath);
  const now = originFor(origins, basePath);
  if (before === null || now === null || before.fingerprint === now.fingerprint) return 0;
  const { mtimeSec, mtimeNsec } = stat;
  const later = isLater(baseStat.mtimeSec, baseStat.mtimeNsec, mtimeSec, mtimeNsec);
  const times = later ? baseStat : stat;
  const fd = openat(dirFd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return fd;
  const error =
    firstError(
      () => (stat.size === baseStat.size ? 0 : ftruncate(fd, baseStat.size)),
      () => utimensat(fd, '', 0, UTIME_OMIT, times.mtimeSec, times.mtimeNsec),
      () => setMetacopy(union.overlay, fd, ''),
    ) ?? 0;
  close(fd);
  return error;
}

/**
 * The name shows another object. The node (and what is mounted on it) stays, unless somebody has it open: who
 * has keeps the bytes that were there.
 */
function showAnew(union: Union, parent: Node, name: string, child: Node | null): void {
  const { identity } = union.table;
  if (child === null && identity === null) return;
  const error = find(union, parent, name);
  const { state, stat } = union.found;
  if (error < 0 || state === NONE || state === WHITEOUT) {
    forgetPlace(union, parent, name);
    return;
  }
  const shown = { ...stat, dir: null, layer: state === IN_OVERLAY ? -1 : 0 };
  identity?.replaced({ parent: parent.id, name, mark: markOf(shown, parent, name) });
  if (child === null) return;
  if (child.dir !== null || child.handles.size > 0 || child.others.length > 0) {
    union.table.leave(child, parent, name);
    return;
  }
  union.table.letGoKept(child);
  instantiate(union, parent, name);
}
