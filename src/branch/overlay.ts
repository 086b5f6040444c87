// The overlay: the one writable branch, in kernel overlayfs's on-disk format. This file knows the names of
// its extended attributes and whether the file system beneath can carry what Kasane needs.
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { newStat, S_IFCHR } from '../lib/stat.ts';
import { AT_FDCWD, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_WRONLY } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { mknodat, unlinkat } from '../sys/names.ts';
import { fstat } from '../sys/stat.ts';
import { getxattr, removexattr, setxattr } from '../sys/xattr.ts';
import { newOriginStore, type OriginStore } from './origin-store.ts';
import {
  isLetter,
  readingOwn,
  readOwnAttribute,
  removeOwnAttribute,
  saysLetter,
  setOwnAttribute,
} from './own-attribute.ts';
import { remoteType } from './remote.ts';
import { announcesFiles, isOpaque, type Marks, marksOfOverlay } from './whiteouts.ts';

export interface Overlay {
  /** The host's path, an inner name. */
  readonly path: string;
  readonly rootFd: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly isRemote: boolean;
  /** `trusted.` as root, `user.` for ordinary users. */
  readonly xattrPrefix: 'trusted.' | 'user.';
  readonly opaque: string;
  readonly impure: string;
  readonly redirect: string;
  readonly metacopy: string;
  /** Overlayfs's own origin: a handle of what was copied up. */
  readonly copied: string;
  readonly origins: OriginStore;
  /** Times that a copy of metadata alone has, while its content is brought. */
  readonly times: string;
  readonly whiteout: string;
  readonly marks: Marks;
  /** Whiteouts are made as empty files with an attribute, for the file system refuses the device. */
  whiteoutFiles: boolean;
}

/** Opens the overlay's root; throws FsError (ENOENT, ENOTDIR, EACCES). Nothing is written. */
export function openOverlay(path: string, prefix: Overlay['xattrPrefix']): Overlay {
  const fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw new FsError(-fd, `cannot open the overlay ${path}: ${errnoName(fd)}`);
  const stat = newStat();
  const error = fstat(fd, stat);
  if (error < 0) {
    close(fd);
    throw new FsError(-error, `cannot stat the overlay ${path}: ${errnoName(error)}`);
  }
  return {
    path,
    rootFd: fd,
    devMajor: stat.devMajor,
    devMinor: stat.devMinor,
    isRemote: remoteType(path) !== null,
    xattrPrefix: prefix,
    opaque: `${prefix}overlay.opaque`,
    impure: `${prefix}overlay.impure`,
    redirect: `${prefix}overlay.redirect`,
    metacopy: `${prefix}overlay.metacopy`,
    copied: `${prefix}overlay.origin`,
    origins: newOriginStore(`${prefix}kasane.origin`),
    times: `${prefix}kasane.times`,
    whiteout: `${prefix}overlay.whiteout`,
    marks: marksOfOverlay(prefix),
    whiteoutFiles: false,
  };
}

/**
 * Finds out by doing, in `workFd` (on the overlay's file system), how whiteouts can be made there, and that the
 * attributes of the format can. Throws FsError EOPNOTSUPP with what is missing; leaves nothing behind.
 */
export function probeOverlay(overlay: Overlay, workFd: number): void {
  for (const kind of ['', 'overlay.']) {
    const attr = `${overlay.xattrPrefix}${kind}probe`;
    const set = setxattr(workFd, '', attr, Buffer.from('1'), 0);
    if (set < 0) {
      const why = `its file system refuses ${overlay.xattrPrefix}${kind}* extended attributes (${errnoName(set)})`;
      throw new FsError(E.EOPNOTSUPP, `${why}; put the overlay on ext4, xfs, btrfs or a recent tmpfs`);
    }
    removexattr(workFd, '', attr);
  }
  unlinkat(workFd, 'probe', 0);
  overlay.whiteoutFiles = false;
  const device = placeWhiteout(overlay, workFd, 'probe');
  overlay.whiteoutFiles = device < 0;
  const made = device < 0 ? placeWhiteout(overlay, workFd, 'probe') : 0;
  unlinkat(workFd, 'probe', 0);
  if (made === 0) return;
  const why = `its file system refuses whiteouts, as a character device 0:0 (${errnoName(device)}) and as a file with an attribute (${errnoName(made)})`;
  throw new FsError(E.EOPNOTSUPP, `${why}; put the overlay on ext4, xfs, btrfs or a recent tmpfs`);
}

/** Makes a whiteout under a free name; 0 or a negative errno. Where it comes to lie, `noteWhiteouts` goes before. */
export function placeWhiteout(overlay: Overlay, dirFd: number, name: string): number {
  if (!overlay.whiteoutFiles) return mknodat(dirFd, name, S_IFCHR, 0, 0);
  const fd = openat(dirFd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  const error = setxattr(fd, '', overlay.whiteout, Buffer.from('y'), 0);
  close(fd);
  if (error < 0) unlinkat(dirFd, name, 0);
  return error;
}

/** Sets opaque on a directory ('' as name: the descriptor's own). */
export function setOpaque(overlay: Overlay, dirFd: number, name: string): number {
  const announces = saysLetter(readOwnAttribute(dirFd, name, overlay.opaque), 'x');
  const kept = announces ? setOwnAttribute(dirFd, name, overlay.marks.announced, Buffer.from('y')) : 0;
  return kept < 0 ? kept : setOwnAttribute(dirFd, name, overlay.opaque, Buffer.from('y'));
}

/**
 * Whether something in the overlay's directory shows another inode number than its own, though the base has no
 * such directory: what was copied up has been renamed or linked to there. Overlayfs's own mark for the same.
 */
export function isImpure(overlay: Overlay, dirFd: number): boolean {
  return isLetter(dirFd, '', overlay.impure, 'y');
}

/**
 * Marks a directory before a whiteout comes into it. Overlayfs looks for whiteouts in the listings of merged
 * directories, and of others that have an origin of its own kind ('' says: unknown); where the base's directory
 * is hidden or gone it would list a name that is not there. Those that are files have to be announced.
 */
export function noteWhiteouts(overlay: Overlay, dirFd: number): number {
  const value = getxattr(dirFd, '', overlay.copied);
  const noted = typeof value === 'number' ? setOwnAttribute(dirFd, '', overlay.copied, Buffer.alloc(0)) : 0;
  if (noted < 0 || !overlay.whiteoutFiles) return noted;
  const mark = readingOwn(dirFd, '', overlay.opaque, () => missingMark(overlay, dirFd));
  return mark === null ? 0 : setOwnAttribute(dirFd, '', mark.attr, Buffer.from(mark.letter));
}

/** What is to announce whiteouts that are files in a directory; null: it does. */
function missingMark({ marks, opaque }: Overlay, dirFd: number): { attr: string; letter: 'x' | 'y' } | null {
  if (announcesFiles(marks, dirFd)) return null;
  return isOpaque(marks, dirFd, '') ? { attr: marks.announced, letter: 'y' } : { attr: opaque, letter: 'x' };
}

export function setImpure(overlay: Overlay, dirFd: number): number {
  return isImpure(overlay, dirFd) ? 0 : setOwnAttribute(dirFd, '', overlay.impure, Buffer.from('y'));
}

/** Where the base has a renamed directory: overlayfs's redirect; null where it has none. */
export function redirectOf(overlay: Overlay, dirFd: number, name: string): string | null {
  const value = getxattr(dirFd, name, overlay.redirect);
  return typeof value === 'number' || value.length === 0 ? null : value.toString('latin1');
}

/** Says where the base has the directory: its path from the base's root. */
export function setRedirect(overlay: Overlay, dirFd: number, name: string, path: string): number {
  return setOwnAttribute(dirFd, name, overlay.redirect, Buffer.from(`/${path}`, 'latin1'));
}

/** 0 or a negative errno; ENODATA: it had none. */
export function removeRedirect(overlay: Overlay, dirFd: number, name: string): number {
  return removeOwnAttribute(dirFd, name, overlay.redirect);
}
