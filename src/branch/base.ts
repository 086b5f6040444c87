// One layer of the base: a tree that is only read. As root it is reached through a private, detached,
// read-only mount, so that even a wrong write request ends in EROFS; else by descriptors that are opened
// for reading beneath its root. No symlink is followed on the way (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS).
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { newStat } from '../lib/stat.ts';
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_DIRECTORY,
  O_PATH,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
} from '../sys/constants.ts';
import { close, openat, openat2 } from '../sys/file.ts';
import { privateReadOnlyClone } from '../sys/mount.ts';
import { fstat, statx } from '../sys/stat.ts';
import { layerIdentity } from './identity.ts';
import { type Parts, partsOf } from './numbers.ts';
import { remoteType } from './remote.ts';
import type { Marks } from './whiteouts.ts';

export interface BaseLayer {
  readonly index: number;
  /** The host's path, an inner name. */
  readonly path: string;
  /** It is reached through a private, read-only mount: no request could write to it. */
  readonly isPrivate: boolean;
  /** O_PATH descriptor of the root. */
  rootFd: number;
  /** Device and inode number of the root: another pair under the same path is another tree. */
  devMajor: number;
  devMinor: number;
  rootIno: number;
  /** Identity of the layer, 32 hexadecimal digits: part of every fingerprint. */
  identity: string;
  /** What lies in it is another machine's, or program's: what the kernel remembers of it may be old. */
  readonly isRemote: boolean;
  /** Which objects may have numbers of their own. */
  readonly parts: Parts;
  /** The forms in which whiteouts and opaque directories lie in it. */
  readonly marks: Marks;
  /**
   * Attributes by which overlayfs says that the content of a file, or what lies in a directory, is to be had from the
   * layers beneath, and where. Of one kind alone: who may set them on a file has any file there read for him.
   */
  readonly metacopy: string;
  readonly redirect: string;
}

/** What this process may do to a layer. */
export interface LayerRights {
  /** A private mount can be made, if only in a namespace. */
  actsForOthers: boolean;
  /** `trusted.*` can be read. */
  privileged: boolean;
}

const RESOLVE_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
/** Bytes that one path may surely have (PATH_MAX, with its NUL, is 4096). */
const LONGEST = 4095;

/**
 * Opens a layer. Throws FsError with the errno of what failed. A private mount is made where that may be; a kernel without
 * open_tree (before 5.12) gives plain descriptors as for an ordinary user.
 */
export function openBaseLayer(
  index: number,
  path: string,
  { actsForOthers, privileged }: LayerRights,
  marks: Marks,
): BaseLayer {
  let fd = actsForOthers ? privateReadOnlyClone(path) : -E.EPERM;
  const isPrivate = fd >= 0;
  if (fd === -E.EPERM || fd === -E.ENOSYS || fd === -E.EINVAL) {
    fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  if (fd < 0) throw new FsError(-fd, `cannot open the base ${path}`);
  const stat = newStat();
  const error = fstat(fd, stat);
  if (error < 0) {
    close(fd);
    throw new FsError(-error, `cannot stat the base ${path}`);
  }
  return {
    index,
    path,
    isPrivate,
    rootFd: fd,
    devMajor: stat.devMajor,
    devMinor: stat.devMinor,
    rootIno: stat.ino,
    identity: layerIdentity(fd, stat),
    isRemote: remoteType(path) !== null,
    parts: partsOf(fd),
    marks,
    metacopy: `${privileged ? 'trusted' : 'user'}.overlay.metacopy`,
    redirect: `${privileged ? 'trusted' : 'user'}.overlay.redirect`,
  };
}

/**
 * Whether the layer's path still names the tree that is open: 0 yes, 1 another directory, or the negative
 * errno of looking (ENOENT: gone for now).
 */
export function baseMoved(layer: BaseLayer): number {
  const stat = newStat();
  const error = statx(AT_FDCWD, layer.path, 0, stat);
  if (error < 0) return error;
  const same =
    stat.ino === layer.rootIno && stat.devMajor === layer.devMajor && stat.devMinor === layer.devMinor;
  return same ? 0 : 1;
}

/** Opens `path` beneath a branch root with the given flags; negative errno. ELOOP: a symlink lies on the way. */
export function openBeneath(rootFd: number, path: string, flags: number): number {
  return openPath(rootFd, path, flags | O_CLOEXEC, RESOLVE_INSIDE);
}

/** The same within one mount: what is mounted on the base's directories is not entered. */
export function openDirectoryBeneath(rootFd: number, path: string): number {
  return openPath(rootFd, path, O_PATH | O_DIRECTORY | O_CLOEXEC, RESOLVE_INSIDE | RESOLVE_NO_XDEV);
}

/** Guests make trees that are deeper than a path may be long: those are walked in pieces. */
function openPath(rootFd: number, path: string, flags: number, resolve: number): number {
  let from = rootFd;
  let rest = path === '' ? '.' : path;
  while (rest.length > LONGEST) {
    const cut = rest.lastIndexOf('/', LONGEST);
    const next = openat2(from, rest.slice(0, cut), O_PATH | O_DIRECTORY | O_CLOEXEC, 0, resolve);
    if (from !== rootFd) close(from);
    if (next < 0) return next;
    from = next;
    rest = rest.slice(cut + 1);
  }
  const fd = openat2(from, rest, flags, 0, resolve);
  if (from !== rootFd) close(from);
  return fd;
}

/** statx of a name in an open directory, without following a link. */
export function statAt(dirFd: number, name: string, out: ReturnType<typeof newStat>): number {
  return statx(dirFd, name, AT_SYMLINK_NOFOLLOW, out);
}
