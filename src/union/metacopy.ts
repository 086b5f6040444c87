// Copies of metadata alone: a file of the overlay whose content is the base's, as long as nobody writes to it.
// Here is where a content lies, for all who read one: `openContent`. For any other file that is where it lies itself.

import { findContentBeneath, leaveContent, newContentPlace } from '../branch/base-content.ts';
import { type LayerDir, rootsOf } from '../branch/descent.ts';
import { type Metacopy, metacopyAt, putTimesBack } from '../branch/metacopy.ts';
import { E } from '../lib/errno.ts';
import { baseName, parentPath } from '../lib/names.ts';
import { isLater, newStat, S_IFREG, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { fstat, statx } from '../sys/stat.ts';
import { indexOf } from './base-content.ts';
import { partFd } from './dir-fds.ts';
import { locate } from './locate.ts';
import { type DirPart, type Handle, learn, type Node } from './node.ts';
import type { Opened } from './passthrough.ts';
import { redirectedParts } from './redirect.ts';
import type { Union } from './union.ts';

/** What the overlay's file of a node says of its content; null: that is its own. */
export function metacopyOf(union: Union, node: Node): Metacopy | null {
  if (node.layer >= 0 || node.type !== S_IFREG) return null;
  const known = node.learned?.metacopy;
  if (known !== undefined) return known;
  const at = locate(union, node);
  if (typeof at === 'number') return null;
  const copied = metacopyAt(union.overlay, at.dirFd, at.name);
  learn(node).metacopy = copied;
  // The last daemon may have died while it brought the content.
  const cutOff = copied !== null && node.busy === null && !union.config.readOnly;
  if (cutOff && putTimesBack(union.overlay, at.dirFd, at.name)) union.timesBack.add(node);
  return copied;
}

const content = newContentPlace();

/**
 * The file of the base that is the content of a node with a name: of a copy of metadata alone in the overlay, or of one
 * in the base that has been found to be such. 0; EIO: there is none.
 */
function findContent(union: Union, node: Node, copied: Metacopy | null): number {
  const place = node.place;
  const dir = place?.parent.dir;
  if (!place || !dir || copied?.damaged) return -E.EIO;
  const { parent, name } = place;
  const redirect = copied?.redirect ?? null;
  const from = node.layer < 0 ? 0 : indexOf(place, node.layer);
  const fdOf = (at: number) => partFd(union, parent, dir.parts[at] as DirPart);
  let error: number;
  if (redirect?.startsWith('/')) {
    const dirs = directoriesAt(union, parent, parentPath(redirect));
    error =
      typeof dirs === 'number'
        ? dirs
        : findContentBeneath(union.layers, dirs, baseName(redirect), {}, content);
  } else if (dir.opaque || from < 0) {
    return -E.EIO;
  } else {
    error = findContentBeneath(union.layers, dir.parts, redirect ?? name, { from, fdOf }, content);
  }
  if (error === 0) noteContent(union, node);
  return error === -E.ENODATA ? -E.EIO : error;
}

/** The kernel may have size and pages of another one. */
function noteContent(union: Union, node: Node): void {
  const { ino } = content.stat;
  const learned = learn(node);
  if (learned.contentIno !== 0 && learned.contentIno !== ino && node.handles.size === 0)
    union.kernel.switched(node);
  learned.contentIno = ino;
  learned.contentBeneath = content.passed;
}

function directoriesAt(union: Union, parent: Node, path: string): readonly LayerDir[] | number {
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
  return copied === null ? openOwn(union, node) : openElsewhere(union, node, copied);
}

/** The same of a file of the base that has been found to have it in a layer beneath. */
export function openContentBeneath(union: Union, node: Node): Opened | number {
  return openElsewhere(union, node, null);
}

function openElsewhere(union: Union, node: Node, copied: Metacopy | null): Opened | number {
  const other = reader(node);
  const fd = openFound(union, node, copied);
  if (fd < 0 && other === null) return node.dataFd < 0 ? fd : reopenAt(node.dataFd, 0);
  if (other === null || isSame(union, fd, other.fd)) return { fd, layer: content.layer };
  if (fd >= 0) close(fd);
  return reopenAt(other.fd, other.layer);
}

/**
 * Whether the base has replaced the content that somebody has open: then the name shows another object. `shown` is what
 * has been found under the name.
 */
export function hasOutlived(union: Union, node: Node, shown: Stat): boolean {
  const other = node.handles.size === 0 ? null : reader(node);
  if (other === null || (node.layer >= 0 && shown.contentPrint === '')) return false;
  const copied = metacopyOf(union, node);
  if (node.layer < 0 && copied === null) return false;
  if (findContent(union, node, copied) < 0) return false;
  leaveContent(content);
  return fstat(other.fd, union.stat) === 0 && union.stat.ino !== content.stat.ino;
}

function openFound(union: Union, node: Node, copied: Metacopy | null): number {
  const found = findContent(union, node, copied);
  if (found < 0) return found;
  const flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const fd = openat(content.dirFd, content.name, flags);
  // What a redirect leads to lies in no directory of this node's.
  if (content.mine && node.watch < 0) union.watches.file(node, content.dirFd, content.name, content.layer);
  leaveContent(content);
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
  if (error === 0) leaveContent(content);
  return error;
}

/** A stat from before its times were put back gets those. */
function correctTimes(union: Union, node: Node, stat: Stat): void {
  const at = locate(union, node);
  if (typeof at === 'number') return;
  if (statx(at.dirFd, at.name, AT_SYMLINK_NOFOLLOW, union.stat) < 0) return;
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = union.stat;
  Object.assign(stat, { atimeSec, atimeNsec, mtimeSec, mtimeNsec });
}

/**
 * Puts into the stat of a copy of metadata alone what is the content's to say: its size, and what it takes up. As
 * long as nobody has taken note that the base has another version, the times are the later ones.
 */
export function showContent(union: Union, node: Node, stat: Stat): void {
  const copied = metacopyOf(union, node);
  if (union.timesBack.size > 0 && union.timesBack.delete(node)) correctTimes(union, node, stat);
  if (copied === null || statContent(union, node, copied) < 0) return;
  const from = content.stat;
  stat.size = from.size;
  stat.blocks = from.blocks;
  if (isLater(from.ctimeSec, from.ctimeNsec, stat.ctimeSec, stat.ctimeNsec)) {
    stat.ctimeSec = from.ctimeSec;
    stat.ctimeNsec = from.ctimeNsec;
  }
  if (
    node.learned?.compared?.moved &&
    isLater(from.mtimeSec, from.mtimeNsec, stat.mtimeSec, stat.mtimeNsec)
  ) {
    stat.mtimeSec = from.mtimeSec;
    stat.mtimeNsec = from.mtimeNsec;
  }
}
