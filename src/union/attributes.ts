// GETATTR and SETATTR on nodes. What changes an object of the base brings it up first.
import { E } from '../lib/errno.ts';
import { copyStat, isDirectory, S_ISGID, S_ISUID, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, O_WRONLY, UTIME_OMIT } from '../sys/constants.ts';
import { close, ftruncate, openat, reopen } from '../sys/file.ts';
import { fchmodat, fchownat, fstat, statx, utimensat } from '../sys/stat.ts';
import { type Caller, mayBeWriting, mayChangeMode, mayKeepSetgid } from './caller.ts';
import { copyUp } from './copy-up.ts';
import { locate, statNode } from './locate.ts';
import { fillEntry, find } from './lookup.ts';
import { type Handle, IN_OVERLAY, isOpenForWriting, livingNode, type Node } from './node.ts';
import { divide, isApart, showOwnSize, writableFd } from './passthrough.ts';
import { isSettled, noticeIfStale } from './stale.ts';
import { type Union, waitFor } from './union.ts';

/** Above this a truncate may wait for the disk, and becomes a job. */
const BIG = 64 * 1024 * 1024;

/** GETATTR: fills union.entry; 0 or a negative errno. A stale object is noticed, and answered as it is now. */
export function getattr(union: Union, node: Node): number {
  if (node.successor !== null) return attributesOf(union, node, () => getattr(union, livingNode(node)));
  let ofOverlay = findsOwn(union, node);
  if (ofOverlay) copyStat(union.found.stat, union.entry.stat);
  else {
    const error = statNode(union, node, union.entry.stat);
    if (error < 0) return error;
    // It may have found that the node shows another object now.
    ofOverlay = findsOwn(union, node);
  }
  const place = node.place;
  let settled = true;
  if (ofOverlay && place) {
    noticeIfStale(union, node, place.parent, place.name);
    // Where the kernel keeps nothing there is nothing to be settled.
    settled = !union.kernel.keeps || isSettled(union, node, place.parent, place.name);
  }
  fillEntry(union, node, union.entry.stat);
  union.entry.keepAttributes &&= settled;
  return 0;
}

/** Whether a file of the overlay lies where it has its name; union.found tells of it then, and of what is beneath it. */
function findsOwn(union: Union, node: Node): boolean {
  const { place } = node;
  const { found } = union;
  if (!place || node.dir !== null || node.layer >= 0 || node.orphanFd >= 0) return false;
  if (find(union, place.parent, place.name) < 0 || found.state !== IN_OVERLAY) return false;
  return union.table.shows(node, -1, found.stat);
}

/** Of a node that was divided: `work` fills union.entry with those of its successor. */
function attributesOf(union: Union, node: Node, work: () => number): number {
  const error = work();
  if (error === 0) showOwnSize(node, union.stat, union.entry.stat);
  union.entry.node = node;
  return error;
}

export interface Change {
  mode: number | null;
  uid: number | null;
  gid: number | null;
  size: number | null;
  /** Seconds and nanoseconds; UTIME_NOW and UTIME_OMIT as nanoseconds. */
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** The kernel asks that set-id bits go, for the caller may not keep them. */
  killSetid: boolean;
  /** An open file of the caller's that is changed; null: by name. */
  handle: Handle | null;
}

/** SETATTR: fills union.entry; 0, WAIT or a negative errno. */
export function setattr(union: Union, node: Node, change: Change, callerPid: number): number {
  if (union.config.readOnly) return -E.EROFS;
  if (node.successor !== null) {
    if (change.size !== null) return -E.ESTALE;
    return attributesOf(union, node, () => setattr(union, livingNode(node), change, callerPid));
  }
  const truncate = change.size === 0;
  const metadata = change.size === null;
  const finish = {
    setsMode: change.mode !== null,
    change: (dirFd: number, name: string) => changeMetadata(union, dirFd, name, change, callerPid),
    done: false,
    shown: union.entry.stat,
  };
  const wish = { truncate, metadata, finish, byName: false };
  const up = copyUp(union, node, callerPid, wish);
  if (up < 0) return up;
  if (change.size !== null && isApart(node)) return divide(union, node);
  const error = finish.done ? 0 : apply(union, node, change, callerPid);
  if (error < 0) return error;
  if (node.dir !== null) node.dir.ctimeSec = -1;
  const known = finish.done ? 0 : statNode(union, node, union.entry.stat);
  return known < 0 ? known : fillEntry(union, node, union.entry.stat);
}

/**
 * SETATTR of nothing: what comes before a write by who may not keep set-id bits, and of a chown that leaves both
 * ids. The bits go, where the caller has the file open for writing or might have taken them away by chmod. Of a file
 * without such bits nothing changes, and nothing is brought up.
 */
export function dropSetid(
  union: Union,
  node: Node,
  change: Change,
  caller: Pick<Caller, 'uid' | 'pid'>,
): number {
  const { stat } = union.entry;
  if (node.successor !== null) {
    return attributesOf(union, node, () => dropSetid(union, livingNode(node), change, caller));
  }
  const error = statNode(union, node, stat);
  if (error < 0) return error;
  if (withoutSetid(stat, caller.pid) === (stat.mode & 0o7777)) return fillEntry(union, node, stat);
  const owner = stat.uid;
  const filled = fillEntry(union, node, stat);
  if (filled < 0) return filled;
  const writes = isOpenForWriting(node) && mayBeWriting(caller.pid, union.entry.ino);
  if (!writes && !mayChangeMode(caller, owner)) return -E.EPERM;
  return setattr(union, node, change, caller.pid);
}

function apply(union: Union, node: Node, change: Change, callerPid: number): number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const { dirFd, name } = at;
  if (change.size !== null) {
    const error = truncate(union, node, dirFd, name, change.size, change.handle);
    if (error < 0) return error;
  }
  return changeMetadata(union, dirFd, name, change, callerPid);
}

function changeMetadata(
  union: Union,
  dirFd: number,
  name: string,
  change: Change,
  callerPid: number,
): number {
  const chown = change.uid !== null || change.gid !== null;
  if (change.killSetid || chown) {
    const error = killSetid(dirFd, name, union.stat, callerPid);
    if (error < 0) return error;
  }
  if (chown) {
    const error = fchownat(dirFd, name, change.uid ?? -1, change.gid ?? -1);
    if (error < 0) return error;
  }
  if (change.mode !== null) {
    const error = fchmodat(dirFd, name, change.mode & 0o7777);
    if (error < 0) return error;
  }
  if (change.atimeNsec === UTIME_OMIT && change.mtimeNsec === UTIME_OMIT) return 0;
  return utimensat(dirFd, name, change.atimeSec, change.atimeNsec, change.mtimeSec, change.mtimeNsec);
}

/** Permission bits without set-user-id, and set-group-id where the group may execute or the caller is not in it. */
function withoutSetid(stat: Stat, callerPid: number): number {
  if (isDirectory(stat.mode)) return stat.mode & 0o7777;
  const mode = stat.mode & 0o7777 & ~S_ISUID;
  const loses = (mode & S_ISGID) !== 0 && ((mode & 0o010) !== 0 || !mayKeepSetgid(callerPid, stat.gid));
  return loses ? mode & ~S_ISGID : mode;
}

export function killSetid(dirFd: number, name: string, scratch: Stat, callerPid: number): number {
  const error = statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch);
  if (error < 0) return error;
  const mode = withoutSetid(scratch, callerPid);
  return mode === (scratch.mode & 0o7777) ? 0 : fchmodat(dirFd, name, mode);
}

function truncate(
  union: Union,
  node: Node,
  dirFd: number,
  name: string,
  size: number,
  handle: Handle | null,
): number {
  node.dataSynced = false;
  if (handle?.writable && handle.layer < 0) {
    const own = writableFd(handle);
    return own < 0 ? own : truncateFd(union, own, size, false);
  }
  const fd = name === '' ? reopen(dirFd, O_WRONLY) : openat(dirFd, name, O_WRONLY);
  if (fd < 0) return fd;
  return truncateFd(union, fd, size, true);
}

function truncateFd(union: Union, fd: number, size: number, mine: boolean): number {
  const known = fstat(fd, union.stat);
  if (known === 0 && union.stat.size - size > BIG) {
    const copy = mine ? fd : reopen(fd, O_WRONLY);
    if (copy < 0) return copy;
    return waitFor(
      union,
      union.host.startJob({ kind: 'truncate', fd: copy, size }, (done) => done.result),
    );
  }
  const error = ftruncate(fd, size);
  if (mine) close(fd);
  return error;
}

/** Takes set-group-id away: an access ACL was set by who is not in the group. */
export function killSetgid(dirFd: number, name: string, scratch: Stat): number {
  const error = statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch);
  if (error < 0 || (scratch.mode & S_ISGID) === 0) return error;
  return fchmodat(dirFd, name, scratch.mode & 0o7777 & ~S_ISGID);
}
