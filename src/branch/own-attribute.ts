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
  return permitting(dirFd, name, 0o200, () => setxattr(dirFd, name, attr, value, 0));
}

/** 0 or a negative errno; ENODATA: it had none. */
export function removeOwnAttribute(dirFd: number, name: string, attr: string): number {
  return permitting(dirFd, name, 0o200, () => removexattr(dirFd, name, attr));
}

/** The value, or a negative errno; ENODATA: it has none. Never of the base, for this may change its mode meanwhile. */
export function readOwnAttribute(dirFd: number, name: string, attr: string): Buffer | number {
  const value = getxattr(dirFd, name, attr);
  return value === -E.EACCES ? permitting(dirFd, name, 0o400, () => getxattr(dirFd, name, attr)) : value;
}

/** Whether an attribute is this one letter, as overlayfs writes its marks: nothing else counts. `own`: it is the overlay's. */
export function isLetter(
  dirFd: number,
  name: string,
  attr: string,
  letter: 'x' | 'y',
  own: boolean,
): boolean {
  const value = own ? readOwnAttribute(dirFd, name, attr) : getxattr(dirFd, name, attr);
  return typeof value !== 'number' && value.length === 1 && value[0] === letter.charCodeAt(0);
}

/** Does it, where need be with this right of the owner's added meanwhile. */
function permitting<T>(dirFd: number, name: string, right: number, work: () => T | number): T | number {
  const error = work();
  if (error !== -E.EACCES || statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch) < 0) return error;
  const mode = scratch.mode & 0o7777;
  if (fchmodat(dirFd, name, mode | right) < 0) return error;
  const result = work();
  fchmodat(dirFd, name, mode);
  return result;
}
