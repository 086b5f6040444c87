// What base and overlay have at a path, read on the main thread beneath the branches' root descriptors: the
// facts that a decision rests on, and the bytes where it asks for them. Nothing here changes anything.
import { type BaseLayer, baseMoved, openBeneath, openDirectoryBeneath, statAt } from '../branch/base.ts';
import {
  findContentBeneath,
  type Holding,
  holdingOf,
  leaveContent,
  newContentPlace,
} from '../branch/base-content.ts';
import { readXattrs } from '../branch/copy.ts';
import { descendPath, isAbsent, type LayerDir, rootsOf } from '../branch/descent.ts';
import { readBeneath } from '../branch/listing.ts';
import { contentPath, type Metacopy, metacopyAt } from '../branch/metacopy.ts';
import { readOriginBytes } from '../branch/origin-store.ts';
import { type Overlay, redirectOf } from '../branch/overlay.ts';
import { isNamedAway, isOpaque, isWhiteout } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { fingerprintOf, hashFingerprint, putContent } from '../lib/fingerprint.ts';
import { hash128 } from '../lib/hash.ts';
import { baseName, parentPath } from '../lib/names.ts';
import {
  isDirectory,
  isRegular,
  isSymlink,
  newStat,
  S_IFBLK,
  S_IFCHR,
  S_IFMT,
  type Stat,
} from '../lib/stat.ts';
import type { Side } from '../merge/facts.ts';
import { O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { readlinkat } from '../sys/names.ts';
import { getxattr } from '../sys/xattr.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
import { readContent } from './job-runner.ts';
import { originFor } from './origin-list.ts';
import { basePathOf } from './walk-overlay.ts';
import { stillShows, witnessOf } from './witness.ts';
import { hashXattrs, type XattrSet } from './xattr-set.ts';

/** An object of a branch, as it was when it was read. */
export interface Found {
  stat: Stat;
  xattrs: XattrSet;
  /** Of a symlink, else null. */
  target: string | null;
  /** Hash of content or target; null: not read yet, or none. */
  content: string | null;
  /** Content, where it has been read. */
  bytes: Buffer | null;
  /** Of a copy of metadata alone; else null. */
  copied: Copied | null;
}

/** What the base has for the content of a copy of metadata alone. */
export interface Copied {
  /** Of one in the overlay: it is that of the copy's own place, which moves without the guest. */
  follows: boolean;
  /** null: it is gone. */
  stat: Stat | null;
}

export interface OverlaySide {
  state: 'none' | 'whiteout' | 'object';
  object: Found | null;
  /** All that the object carries, and the one for this path. */
  origins: Origin[];
  origin: Origin | null;
  /** overlayfs copied it up from its lower directory: there was an ancestor, and nobody kept it. */
  foreignCopy: boolean;
  underOpaque: boolean;
}

export interface BaseSide {
  object: Found | null;
  /** Hash of the fingerprint; '' where the base has nothing. */
  fingerprint: string;
}

export interface StandIn {
  uid: number;
  gid: number;
}

/** The branches as the main thread holds them. */
export interface Branches {
  overlay: Overlay;
  layers: BaseLayer[];
  /** The one user whom all of the overlay belongs to; null: objects belong to whom the guest gives them. */
  standIn: StandIn | null;
}

function openParent(rootFd: number, path: string): number {
  return openDirectoryBeneath(rootFd, parentPath(path));
}

function describe(dirFd: number, name: string, stat: Stat): Found {
  const target = isSymlink(stat.mode) ? readlinkat(dirFd, name) : null;
  const link = typeof target === 'string' ? target : null;
  return {
    stat,
    xattrs: readXattrs(dirFd, name),
    target: link,
    content: link === null ? null : hash128(Buffer.from(link, 'latin1')),
    bytes: null,
    copied: null,
  };
}

/** Throws FsError for what cannot be read (EIO). */
export function readOverlay(branches: Branches, path: string, basePath: string): OverlaySide {
  const { overlay } = branches;
  const side: OverlaySide = {
    state: 'none',
    object: null,
    origins: [],
    origin: null,
    foreignCopy: false,
    underOpaque: isUnderOpaque(overlay, path),
  };
  const dirFd = openParent(overlay.rootFd, path);
  if (isAbsent(dirFd)) return side;
  if (dirFd < 0) throw new FsError(-dirFd, `${path}: the overlay cannot be read`);
  try {
    const name = baseName(path);
    const stat = newStat();
    const error = statAt(dirFd, name, stat);
    if (isAbsent(error)) return side;
    if (error < 0) throw new FsError(-error, `${path}: the overlay cannot be read`);
    const value = readOriginBytes(overlay.origins, dirFd, name);
    side.origins = typeof value === 'number' ? [] : (decodeOrigins(value) ?? []);
    side.origin = originFor(side.origins, basePath);
    if (isWhiteout(overlay.marks, dirFd, name, stat)) {
      side.state = 'whiteout';
      return side;
    }
    side.state = 'object';
    side.foreignCopy = isForeignCopy(overlay, dirFd, name, stat);
    side.object = describe(dirFd, name, stat);
    const metacopy = isRegular(stat.mode) ? metacopyAt(overlay, dirFd, name) : null;
    if (metacopy !== null) {
      const at = contentAt(metacopy, basePath, side.underOpaque);
      const found = at === null ? null : readBase(branches, at).object;
      const there = found !== null && isRegular(found.stat.mode) ? (found.copied ?? found).stat : null;
      side.object.copied = { follows: metacopy.redirect === null, stat: there };
    }
    return side;
  } finally {
    close(dirFd);
  }
}

/** The base's path of the content of a copy of metadata alone; null: there is none that it may show. */
function contentAt(metacopy: Metacopy, basePath: string, underOpaque: boolean): string | null {
  const hidden = metacopy.damaged || (metacopy.redirect === null && underOpaque);
  return hidden ? null : contentPath(metacopy, basePath);
}

/** A directory that was renamed comes from elsewhere, and '' marks one of ours that holds whiteouts. */
function isForeignCopy(overlay: Overlay, dirFd: number, name: string, stat: Stat): boolean {
  const value = getxattr(dirFd, name, overlay.copied);
  if (typeof value === 'number' || !isDirectory(stat.mode)) return typeof value !== 'number';
  return value.length > 0 && redirectOf(overlay, dirFd, name) === null;
}

/** Whether a directory above hides what the base has here; what a redirect brings from elsewhere is seen again. */
function isUnderOpaque(overlay: Overlay, path: string): boolean {
  const names = path.split('/').slice(0, -1);
  let hidden = false;
  for (const depth of names.keys()) {
    const fd = openDirectoryBeneath(overlay.rootFd, names.slice(0, depth + 1).join('/'));
    if (fd < 0) return hidden;
    const { marks } = overlay;
    hidden = isOpaque(marks, fd, '') || (hidden && redirectOf(overlay, fd, '') === null);
    close(fd);
  }
  return hidden;
}

/** The directories that make up the one of the base at a path. Throws FsError for what cannot be read. */
function directoriesOf({ layers }: Branches, basePath: string): LayerDir[] {
  const unreadable = (error: number) => {
    throw new FsError(-error, `${basePath}: the base cannot be read`);
  };
  // One that is not there is met with when it is opened.
  if (layers.length === 1) return [{ layer: 0, path: basePath, ino: 0 }];
  return descendPath(layers, rootsOf(layers), basePath, { unreadable });
}

/** What the topmost layer has that has anything at a path. */
export interface InBase {
  layer: BaseLayer;
  /** Of the directory; whoever asked closes it. */
  dirFd: number;
  name: string;
  stat: Stat;
  /** Where its bytes are, and which way they are found; of a file that holds its own: itself. */
  holding: Holding;
  contentStat: Stat | null;
  openContent(): number;
}

/** Where the base has a path; null: nowhere, or a whiteout hides it. Throws FsError for what cannot be read. */
export function lookInBase(branches: Branches, basePath: string): InBase | null {
  const name = baseName(basePath);
  const stat = newStat();
  const dirs = directoriesOf(branches, parentPath(basePath));
  for (const [index, dir] of dirs.entries()) {
    const layer = branches.layers[dir.layer] as BaseLayer;
    const dirFd = openDirectoryBeneath(layer.rootFd, dir.path);
    if (isAbsent(dirFd)) continue;
    if (dirFd < 0) throw new FsError(-dirFd, `${basePath}: the base cannot be read`);
    const error = statAt(dirFd, name, stat);
    const there = error === 0 && !isWhiteout(layer.marks, dirFd, name, stat);
    if (there) return { layer, dirFd, name, stat, ...contentAtTop(branches, dirs, index, dirFd, name, stat) };
    const ends = error === 0 || isNamedAway(layer.marks, dirFd, name);
    close(dirFd);
    if (error < 0 && !isAbsent(error)) throw new FsError(-error, `${basePath}: the base cannot be read`);
    if (ends) return null;
  }
  return null;
}

type Content = Pick<InBase, 'holding' | 'contentStat' | 'openContent'>;

/** Where the bytes of what was found in `dirs[index]` are; its stat comes to tell of them, too. */
function contentAtTop(
  { layers }: Branches,
  dirs: readonly LayerDir[],
  index: number,
  dirFd: number,
  name: string,
  stat: Stat,
): Content {
  const layer = layers[dirs[index]?.layer ?? 0] as BaseLayer;
  const openOwn = () => openBeneath(dirFd, name, READ_FLAGS);
  const holding = isRegular(stat.mode) ? holdingOf(layers, layer, dirFd, name, stat) : 'own';
  if (holding === 'own') return { holding, contentStat: stat, openContent: openOwn };
  const place = newContentPlace();
  const found =
    holding === 'beneath' ? findContentBeneath(layers, dirs, name, { from: index }, place) : -E.ENODATA;
  if (found < 0 && found !== -E.ENODATA) throw new FsError(-found, `${name}: the base cannot be read`);
  if (found < 0) return { holding: 'nowhere', contentStat: null, openContent: () => -E.EIO };
  const contentStat = place.stat;
  putContent(stat, contentStat, layers[place.layer]?.identity ?? '');
  leaveContent(place);
  const openContent = () => {
    if (findContentBeneath(layers, dirs, name, { from: index }, place) < 0) return -E.EIO;
    const fd = openBeneath(place.dirFd, place.name, READ_FLAGS);
    leaveContent(place);
    return fd;
  };
  return { holding, contentStat: { ...contentStat }, openContent };
}

/** Throws FsError for what cannot be read (EIO; ESTALE of a network file system). */
export function readBase(branches: Branches, basePath: string): BaseSide {
  const found = lookInBase(branches, basePath);
  if (found === null) return { object: null, fingerprint: '' };
  const { layer, dirFd, name, stat, holding, contentStat } = found;
  try {
    const fingerprint = hashFingerprint(fingerprintOf(stat, layer.identity));
    const copied = holding === 'own' ? null : { follows: false, stat: contentStat };
    return { object: { ...describe(dirFd, name, stat), copied }, fingerprint };
  } finally {
    close(dirFd);
  }
}

/** Whether a layer's path leads to nothing, or its root is empty: the moment between umount and mount. */
export function isGone(layer: BaseLayer): boolean {
  if (baseMoved(layer) < 0) return true;
  let count = 0;
  readBeneath(layer.rootFd, () => {
    count += 1;
  });
  return count === 0;
}

/** Whether the overlay's directory at a path is opaque. */
export function isOpaqueAt(overlay: Overlay, path: string): boolean {
  const fd = openDirectoryBeneath(overlay.rootFd, path);
  if (fd < 0) return false;
  const opaque = isOpaque(overlay.marks, fd, '');
  close(fd);
  return opaque;
}

/** The directory of the union that the base's symlink at this path leads to, as a path; null: none. */
export function linkedDirectory(branches: Branches, view: { path: string; base: BaseSide }): string | null {
  const target = view.base.object?.target ?? null;
  if (target === null) return null;
  const from = target.startsWith('/') ? [] : parentPath(view.path).split('/');
  const parts: string[] = [];
  for (const part of [...from, ...target.split('/')]) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  const path = parts.join('/');
  const fd = openDirectoryBeneath(branches.overlay.rootFd, path);
  if (fd >= 0) close(fd);
  const inBase = fd >= 0 ? null : lookInBase(branches, path);
  if (inBase !== null) close(inBase.dirFd);
  const there = path === '' || fd >= 0 || (inBase !== null && isDirectory(inBase.stat.mode));
  return there && path !== view.path ? path : null;
}

const READ_FLAGS = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;

/** The base's file, from the layer that has it; a negative errno. Throws FsError for what cannot be read. */
export function openBase(branches: Branches, basePath: string): number {
  const found = lookInBase(branches, basePath);
  if (found === null) return -E.ENOENT;
  const fd = found.openContent();
  close(found.dirFd);
  return fd;
}

/** For `fillContent`. */
export interface Reading {
  /** The mount has ended: ESHUTDOWN. */
  isOver?: () => boolean;
  /** Of a file that changes meanwhile what was read of it will do, as far as it went when it was found. */
  asRead?: boolean;
}

/**
 * Reads and hashes a regular file's content into `found`. `keep`: its bytes, too. The file must still be the
 * one that was found: EAGAIN if not. Throws FsError.
 */
export async function fillContent(
  found: Found,
  open: () => number,
  keep: boolean,
  { isOver = () => false, asRead = false }: Reading = {},
): Promise<void> {
  // Who follows the base has no content to be read, and of who has lost it nothing can be.
  if (!isRegular(found.stat.mode) || isMetadataOnly(found) || found.copied?.stat === null) return;
  if (found.content !== null && (!keep || found.bytes !== null)) return;
  const fd = open();
  // ENXIO: a whiteout lies there by now.
  const moved = isAbsent(fd) || fd === -E.ENXIO;
  if (fd < 0) throw new FsError(moved ? E.EAGAIN : -fd, 'a side cannot be opened');
  const witness = witnessOf(found.copied?.stat ?? found.stat);
  try {
    const size = sizeOf(found);
    const limit = Number.POSITIVE_INFINITY;
    const end = asRead ? size : limit;
    const content = await readContent(fd, size, keep, { limit, end, wanted: () => !isOver() });
    if (isOver()) throw new FsError(E.ESHUTDOWN, 'the mount has ended');
    if (content === -E.EISDIR) throw new FsError(E.EAGAIN, 'a side is changing');
    if (typeof content === 'number') throw new FsError(-content, 'a side cannot be read');
    if (!asRead && !stillShows(fd, witness)) throw new FsError(E.EAGAIN, 'a side is changing');
    found.content = content.hash;
    found.bytes = content.bytes;
  } finally {
    close(fd);
  }
}

/** Bytes of what a guest sees of an object. */
export function sizeOf(found: Found): number {
  return (found.copied?.stat ?? found.stat).size;
}

/** A copy whose content is the base's, whatever that is. */
export function isMetadataOnly(found: Found | null): boolean {
  return found?.copied?.follows === true;
}

/** The content of the overlay's file, wherever it lies: O_RDONLY descriptor, or a negative errno. */
export function openOverlayFile(branches: Branches, path: string): number {
  const dirFd = openParent(branches.overlay.rootFd, path);
  if (dirFd < 0) return dirFd;
  const fd = openat(dirFd, baseName(path), READ_FLAGS);
  close(dirFd);
  const metacopy = fd < 0 ? null : metacopyAt(branches.overlay, fd, '');
  if (metacopy === null) return fd;
  close(fd);
  const basePath = basePathOf(branches.overlay, path);
  const at = contentAt(metacopy, basePath, isUnderOpaque(branches.overlay, path));
  const found = at === null ? -E.EIO : openBase(branches, at);
  return found === -E.ENOENT ? -E.EIO : found;
}

/** The facts of an object in the form that the decision table takes. */
export function sideOf(found: Found): Side {
  const { stat } = found;
  const type = stat.mode & S_IFMT;
  const device = type === S_IFCHR || type === S_IFBLK;
  return {
    type,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: isDirectory(stat.mode) ? 0 : sizeOf(found),
    rdev: device ? stat.rdevMajor * 2 ** 20 + stat.rdevMinor : 0,
    content: found.content,
    xattrs: hashXattrs(found.xattrs),
  };
}

/**
 * The overlay's side as its guest means it: where one user stands in for all owners, having that user for an owner
 * is no change of it.
 */
export function meantBy(side: Side, origin: Origin | null, standIn: StandIn | null): Side {
  if (standIn === null || origin === null || origin.mode === 0) return side;
  const uid = side.uid === standIn.uid ? origin.uid : side.uid;
  const gid = side.gid === standIn.gid ? origin.gid : side.gid;
  return { ...side, uid, gid };
}

/** What an origin says of the ancestor; null: there is none. */
export function ancestorSide(origin: Origin | null, content: string | null): Side | null {
  if (origin === null || origin.mode === 0) return null;
  return {
    type: origin.mode & S_IFMT,
    mode: origin.mode & 0o7777,
    uid: origin.uid,
    gid: origin.gid,
    size: 0,
    rdev: 0,
    content: origin.content !== '' ? origin.content : content,
    xattrs: origin.xattrs,
  };
}
