// Open files: OPEN and RELEASE, reading and writing, and what may wait for a disk (as jobs). A file of the base
// that is opened for writing is brought up first, so that a write is a bare pwrite.
import { E } from '../lib/errno.ts';
import { S_IFMT } from '../lib/stat.ts';
import {
  AT_SYMLINK_NOFOLLOW,
  O_ACCMODE,
  O_APPEND,
  O_CLOEXEC,
  O_DIRECT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  O_SYNC,
  O_TRUNC,
  O_WRONLY,
} from '../sys/constants.ts';
import { append, close, dup, lseek, openat, pread, pwrite, reopen } from '../sys/file.ts';
import { fstat, statx } from '../sys/stat.ts';
import { killSetid } from './attributes.ts';
import { holdingAt, sayContentless } from './base-content.ts';
import { copyUp } from './copy-up.ts';
import { refresh } from './dir-fds.ts';
import { showOther } from './expiry.ts';
import { anyHandle, leavePlace, locate } from './locate.ts';
import { find } from './lookup.ts';
import { metacopyOf, openContent, openContentBeneath } from './metacopy.ts';
import { type Handle, IN_OVERLAY, livingNode, type Node } from './node.ts';
import { noteSeen } from './note-seen.ts';
import {
  divide,
  goesThrough,
  handOver,
  hasMoved,
  isApart,
  newHandle,
  type Opened,
  writableFd,
} from './passthrough.ts';
import { pathAt } from './place.ts';
import { awaitIfStale } from './stale.ts';
import { ageOrigin, type Taken } from './take.ts';
import { type Union, waitFor } from './union.ts';

export interface OpenHow {
  /** O_TRUNC by who may not keep set-id bits. */
  dropSetid: boolean;
  /** It has been made to wait before: what a look has come to by now is the answer. */
  hasWaited: boolean;
}

/** OPEN: a handle, WAIT, or a negative errno. union.stat tells of what a handle has open. */
export function open(
  union: Union,
  node: Node,
  flags: number,
  callerPid: number,
  { dropSetid, hasWaited }: OpenHow,
): Handle | number {
  if (node.dir !== null) return -E.EISDIR;
  const access = flags & O_ACCMODE;
  const writable = access !== O_RDONLY;
  const truncates = (flags & O_TRUNC) !== 0;
  if (writable && union.config.readOnly) return -E.EROFS;
  // What comes by a name finds the object there.
  if (node.successor !== null) return -E.ESTALE;
  // Who is about to discard what is there neither starts nor awaits a merge.
  const blind = truncates || (access === O_WRONLY && (flags & O_APPEND) === 0);
  if (!blind && !hasWaited) {
    const stale = settleBeforeOpen(union, node);
    if (stale < 0) return stale;
  }
  const shown: Taken = { origin: null };
  if (writable || truncates) {
    const up = copyUp(union, node, callerPid, { truncate: truncates, metadata: false, byName: true });
    if (up < 0) return up;
    if (isApart(node)) return divide(union, node);
    // What is appended stands upon what is there, whatever the writer has read before.
    const appends = (flags & O_APPEND) !== 0 && !truncates;
    const reads = access !== O_WRONLY && !truncates;
    const aged = appends ? 0 : ageOrigin(union, node, callerPid, reads, shown);
    if (aged < 0) return aged;
  }
  const copied = metacopyOf(union, node);
  if (copied === null && isApart(node) && hasMoved(union, node)) return divide(union, node);
  const wanted = access | (flags & O_DIRECT) | (truncates ? O_TRUNC : 0);
  const opened =
    copied === null ? openData(union, node, wanted) : openInBase(union, node, (flags & O_DIRECT) !== 0);
  if (typeof opened === 'number') return opened;
  const { fd } = opened;
  if (truncates || writable) node.dataSynced = false;
  if (dropSetid) {
    killSetid(fd, '', union.stat, callerPid);
    fstat(fd, union.stat);
  }
  const elsewhere = copied !== null && copied.redirect !== null;
  if (access !== O_WRONLY && !elsewhere) noteSeen(union, node, callerPid, opened, shown.origin);
  return newHandle(union, node, opened, flags, union.stat.mode);
}

/** Opens a file for a handle: for reading, where the kernel takes it over, else as the kernel asks for. */
function openData(union: Union, node: Node, flags: number): Opened | number {
  const { layer } = node;
  // A copy's data are read in the base by who has them open there.
  if (isApart(node)) return asOpened(reopen(anyHandle(node).fd, O_RDONLY), layer);
  const overlay = layer < 0 && goesThrough(union, node, layer, 0);
  const fd = openShown(union, node, overlay ? flags & ~O_ACCMODE : flags & ~O_DIRECT);
  if (fd < 0) return fd;
  const holding = layer < 0 ? 'own' : holdingAt(union, layer, fd, '', union.stat);
  if (holding !== 'own') {
    close(fd);
    return holding === 'beneath'
      ? openInBase(union, node, (flags & O_DIRECT) !== 0)
      : contentless(union, node);
  }
  if (!goesThrough(union, node, layer, union.stat.size)) return { fd, layer };
  const refused = overlay || (flags & O_DIRECT) === 0 ? 0 : refuseDirect(fd);
  if (refused < 0) return refused;
  return asOpened(handOver(union, node, { fd, layer }, flags & O_ACCMODE, union.stat), layer);
}

/** The content of a copy of metadata alone, which nobody has asked to write to: of the overlay's, or of the base's. */
function openInBase(union: Union, node: Node, direct: boolean): Opened | number {
  const found = node.layer < 0 ? openContent(union, node) : openContentBeneath(union, node);
  if (typeof found === 'number') return found === -E.EIO ? contentless(union, node) : found;
  const error = fstat(found.fd, union.stat);
  if (error < 0 || (found.layer >= 0 && lacksContent(union, found))) {
    close(found.fd);
    return error < 0 ? error : contentless(union, node);
  }
  if (!goesThrough(union, node, found.layer, union.stat.size)) return found;
  const refused = direct ? refuseDirect(found.fd) : 0;
  if (refused < 0) return refused;
  return asOpened(handOver(union, node, found, O_RDONLY, union.stat), found.layer);
}

/** union.stat is of what is open. */
function lacksContent(union: Union, { fd, layer }: Opened): boolean {
  return holdingAt(union, layer, fd, '', union.stat) !== 'own';
}

function contentless(union: Union, node: Node): number {
  const place = node.place;
  sayContentless(union, place ? pathAt(place.parent, place.name) : null);
  return -E.EIO;
}

function asOpened(fd: number, layer: number): Opened | number {
  return fd < 0 ? fd : { fd, layer };
}

/** Where the base's file system knows no O_DIRECT the kernel's own open would fail, too, and tell of EIO. */
function refuseDirect(fd: number): number {
  const direct = reopen(fd, O_RDONLY | O_DIRECT);
  close(direct < 0 ? fd : direct);
  return Math.min(direct, 0);
}

function settleBeforeOpen(union: Union, node: Node): number {
  const place = node.place;
  if (!place || node.layer >= 0) return 0;
  refresh(union, place.parent, place.name);
  const error = find(union, place.parent, place.name);
  if (error < 0 || union.found.state !== IN_OVERLAY || union.found.stat.ino !== node.ino) return 0;
  return awaitIfStale(union, node, place.parent, place.name);
}

/**
 * Opens what the node shows. Its name may lead to another object since it was looked up. One node has one page
 * cache: while others have the old object open, a reader gets that, and a writer ESTALE (the kernel looks the name
 * up anew); else the node goes over to the new one. One of another type is another node's, and ESTALE to all.
 */
function openShown(union: Union, node: Node, flags: number): number {
  const fd = openObject(union, node, flags);
  if (fd < 0) return fd;
  const { stat } = union;
  const error = fstat(fd, stat);
  if (error === 0 && union.table.shows(node, node.layer, stat)) return fd;
  if (error === 0 && (stat.mode & S_IFMT) !== node.type) {
    close(fd);
    return -E.ESTALE;
  }
  const [other] = node.handles;
  if (error === 0 && other === undefined) {
    showOther(union, node, node.layer, stat);
    return fd;
  }
  close(fd);
  if (error < 0 || other === undefined) return error;
  if (flags !== O_RDONLY) return -E.ESTALE;
  const known = fstat(other.fd, stat);
  return known < 0 ? known : reopen(other.fd, O_RDONLY | O_CLOEXEC);
}

/** Opens what the node's name leads to. */
function openObject(union: Union, node: Node, flags: number): number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const { dirFd, name, layer } = at;
  if (name === '') return reopen(dirFd, flags | O_CLOEXEC);
  // The base may have put a FIFO or a device there by now, and to open one is no mere look.
  if (layer >= 0 && isOfOtherType(union, node, dirFd, name)) return -E.ESTALE;
  const fd = openat(dirFd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd === -E.ENOENT && leavePlace(union, node)) return openObject(union, node, flags);
  return fd === -E.ELOOP || fd === -E.ENXIO ? -E.ESTALE : fd;
}

function isOfOtherType({ stat }: Union, { type }: Node, dirFd: number, name: string): boolean {
  return statx(dirFd, name, AT_SYMLINK_NOFOLLOW, stat) === 0 && (stat.mode & S_IFMT) !== type;
}

export function read(handle: Handle, buffer: Buffer, at: number, length: number, offset: number): number {
  return pread(handle.fd, buffer, at, length, offset);
}

/** As an offset: the file's end, which a kernel that does not know of a merge takes to be elsewhere. */
export const AT_END = -1;

/** Bytes written, or a negative errno. */
export function write(
  union: Union,
  handle: Handle,
  buffer: Buffer,
  at: number,
  length: number,
  offset: number,
  dropSetid: boolean,
  callerPid: number,
): number {
  if (!handle.writable) return -E.EBADF;
  handle.node.dataSynced = false;
  if (dropSetid) {
    const error = killSetid(handle.fd, '', union.stat, callerPid);
    if (error < 0) return error;
  }
  const fd = writableFd(handle);
  if (fd < 0) return fd;
  return offset === AT_END ? append(fd, buffer, at, length) : pwrite(fd, buffer, at, length, offset);
}

/** What is written by calls that tell of no flags of their own must be on the disk when they return. */
function isSynchronous(handle: Handle): boolean {
  return (handle.flags & O_SYNC) !== 0;
}

/** What is the overlay's of a copy of metadata alone; ENODATA: it is none. */
function openForSync(union: Union, node: Node): number {
  const at = metacopyOf(union, node) === null ? -E.ENODATA : locate(union, node);
  if (typeof at === 'number') return at;
  if (at.name === '') return reopen(at.dirFd, O_RDONLY | O_CLOEXEC);
  return openat(at.dirFd, at.name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/** FSYNC of an open file: WAIT, or 0 for what cannot have unwritten data, or where nothing is synced. */
export function fsync(union: Union, handle: Handle, dataOnly: boolean): number {
  if (union.config.volatile) return 0;
  const fd = handle.layer < 0 ? dup(handle.fd) : openForSync(union, livingNode(handle.node));
  // Nothing of it is the overlay's.
  if (fd === -E.ENODATA) return 0;
  if (fd < 0) return fd;
  return waitFor(
    union,
    union.host.startJob({ kind: 'sync', fd, dataOnly }, (done) => done.result),
  );
}

/** FSYNCDIR. */
export function fsyncDirectory(union: Union, node: Node): number {
  if (node.dir === null) return -E.ENOTDIR;
  if (!node.dir.hasOverlay || union.config.volatile) return 0;
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const fd = reopen(at.dirFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  return waitFor(
    union,
    union.host.startJob({ kind: 'sync', fd, dataOnly: false }, (done) => done.result),
  );
}

/** FALLOCATE: WAIT or a negative errno. */
export function allocate(union: Union, handle: Handle, mode: number, offset: number, length: number): number {
  if (!handle.writable) return -E.EBADF;
  handle.node.dataSynced = false;
  // A descriptor of the job's own: the handle may be closed while it runs.
  const own = writableFd(handle);
  const fd = own < 0 ? own : dup(own);
  if (fd < 0) return fd;
  const job = { kind: 'allocate', fd, mode, offset, length, synced: isSynchronous(handle) } as const;
  return waitFor(
    union,
    union.host.startJob(job, (done) => done.result),
  );
}

/** COPY_FILE_RANGE: WAIT (the result is the count) or a negative errno. */
export function copyRange(
  union: Union,
  from: Handle,
  offIn: number,
  to: Handle,
  offOut: number,
  length: number,
): number {
  if (!to.writable) return -E.EBADF;
  to.node.dataSynced = false;
  const fdIn = dup(from.fd);
  if (fdIn < 0) return fdIn;
  const own = writableFd(to);
  const fdOut = own < 0 ? own : dup(own);
  if (fdOut < 0) {
    close(fdIn);
    return fdOut;
  }
  const synced = isSynchronous(to);
  const job = { kind: 'copy-range', fdIn, offIn, fdOut, offOut, length, synced } as const;
  return waitFor(
    union,
    union.host.startJob(job, (done) => done.result),
  );
}

export function seek(handle: Handle, offset: number, whence: number): number {
  return lseek(handle.fd, offset, whence);
}
