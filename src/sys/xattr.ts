// Extended attributes, never through a symlink at the end of a name. Only since Linux 6.13 there are calls
// that take a directory's descriptor; else a name is reached as /proc/self/fd/N/name. '' as name is the
// object of the descriptor: for an O_PATH one, which the f* calls refuse (as the new ones do), as '.' in it if it
// is a directory that may be searched, and else by following /proc/self/fd/N.
import { E } from '../lib/errno.ts';
import { AT_SYMLINK_NOFOLLOW, SYS_GETXATTRAT, SYS_LISTXATTRAT, SYS_SETXATTRAT } from './constants.ts';
import { addressOf, native, pinned, systemCall } from './ffi.ts';
import {
  NAME_A,
  NAME_ATTR,
  PROC_PATH,
  putA,
  putAttr,
  putProcFd,
  putProcName,
  standsAlone,
} from './scratch.ts';

const cGet = native('getxattr', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t']);
const cLget = native('lgetxattr', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t']);
const cFget = native('fgetxattr', 'int', ['int', 'uintptr_t', 'uintptr_t', 'size_t']);
const cGetxattrat = systemCall(['int', 'uintptr_t', 'int', 'uintptr_t', 'uintptr_t', 'size_t']);
const cSetxattrat = systemCall(['int', 'uintptr_t', 'int', 'uintptr_t', 'uintptr_t', 'size_t']);
const cListxattrat = systemCall(['int', 'uintptr_t', 'int', 'uintptr_t', 'size_t']);
const cSet = native('setxattr', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t', 'int']);
const cLset = native('lsetxattr', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t', 'int']);
const cFset = native('fsetxattr', 'int', ['int', 'uintptr_t', 'uintptr_t', 'size_t', 'int']);
const cRemove = native('removexattr', 'int', ['uintptr_t', 'uintptr_t']);
const cLremove = native('lremovexattr', 'int', ['uintptr_t', 'uintptr_t']);
const cFremove = native('fremovexattr', 'int', ['int', 'uintptr_t']);
const cList = native('listxattr', 'int', ['uintptr_t', 'uintptr_t', 'size_t']);
const cLlist = native('llistxattr', 'int', ['uintptr_t', 'uintptr_t', 'size_t']);
const cFlist = native('flistxattr', 'int', ['int', 'uintptr_t', 'size_t']);

/** XATTR_SIZE_MAX and XATTR_LIST_MAX: nothing is larger. */
const LARGEST = 65536;
/** Tried first: the kernel allocates, and for a value clears, as much as it is offered. */
const USUAL = 512;
const value = pinned(LARGEST);

/** Address of the path that leads to a name without following it, or a negative errno. */
function pathTo(dirFd: number, name: string): number {
  if (standsAlone(dirFd, name)) return putA(name) || NAME_A;
  return putProcName(dirFd, name) || PROC_PATH;
}

/** /proc says ENOENT of a descriptor that is not open. */
function ofDescriptor(result: number): number {
  return result === -E.ENOENT ? -E.EBADF : result;
}

/** The way to an O_PATH directory's own attributes, at half the cost of the one through /proc. */
const SELF = '.';

/** It is no directory, or may not be searched. */
function isOutOfReach(result: number): boolean {
  return result === -E.ENOTDIR || result === -E.EACCES;
}

/** struct xattr_args (value, size, flags) for each of the two sizes. */
const usualArgs = xattrArgs(USUAL);
const largestArgs = xattrArgs(LARGEST);

function xattrArgs(room: number): number {
  const args = pinned(16);
  args.view.setBigUint64(0, BigInt(value.address), true);
  args.u32[2] = room;
  return args.address;
}

/** The same of what is set, whose size and flags change. */
const givenArgs = pinned(16);

/** EBADF: the kernel knows the calls and did not like the descriptor. Half the cost of the way through /proc. */
const hasXattrat =
  putA('x') === 0 &&
  putAttr('user.x') === 0 &&
  cGetxattrat(SYS_GETXATTRAT, -1, NAME_A, 0, NAME_ATTR, usualArgs, 16) === -E.EBADF;

/** A copy of the value; ENODATA: there is no such attribute. */
export function getxattr(dirFd: number, name: string, attr: string): Buffer | number {
  return getWith(hasXattrat, dirFd, name, attr);
}

/** The same with the calls of before Linux 6.13. */
export function getxattrByPath(dirFd: number, name: string, attr: string): Buffer | number {
  return getWith(false, dirFd, name, attr);
}

function getWith(xattrat: boolean, dirFd: number, name: string, attr: string): Buffer | number {
  const bad = putAttr(attr);
  if (bad !== 0) return bad;
  let size = getInto(xattrat, dirFd, name, USUAL);
  if (size === -E.ERANGE) size = getInto(xattrat, dirFd, name, LARGEST);
  return size < 0 ? size : copied(size);
}

function getInto(xattrat: boolean, dirFd: number, name: string, room: number): number {
  if (name !== '') {
    if (xattrat) return getAt(dirFd, name, room);
    const path = pathTo(dirFd, name);
    return path < 0 ? path : cLget(path, NAME_ATTR, value.address, room);
  }
  const size = cFget(dirFd, NAME_ATTR, value.address, room);
  if (size !== -E.EBADF) return size;
  const inIt = xattrat && dirFd >= 0 ? getAt(dirFd, SELF, room) : -E.ENOTDIR;
  if (!isOutOfReach(inIt)) return inIt;
  return putProcFd(dirFd) || ofDescriptor(cGet(PROC_PATH, NAME_ATTR, value.address, room));
}

function getAt(dirFd: number, name: string, room: number): number {
  const args = room === USUAL ? usualArgs : largestArgs;
  return putA(name) || cGetxattrat(SYS_GETXATTRAT, dirFd, NAME_A, AT_SYMLINK_NOFOLLOW, NAME_ATTR, args, 16);
}

function copied(size: number): Buffer {
  const copy = Buffer.allocUnsafe(size);
  value.bytes.copy(copy, 0, 0, size);
  return copy;
}

/** Address of bytes for a call. To copy a few costs less than to ask for the address of memory not met before. */
function placed(bytes: Uint8Array): number {
  if (bytes.length > USUAL) return addressOf(bytes);
  value.bytes.set(bytes);
  return value.address;
}

/** `flags`: XATTR_CREATE, XATTR_REPLACE or 0. */
export function setxattr(
  dirFd: number,
  name: string,
  attr: string,
  bytes: Uint8Array,
  flags: number,
): number {
  const bad = putAttr(attr);
  if (bad !== 0) return bad;
  const at = placed(bytes);
  const { length } = bytes;
  if (name !== '') {
    if (hasXattrat) return setAt(dirFd, name, at, length, flags);
    const path = pathTo(dirFd, name);
    return path < 0 ? path : cLset(path, NAME_ATTR, at, length, flags);
  }
  const error = cFset(dirFd, NAME_ATTR, at, length, flags);
  if (error !== -E.EBADF) return error;
  const inIt = hasXattrat && dirFd >= 0 ? setAt(dirFd, SELF, at, length, flags) : -E.ENOTDIR;
  if (!isOutOfReach(inIt)) return inIt;
  return putProcFd(dirFd) || ofDescriptor(cSet(PROC_PATH, NAME_ATTR, at, length, flags));
}

function setAt(dirFd: number, name: string, at: number, length: number, flags: number): number {
  givenArgs.u32[0] = at >>> 0;
  givenArgs.u32[1] = Math.floor(at / 0x100000000);
  givenArgs.u32[2] = length;
  givenArgs.u32[3] = flags;
  const args = givenArgs.address;
  return putA(name) || cSetxattrat(SYS_SETXATTRAT, dirFd, NAME_A, AT_SYMLINK_NOFOLLOW, NAME_ATTR, args, 16);
}

/** By a path, whose last symlink is followed. */
export function setxattrByPath(path: string, attr: string, bytes: Uint8Array): number {
  return putA(path) || putAttr(attr) || cSet(NAME_A, NAME_ATTR, addressOf(bytes), bytes.length, 0);
}

export function removexattr(dirFd: number, name: string, attr: string): number {
  const bad = putAttr(attr);
  if (bad !== 0) return bad;
  if (name !== '') {
    const path = pathTo(dirFd, name);
    return path < 0 ? path : cLremove(path, NAME_ATTR);
  }
  const error = cFremove(dirFd, NAME_ATTR);
  if (error !== -E.EBADF) return error;
  return putProcFd(dirFd) || ofDescriptor(cRemove(PROC_PATH, NAME_ATTR));
}

/** The names, each with a NUL after it. */
export function listxattr(dirFd: number, name: string): Buffer | number {
  let size = listInto(dirFd, name, USUAL);
  if (size === -E.ERANGE) size = listInto(dirFd, name, LARGEST);
  return size < 0 ? size : copied(size);
}

function listInto(dirFd: number, name: string, room: number): number {
  if (name !== '') {
    if (hasXattrat) return listAt(dirFd, name, room);
    const path = pathTo(dirFd, name);
    return path < 0 ? path : cLlist(path, value.address, room);
  }
  const size = cFlist(dirFd, value.address, room);
  if (size !== -E.EBADF) return size;
  const inIt = hasXattrat && dirFd >= 0 ? listAt(dirFd, SELF, room) : -E.ENOTDIR;
  if (!isOutOfReach(inIt)) return inIt;
  return putProcFd(dirFd) || ofDescriptor(cList(PROC_PATH, value.address, room));
}

function listAt(dirFd: number, name: string, room: number): number {
  return putA(name) || cListxattrat(SYS_LISTXATTRAT, dirFd, NAME_A, AT_SYMLINK_NOFOLLOW, value.address, room);
}
