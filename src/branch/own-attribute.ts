// Kasane's own attributes, and overlayfs's, set on objects of the overlay whatever their modes: user.* ones are only
// for who may write to an object, and without privileges the daemon is no more than its owner.
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { fchmodat, statx } from '../sys/stat.ts';
import { getxattr, removexattr, setxattr } from '../sys/xattr.ts';

const scratch = newStat();

/** 0 or a negative errno. */
export function setOwnAttribute(dirFd: number, name: string, attr: string, value: Buffer): number {
  return writable(dirFd, name, () => setxattr(dirFd, name, attr, value, 0));
}

/** 0 or a negative errno; ENODATA: it had none. */
export function removeOwnAttribute(dirFd: number, name: string, attr: string): number {
  return writable(dirFd, name, () => removexattr(dirFd, name, attr));
}

/** Whether an attribute is this one letter, as overlayfs writes its marks: nothing else counts. */
export function isLetter(dirFd: number, name: string, attr: string, letter: 'x' | 'y'): boolean {
  const value = getxattr(dirFd, name, attr);
  return typeof value !== 'number' && value.length === 1 && value[0] === letter.charCodeAt(0);
}

/** Does it, where need be with the owner's right to write added meanwhile. */
function writable(dirFd: number, name: string, work: () => number): number {
  const error = work();
  if (error !== -E.EACCES || statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch) < 0) return error;
  const mode = scratch.mode & 0o7777;
  if (fchmodat(dirFd, name, mode | 0o200) < 0) return error;
  const result = work();
  fchmodat(dirFd, name, mode);
  return result;
}
