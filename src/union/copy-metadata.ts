// Copy-up of metadata alone: owner, mode, attributes and times of a base file come into the overlay, its content
// stays where it is. Nothing here waits for a disk, however large the file is.
import { statAt } from '../branch/base.ts';
import { copyAttributes, copyTimes } from '../branch/copy.ts';
import { setMetacopy } from '../branch/metacopy.ts';
import { branchIno } from '../branch/numbers.ts';
import { fingerprintOf, isOf } from '../lib/fingerprint.ts';
import { newStat, type Stat } from '../lib/stat.ts';
import { O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY, RENAME_NOREPLACE } from '../sys/constants.ts';
import { close, ftruncate, openat } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import { getxattr } from '../sys/xattr.ts';
import { indexOf, showContentBeneath } from './base-content.ts';
import { baseIno } from './identity.ts';
import type { Location } from './locate.ts';
import type { Node } from './node.ts';
import { newOrigin } from './origin-list.ts';
import { baseFingerprint, baseXattrs, writeOrigins } from './origins.ts';
import { firstError, keepingTimes } from './overlay-dir.ts';
import { publish } from './publish.ts';
import type { Union } from './union.ts';

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
  change(dirFd: number, name: string): number;
  /** It has been. */
  done: boolean;
}

const TRIES = 3;
const again = newStat();

/**
 * 0, or a negative errno. `stat` is of the base's file, and made to agree with what was copied;
 * `finishing` changes the copy before it is seen.
 */
export function copyUpMetadata(
  union: Union,
  at: Location,
  stat: Stat,
  target: Target,
  finishing: Finishing | undefined,
): number {
  const { dirFd, name, layer } = at;
  const temp = union.tempName();
  const fd = openat(union.workFd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600);
  if (fd < 0) return fd;
  let torn = false;
  const steps = () =>
    firstError(
      () => ftruncate(fd, stat.size),
      () => copyAttributes(stat, dirFd, name, fd, '', false),
    ) ?? 0;
  let error = steps();
  for (let attempt = 1; error === 0; attempt++) {
    error = statAgain(union, at, target);
    if (error < 0 || isOf(fingerprintOf(stat, ''), again, '')) break;
    torn = attempt === TRIES;
    if (torn) break;
    Object.assign(stat, again);
    error = steps();
  }
  if (error === 0) error = finish(union, { fd, temp }, at, layer, stat, torn, target, finishing);
  close(fd);
  if (error < 0) unlinkat(union.workFd, temp, 0);
  else if (finishing) finishing.done = true;
  return error;
}

function statAgain(union: Union, { dirFd, name, layer }: Location, { parent }: Target): number {
  const error = statAt(dirFd, name, again);
  if (error === 0) showContentBeneath(union, parent, indexOf({ parent, name }, layer), dirFd, name, again);
  return error;
}

function finish(
  union: Union,
  { fd, temp }: { fd: number; temp: string },
  at: Location,
  layer: number,
  stat: Stat,
  torn: boolean,
  { parentFd, name, path, basePath }: Target,
  finishing: Finishing | undefined,
): number {
  const fingerprint = baseFingerprint(union, layer, stat);
  const origin = newOrigin(basePath, stat, fingerprint, union.contents.get(fingerprint) ?? '');
  origin.ino = baseIno(layer, branchIno(union.layers, layer, stat));
  origin.torn = torn;
  origin.xattrs = baseXattrs(union, at.dirFd, at.name);
  const note = { kind: 'copy-up', path, time: Date.now(), origin } as const;
  return (
    firstError(
      () => setMetacopy(union.overlay, fd, ''),
      () => writeOrigins(union, fd, '', [origin]),
      () => copyTimes(stat, fd, ''),
      () => finishing?.change(fd, '') ?? 0,
      () =>
        publish(union, 'copy-metadata', [note], () =>
          keepingTimes(parentFd, () => renameat2(union.workFd, temp, parentFd, name, RENAME_NOREPLACE)),
        ),
    ) ?? 0
  );
}
