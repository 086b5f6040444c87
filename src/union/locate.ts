// How a node's object is reached: by a directory's descriptor and a name, or by a descriptor alone once it has
// no name any more.
import { E } from '../lib/errno.ts';
import type { Stat } from '../lib/stat.ts';
import { newStat, S_IFLNK, S_IFMT } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { readlinkat } from '../sys/names.ts';
import { fstat, statx } from '../sys/stat.ts';
import { showContentOf } from './base-content.ts';
import { overlayDirFd, partNowFd } from './dir-fds.ts';
import { showOther } from './expiry.ts';
import type { Handle, Node } from './node.ts';
import type { Union } from './union.ts';

export interface Location {
  dirFd: number;
  /** '' where the descriptor is the object's own. */
  name: string;
  /** Index of the base layer; -1: the overlay. */
  layer: number;
}

/** One object for each answer of locate(): used up before the next call. */
const location: Location = { dirFd: -1, name: '', layer: -1 };

function at(dirFd: number, name: string, layer: number): Location | number {
  if (dirFd < 0) return dirFd;
  location.dirFd = dirFd;
  location.name = name;
  location.layer = layer;
  return location;
}

/**
 * Where the object lies that a node shows; a negative errno when there is no way to it. ESTALE: none of its names leads
 * to it any more, or another object lies on the way, perhaps since the kernel has walked it; it looks the path up anew,
 * and finds what is there now.
 */
export function locate(union: Union, node: Node): Location | number {
  if (node.dir !== null) return locateDirectory(union, node);
  if (node.orphanFd >= 0) return at(node.orphanFd, '', node.layer);
  const place = node.place;
  if (!place) return at(ownHandle(node)?.fd ?? -E.ESTALE, '', node.layer);
  const dirFd = dirOf(union, node, place.parent);
  if (hasLost(union, node, dirFd, place.name) && leavePlace(union, node)) return locate(union, node);
  return at(dirFd, place.name, node.layer);
}

const namedStat = newStat();

/**
 * Whether the first of several names leads to the object no more: the base has removed it, or put another object there.
 * Nobody need have asked for that name since. What has one name alone is looked at by who uses it.
 */
function hasLost(union: Union, node: Node, dirFd: number, name: string): boolean {
  if (node.others.length === 0) return false;
  if (dirFd < 0) return dirFd === -E.ENOENT || dirFd === -E.ESTALE;
  if (node.layer < 0) return false;
  const error = statx(dirFd, name, AT_SYMLINK_NOFOLLOW, namedStat);
  return error === -E.ENOENT || (error === 0 && !union.table.shows(node, node.layer, namedStat));
}

function dirOf(union: Union, node: Node, parent: Node): number {
  if (node.layer < 0) return overlayDirFd(union, parent);
  const part = parent.dir?.parts.find((one) => one.layer === node.layer);
  return part ? partNowFd(union, parent, part) : -E.ESTALE;
}

function locateDirectory(union: Union, node: Node): Location | number {
  const dir = node.dir;
  if (dir === null) return -E.ENOTDIR;
  if (dir.hasOverlay) return at(overlayDirFd(union, node), '', -1);
  const part = dir.parts[0];
  if (!part) return -E.ENOENT;
  return at(partNowFd(union, node, part), '', part.layer);
}

/**
 * A handle by which the object can be changed that a node shows. A copy may be open on the file of the base still, which
 * nothing but us may protect from being written to.
 */
export function ownHandle(node: Node): Handle | undefined {
  for (const handle of node.handles) if (handle.layer < 0 === node.layer < 0) return handle;
  return undefined;
}

export function anyHandle(node: Node): Handle {
  return node.handles.values().next().value as Handle;
}

/** The base has taken the first of several names from the object: the next one leads there. False: it was the last. */
export function leavePlace(union: Union, node: Node): boolean {
  const first = node.place;
  if (node.dir !== null || first === null || node.others.length === 0) return false;
  union.kernel.expire(first.parent, first.name);
  union.table.leave(node, first.parent, first.name);
  return true;
}

/**
 * stat of what the node shows. When the name leads to another object by now, whoever has the old one open
 * keeps it; a node that nobody has open goes over to the new one (ESTALE when the type is another).
 */
export function statNode(union: Union, node: Node, out: Stat): number {
  const where = locate(union, node);
  if (typeof where === 'number') {
    return node.handles.size > 0 && node.dir === null ? fstat(anyHandle(node).fd, out) : where;
  }
  const error =
    where.name === '' ? fstat(where.dirFd, out) : statx(where.dirFd, where.name, AT_SYMLINK_NOFOLLOW, out);
  if (error === -E.ENOENT && leavePlace(union, node)) return statNode(union, node, out);
  if (node.dir !== null || where.name === '') return error;
  if (error === 0) showContentOf(union, node, where.dirFd, out);
  if (error === 0 && union.table.shows(node, where.layer, out)) return 0;
  if (node.handles.size > 0) return fstat(anyHandle(node).fd, out);
  if (error < 0) return error;
  // The kernel keeps the target of a symlink with its node: another symlink is another node.
  if ((out.mode & S_IFMT) !== node.type || node.type === S_IFLNK) return -E.ESTALE;
  showOther(union, node, where.layer, out);
  return 0;
}

/** READLINK: the target, or a negative errno; ESTALE where the name leads to no symlink any more. */
export function readTarget(union: Union, node: Node): string | number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const target = readlinkat(at.dirFd, at.name);
  return target === -E.EINVAL ? -E.ESTALE : target;
}
