// Copying what is not content from one object to another: extended attributes with ACLs, owner, mode, times.
// Kasane's and overlayfs's own attributes describe a place in a branch and are never copied.
import { E } from '../lib/errno.ts';
import { isSymlink, S_ISGID, S_ISUID, type Stat } from '../lib/stat.ts';
import { fchmodat, fchownat, utimensat } from '../sys/stat.ts';
import { getxattr, listxattr, setxattr } from '../sys/xattr.ts';

/** xfs tells of ACLs a second time, under names of its own that no other file system understands. */
const branchAttribute =
  /^(?:(?:trusted|user)\.(?:overlay\.(?!overlay\.)|kasane\.)|user\.fuseoverlayfs\.|trusted\.SGI_ACL_|system\.nfs4_)/;

/** Attributes that belong to a branch and not to the object that a guest sees (an escaped one is a guest's). */
export function isBranchAttribute(attr: string): boolean {
  return branchAttribute.test(attr);
}

/** What may not be set without privileges; EINVAL: an id that a user namespace does not have. */
const notOurs: readonly number[] = [-E.EPERM, -E.EOPNOTSUPP, -E.EINVAL];

/** Names in the form of listxattr(2). */
export function splitNames(list: Buffer): string[] {
  return list
    .toString('latin1')
    .split('\0')
    .filter((name) => name !== '');
}

const NONE: ReadonlyMap<string, Buffer> = new Map();

/**
 * All attributes of an object but a branch's own, to be given to another; a negative errno. A file system that has
 * none to give is fine (EOPNOTSUPP); what may not be read is left out where `lenient`.
 */
export function attributesOf(
  dirFd: number,
  name: string,
  lenient: boolean,
): ReadonlyMap<string, Buffer> | number {
  const list = listxattr(dirFd, name);
  if (typeof list === 'number') return list === -E.EOPNOTSUPP || list === -E.ENOSYS ? NONE : list;
  if (list.length === 0) return NONE;
  const found = new Map<string, Buffer>();
  for (const attr of splitNames(list)) {
    if (isBranchAttribute(attr)) continue;
    const value = getxattr(dirFd, name, attr);
    if (typeof value !== 'number') found.set(attr, value);
    // Removed since it was listed; or not ours to read, then not ours to show.
    else if (value !== -E.ENODATA && !lenient) return value;
  }
  return found;
}

/**
 * Owner, attributes, mode, in this order: a change of owner clears set-id bits and capabilities. 0 or a negative
 * errno. What an unprivileged user may not set is left out where `lenient`; the mode, where somebody sets it anyway.
 */
export function giveAttributes(
  stat: Stat,
  attributes: ReadonlyMap<string, Buffer>,
  toFd: number,
  toName: string,
  { lenient, withMode }: { lenient: boolean; withMode: boolean },
): number {
  let mode = stat.mode & 0o7777;
  const owned = fchownat(toFd, toName, stat.uid, stat.gid);
  if (owned < 0) {
    if (!lenient || !notOurs.includes(owned)) return owned;
    // Set-id bits mean the owner and group that it had.
    mode &= fchownat(toFd, toName, -1, stat.gid) < 0 ? ~(S_ISUID | S_ISGID) : ~S_ISUID;
  }
  for (const [attr, value] of attributes) {
    const error = setxattr(toFd, toName, attr, value, 0);
    if (error < 0 && !(lenient && notOurs.includes(error))) return error;
  }
  return !withMode || isSymlink(stat.mode) ? 0 : fchmodat(toFd, toName, mode);
}

/** `to` gets what `from`, whose stat is given, has; 0 or a negative errno. */
export function copyAttributes(
  stat: Stat,
  fromFd: number,
  fromName: string,
  toFd: number,
  toName: string,
  lenient: boolean,
): number {
  const attributes = attributesOf(fromFd, fromName, lenient);
  if (typeof attributes === 'number') return attributes;
  return giveAttributes(stat, attributes, toFd, toName, { lenient, withMode: true });
}

/** All attributes that belong to the object and can be read, by name. */
export function readXattrs(dirFd: number, name: string): ReadonlyMap<string, Buffer> {
  const found = attributesOf(dirFd, name, true);
  return typeof found === 'number' ? NONE : found;
}

export function copyTimes(stat: Stat, toFd: number, toName: string): number {
  return utimensat(toFd, toName, stat.atimeSec, stat.atimeNsec, stat.mtimeSec, stat.mtimeNsec);
}
