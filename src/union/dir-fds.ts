// Descriptors of a node's directory in each branch, opened when they are needed and kept by the FdCache.
import { openDirectoryBeneath } from '../branch/base.ts';
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { AT_STATX_FORCE_SYNC, AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { statx } from '../sys/stat.ts';
import type { DirPart, Node } from './node.ts';
import { pathOf } from './place.ts';
import type { Union } from './union.ts';

/** O_PATH descriptor of the overlay's directory of a node, which must have one; negative errno. */
export function overlayDirFd(union: Union, node: Node): number {
  const dir = node.dir;
  if (!dir) return -E.ENOTDIR;
  if (dir.overlayFd >= 0) {
    union.fds.used(node);
    return dir.overlayFd;
  }
  if (!dir.hasOverlay) return -E.ENOENT;
  const path = pathOf(node);
  if (path === null) return -E.ENOENT;
  const fd = openDirectoryBeneath(union.overlay.rootFd, path);
  if (fd < 0) return fd;
  dir.overlayFd = fd;
  union.watches.ignore(fd);
  union.fds.opened(node);
  return fd;
}

/** O_PATH descriptor of a directory of the base; negative errno (ENOENT: it has gone meanwhile). */
export function partFd(union: Union, node: Node, part: DirPart): number {
  if (part.fd >= 0) {
    union.fds.used(node);
    return part.fd;
  }
  const layer = union.layers[part.layer];
  if (!layer) return -E.ENOENT;
  const fd = openDirectoryBeneath(layer.rootFd, part.path);
  if (fd < 0) return fd;
  part.fd = fd;
  // Before anything is looked at through it.
  union.watches.directory(node, part);
  union.fds.opened(node);
  return fd;
}

/**
 * As partFd, for who has come by a path; ESTALE: something that is no directory lies there, or on the way. By then the
 * path leads to another object, or to this one in another way, so neither of these errors would be true of it.
 */
export function partNowFd(union: Union, node: Node, part: DirPart): number {
  const fd = partFd(union, node, part);
  return fd === -E.ENOTDIR || fd === -E.ELOOP ? -E.ESTALE : fd;
}

/** A directory of the base alone has been replaced: that it has no such name says nothing of its path. */
export function isReplaced(union: Union, node: Node): boolean {
  const { dir } = node;
  if (dir === null || dir.hasOverlay || dir.parts.length === 0) return false;
  return dir.parts.every((part) => partNowFd(union, node, part) === -E.ESTALE);
}

const asked = newStat();

/**
 * What a remote file system remembers of a name is asked of its server anew: as there, who opens a file is to get what
 * the server has by now. Errors are for who looks then.
 */
export function refresh(union: Union, parent: Node, name: string): void {
  for (const part of parent.dir?.parts ?? []) {
    const fd = union.layers[part.layer]?.isRemote ? partFd(union, parent, part) : -1;
    if (fd < 0) continue;
    // While a directory has not changed, nor have its names.
    statx(fd, '', AT_STATX_FORCE_SYNC, asked);
    statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, asked);
  }
}
