// Descriptors and their contents. Every function returns the value or a negative errno. Descriptors are
// always made close-on-exec: none is meant for a child (spawn passes one on explicitly).
import { E } from '../lib/errno.ts';
import {
  O_CLOEXEC,
  O_CREAT,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_TMPFILE,
  SYS_GETDENTS64,
  SYS_OPENAT2,
} from './constants.ts';
import { addressAt, addressOf, inside, native, nativeAsync, nativeOnce, pinned, systemCall } from './ffi.ts';
import { NAME_A, PROC_PATH, putA, putProcFd } from './scratch.ts';

const cOpenat = native('openat', 'int', ['int', 'uintptr_t', 'int', 'uint']);
const cOpenat2 = systemCall(['int', 'uintptr_t', 'uintptr_t', 'size_t']);
const cClose = nativeOnce('close', ['int']);
const cFcntl = native('fcntl', 'int', ['int', 'int', 'int64_t']);
const cPread = native('pread', 'int', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const cPwrite = native('pwrite', 'int', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const cRead = native('read', 'int', ['int', 'uintptr_t', 'size_t']);
const cPreadv2 = native('preadv2', 'int', ['int', 'uintptr_t', 'int', 'int64_t', 'int']);
const cPwritev2 = native('pwritev2', 'int', ['int', 'uintptr_t', 'int', 'int64_t', 'int']);
const cWrite = native('write', 'int', ['int', 'uintptr_t', 'size_t']);
const cFsync = native('fsync', 'int', ['int']);
const cFdatasync = native('fdatasync', 'int', ['int']);
const cFtruncate = native('ftruncate', 'int', ['int', 'int64_t']);
const cFallocate = native('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']);
const cLseek = native('lseek', 'int64_t', ['int', 'int64_t', 'int']);
const cCopyFileRange = native('copy_file_range', 'int64_t', [
  'int',
  'uintptr_t',
  'int',
  'uintptr_t',
  'size_t',
  'uint',
]);
const cIoctl = native('ioctl', 'int', ['int', 'int64_t', 'int64_t']);
const cGetdents = systemCall(['int', 'uintptr_t', 'size_t']);
const cFlock = native('flock', 'int', ['int', 'int']);

const F_GETFL = 3;
const F_SETFL = 4;
const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_DUPFD_CLOEXEC = 1030;
const FICLONE = 0x40049409;
/** Ignored by default, unlike SIGIO, which ends a process that does not expect it. */
const SIGURG = 23;

/** `name` '' opens the object of `dirFd` anew. Always close-on-exec. */
export function openat(dirFd: number, name: string, flags: number, mode = 0): number {
  if (name === '') return reopen(dirFd, flags);
  return putA(name) || cOpenat(dirFd, NAME_A, flags | O_CLOEXEC, mode);
}

const openHow = pinned(24);
/** A rename somewhere in the system makes the kernel give up a walk beneath a directory with EAGAIN. */
const OPEN_TRIES = 20;

/** `resolve` is a set of RESOLVE_*. Since Linux 5.6; ENOSYS before. */
export function openat2(dirFd: number, name: string, flags: number, mode: number, resolve: number): number {
  const bad = putA(name);
  if (bad !== 0) return bad;
  const creates = (flags & O_CREAT) !== 0 || (flags & O_TMPFILE) === O_TMPFILE;
  openHow.u32[0] = flags | O_CLOEXEC;
  openHow.u32[2] = creates ? mode & 0o7777 : 0;
  openHow.u32[4] = resolve;
  for (let left = OPEN_TRIES; ; left--) {
    const fd = cOpenat2(SYS_OPENAT2, dirFd, NAME_A, openHow.address, 24);
    if (fd !== -E.EAGAIN || left === 0) return fd;
  }
}

/** The descriptor is gone whatever this returns, but for EBADF; other errors tell of earlier writes. */
export function close(fd: number): number {
  const error = cClose(fd);
  return error === -E.EINTR ? 0 : error;
}

export function dup(fd: number): number {
  return cFcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/** Of the open file, and so of all its duplicates: reads that would wait say EAGAIN. */
export function setNonBlocking(fd: number): number {
  const flags = cFcntl(fd, F_GETFL, 0);
  return flags < 0 ? flags : cFcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/** Opens the object of a descriptor again with other flags; needs /proc. O_PATH descriptors of symlinks: ELOOP. */
export function reopen(fd: number, flags: number): number {
  return putProcFd(fd) || cOpenat(-1, PROC_PATH, (flags & ~O_NOFOLLOW) | O_CLOEXEC, 0);
}

export function pread(fd: number, buf: Uint8Array, bufOffset: number, len: number, pos: number): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  return cPread(fd, addressAt(buf, bufOffset), len, pos);
}

/** One struct iovec. */
const vector = pinned(16);
const RWF_NOWAIT = 8;
const RWF_APPEND = 16;

function setVector(address: number, len: number): void {
  vector.u32[0] = address >>> 0;
  vector.u32[1] = Math.floor(address / 0x100000000);
  vector.u32[2] = len;
}

/** Devices without a disk behind them, which are not to be asked again. */
const inMemory = new Set<number>();

/** Another file system may have got the number of one of them. */
export function forgetDevices(): void {
  inMemory.clear();
}

/**
 * As pread, but of what lies in memory: EAGAIN where a disk would have to be waited for, or nobody knows. `dev` is the
 * file's device (deviceOf): one that was seen to have no disk is not asked again.
 */
export function preadCached(
  fd: number,
  buf: Uint8Array,
  bufOffset: number,
  len: number,
  pos: number,
  dev: number,
): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  const address = addressAt(buf, bufOffset);
  if (inMemory.has(dev)) return cPread(fd, address, len, pos);
  setVector(address, len);
  const got = cPreadv2(fd, vector.address, 1, pos, RWF_NOWAIT);
  if (got !== -E.EOPNOTSUPP) return got;
  // tmpfs and ramfs do not know the flag.
  if (!liesInMemory(fd)) return -E.EAGAIN;
  inMemory.add(dev);
  return cPread(fd, address, len, pos);
}

export function pwrite(fd: number, buf: Uint8Array, bufOffset: number, len: number, pos: number): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  return cPwrite(fd, addressAt(buf, bufOffset), len, pos);
}

/** Writes at the end, wherever that is by now. */
export function append(fd: number, buf: Uint8Array, bufOffset: number, len: number): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  setVector(addressAt(buf, bufOffset), len);
  return cPwritev2(fd, vector.address, 1, 0, RWF_APPEND);
}

export function read(fd: number, buf: Uint8Array, bufOffset: number, len: number): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  return cRead(fd, addressAt(buf, bufOffset), len);
}

export function write(fd: number, buf: Uint8Array, bufOffset: number, len: number): number {
  if (!inside(buf, bufOffset, len)) return -E.EFAULT;
  return cWrite(fd, addressAt(buf, bufOffset), len);
}

export function fsync(fd: number): number {
  return cFsync(fd);
}

export function fdatasync(fd: number): number {
  return cFdatasync(fd);
}

export function ftruncate(fd: number, size: number): number {
  return cFtruncate(fd, size);
}

/** `mode` is a set of FALLOC_FL_*. */
export function fallocate(fd: number, mode: number, offset: number, len: number): number {
  return cFallocate(fd, mode, offset, len);
}

/** The new offset. SEEK_DATA and SEEK_HOLE: ENXIO past the end. */
export function lseek(fd: number, offset: number, whence: number): number {
  return cLseek(fd, offset, whence);
}

const offsets = pinned(16);

/** Bytes copied, possibly fewer than asked for. */
export function copyFileRange(
  fdIn: number,
  offIn: number,
  fdOut: number,
  offOut: number,
  len: number,
): number {
  putOffsets(offsets.view, offIn, offOut);
  return cCopyFileRange(fdIn, offsets.address, fdOut, offsets.address + 8, len, 0);
}

function putOffsets(view: DataView, offIn: number, offOut: number): void {
  view.setBigInt64(0, BigInt(offIn), true);
  view.setBigInt64(8, BigInt(offOut), true);
}

/** Makes `dst` share all of `src`'s blocks; EOPNOTSUPP or EXDEV where the file system cannot. */
export function ficlone(dst: number, src: number): number {
  return cIoctl(dst, FICLONE, src);
}

/**
 * F_RDLCK, F_WRLCK or F_UNLCK. EAGAIN: somebody has it open in a way that conflicts. Whoever opens it while
 * the lease is held waits for its end; this process is told by a signal that it ignores.
 */
export function setLease(fd: number, type: number): number {
  const error = cFcntl(fd, F_SETSIG, SIGURG);
  return error < 0 ? error : cFcntl(fd, F_SETLEASE, type);
}

/** `operation` is LOCK_SH, LOCK_EX or LOCK_UN, with LOCK_NB or without. */
export function flock(fd: number, operation: number): number {
  return cFlock(fd, operation);
}

/** Fills `buf` with directory entries; the number of bytes, 0 at the end. */
export function getdents(fd: number, buf: Uint8Array): number {
  return cGetdents(SYS_GETDENTS64, fd, addressOf(buf), buf.length);
}

/** Calls `each` for every entry of what getdents gave, `.` and `..` too. `dtype` is one of DT_*. */
export function parseDents(
  buf: Buffer,
  len: number,
  each: (name: string, ino: number, dtype: number) => void,
): void {
  let at = 0;
  while (at < len) {
    const end = at + (buf[at + 16] as number) + (buf[at + 17] as number) * 256;
    // Padded with NULs, one to eight of them.
    let nul = Math.max(end - 8, at + 19);
    while (buf[nul] !== 0) nul += 1;
    const ino = foldInode(buf.readUInt32LE(at), buf.readUInt32LE(at + 4));
    each(buf.toString('latin1', at + 19, nul), ino, buf[at + 18] as number);
    at = end;
  }
}

/** A 64-bit inode number as a safe integer: the upper 11 bits are folded into the others. */
export function foldInode(lo: number, hi: number): number {
  if (hi < 0x200000) return hi * 0x100000000 + lo;
  return (hi & 0x1fffff) * 0x100000000 + ((lo ^ (hi >>> 21)) >>> 0);
}

export interface Statfs {
  type: number;
  bsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  namelen: number;
  frsize: number;
  /** 16 hexadecimal digits, as `stat -f` shows them. */
  fsid: string;
}

export function newStatfs(): Statfs {
  return {
    type: 0,
    bsize: 0,
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    namelen: 0,
    frsize: 0,
    fsid: '',
  };
}

const cStatfs = native('statfs', 'int', ['uintptr_t', 'uintptr_t']);
const cFstatfs = native('fstatfs', 'int', ['int', 'uintptr_t']);
/** struct statfs of 64-bit machines: all words are 64 bits but the two of the id. */
const statfsMemory = pinned(120);

/** Of the file system that `path` lies on; follows links. */
export function statfs(path: string, out: Statfs): number {
  return putA(path) || filled(cStatfs(NAME_A, statfsMemory.address), out);
}

export function fstatfs(fd: number, out: Statfs): number {
  return filled(cFstatfs(fd, statfsMemory.address), out);
}

function filled(error: number, out: Statfs): number {
  if (error < 0) return error;
  const words = statfsMemory.u32;
  const word = (index: number) => (words[index + 1] as number) * 0x100000000 + (words[index] as number);
  const hex = (index: number) => (words[index] as number).toString(16).padStart(8, '0');
  out.type = word(0);
  out.bsize = word(2);
  out.blocks = word(4);
  out.bfree = word(6);
  out.bavail = word(8);
  out.files = word(10);
  out.ffree = word(12);
  out.fsid = hex(14) + hex(15);
  out.namelen = word(16);
  out.frsize = word(18);
  return 0;
}

/** The id of the file system as fanotify tells it, in two words; zeros where it has none. */
export function fsidWords(fd: number): [number, number] {
  if (cFstatfs(fd, statfsMemory.address) < 0) return [0, 0];
  return [statfsMemory.u32[14] as number, statfsMemory.u32[15] as number];
}

const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
const fsOfFile = newStatfs();

/** Whether a file's file system has no disk: nothing of it has to be waited for, and to sync it does nothing. */
export function liesInMemory(fd: number): boolean {
  if (fstatfs(fd, fsOfFile) < 0) return false;
  return fsOfFile.type === TMPFS_MAGIC || fsOfFile.type === RAMFS_MAGIC;
}

const aFsync = nativeAsync('fsync', 'int', ['int']);
const aFdatasync = nativeAsync('fdatasync', 'int', ['int']);
const aSyncfs = nativeAsync('syncfs', 'int', ['int']);
const aFallocate = nativeAsync('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']);
const aIoctl = nativeAsync('ioctl', 'int', ['int', 'int64_t', 'int64_t']);
const aPread = nativeAsync('pread', 'int', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const aPwrite = nativeAsync('pwrite', 'int', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const aCopyFileRange = nativeAsync('copy_file_range', 'int64_t', [
  'int',
  'uintptr_t',
  'int',
  'uintptr_t',
  'size_t',
  'uint',
]);

export function fsyncAsync(fd: number): Promise<number> {
  return aFsync([], fd);
}

export function fdatasyncAsync(fd: number): Promise<number> {
  return aFdatasync([], fd);
}

/** Writes back the whole file system that `fd` lies on. */
export function syncfsAsync(fd: number): Promise<number> {
  return aSyncfs([], fd);
}

export function fallocateAsync(fd: number, mode: number, offset: number, len: number): Promise<number> {
  return aFallocate([], fd, mode, offset, len);
}

export function ficloneAsync(dst: number, src: number): Promise<number> {
  return aIoctl([], dst, FICLONE, src);
}

export function copyFileRangeAsync(
  fdIn: number,
  offIn: number,
  fdOut: number,
  offOut: number,
  len: number,
): Promise<number> {
  const own = Buffer.allocUnsafeSlow(16);
  putOffsets(new DataView(own.buffer), offIn, offOut);
  const address = addressOf(own);
  return aCopyFileRange([own], fdIn, address, fdOut, address + 8, len, 0);
}

export function preadAsync(
  fd: number,
  buf: Uint8Array,
  bufOffset: number,
  len: number,
  pos: number,
): Promise<number> {
  if (!inside(buf, bufOffset, len)) return Promise.resolve(-E.EFAULT);
  return aPread([buf], fd, addressAt(buf, bufOffset), len, pos);
}

export function pwriteAsync(
  fd: number,
  buf: Uint8Array,
  bufOffset: number,
  len: number,
  pos: number,
): Promise<number> {
  if (!inside(buf, bufOffset, len)) return Promise.resolve(-E.EFAULT);
  return aPwrite([buf], fd, addressAt(buf, bufOffset), len, pos);
}
