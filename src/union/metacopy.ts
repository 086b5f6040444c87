// Copies of metadata alone: a file of the overlay whose content is the base's, as long as nobody writes to it.
// Here is where a content lies, for all who read one: `openContent`. For any other file that is where it lies itself.

import { type BaseLayer, openDirectoryBeneath, statAt } from '../branch/base.ts';
import { type LayerDir, rootsOf } from '../branch/descent.ts';
import { isMarkedMetacopy, type Metacopy, metacopyAt } from '../branch/metacopy.ts';
import { isNamedAway, isWhiteout } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { baseName, parentPath } from '../lib/names.ts';
import { isLater, isRegular, newStat, S_IFREG, type Stat } from '../lib/stat.ts';
import { O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import { partFd } from './dir-fds.ts';
import { locate } from './locate.ts';
import type { DirPart, Handle, Node } from './node.ts';
import type { Opened } from './passthrough.ts';
import { redirectedParts } from './redirect.ts';
import type { Union } from './union.ts';

/** What the overlay's file of a node says of its content; null: that is its own. */
export function metacopyOf(union: Union, node: Node): Metacopy | null {
  if (node.layer >= 0 || node.type !== S_IFREG) return null;
  if (node.metacopy !== undefined) return node.metacopy;
  const at = locate(union, node);
  if (typeof at === 'number') return null;
  node.metacopy = metacopyAt(union.overlay, at.dirFd, at.name);
  return node.metacopy;
}

/** 512-byte blocks that attributes alone may take up. */
const ATTRIBUTES = 16;

/**
 * Whether a file of the base is itself a copy of metadata alone, made where its layer was an overlay: what it holds
 * are holes, and nobody says of which layers it was made. It is asked where that may be: of what takes up nothing,
 * and in a base of several layers of what takes up little.
 */
export function lacksContent(union: Union, dirFd: number, name: string, { size, blocks }: Stat): boolean {
  const little = union.layers.length > 1 ? ATTRIBUTES : 0;
  return size > 0 && blocks <= little && isMarkedMetacopy(dirFd, name);
}

/** One for each answer of `findContent`: used up before the next call. */
interface Content {
  dirFd: number;
  name: string;
  layer: number;
  /** The descriptor is to be closed. */
  mine: boolean;
  stat: Stat;
}

const content: Content = { dirFd: -1, name: '', layer: -1, mine: false, stat: newStat() };

/** The topmost of the base's files that is the content of a copy with a name: 0, or -EIO where there is none. */
function findContent(union: Union, node: Node, { redirect, damaged }: Metacopy): number {
  const place = node.names[0];
  const dir = place?.parent.dir;
  if (!place || !dir || damaged) return -E.EIO;
  const mine = redirect?.startsWith('/') ?? false;
  const name = redirect === null ? place.name : baseName(redirect);
  const parts = mine ? directoriesAt(union, place.parent, parentPath(redirect ?? '')) : dir.parts;
  for (const part of mine || !dir.opaque ? parts : []) {
    const dirFd = mine ? openPart(union, part) : partFd(union, place.parent, part as DirPart);
    if (dirFd < 0) continue;
    const { marks } = union.layers[part.layer] as BaseLayer;
    const error = statAt(dirFd, name, content.stat);
    const isFile = error === 0 && isRegular(content.stat.mode);
    if (isFile && !isWhiteout(marks, dirFd, name, content.stat)) {
      Object.assign(content, { dirFd, name, layer: part.layer, mine });
      noteContent(union, node);
      return 0;
    }
    // Whatever else has the name hides what lies beneath.
    const ends = error === 0 || isNamedAway(marks, dirFd, name);
    if (mine) close(dirFd);
    if (ends) return -E.EIO;
    if (error !== -E.ENOENT && error !== -E.ENOTDIR) return error;
  }
  return -E.EIO;
}

/** The kernel may have size and pages of another one. */
function noteContent(union: Union, node: Node): void {
  const { ino } = content.stat;
  if (node.contentIno !== 0 && node.contentIno !== ino && node.handles.size === 0)
    union.kernel.switched(node);
  node.contentIno = ino;
}

function openPart(union: Union, { layer, path }: LayerDir): number {
  const rootFd = union.layers[layer]?.rootFd ?? -1;
  return rootFd < 0 ? -E.ENOENT : openDirectoryBeneath(rootFd, path);
}

function directoriesAt(union: Union, parent: Node, path: string): readonly LayerDir[] {
  if (path !== '') return redirectedParts(union, parent, path);
  return rootsOf(union.layers);
}

/** Somebody has the content open already. */
function reader(node: Node): Handle | null {
  for (const handle of node.handles) if (handle.layer >= 0) return handle;
  return null;
}

/**
 * O_RDONLY descriptor of a content, and the layer in which it lies; a negative errno. One node has one page cache:
 * while somebody has an older content of the base's open, that is what there is to open.
 */
export function openContent(union: Union, node: Node): Opened | number {
  const copied = metacopyOf(union, node);
  if (copied === null) return openOwn(union, node);
  const other = reader(node);
  const fd = openFound(union, node, copied);
  if (fd < 0 && other === null) return node.dataFd < 0 ? fd : reopenAt(node.dataFd, 0);
  if (other === null || isSame(union, fd, other.fd)) return { fd, layer: content.layer };
  if (fd >= 0) close(fd);
  return reopenAt(other.fd, other.layer);
}

/** Whether the base has replaced the content that somebody has open: then the name shows another object. */
export function hasOutlived(union: Union, node: Node): boolean {
  const other = node.handles.size === 0 ? null : reader(node);
  const copied = other === null ? null : metacopyOf(union, node);
  if (other === null || copied === null || findContent(union, node, copied) < 0) return false;
  if (content.mine) close(content.dirFd);
  return fstat(other.fd, union.stat) === 0 && union.stat.ino !== content.stat.ino;
}

function openFound(union: Union, node: Node, copied: Metacopy): number {
  const found = findContent(union, node, copied);
  if (found < 0) return found;
  const flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const fd = openat(content.dirFd, content.name, flags);
  if (content.mine) close(content.dirFd);
  return fd;
}

function openOwn(union: Union, node: Node): Opened | number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const { layer } = at;
  const fd = at.name === '' ? reopen(at.dirFd, O_RDONLY | O_CLOEXEC) : openat(at.dirFd, at.name, flags);
  return fd < 0 ? fd : { fd, layer };
}

function reopenAt(fd: number, layer: number): Opened | number {
  const again = reopen(fd, O_RDONLY | O_CLOEXEC);
  return again < 0 ? again : { fd: again, layer };
}

const otherStat = newStat();

function isSame(union: Union, fd: number, other: number): boolean {
  if (fd < 0 || fstat(fd, union.stat) < 0 || fstat(other, otherStat) < 0) return false;
  return union.stat.ino === otherStat.ino && union.stat.devMinor === otherStat.devMinor;
}

function statContent(union: Union, node: Node, copied: Metacopy): number {
  const other = reader(node);
  if (other !== null) return fstat(other.fd, content.stat);
  if (node.dataFd >= 0) return fstat(node.dataFd, content.stat);
  const error = findContent(union, node, copied);
  if (error === 0 && content.mine) close(content.dirFd);
  return error;
}

/**
 * Puts into the stat of a copy of metadata alone what is the content's to say: its size, and what it takes up. As
 * long as nobody has taken note that the base has another version, the times are the later ones.
 */
export function showContent(union: Union, node: Node, stat: Stat): void {
  const copied = metacopyOf(union, node);
  if (copied === null || statContent(union, node, copied) < 0) return;
  const from = content.stat;
  stat.size = from.size;
  stat.blocks = from.blocks;
  if (isLater(from.ctimeSec, from.ctimeNsec, stat.ctimeSec, stat.ctimeNsec)) {
    stat.ctimeSec = from.ctimeSec;
    stat.ctimeNsec = from.ctimeNsec;
  }
  if (node.compared?.moved && isLater(from.mtimeSec, from.mtimeNsec, stat.mtimeSec, stat.mtimeNsec)) {
    stat.mtimeSec = from.mtimeSec;
    stat.mtimeNsec = from.mtimeNsec;
  }
}
