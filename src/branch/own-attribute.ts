// Kasane's own attributes, and overlayfs's, on objects of the overlay whatever their modes: user.* ones are only for who
// may read an object, or write to it, and without privileges the daemon is no more than its owner.
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { fchmodat, statx } from '../sys/stat.ts';
import { getxattr, removexattr, setxattr } from '../sys/xattr.ts';

const scratch = newStat();

/** 0 or a negative errno. */
export function setOwnAttribute(dirFd: number, name: string, attr: string, value: Buffer): number {
  return writing(dirFd, name, () => setxattr(dirFd, name, attr, value, 0));
}

/** 0 or a negative errno; ENODATA: it had none. */
export function removeOwnAttribute(dirFd: number, name: string, attr: string): number {
  return writing(dirFd, name, () => removexattr(dirFd, name, attr));
}

/**
 * Does what reads an object's attributes, `attr` among them, where need be with the owner's right to read added meanwhile.
 * That moves its ctime, and who changes its mode at the same time loses that change: for the serving thread alone, which
 * carries out such changes, and never for the base.
 */
export function readingOwn<T>(dirFd: number, name: string, attr: string, work: () => T): T {
  return getxattr(dirFd, name, attr) === -E.EACCES ? lending(dirFd, name, 0o400, work) : work();
}

/** An attribute, as `readingOwn` reads it. */
export function readOwnAttribute(dirFd: number, name: string, attr: string): Buffer | number {
  const read = () => getxattr(dirFd, name, attr);
  const value = read();
  return value === -E.EACCES ? lending(dirFd, name, 0o400, read) : value;
}

/** Whether an attribute is this one letter. */
export function isLetter(dirFd: number, name: string, attr: string, letter: 'x' | 'y'): boolean {
  return saysLetter(getxattr(dirFd, name, attr), letter);
}

/** Whether a value is this one letter, as overlayfs writes its marks: nothing else counts. */
export function saysLetter(value: Buffer | number, letter: 'x' | 'y'): boolean {
  return typeof value !== 'number' && value.length === 1 && value[0] === letter.charCodeAt(0);
}

function writing(dirFd: number, name: string, work: () => number): number {
  const error = work();
  return error === -E.EACCES ? lending(dirFd, name, 0o200, work) : error;
}

/** Does it with this right of the owner's added meanwhile, where that can be. */
function lending<T>(dirFd: number, name: string, right: number, work: () => T): T {
  if (statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch) < 0) return work();
  const mode = scratch.mode & 0o7777;
  if (fchmodat(dirFd, name, mode | right) < 0) return work();
  const result = work();
  fchmodat(dirFd, name, mode);
  return result;
}
