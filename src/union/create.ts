// Making new objects: files, directories, devices, symlinks, hard links. Where neither branch has the name they
// are made in place; where a whiteout lies, or the base has the name beneath an opaque directory, they are made
// in work/, given their origin, and renamed over the whiteout.
import { inheritAcl } from '../branch/acl.ts';
import { releasing, unlinkReleasing } from '../branch/origin-store.ts';
import { setImpure, setOpaque } from '../branch/overlay.ts';
import { OPAQUE_MARK } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import {
  isDirectory,
  newStat,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
} from '../lib/stat.ts';
import {
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_ACCMODE,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_TMPFILE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { linkat, linkFd, mkdirat, mknodat, renameat2, symlinkat, unlinkat } from '../sys/names.ts';
import { fchmodat, fchownat, fstat, statx } from '../sys/stat.ts';
import { getxattr, setxattr } from '../sys/xattr.ts';
import { newRecord } from '../versions/journal.ts';
import type { Origin } from '../versions/origin.ts';
import { asCaller, type Caller } from './caller.ts';
import { copyUp } from './copy-up.ts';
import { overlayDirFd } from './dir-fds.ts';
import { expireNode } from './expiry.ts';
import { objectIno, overlayIno } from './identity.ts';
import { locate, statNode } from './locate.ts';
import { fillEntry, instantiate, keepFound } from './lookup.ts';
import {
  type Found,
  type Handle,
  IN_BASE,
  IN_OVERLAY,
  livingNode,
  NONE,
  type Node,
  ROOT_ID,
  WHITEOUT,
} from './node.ts';
import { noteMade, originsOf, writeOrigins } from './origins.ts';
import { ensureOverlayDir, firstError, tolerate } from './overlay-dir.ts';
import { handOver, newHandle } from './passthrough.ts';
import { isControlName, pathAt } from './place.ts';
import { publish } from './publish.ts';
import { type Taken, takeName } from './take.ts';
import type { Union } from './union.ts';
import { keepsNames } from './validity.ts';

export interface NewObject {
  /** st_mode: type and permission bits, before the umask. */
  mode: number;
  rdevMajor: number;
  rdevMinor: number;
  /** Of a symlink. */
  target: string;
  /** Open flags; of a file that is to be open at once. */
  flags: number;
}

export function newObject(mode: number, more: Partial<NewObject> = {}): NewObject {
  return { mode, rdevMajor: 0, rdevMinor: 0, target: '', flags: 0, ...more };
}

/** Checks and prepares a place for something new; 0, WAIT, or a negative errno (EEXIST, EROFS …). */
export function preparePlace(
  union: Union,
  parent: Node,
  name: string,
  callerPid: number,
  synced: Node | null,
  taken: Taken,
): number {
  if (union.config.readOnly) return -E.EROFS;
  if (parent.dir === null) return -E.ENOTDIR;
  if (isControlName(parent.id, name)) return -E.EEXIST;
  if (name === OPAQUE_MARK) return -E.EPERM;
  if (parent.id !== ROOT_ID && parent.place === null) return -E.ENOENT;
  const above = ensureOverlayDir(union, parent);
  if (above < 0) return above;
  return takeName(union, parent, name, callerPid, synced, taken);
}

/** Descriptor of a file that was made open, for the handle; -1 else. */
interface Opened {
  fd: number;
}

/** MKNOD, MKDIR, SYMLINK: fills union.entry; 0, WAIT or a negative errno. */
export function makeObject(
  union: Union,
  parent: Node,
  name: string,
  object: NewObject,
  caller: Caller,
): number {
  // A whiteout is not for guests to make.
  if ((object.mode & S_IFMT) === S_IFCHR && object.rdevMajor === 0 && object.rdevMinor === 0) return -E.EPERM;
  const opened: Opened = { fd: -1 };
  const error = make(union, parent, name, object, caller, opened);
  if (opened.fd >= 0) close(opened.fd);
  return error < 0 ? error : 0;
}

/** CREATE: as makeObject, and opens it. Returns the handle, or a negative errno or WAIT. */
export function createFile(
  union: Union,
  parent: Node,
  name: string,
  object: NewObject,
  caller: Caller,
): Handle | number {
  const opened: Opened = { fd: -1 };
  const error = make(union, parent, name, object, caller, opened);
  if (error < 0) {
    if (opened.fd >= 0) close(opened.fd);
    return error;
  }
  return handleOfNew(union, opened.fd, object);
}

/** A handle for what is in union.entry and open as `fd`: for reading, where the kernel is to have it. */
function handleOfNew(union: Union, fd: number, object: NewObject): Handle | number {
  const { node, stat } = union.entry;
  const { flags } = object;
  const own = union.passthrough ? handOver(union, node, { fd, layer: -1 }, flags & O_ACCMODE, stat) : fd;
  return own < 0 ? own : newHandle(union, node, { fd: own, layer: -1 }, flags, stat.mode);
}

/** Flags to open what is being made. */
function flagsForNew(union: Union, flags: number): number {
  return union.passthrough ? flags & O_DIRECT : flags & O_ACCMODE;
}

/** TMPFILE: an open file without a name, in the directory's overlay. A handle, or a negative errno. */
export function createUnnamed(
  union: Union,
  parent: Node,
  object: NewObject,
  caller: Caller,
): Handle | number {
  if (union.config.readOnly) return -E.EROFS;
  const above = ensureOverlayDir(union, parent);
  if (above < 0) return above;
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const access = object.flags & O_ACCMODE;
  // Without O_EXCL it may be given a name later.
  const flags = access | (object.flags & O_EXCL) | O_TMPFILE | O_CLOEXEC;
  const fd = asCaller(caller, union.config.actsForOthers, () =>
    openat(dirFd, '.', flags, object.mode & 0o7777),
  );
  if (fd < 0) return fd;
  const { stat } = union.entry;
  const error = fstat(fd, stat);
  if (error < 0) {
    close(fd);
    return error;
  }
  const node = union.table.createUnnamed(S_IFREG);
  union.table.show(node, -1, stat);
  fillEntry(union, node, stat);
  // One without a name can only be made for writing, too.
  const forReading = union.passthrough ? reopen(fd, O_RDONLY | (object.flags & O_DIRECT)) : fd;
  if (forReading !== fd) close(fd);
  return forReading < 0 ? forReading : handleOfNew(union, forReading, object);
}

function make(
  union: Union,
  parent: Node,
  name: string,
  object: NewObject,
  caller: Caller,
  opened: Opened,
): number {
  const taken: Taken = { origin: null };
  const prepared = preparePlace(union, parent, name, caller.pid, null, taken);
  if (prepared < 0) return prepared;
  const { state } = union.found;
  if (state === IN_BASE || state === IN_OVERLAY) return -E.EEXIST;
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const hidesDirectory = mustHide(union.found);
  const direct = state === NONE && taken.origin === null && !(hidesDirectory && isDirectory(object.mode));
  const path = pathAt(parent, name);
  if (path === null) return -E.ENOENT;
  const origin =
    taken.origin !== null && isTaken(isDirectory(object.mode), taken.origin) ? taken.origin : null;
  const error = direct
    ? makeAt(union, dirFd, name, object, caller, opened)
    : makeOver(
        union,
        { dirFd, name, path, whiteout: state === WHITEOUT, hidesDirectory },
        object,
        caller,
        origin,
        opened,
      );
  if (error < 0) return error;
  const shown = showNew(union, parent, name, dirFd, origin);
  if (shown === 0) keepFound(union, parent, name);
  union.entry.keepName = direct && shown === 0 && keepsNames(union, parent);
  return shown;
}

/**
 * The node of what has just come to a place of the overlay; fills union.entry. `made`: the origin that it was made with
 * a moment ago, if any, so it need not be asked; undefined: it is another name of what is in the table.
 */
function showNew(
  union: Union,
  parent: Node,
  name: string,
  dirFd: number,
  made: Origin | null | undefined,
): number {
  const { found } = union;
  if (parent.dir) parent.dir.version += 1;
  const error = statx(dirFd, name, AT_SYMLINK_NOFOLLOW, found.stat);
  if (error < 0) return error;
  found.state = IN_OVERLAY;
  found.origins = null;
  // A new object never gets the id of what was there before.
  if (made !== undefined) union.table.identity?.vacate({ parent: parent.id, name });
  const node = instantiate(union, parent, name);
  if (typeof node === 'number') return node;
  if (made !== undefined) noteMade(union, node, found.stat, made);
  return fillEntry(union, node, found.stat);
}

/** Makes the object under a name of a directory; owner, umask, setgid and default ACL are the kernel's work. */
function makeAt(
  union: Union,
  dirFd: number,
  name: string,
  object: NewObject,
  caller: Caller,
  opened: Opened,
): number {
  return asCaller(caller, union.config.actsForOthers, () => {
    switch (object.mode & S_IFMT) {
      case S_IFREG: {
        const flags = flagsForNew(union, object.flags) | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
        const fd = openat(dirFd, name, flags, object.mode & 0o7777);
        if (fd < 0) return fd;
        opened.fd = fd;
        return 0;
      }
      case S_IFDIR:
        return mkdirat(dirFd, name, object.mode & 0o7777);
      case S_IFLNK:
        return symlinkat(object.target, dirFd, name);
      default:
        return mknodat(dirFd, name, object.mode, object.rdevMajor, object.rdevMinor);
    }
  });
}

/**
 * Whether a directory of the guest's that comes to a place hides what the base has there: a directory, or where it has
 * removed its own since the guest did, whatever it puts there again.
 */
export function mustHide({ state, inBase, baseStat }: Found): boolean {
  return inBase ? isDirectory(baseStat.mode) : state === WHITEOUT;
}

/** In work/, then over the whiteout: with the attributes that it would have got in the directory. */
function makeOver(
  union: Union,
  at: TakenPlace & { hidesDirectory: boolean },
  object: NewObject,
  caller: Caller,
  origin: Origin | null,
  opened: Opened,
): number {
  const { dirFd, hidesDirectory } = at;
  const temp = union.tempName();
  const error = makeAt(union, union.workFd, temp, object, caller, opened);
  if (error < 0) return error;
  const isDir = isDirectory(object.mode);
  const hides = isDir && hidesDirectory;
  const failed =
    firstError(
      () => inherit(union, dirFd, temp, object, caller),
      () => (hides ? setOpaque(union.overlay, union.workFd, temp) : 0),
      () => (origin ? writeOrigins(union, union.workFd, temp, [origin]) : 0),
      () => publishOver(union, 'create', temp, at, isDir, origin),
    ) ?? 0;
  if (failed < 0) unlinkReleasing(union.overlay.origins, union.workFd, temp, isDir ? AT_REMOVEDIR : 0);
  return failed;
}

interface TakenPlace {
  dirFd: number;
  name: string;
  path: string;
  whiteout: boolean;
}

/** A directory cannot be renamed over a whiteout: they change places, and the whiteout goes. */
function publishOver(
  union: Union,
  step: string,
  temp: string,
  at: TakenPlace,
  isDir: boolean,
  origin: Origin | null,
): number {
  const { dirFd, name, path, whiteout } = at;
  const note = newRecord(origin === null ? 'added' : 'taken', path, origin);
  const flags = !whiteout ? RENAME_NOREPLACE : isDir ? RENAME_EXCHANGE : 0;
  const { origins } = union.overlay;
  const put = () => renameat2(union.workFd, temp, dirFd, name, flags);
  const error = publish(union, step, [note], () =>
    flags === 0 ? releasing(origins, dirFd, name, put) : put(),
  );
  // The whiteout lies in work/ now; should it stay, the next start clears it away.
  if (error === 0 && whiteout && isDir) unlinkReleasing(origins, union.workFd, temp, 0);
  return error;
}

const parentStat = newStat();

/** Group and set-gid bit from a set-gid directory, access and default ACL from its default ACL. */
function inherit(union: Union, dirFd: number, temp: string, object: NewObject, caller: Caller): number {
  const error = statx(dirFd, '', AT_SYMLINK_NOFOLLOW, parentStat);
  if (error < 0) return error;
  const type = object.mode & S_IFMT;
  const setgid = (parentStat.mode & S_ISGID) !== 0;
  if (setgid) {
    const owned = fchownat(union.workFd, temp, -1, parentStat.gid);
    if (owned < 0) return owned;
  }
  if (type === S_IFLNK) return 0;
  // By a name, for the descriptor is an O_PATH one.
  const acl = getxattr(dirFd, '.', 'system.posix_acl_default');
  const inherited = typeof acl === 'number' ? null : inheritAcl(acl, object.mode & 0o7777);
  let mode = inherited?.mode ?? object.mode & 0o7777 & ~caller.umask;
  if (setgid && type === S_IFDIR) mode |= S_ISGID;
  else if (setgid && !mayKeepSetgid(caller, parentStat.gid) && (mode & 0o2010) === 0o2010) mode &= ~S_ISGID;
  const changed = setgid || inherited !== null || (mode & (S_ISUID | S_ISGID)) !== 0;
  if (!changed) return 0;
  return (
    firstError(
      () => fchmodat(union.workFd, temp, mode),
      () =>
        inherited?.access ? setxattr(union.workFd, temp, 'system.posix_acl_access', inherited.access, 0) : 0,
      () =>
        type === S_IFDIR && typeof acl !== 'number'
          ? setxattr(union.workFd, temp, 'system.posix_acl_default', acl, 0)
          : 0,
    ) ?? 0
  );
}

function mayKeepSetgid(caller: Caller, gid: number): boolean {
  return caller.uid === 0 || caller.gid === gid || caller.groups.includes(gid);
}

/** LINK: another name for an object; fills union.entry. 0, WAIT or a negative errno. */
export function link(union: Union, asked: Node, parent: Node, name: string, callerPid: number): number {
  const node = livingNode(asked);
  if (node.dir !== null) return -E.EPERM;
  const up = copyUp(union, node, callerPid);
  if (up < 0) return up;
  const taken: Taken = { origin: null };
  const prepared = preparePlace(union, parent, name, callerPid, node, taken);
  if (prepared < 0) return prepared;
  const { state } = union.found;
  if (state === IN_BASE || state === IN_OVERLAY) return -E.EEXIST;
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const path = pathAt(parent, name);
  if (path === null) return -E.ENOENT;
  let error = noteArrival(union, node, dirFd);
  if (error < 0) return error;
  const from = locate(union, node);
  if (typeof from === 'number') return from;
  const { dirFd: fromFd, name: fromName } = from;
  const linkTo = (toFd: number, to: string) =>
    fromName === '' ? linkFd(fromFd, toFd, to) : linkat(fromFd, fromName, toFd, to, 0);
  if (state === WHITEOUT || taken.origin !== null) {
    error = addOrigin(union, node, fromFd, fromName, taken.origin);
    if (error < 0) return error;
    const temp = union.tempName();
    error = linkTo(union.workFd, temp);
    if (error < 0) return error;
    const place = { dirFd, name, path, whiteout: state === WHITEOUT };
    error = publishOver(union, 'link', temp, place, false, taken.origin);
    if (error < 0) unlinkat(union.workFd, temp, 0);
  } else {
    error = linkTo(dirFd, name);
  }
  if (error < 0) return error;
  union.table.link(node, parent, name);
  // The other names show one more, or what they have taken over.
  if (taken.origin !== null) expireNode(union, node, false);
  return showNew(union, parent, name, dirFd, undefined);
}

/** Before an object comes to a directory that may have nothing of the base: its listing must know of such ones. */
export function noteArrival(union: Union, node: Node, dirFd: number): number {
  const error = statNode(union, node, union.stat);
  if (error < 0 || objectIno(union, node, union.stat) === overlayIno(union.stat.ino)) return error;
  return tolerate(setImpure(union.overlay, dirFd), !union.config.privileged);
}

/**
 * Whether what comes to a place has the origin of what the base has or had there. A directory in place of one has
 * not: it has not been brought up.
 */
export function isTaken(isDir: boolean, origin: Origin): boolean {
  return !isDir || !isDirectory(origin.mode);
}

/** An object with several names has an origin for each. */
export function addOrigin(
  union: Union,
  node: Node,
  dirFd: number,
  name: string,
  origin: Origin | null,
): number {
  if (origin === null) return 0;
  const error = statNode(union, node, union.stat);
  if (error < 0) return error;
  const { list } = originsOf(union, node, union.stat);
  const others = list.filter((one) => one.path !== origin.path);
  // An object that comes back to where it was copied up from goes on showing the number that it has from there.
  const ino = list.find((one) => one.path === origin.path)?.ino ?? 0;
  const now = [...others, { ...origin, ino }];
  return writeOrigins(union, dirFd, name, now);
}
