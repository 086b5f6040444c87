// Attributes: statx(2), and what changes them. Nothing here follows a symlink at the end of a name, unless
// statx is asked to. '' as name is the object of the descriptor, which may be an O_PATH one.
import { E } from '../lib/errno.ts';
import { S_IFLNK, S_IFMT, type Stat } from '../lib/stat.ts';
import {
  AT_EMPTY_PATH,
  AT_STATX_FORCE_SYNC,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  STATX_BASIC_STATS,
  STATX_BTIME,
  STATX_MNT_ID,
  STATX_SUBVOL,
  SYS_FCHMODAT2,
} from './constants.ts';
import { native, pinned, systemCall } from './ffi.ts';
import { close, foldInode, openat } from './file.ts';
import { NAME_A, PROC_PATH, putA, putProcFd } from './scratch.ts';

const cStatx = native('statx', 'int', ['int', 'uintptr_t', 'int', 'uint', 'uintptr_t']);
const cFchmodat2 = systemCall(['int', 'uintptr_t', 'uint', 'uint']);
const cChmod = native('chmod', 'int', ['uintptr_t', 'uint']);
const cFchownat = native('fchownat', 'int', ['int', 'uintptr_t', 'uint', 'uint', 'int']);
const cUtimensat = native('utimensat', 'int', ['int', 'uintptr_t', 'uintptr_t', 'int']);

const WANTED = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID | STATX_SUBVOL;
const HI = 0x100000000;

/** struct statx of linux/stat.h. */
const statxMemory = pinned(256);
const words = statxMemory.u32;
/** The upper halves of seconds are signed. */
const signed = new Int32Array(words.buffer, words.byteOffset, words.length);

/** Follows a symlink at the end unless `flags` has AT_SYMLINK_NOFOLLOW. */
export function statx(dirFd: number, name: string, flags: number, out: Stat): number {
  const bad = putA(name);
  if (bad !== 0) return bad;
  const all = name === '' ? flags | AT_EMPTY_PATH : flags;
  const error = cStatx(dirFd, NAME_A, all, WANTED, statxMemory.address);
  if (error === 0) decode(out);
  return error;
}

export function fstat(fd: number, out: Stat): number {
  return statx(fd, '', 0, out);
}

/** As the server has it, where others have the file from one: what this machine remembers of it may be a minute old. */
export function fstatFresh(fd: number, out: Stat): number {
  return statx(fd, '', AT_STATX_FORCE_SYNC, out);
}

function decode(out: Stat): void {
  // Little-endian 32-bit words; the mode is the lower half of the eighth.
  const w = words;
  out.mask = w[0] as number;
  out.blksize = w[1] as number;
  out.attributes = w[2] as number;
  out.nlink = w[4] as number;
  out.uid = w[5] as number;
  out.gid = w[6] as number;
  out.mode = (w[7] as number) & 0xffff;
  out.ino = foldInode(w[8] as number, w[9] as number);
  out.size = (w[11] as number) * HI + (w[10] as number);
  out.blocks = (w[13] as number) * HI + (w[12] as number);
  out.atimeSec = (signed[17] as number) * HI + (w[16] as number);
  out.atimeNsec = w[18] as number;
  out.btimeSec = (signed[21] as number) * HI + (w[20] as number);
  out.btimeNsec = w[22] as number;
  out.ctimeSec = (signed[25] as number) * HI + (w[24] as number);
  out.ctimeNsec = w[26] as number;
  out.mtimeSec = (signed[29] as number) * HI + (w[28] as number);
  out.mtimeNsec = w[30] as number;
  out.rdevMajor = w[32] as number;
  out.rdevMinor = w[33] as number;
  out.devMajor = w[34] as number;
  out.devMinor = w[35] as number;
  out.mntId = (w[37] as number) * HI + (w[36] as number);
  out.contentPrint = '';
  out.subvol = (out.mask & STATX_SUBVOL) === 0 ? 0 : (w[41] as number) * HI + (w[40] as number);
}

/** EBADF: the kernel knows the call (Linux 6.6) and did not like the descriptor. */
const hasFchmodat2 = putA('x') === 0 && cFchmodat2(SYS_FCHMODAT2, -1, NAME_A, 0, 0) === -E.EBADF;

/** Permission bits. A symlink: EOPNOTSUPP. */
export function fchmodat(dirFd: number, name: string, mode: number): number {
  if (!hasFchmodat2) return chmodByDescriptor(dirFd, name, mode);
  const flags = name === '' ? AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  return putA(name) || cFchmodat2(SYS_FCHMODAT2, dirFd, NAME_A, mode, flags);
}

/** chmod(2) of /proc/self/fd/N reaches the open object itself: the way before Linux 6.6. */
export function chmodByDescriptor(dirFd: number, name: string, mode: number): number {
  const own = name === '' ? dirFd : openat(dirFd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (own < 0) return name === '' ? -E.EBADF : own;
  const type = cStatx(own, emptyName(), AT_EMPTY_PATH, STATX_BASIC_STATS, statxMemory.address);
  let result = type;
  if (result === 0 && ((words[7] as number) & S_IFMT) === S_IFLNK) result = -E.EOPNOTSUPP;
  if (result === 0) result = putProcFd(own) || cChmod(PROC_PATH, mode);
  if (name !== '') close(own);
  return result;
}

function emptyName(): number {
  putA('');
  return NAME_A;
}

/** -1 leaves an owner as it is. */
export function fchownat(dirFd: number, name: string, uid: number, gid: number): number {
  const flags = name === '' ? AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  return putA(name) || cFchownat(dirFd, NAME_A, uid >>> 0, gid >>> 0, flags);
}

/** Two struct timespec. */
const times = pinned(32);

/** UTIME_NOW and UTIME_OMIT go into the nanoseconds. Seconds may be negative. */
export function utimensat(
  dirFd: number,
  name: string,
  atimeSec: number,
  atimeNsec: number,
  mtimeSec: number,
  mtimeNsec: number,
): number {
  const t = times.u32;
  t[0] = atimeSec >>> 0;
  t[1] = Math.floor(atimeSec / HI);
  t[2] = atimeNsec;
  t[4] = mtimeSec >>> 0;
  t[5] = Math.floor(mtimeSec / HI);
  t[6] = mtimeNsec;
  const flags = name === '' ? AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  return putA(name) || cUtimensat(dirFd, NAME_A, times.address, flags);
}
