// Copy-up of a small file on the serving thread, where its content lies in memory. A job makes some seven trips
// between main thread and pool for that, each of which costs more than the step it is for. What may have to wait for a
// disk is left to others: a content that is not in memory to a job, and so is the sync of the copy.
import { attributesOf, copyTimes, giveAttributes } from '../branch/copy.ts';
import { isUnchanged } from '../lib/fingerprint.ts';
import { hash128 } from '../lib/hash.ts';
import { deviceOf, newStat } from '../lib/stat.ts';
import { mergeable } from '../merge/policy.ts';
import { O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } from '../sys/constants.ts';
import { close, openat, pwrite } from '../sys/file.ts';
import { unlinkat } from '../sys/names.ts';
import { fstat, fstatFresh } from '../sys/stat.ts';
import type { Origin } from '../versions/origin.ts';
import { contentAtOnce } from './at-once.ts';
import { failPoint } from './fail-point.ts';
import type { CopyUpJob, SeenSource } from './jobs.ts';
import { newOrigin } from './origin-list.ts';
import { baseFingerprint, keepXattrs, writeOrigins } from './origins.ts';
import type { Union } from './union.ts';
import { hashXattrs, type XattrSet } from './xattr-set.ts';

/** A copy in work/ that can be published, once it is synced. */
export interface Copy {
  fd: number;
  origin: Origin;
}

const before = newStat();
const after = newStat();

/**
 * What a job would make of it, in the same order; a negative errno; or null, nothing having been done: it is for a
 * job. Else the job's descriptors are closed.
 */
export function copyAtOnce(union: Union, job: CopyUpJob, layer: number): Copy | number | null {
  const { sourceFd, seen } = job;
  // Content and metadata of two files, and holes.
  if (job.topFd >= 0) return null;
  if (fstat(sourceFd, before) < 0 || before.blocks * 512 < before.size) return null;
  const fingerprint = baseFingerprint(union, layer, before);
  const older = seen !== null && seen.fingerprint !== fingerprint ? seen : null;
  if (older !== null && older.content === '') return null;
  const bytes = contentAtOnce(sourceFd, before.size, deviceOf(before));
  if (bytes === null) return null;
  const xattrs = attributesOf(sourceFd, '', !union.config.privileged);
  if (typeof xattrs === 'number') return null;
  if (fstatFresh(sourceFd, after) < 0 || !isUnchanged(before, after)) return null;
  const content = hash128(bytes);
  const origin = newOrigin(job.basePath, before, fingerprint, content);
  origin.ino = job.ino;
  origin.xattrs = hashXattrs(xattrs);
  if (older !== null) takeOver(origin, older);
  const fd = build(union, job, bytes, xattrs, origin);
  if (fd >= 0 && older === null && mergeable(job.path, job.osTree, bytes.length))
    union.host.keepAncestor(bytes, content);
  if (fd >= 0) keepXattrs(union, xattrs);
  close(sourceFd);
  if (seen !== null && seen.fd >= 0) close(seen.fd);
  return fd < 0 ? fd : { fd, origin };
}

/** The writer has read that version, and not the one that is copied. */
function takeOver(origin: Origin, { mode, uid, gid, content, fingerprint, xattrs }: SeenSource): void {
  Object.assign(origin, { mode, uid, gid, content, fingerprint, xattrs });
}

/** The file in work/; its descriptor, or a negative errno. */
function build(union: Union, job: CopyUpJob, bytes: Uint8Array, xattrs: XattrSet, origin: Origin): number {
  const { workFd, temp } = job;
  const fd = openat(workFd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600);
  if (fd < 0) return fd;
  failPoint('copy-up-temp');
  const error = fill(union, job.truncate, fd, bytes, xattrs, origin);
  if (error >= 0) return fd;
  close(fd);
  unlinkat(workFd, temp, 0);
  return error;
}

function fill(
  union: Union,
  truncate: boolean,
  fd: number,
  bytes: Uint8Array,
  xattrs: XattrSet,
  origin: Origin,
): number {
  for (let written = 0; !truncate && written < bytes.length; ) {
    const put = pwrite(fd, bytes, written, bytes.length - written, written);
    if (put < 0) return put;
    written += put;
  }
  failPoint('copy-up-data');
  const lenient = !union.config.privileged;
  const copied = giveAttributes(before, xattrs, fd, '', { lenient, withMode: true });
  if (copied < 0) return copied;
  const noted = writeOrigins(union, fd, '', [origin]);
  if (noted < 0) return noted;
  if (!truncate) copyTimes(before, fd, '');
  return 0;
}
