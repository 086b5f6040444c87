// Directories of the overlay for directories of the union, and small things that all who put something there need.
import { attributesOf, copyTimes, giveAttributes } from '../branch/copy.ts';
import { E } from '../lib/errno.ts';
import { newStat, type Stat } from '../lib/stat.ts';
import { AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, RENAME_NOREPLACE } from '../sys/constants.ts';
import { mkdirat, renameat2, unlinkat } from '../sys/names.ts';
import { fchmodat, statx } from '../sys/stat.ts';
import { overlayDirFd } from './dir-fds.ts';
import { nameCovered } from './directory-links.ts';
import { locate } from './locate.ts';
import { type Name, NO_NUMBER, type Node } from './node.ts';
import { newOrigin } from './origin-list.ts';
import { baseFingerprint, keepXattrs, writeOrigins } from './origins.ts';
import { basePathAt } from './place.ts';
import { publish } from './publish.ts';
import type { Union } from './union.ts';
import type { XattrSet } from './xattr-set.ts';

/**
 * Overlay directories keep their times when something is only brought up into them, and so do those that their
 * owner may not write to: without privileges the daemon is no more than that, and has to open them meanwhile.
 */
export function keepingTimes(dirFd: number, work: () => number): number {
  const before = newStat();
  const known = statx(dirFd, '', AT_SYMLINK_NOFOLLOW, before);
  let result = work();
  if (result === -E.EACCES && known === 0 && fchmodat(dirFd, '', (before.mode & 0o7777) | 0o300) === 0) {
    result = work();
    fchmodat(dirFd, '', before.mode & 0o7777);
  }
  if (known === 0 && result >= 0) copyTimes(before, dirFd, '');
  return result;
}

/** Makes the overlay's directory for a directory of the union, and those above it; 0 or a negative errno. */
export function ensureOverlayDir(union: Union, node: Node): number {
  const dir = node.dir;
  if (dir === null) return -E.ENOTDIR;
  if (dir.hasOverlay) return 0;
  const place = node.place;
  if (!place) return -E.ENOENT;
  const above = ensureOverlayDir(union, place.parent);
  if (above < 0) return above;
  const parentFd = overlayDirFd(union, place.parent);
  if (parentFd < 0) return parentFd;
  const from = locate(union, node);
  if (typeof from === 'number') return from;
  const { dirFd: sourceFd, layer } = from;
  const stat = newStat();
  const known = statx(sourceFd, '', AT_SYMLINK_NOFOLLOW, stat);
  if (known < 0) return known;
  const lenient = !union.config.privileged;
  const attributes = attributesOf(sourceFd, '', lenient);
  if (typeof attributes === 'number') return attributes;
  const temp = union.tempName();
  const made = mkdirat(union.workFd, temp, 0o700);
  if (made < 0) return made;
  // Another parent is written into a directory, which only who may write to it may do.
  const shut = !union.config.actsForOthers && (stat.mode & 0o200) === 0;
  const error =
    firstError(
      () => giveAttributes(stat, attributes, union.workFd, temp, { lenient, withMode: true }),
      () => writeDirOrigin(union, temp, place, layer, stat, attributes),
      () => copyTimes(stat, union.workFd, temp),
      () => (shut ? fchmodat(union.workFd, temp, (stat.mode & 0o7777) | 0o200) : 0),
      () =>
        publish(union, 'directory', [], () =>
          keepingTimes(parentFd, () => renameat2(union.workFd, temp, parentFd, place.name, RENAME_NOREPLACE)),
        ),
      () => (shut ? fchmodat(parentFd, place.name, stat.mode & 0o7777) : 0),
    ) ?? 0;
  if (error < 0) {
    unlinkat(union.workFd, temp, AT_REMOVEDIR);
    return error;
  }
  union.covered.delete(node);
  nameCovered(union, place.parent);
  // Its name leads to the overlay now.
  union.forgetFound();
  dir.hasOverlay = true;
  dir.opaque = false;
  dir.redirect = null;
  // Forces a fresh look at the directory's own attributes.
  dir.overlayIno = 0;
  dir.whiteoutsIn = NO_NUMBER;
  // It looks as before, but for its change time and what a directory takes on another file system.
  union.kernel.changedLate(node);
  union.kernel.changedLate(place.parent);
  return 0;
}

/** So that a directory which the base had can be told from one that the guest has made. */
function writeDirOrigin(
  union: Union,
  temp: string,
  place: Name,
  layer: number,
  stat: Stat,
  attributes: XattrSet,
): number {
  const basePath = basePathAt(place.parent, place.name);
  if (basePath === null) return 0;
  const origin = newOrigin(basePath, stat, baseFingerprint(union, layer, stat), '');
  origin.xattrs = keepXattrs(union, attributes);
  return writeOrigins(union, union.workFd, temp, [origin]);
}

/** The first negative result of steps that build on each other; undefined when all went well. */
export function firstError(...steps: (() => number)[]): number | undefined {
  for (const step of steps) {
    const result = step();
    if (result < 0) return result;
  }
  return undefined;
}

/** Marks of a directory are left out where its attributes are not ours to change. */
export function tolerate(result: number, lenient: boolean): number {
  return lenient && (result === -E.EPERM || result === -E.EOPNOTSUPP) ? 0 : result;
}
