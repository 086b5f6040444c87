// The overlay: the one writable branch, in kernel overlayfs's on-disk format. This file knows the names of
// its extended attributes and whether the file system beneath can carry what Kasane needs.
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { joinPath } from '../lib/names.ts';
import { isRegular, newStat, type Stat } from '../lib/stat.ts';
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_PATH } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { mknodat, unlinkat } from '../sys/names.ts';
import { fstat, statx } from '../sys/stat.ts';
import { getxattr, removexattr, setxattr } from '../sys/xattr.ts';

export interface Overlay {
  /** The host's path, an inner name. */
  readonly path: string;
  readonly rootFd: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** `trusted.` as root, `user.` for ordinary users. */
  readonly xattrPrefix: 'trusted.' | 'user.';
  readonly opaque: string;
  readonly impure: string;
  readonly redirect: string;
  readonly metacopy: string;
  /** Overlayfs's own origin: a handle of what was copied up. */
  readonly copied: string;
  readonly origin: string;
}

/** Opens the overlay's root; throws FsError (ENOENT, ENOTDIR, EACCES). Nothing is written. */
export function openOverlay(path: string, privileged: boolean): Overlay {
  const fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw new FsError(-fd, `cannot open the overlay ${path}: ${errnoName(fd)}`);
  const stat = newStat();
  const error = fstat(fd, stat);
  if (error < 0) {
    close(fd);
    throw new FsError(-error, `cannot stat the overlay ${path}: ${errnoName(error)}`);
  }
  const prefix = privileged ? 'trusted.' : 'user.';
  return {
    path,
    rootFd: fd,
    devMajor: stat.devMajor,
    devMinor: stat.devMinor,
    xattrPrefix: prefix,
    opaque: `${prefix}overlay.opaque`,
    impure: `${prefix}overlay.impure`,
    redirect: `${prefix}overlay.redirect`,
    metacopy: `${prefix}overlay.metacopy`,
    copied: `${prefix}overlay.origin`,
    origin: `${prefix}kasane.origin`,
  };
}

/**
 * Proves by doing that extended attributes and device whiteouts work in `workFd` (on the overlay's file
 * system). Throws FsError EOPNOTSUPP with what is missing; leaves nothing behind.
 */
export function probeOverlay(overlay: Overlay, workFd: number): void {
  const attr = `${overlay.xattrPrefix}kasane.probe`;
  const set = setxattr(workFd, '', attr, Buffer.from('1'), 0);
  if (set < 0) {
    const why = `its file system refuses ${overlay.xattrPrefix}* extended attributes (${errnoName(set)})`;
    throw new FsError(E.EOPNOTSUPP, `${why}; put the overlay on ext4, xfs, btrfs or a recent tmpfs`);
  }
  removexattr(workFd, '', attr);
  const made = mknodat(workFd, 'probe', 0o020000, 0, 0);
  if (made < 0 && made !== -E.EEXIST) {
    const why = `its file system refuses whiteouts (character device 0:0: ${errnoName(made)})`;
    throw new FsError(E.EOPNOTSUPP, `${why}; an overlay cannot lie on overlayfs or on a FUSE file system`);
  }
  unlinkat(workFd, 'probe', 0);
}

const markStat = newStat();

/** Whether the overlay's directory is opaque: only the value `y` says so, or the mark of fuse-overlayfs. */
export function isOpaque(overlay: Overlay, dirFd: number, name: string): boolean {
  const value = getxattr(dirFd, name, overlay.opaque);
  if (typeof value !== 'number' && value.length === 1 && value[0] === 0x79) return true;
  const marked = statx(dirFd, joinPath(name, OPAQUE_MARK), AT_SYMLINK_NOFOLLOW, markStat);
  return marked === 0 && isOpaqueMark(OPAQUE_MARK, markStat);
}

/**
 * fuse-overlayfs puts an empty file of this name, aufs's mark, beside the attribute that says opaque, or in its
 * place. It is no more a thing of the guest's than a whiteout is, so no guest may make one.
 */
export const OPAQUE_MARK = '.wh..wh..opq';

export function isOpaqueMark(name: string, stat: Stat): boolean {
  return name === OPAQUE_MARK && isRegular(stat.mode) && stat.size === 0;
}

/** Sets opaque on an open directory (name '' means the descriptor itself). */
export function setOpaque(overlay: Overlay, dirFd: number, name: string): number {
  return setxattr(dirFd, name, overlay.opaque, Buffer.from('y'), 0);
}

/**
 * Whether something in the overlay's directory shows another inode number than its own, though the base has no
 * such directory: what was copied up has been renamed or linked to there. Overlayfs's own mark for the same.
 */
export function isImpure(overlay: Overlay, dirFd: number): boolean {
  const value = getxattr(dirFd, '', overlay.impure);
  return typeof value !== 'number' && value.length === 1 && value[0] === 0x79;
}

/**
 * Marks a directory before a whiteout comes into it. Overlayfs looks for whiteouts in the listings of merged
 * directories, and of others that have an origin of its own kind ('' says: unknown); where the base's directory
 * is hidden or gone it would list a name that is not there.
 */
export function noteWhiteouts(overlay: Overlay, dirFd: number): number {
  const value = getxattr(dirFd, '', overlay.copied);
  return typeof value === 'number' ? setxattr(dirFd, '', overlay.copied, Buffer.alloc(0), 0) : 0;
}

export function setImpure(overlay: Overlay, dirFd: number): number {
  return isImpure(overlay, dirFd) ? 0 : setxattr(dirFd, '', overlay.impure, Buffer.from('y'), 0);
}

/** Where the base has a renamed directory: overlayfs's redirect; null where it has none. */
export function redirectOf(overlay: Overlay, dirFd: number, name: string): string | null {
  const value = getxattr(dirFd, name, overlay.redirect);
  return typeof value === 'number' || value.length === 0 ? null : value.toString('latin1');
}

/** Says where the base has the directory: its path from the base's root. */
export function setRedirect(overlay: Overlay, dirFd: number, name: string, path: string): number {
  return setxattr(dirFd, name, overlay.redirect, Buffer.from(`/${path}`, 'latin1'), 0);
}

/** 0 or a negative errno; ENODATA: it had none. */
export function removeRedirect(overlay: Overlay, dirFd: number, name: string): number {
  return removexattr(dirFd, name, overlay.redirect);
}
