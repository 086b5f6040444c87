// What a directory of the overlay holds moves into another directory of the union, as far as names are free
// there: the base has replaced the directory by a symlink to that one (usrmerge).

import { readNames } from '../branch/listing.ts';
import { isOpaque, isWhiteout } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_RDONLY, RENAME_NOREPLACE } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import { statx } from '../sys/stat.ts';
import { overlayDirFd } from './dir-fds.ts';
import { find, forgetPlace, instantiate, walk } from './lookup.ts';
import { IN_BASE, IN_OVERLAY, NONE, type Node } from './node.ts';
import { ensureOverlayDir } from './overlay-dir.ts';
import { expectWhiteout } from './remove.ts';
import type { Union } from './union.ts';

/** 0 or a negative errno; ENOENT: the target is no directory of the union any more. */
export function scatter(union: Union, parent: Node, name: string, target: string): number {
  const into = walk(union, target);
  if (into === null) return -E.ENOENT;
  const error = into.dir === null ? -E.ENOENT : scatterInto(union, parent, name, into);
  union.table.letGo(into);
  return error;
}

function scatterInto(union: Union, parent: Node, name: string, into: Node): number {
  const parentFd = overlayDirFd(union, parent);
  if (parentFd < 0) return parentFd;
  const fd = openat(parentFd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const error = moveAll(union, fd, union.table.identity?.at({ parent: parent.id, name }) ?? [], into);
  close(fd);
  forgetPlace(union, parent, name);
  return error;
}

/** `ids`: those of the directory, for the handles of what lies in it. */
function moveAll(union: Union, fromFd: number, ids: readonly number[], into: Node): number {
  // What moves may cover names of the base's, and stays moved should another fail.
  union.covered.delete(into);
  const names: string[] = [];
  readNames(fromFd, (name) => names.push(name));
  for (const name of names) {
    const error = moveOne(union, fromFd, ids, name, into);
    if (error < 0) return error;
  }
  if (into.dir) into.dir.version += 1;
  return 0;
}

function moveOne(union: Union, fromFd: number, ids: readonly number[], name: string, into: Node): number {
  const { identity } = union.table;
  const error = find(union, into, name);
  if (error < 0) return error;
  const { state, stat } = union.found;
  const own = newStat();
  if (statx(fromFd, name, AT_SYMLINK_NOFOLLOW, own) < 0) return 0;
  if (isWhiteout(union.overlay.marks, fromFd, name, own))
    return moveWhiteout(union, fromFd, name, into, state);
  if (state === NONE) {
    const made = ensureOverlayDir(union, into);
    if (made < 0) return made;
    const toFd = overlayDirFd(union, into);
    if (toFd < 0) return toFd;
    const ends = ids.map((id) => identity?.moving({ parent: id, name }, { parent: into.id, name }, false));
    const moved = renameat2(fromFd, name, toFd, name, RENAME_NOREPLACE);
    for (const end of ends) end?.(moved >= 0);
    return moved;
  }
  // Two directories become one; anything else stays behind.
  if ((state !== IN_BASE && state !== IN_OVERLAY) || !isDirectory(stat.mode)) return 0;
  if (!isDirectory(own.mode)) return 0;
  if (isOpaque(union.overlay.marks, fromFd, name)) return 0;
  const node = instantiate(union, into, name);
  if (typeof node === 'number') return node;
  union.table.hold(node);
  const moved = moveBeneath(union, fromFd, ids, name, node);
  union.table.letGo(node);
  return moved;
}

function moveBeneath(union: Union, fromFd: number, ids: readonly number[], name: string, node: Node): number {
  const { identity } = union.table;
  const fd = openat(fromFd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const beneath = ids.flatMap((id) => identity?.at({ parent: id, name }) ?? []);
  const moved = moveAll(union, fd, beneath, node);
  close(fd);
  return moved;
}

/** What the guest has removed stays removed where the base has it now; elsewhere there is nothing to hide. */
function moveWhiteout(union: Union, fromFd: number, name: string, into: Node, state: number): number {
  if (state !== IN_BASE) return unlinkat(fromFd, name, 0);
  const made = ensureOverlayDir(union, into);
  if (made < 0) return made;
  const toFd = overlayDirFd(union, into);
  const expected = toFd < 0 ? toFd : expectWhiteout(union, toFd, null);
  return expected < 0 ? expected : renameat2(fromFd, name, toFd, name, RENAME_NOREPLACE);
}
