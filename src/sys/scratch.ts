// Where names are put for a system call: pinned memory, so that their addresses are constants. A name is a
// latin1 string, a character a byte. Two names at most are needed at a time, and an attribute's.
import { E } from '../lib/errno.ts';
import { AT_FDCWD } from './constants.ts';
import { pinned } from './ffi.ts';

/** PATH_MAX: with its NUL no path may be longer. */
const SPACE = 4096;

const memory = pinned(3 * SPACE);
const bytes = memory.bytes;

/** Offsets of the places. */
const A = 0;
const B = SPACE;
const ATTR = 2 * SPACE;

export const NAME_A = memory.address + A;
export const NAME_B = memory.address + B;
export const NAME_ATTR = memory.address + ATTR;

/** A loop is quicker than a call into Node for names of usual length. */
const LOOP_LENGTH = 24;

/** Writes `name` and a NUL; 0, or -ENAMETOOLONG, or -EINVAL for what is no byte or would end the name. */
function put(name: string, at: number, space: number): number {
  const length = name.length;
  if (length >= space) return -E.ENAMETOOLONG;
  if (length <= LOOP_LENGTH) {
    for (let i = 0; i < length; i++) {
      const byte = name.charCodeAt(i);
      if (byte === 0 || byte > 255) return -E.EINVAL;
      bytes[at + i] = byte;
    }
  } else {
    if (!isBytes(name)) return -E.EINVAL;
    bytes.write(name, at, length, 'latin1');
  }
  bytes[at + length] = 0;
  return 0;
}

const nameBytes = /^[\x01-\xff]*$/;

function isBytes(name: string): boolean {
  return nameBytes.test(name);
}

export function putA(name: string): number {
  return put(name, A, SPACE);
}

export function putB(name: string): number {
  return put(name, B, SPACE);
}

export function putAttr(name: string): number {
  return put(name, ATTR, SPACE);
}

const prefix = '/proc/self/fd/';
/** The prefix is written once into places of its own, before each path. */
const procMemory = pinned(2 * SPACE);
procMemory.bytes.write(prefix, 0, 'latin1');
export const PROC_PATH = procMemory.address;

/** Puts /proc/self/fd/N, whose following leads to the object that is open, symlinks too. */
export function putProcFd(fd: number): number {
  if (fd < 0) return -E.EBADF;
  procMemory.bytes[putNumber(fd, prefix.length)] = 0;
  return 0;
}

/** Puts the path that leads to `name` in the open directory `dirFd`. */
export function putProcName(dirFd: number, name: string): number {
  const memory = procMemory.bytes;
  const length = name.length;
  if (length >= SPACE - 32) return -E.ENAMETOOLONG;
  if (dirFd < 0) return -E.EBADF;
  let end = putNumber(dirFd, prefix.length);
  memory[end++] = 0x2f;
  for (let i = 0; i < length; i++) {
    const byte = name.charCodeAt(i);
    if (byte === 0 || byte > 255) return -E.EINVAL;
    memory[end++] = byte;
  }
  memory[end] = 0;
  return 0;
}

/** Whether the name needs no directory: then it is used as it is. */
export function standsAlone(dirFd: number, name: string): boolean {
  return dirFd === AT_FDCWD || name.charCodeAt(0) === 0x2f;
}

/** Decimal digits of a descriptor at `at`; gives the place after them. */
function putNumber(value: number, at: number): number {
  let digits = 1;
  for (let rest = value; rest >= 10; rest = (rest / 10) | 0) digits += 1;
  let rest = value;
  for (let i = at + digits - 1; i >= at; i--) {
    procMemory.bytes[i] = 0x30 + (rest % 10);
    rest = (rest / 10) | 0;
  }
  return at + digits;
}
