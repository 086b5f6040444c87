// Copy-up of metadata alone: owner, mode, attributes and times of a base file come into the overlay, its content
// stays where it is. Nothing here waits for a disk, however large the file is.
import { statAt } from '../branch/base.ts';
import { attributesOf, copyTimes, giveAttributes } from '../branch/copy.ts';
import { setMetacopy } from '../branch/metacopy.ts';
import { branchIno } from '../branch/numbers.ts';
import { isUnchanged } from '../lib/fingerprint.ts';
import { copyStat, newStat, type Stat } from '../lib/stat.ts';
import { O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY, RENAME_NOREPLACE } from '../sys/constants.ts';
import { close, ftruncate, openat } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import { getxattr } from '../sys/xattr.ts';
import { newRecord } from '../versions/journal.ts';
import type { Origin } from '../versions/origin.ts';
import { indexOf, showContentBeneath } from './base-content.ts';
import { baseIno } from './identity.ts';
import type { Location } from './locate.ts';
import type { Node } from './node.ts';
import { newOrigin } from './origin-list.ts';
import { baseFingerprint, keepXattrs, writeOrigins } from './origins.ts';
import { keepingTimes } from './overlay-dir.ts';
import { publish } from './publish.ts';
import type { Union } from './union.ts';
import type { XattrSet } from './xattr-set.ts';

/** Where a copy is to come. */
export interface Target {
  parent: Node;
  parentFd: number;
  name: string;
  path: string;
  basePath: string;
}

/**
 * Whether a base file may be copied up without its content. Not where the base has several names for it, which the
 * base may part; nor with file capabilities, which the first write would take away before it has any effect.
 */
export function mayLeaveContent(union: Union, at: Location, stat: Stat): boolean {
  if (!union.config.metacopy || stat.nlink !== 1) return false;
  if ((stat.mode & 0o111) === 0) return true;
  return typeof getxattr(at.dirFd, at.name, 'security.capability') === 'number';
}

/** What is done to a copy before it is seen; by descriptor ('' as name), or directory and name. */
export interface Finishing {
  /** Whether it sets the mode, whatever that was. */
  readonly setsMode: boolean;
  change(dirFd: number, name: string): number;
  /** It has been, and this is what the copy shows. */
  done: boolean;
  readonly shown: Stat;
}

const TRIES = 3;
const again = newStat();

/**
 * The origin of the copy, or a negative errno. `stat` is of the base's file, and made to agree with what was copied;
 * `finishing` changes the copy before it is seen.
 */
export function copyUpMetadata(
  union: Union,
  at: Location,
  stat: Stat,
  target: Target,
  finishing: Finishing | undefined,
): Origin | number {
  const temp = union.tempName();
  const fd = openat(union.workFd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600);
  if (fd < 0) return fd;
  const origin = copy(union, at, stat, target, fd, finishing);
  const error = typeof origin === 'number' ? origin : publishCopy(union, temp, origin, target);
  close(fd);
  if (error < 0) {
    unlinkat(union.workFd, temp, 0);
    return error;
  }
  if (finishing) finishing.done = true;
  return origin;
}

/** All of it into the file; its origin, or a negative errno. */
function copy(
  union: Union,
  at: Location,
  stat: Stat,
  target: Target,
  fd: number,
  finishing: Finishing | undefined,
): Origin | number {
  const { dirFd, name, layer } = at;
  for (let attempt = 1; ; attempt++) {
    const attributes = attributesOf(dirFd, name, false);
    if (typeof attributes === 'number') return attributes;
    const copied = copyOnce(stat, attributes, fd, finishing);
    if (copied < 0) return copied;
    const known = statAgain(union, at, target);
    if (known < 0) return known;
    const still = isUnchanged(stat, again);
    if (!still && attempt < TRIES) {
      copyStat(again, stat);
      continue;
    }
    const fingerprint = baseFingerprint(union, layer, stat);
    const origin = newOrigin(target.basePath, stat, fingerprint, union.contents.get(fingerprint) ?? '');
    const number = branchIno(union.layers, layer, stat);
    origin.ino = baseIno(union, layer, number, target.parent, target.name);
    origin.torn = !still;
    origin.xattrs = keepXattrs(union, attributes);
    const error = finish(union, fd, origin, stat, finishing);
    return error < 0 ? error : origin;
  }
}

function copyOnce(stat: Stat, attributes: XattrSet, fd: number, finishing: Finishing | undefined): number {
  const sized = ftruncate(fd, stat.size);
  if (sized < 0) return sized;
  return giveAttributes(stat, attributes, fd, '', { lenient: false, withMode: !finishing?.setsMode });
}

function statAgain(union: Union, { dirFd, name, layer }: Location, { parent }: Target): number {
  const error = statAt(dirFd, name, again);
  if (error === 0) showContentBeneath(union, parent, indexOf({ parent, name }, layer), dirFd, name, again);
  return error;
}

function finish(
  union: Union,
  fd: number,
  origin: Origin,
  stat: Stat,
  finishing: Finishing | undefined,
): number {
  const marked = setMetacopy(union.overlay, fd, '');
  if (marked < 0) return marked;
  const noted = writeOrigins(union, fd, '', [origin]);
  if (noted < 0) return noted;
  const timed = copyTimes(stat, fd, '');
  return timed < 0 || !finishing ? timed : finishing.change(fd, '');
}

function publishCopy(union: Union, temp: string, origin: Origin, { parentFd, name, path }: Target): number {
  const note = newRecord('copy-up', path, origin);
  return publish(union, 'copy-metadata', [note], () =>
    keepingTimes(parentFd, () => renameat2(union.workFd, temp, parentFd, name, RENAME_NOREPLACE)),
  );
}
