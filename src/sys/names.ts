// Names in directories: making, linking, renaming, removing. Nothing follows a symlink at the end of a name.
// Modes are cut by the umask of the calling thread's file system state (creds.ts, unshareFs).
import { E } from '../lib/errno.ts';
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, SYS_MKNODAT } from './constants.ts';
import { native, pinned, systemCall } from './ffi.ts';
import { NAME_A, NAME_B, PROC_PATH, putA, putB, putProcFd } from './scratch.ts';

/** glibc has mknodat as a function only since 2.33. */
const cMknodat = systemCall(['int', 'uintptr_t', 'uint', 'uint']);
const cMkdirat = native('mkdirat', 'int', ['int', 'uintptr_t', 'uint']);
const cUnlinkat = native('unlinkat', 'int', ['int', 'uintptr_t', 'int']);
const cLinkat = native('linkat', 'int', ['int', 'uintptr_t', 'int', 'uintptr_t', 'int']);
const cSymlinkat = native('symlinkat', 'int', ['uintptr_t', 'int', 'uintptr_t']);
const cReadlinkat = native('readlinkat', 'int', ['int', 'uintptr_t', 'uintptr_t', 'size_t']);
const cRenameat2 = native('renameat2', 'int', ['int', 'uintptr_t', 'int', 'uintptr_t', 'uint']);
const cUmask = native('umask', 'int', ['uint']);

/** `mode` with its type; the device number counts for S_IFCHR and S_IFBLK. */
export function mknodat(dirFd: number, name: string, mode: number, major: number, minor: number): number {
  if (major > 0xfff || minor > 0xfffff) return -E.EINVAL;
  return putA(name) || cMknodat(SYS_MKNODAT, dirFd, NAME_A, mode, deviceNumber(major, minor));
}

/** As the kernel packs it: 12 bits of major, 20 of minor. */
function deviceNumber(major: number, minor: number): number {
  return ((major << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0;
}

export function mkdirat(dirFd: number, name: string, mode: number): number {
  return putA(name) || cMkdirat(dirFd, NAME_A, mode);
}

/** `flags`: AT_REMOVEDIR or 0. */
export function unlinkat(dirFd: number, name: string, flags: number): number {
  return putA(name) || cUnlinkat(dirFd, NAME_A, flags);
}

/** `flags`: AT_SYMLINK_FOLLOW or 0; `oldName` '' is linkFd. */
export function linkat(
  oldDir: number,
  oldName: string,
  newDir: number,
  newName: string,
  flags: number,
): number {
  if (oldName === '') return linkFd(oldDir, newDir, newName);
  return putA(oldName) || putB(newName) || cLinkat(oldDir, NAME_A, newDir, NAME_B, flags);
}

/** Gives an open object (O_TMPFILE, or of any kind but a directory) a name. */
export function linkFd(fd: number, newDir: number, newName: string): number {
  const bad = putA('') || putB(newName);
  if (bad !== 0) return bad;
  const error = cLinkat(fd, NAME_A, newDir, NAME_B, AT_EMPTY_PATH);
  // Without CAP_DAC_READ_SEARCH the kernel says ENOENT; the way through /proc is open to everybody.
  if (error !== -E.ENOENT) return error;
  return putProcFd(fd) || cLinkat(AT_FDCWD, PROC_PATH, newDir, NAME_B, AT_SYMLINK_FOLLOW);
}

export function symlinkat(target: string, dirFd: number, name: string): number {
  return putA(target) || putB(name) || cSymlinkat(NAME_A, dirFd, NAME_B);
}

/** PATH_MAX: no target is longer. */
const targetMemory = pinned(4096);

/** The target; '' as name reads the symlink that an O_PATH descriptor holds. */
export function readlinkat(dirFd: number, name: string): string | number {
  const bad = putA(name);
  if (bad !== 0) return bad;
  const length = cReadlinkat(dirFd, NAME_A, targetMemory.address, targetMemory.bytes.length);
  return length < 0 ? length : targetMemory.bytes.toString('latin1', 0, length);
}

/** `flags`: a set of RENAME_*. */
export function renameat2(
  oldDir: number,
  oldName: string,
  newDir: number,
  newName: string,
  flags: number,
): number {
  return putA(oldName) || putB(newName) || cRenameat2(oldDir, NAME_A, newDir, NAME_B, flags);
}

/** Of this thread, which alone sets it (creds.ts, unshareFs): to set it anew costs as much as to look at a file. */
const own = { umask: -1 };

/** Sets the umask. */
export function setUmask(mask: number): void {
  if (mask === own.umask) return;
  cUmask(mask);
  own.umask = mask;
}
