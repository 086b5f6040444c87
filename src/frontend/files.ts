// Operations on open files and directories.

import { writeOpenOut } from '../fuse/attr.ts';
import { readers, sizeOf, writers } from '../fuse/codec.ts';
import {
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FUSE_FSYNC_FDATASYNC,
  FUSE_OPEN_KILL_SUIDGID,
  FUSE_WRITE_KILL_SUIDGID,
} from '../fuse/constants.ts';
import { HEADER, PAYLOAD } from '../fuse/protocol.ts';
import { type FuseRequest, type Handlers, PARK } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { O_ACCMODE, O_APPEND, O_DSYNC, O_SYNC, O_TRUNC, O_WRONLY } from '../sys/constants.ts';
import { pread } from '../sys/file.ts';
import { dropHandle } from '../union/locks.ts';
import { type Handle, placesOf } from '../union/node.ts';
import { AT_END, allocate, copyRange, fsync, open, read, seek, write } from '../union/open.ts';
import { closeHandle, divide, isApart, WORTH } from '../union/passthrough.ts';
import { noLongerWritten } from '../union/stale.ts';
import { WAIT } from '../union/union.ts';
import { isControl, openControl, readControl, releaseControl, writeControl } from './control-files.ts';
import {
  backingOf,
  type Front,
  mayKeepCache,
  nodeOf,
  onResult,
  openFlagsOf,
  parkForResult,
  resultOf,
  uniqueOf,
} from './front.ts';

export function fileHandlers(front: Front): Handlers {
  return {
    OPEN: (r) => doOpen(front, r),
    READ: (r) => doRead(front, r),
    WRITE: (r) => doWrite(front, r),
    RELEASE: (r) => release(front, r),
    FSYNC: (r) => doFsync(front, r),
    FALLOCATE: (r) => doAllocate(front, r),
    LSEEK: (r) => doSeek(front, r),
    COPY_FILE_RANGE: (r) => doCopyRange(front, r),
    // Ioctls act on descriptors of the file system beneath, which guests have not got.
    IOCTL: () => -E.ENOTTY,
  };
}

/** The answer is the result of the work that is waited for, without a payload. */
function settled(front: Front, result: number): number {
  return result === WAIT ? parkForResult(front, () => undefined) : result;
}

function handleOf(front: Front, fh: number): Handle | undefined {
  return front.union.table.handle(fh);
}

function doOpen(front: Front, r: FuseRequest): number {
  const { flags, openFlags } = readers.open_in(r.view, HEADER);
  if (isControl(r.nodeId)) return openControl(front, r.nodeId, flags);
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  const unique = uniqueOf(r.view);
  const names = front.opening.get(unique);
  front.opening.delete(unique);
  // While it waited a name went over to another object (a merge, say): the kernel looks it up anew, once. So what would
  // be said to it the next time, that a file is divided from its copy, is done now.
  if (names?.some((name) => !placesOf(node).includes(name))) {
    const writes = (flags & (O_ACCMODE | O_TRUNC)) !== 0;
    return writes && isApart(node) ? divide(front.union, node) : -E.ESTALE;
  }
  const isFirst = node.cachedAt === undefined;
  const dropSetid = (openFlags & FUSE_OPEN_KILL_SUIDGID) !== 0;
  const handle = open(front.union, node, flags, r.pid, { dropSetid, hasWaited: names !== undefined });
  if (handle === WAIT) front.opening.set(unique, placesOf(node));
  if (typeof handle === 'number') return resultOf(front, handle);
  return answerOpen(front, r, handle, { flags, isFirst });
}

/** union.stat tells of what is open. `isFirst`: nobody has ever opened it. */
function answerOpen(
  front: Front,
  r: FuseRequest,
  handle: Handle,
  { flags, isFirst }: { flags: number; isFirst: boolean },
): number {
  const { stat, kernel } = front.union;
  const { node } = handle;
  const isOther = handle.layer >= 0 && kernel.mayBelieveOther(node, stat.size);
  const tell = (flags & O_TRUNC) === 0 && kernel.mustTell(node);
  const answer = openFlagsOf(handle) | (handle.through ? 0 : cachingOf(front, r, handle, isOther));
  if (tell) return answerWhenTold(front, r, handle, answer);
  const stored = !isOther && isFirst && r.nodeId === node.id && storeContent(front, handle, stat.size);
  return writeOpenOut(r, handle.id, stored ? answer | FOPEN_KEEP_CACHE : answer, backingOf(handle));
}

/** Of what is read and written by way of us. */
function cachingOf(front: Front, r: FuseRequest, handle: Handle, isOther: boolean): number {
  // Another id is another inode of the kernel's, with pages of its own.
  const keep = r.nodeId === handle.node.id && mayKeepCache(handle, front.union.stat);
  // It can be read to its end whatever the kernel takes its size for.
  if (isOther && front.server.negotiated?.uses.DIRECT_IO_ALLOW_MMAP) return FOPEN_DIRECT_IO;
  return keep ? FOPEN_KEEP_CACHE : 0;
}

/**
 * What is opened for reading is read, as a rule: of a small file of the base that costs less here than in a request of
 * its own. A change of the base meanwhile is told of after this.
 */
function storeContent({ server }: Front, handle: Handle, size: number): boolean {
  if (handle.layer < 0 || (handle.flags & O_ACCMODE) === O_WRONLY || size === 0 || size > WORTH) return false;
  const { fd, node } = handle;
  return server.store(node.id, size, (buffer, at, length) => pread(fd, buffer, at, length, 0));
}

/**
 * What the node has open by now stays: so the kernel is told of all that was otherwise, and answered only then, or it
 * would read as far as the old size. What it is told later of a name is told late (KernelView.renamed).
 */
function answerWhenTold(front: Front, r: FuseRequest, handle: Handle, openFlags: number): number {
  const { server, union } = front;
  const token = server.park();
  const length = writeOpenOut(r, handle.id, openFlags, backingOf(handle));
  const payload = Buffer.from(r.reply.subarray(PAYLOAD, PAYLOAD + length));
  onResult(union.host.tell(), () => {
    // Its client has been killed meanwhile, and sends no RELEASE.
    if (!token.open) closeHandle(union, handle);
    server.answer(token, 0, payload);
  });
  return PARK;
}

function doRead(front: Front, r: FuseRequest): number {
  const { fh, offset, size } = readers.read_in(r.view, HEADER);
  if (isControl(r.nodeId)) return readControl(front, fh, offset, size);
  const handle = handleOf(front, fh);
  if (!handle) return -E.EBADF;
  return read(handle, r.reply, PAYLOAD, Math.min(size, r.replyLimit), offset);
}

function doWrite(front: Front, r: FuseRequest): number {
  const { fh, offset, size, writeFlags, flags } = readers.write_in(r.view, HEADER);
  const at = HEADER + sizeOf('write_in');
  if (isControl(r.nodeId)) return writeControl(front, r.nodeId, r.buffer.subarray(at, at + size));
  const handle = handleOf(front, fh);
  if (!handle) return -E.EBADF;
  const dropSetid = (writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0;
  // Those of the call, not of the open: fcntl and pwritev2 change them. Pages of a map that go back have none.
  const where = (flags & O_APPEND) === 0 ? offset : AT_END;
  const written = write(front.union, handle, r.buffer, at, size, where, dropSetid, r.pid);
  if (written < 0) return written;
  const synced = (flags & O_SYNC) === 0 ? 0 : fsync(front.union, handle, (flags & O_SYNC) === O_DSYNC);
  if (synced === WAIT) return parkForResult(front, () => countPayload(written));
  return synced < 0 ? synced : writers.write_out(r.replyView, PAYLOAD, { size: written });
}

function countPayload(count: number): Buffer {
  const payload = Buffer.alloc(sizeOf('write_out'));
  payload.writeUInt32LE(count, 0);
  return payload;
}

function release(front: Front, r: FuseRequest): number {
  const { fh } = readers.release_in(r.view, HEADER);
  if (isControl(r.nodeId)) return releaseControl(front, fh);
  const handle = handleOf(front, fh);
  if (handle) {
    noLongerWritten(front.union, handle);
    dropHandle(front.union, handle);
    closeHandle(front.union, handle);
  }
  return 0;
}

function doFsync(front: Front, r: FuseRequest): number {
  if (isControl(r.nodeId)) return 0;
  // The kernel asks no more.
  if (front.union.config.volatile) return -E.ENOSYS;
  const { fh, fsyncFlags } = readers.fsync_in(r.view, HEADER);
  const handle = handleOf(front, fh);
  if (!handle) return -E.EBADF;
  return settled(front, fsync(front.union, handle, (fsyncFlags & FUSE_FSYNC_FDATASYNC) !== 0));
}

function doAllocate(front: Front, r: FuseRequest): number {
  const { fh, offset, length, mode } = readers.fallocate_in(r.view, HEADER);
  const handle = isControl(r.nodeId) ? undefined : handleOf(front, fh);
  if (!handle) return -E.EBADF;
  return settled(front, allocate(front.union, handle, mode, offset, length));
}

function doSeek(front: Front, r: FuseRequest): number {
  const { fh, offset, whence } = readers.lseek_in(r.view, HEADER);
  const handle = isControl(r.nodeId) ? undefined : handleOf(front, fh);
  if (!handle) return isControl(r.nodeId) ? -E.EINVAL : -E.EBADF;
  const at = seek(handle, offset, whence);
  return at < 0 ? at : writers.lseek_out(r.replyView, PAYLOAD, { offset: at });
}

function doCopyRange(front: Front, r: FuseRequest): number {
  const { fhIn, offIn, fhOut, offOut, len } = readers.copy_file_range_in(r.view, HEADER);
  const from = handleOf(front, fhIn);
  const to = handleOf(front, fhOut);
  // A control file on either side: the kernel copies by reading and writing then.
  if (!from || !to) return -E.EOPNOTSUPP;
  const result = copyRange(front.union, from, offIn, to, offOut, len);
  return result === WAIT ? parkForResult(front, countPayload) : result;
}
