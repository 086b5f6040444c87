// Does the jobs of jobs.ts, on the main thread: each step that may wait for a disk runs on a pool thread. The
// copy of a file is the ancestor-to-be: small ones are written from the very bytes that were hashed, large ones
// are read for the hash first, and the fingerprint tells whether the copy is of the same version.
import { copyAttributes, copyTimes, readXattrs } from '../branch/copy.ts';
import { type OriginStore, writeOriginBytes } from '../branch/origin-store.ts';
import { E, errnoName } from '../lib/errno.ts';
import { fingerprintOf, hashFingerprint, isUnchanged, putContent } from '../lib/fingerprint.ts';
import { hash128, hash128Stream } from '../lib/hash.ts';
import type { Log } from '../lib/log.ts';
import { newStat, type Stat } from '../lib/stat.ts';
import { mergeable } from '../merge/policy.ts';
import { O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, SEEK_DATA, SEEK_HOLE } from '../sys/constants.ts';
import {
  close,
  copyFileRangeAsync,
  fallocateAsync,
  fdatasyncAsync,
  ficloneAsync,
  fsyncAsync,
  ftruncate,
  lseek,
  openat,
  preadAsync,
  pwriteAsync,
} from '../sys/file.ts';
import { fstat, fstatFresh } from '../sys/stat.ts';
import { getxattr, setxattr } from '../sys/xattr.ts';
import type { Ancestors } from '../versions/ancestors.ts';
import { encodeOrigins, type Origin, pathHash } from '../versions/origin.ts';
import type { Copies } from './copies.ts';
import { failPoint } from './fail-point.ts';
import type {
  AllocateJob,
  CompleteJob,
  CopyRangeJob,
  CopyUpJob,
  JobArgs,
  JobResult,
  TakeJob,
} from './jobs.ts';
import { stillShows, type Witness } from './witness.ts';
import { encodeXattrs, hashXattrs, type XattrSet } from './xattr-set.ts';

export interface JobContext {
  ancestors: Ancestors;
  origins: OriginStore;
  log: Log;
  privileged: boolean;
  copies: Copies;
}

/** What it takes to keep something. */
type Keeping = Pick<JobContext, 'ancestors' | 'log'>;

const CHUNK = 1024 * 1024;
/** One copy_file_range: so much that the pool thread is not held for seconds. */
const COPY_STEP = 64 * CHUNK;
/** Files above this are not hashed while somebody waits, but once they are copied up (copy-up.ts). */
const HASH_LIMIT = 256 * CHUNK;
const TRIES = 3;

const done = (result: number): JobResult => ({
  result,
  content: '',
  fingerprint: '',
  torn: false,
  origin: '',
});

/** Never rejects: what goes wrong is a negative errno, and a line in the log. */
export async function runJob(context: JobContext, job: JobArgs): Promise<JobResult> {
  try {
    switch (job.kind) {
      case 'copy-up':
        return await copyUp(context, job);
      case 'complete':
        return await complete(context, job);
      case 'take':
        return await take(context, job);
      case 'sync': {
        const result = await (job.dataOnly ? fdatasyncAsync(job.fd) : fsyncAsync(job.fd));
        close(job.fd);
        // Of special files on some file systems; there is nothing to be written.
        return done(result === -E.EINVAL ? 0 : result);
      }
      case 'allocate':
        return done(await closing([job.fd], allocate(job)));
      case 'copy-range':
        return done(await closing([job.fdIn, job.fdOut], copyRange(job)));
      case 'truncate':
        return done(await closing([job.fd], truncateInSteps(job.fd, job.size)));
    }
  } catch (error) {
    context.log.error(`job ${job.kind}: ${error instanceof Error ? error.stack : String(error)}`);
    return done(-E.EIO);
  }
}

async function allocate({ fd, mode, offset, length, synced }: AllocateJob): Promise<number> {
  const error = await fallocateAsync(fd, mode, offset, length);
  return error < 0 || !synced ? error : fdatasyncAsync(fd);
}

async function copyRange({ fdIn, offIn, fdOut, offOut, length, synced }: CopyRangeJob): Promise<number> {
  const copied = await copyFileRangeAsync(fdIn, offIn, fdOut, offOut, length);
  const error = copied <= 0 || !synced ? 0 : await fdatasyncAsync(fdOut);
  return error < 0 ? error : copied;
}

async function closing(fds: readonly number[], work: Promise<number>): Promise<number> {
  const result = await work;
  for (const fd of fds) close(fd);
  return result;
}

/** Freeing the blocks of a large file takes long; in steps, other work gets its turn. */
async function truncateInSteps(fd: number, size: number): Promise<number> {
  const stat = newStat();
  const known = fstat(fd, stat);
  if (known < 0) return known;
  for (let end = stat.size - COPY_STEP * 16; end > size; end -= COPY_STEP * 16) {
    const error = ftruncate(fd, end);
    if (error < 0) return error;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return ftruncate(fd, size);
}

interface Content {
  /** '' where it was not hashed. */
  hash: string;
  /** null where they are not kept. */
  bytes: Buffer | null;
}

/** For `readContent`. */
interface Extent {
  /** What is larger is not read at all. */
  limit?: number;
  /** Where it ends, though the file may have grown. */
  end?: number;
  wanted?: () => boolean;
}

/**
 * Reads a file of about `size` bytes from its start; a negative errno. Hashes, and keeps the bytes if asked to; neither
 * once it is not `wanted` any more.
 */
export async function readContent(
  fd: number,
  size: number,
  keep: boolean,
  { limit = HASH_LIMIT, end = Number.POSITIVE_INFINITY, wanted = () => true }: Extent = {},
): Promise<Content | number> {
  if (size > limit) return { hash: '', bytes: null };
  const hash = hash128Stream();
  const parts: Buffer[] = [];
  let offset = 0;
  while (offset < end) {
    if (!wanted()) return { hash: '', bytes: null };
    const length = Math.min(CHUNK, Math.max(4096, size - offset + 1), end - offset);
    const buffer = Buffer.allocUnsafeSlow(length);
    const got = await preadAsync(fd, buffer, 0, buffer.length, offset);
    if (got < 0) return got;
    if (got === 0) break;
    const part = buffer.subarray(0, got);
    hash.update(part);
    if (keep) parts.push(part);
    offset += got;
  }
  return { hash: hash.digest(), bytes: keep ? Buffer.concat(parts) : null };
}

/** Data and holes of one file into another, empty one; 0 or a negative errno. `reached`: told of each offset. */
export async function copyData(
  from: number,
  to: number,
  size: number,
  reached: (offset: number) => void = () => {},
): Promise<number> {
  const cloned = await ficloneAsync(to, from);
  if (cloned === 0) return 0;
  let offset = 0;
  while (offset < size) {
    const start = lseek(from, offset, SEEK_DATA);
    // Nothing but a hole until the end.
    if (start === -E.ENXIO) break;
    const from0 = start < 0 ? offset : start;
    const hole = start < 0 ? size : lseek(from, from0, SEEK_HOLE);
    const end = hole < 0 ? size : Math.min(hole, size);
    const error = await copySegment(from, to, from0, end, reached);
    if (error < 0) return error;
    offset = end;
  }
  return ftruncate(to, size);
}

async function copySegment(
  from: number,
  to: number,
  start: number,
  end: number,
  reached: (offset: number) => void,
): Promise<number> {
  let offset = start;
  while (offset < end) {
    const length = Math.min(COPY_STEP, end - offset);
    let copied = await copyFileRangeAsync(from, offset, to, offset, length);
    if (copied === -E.EXDEV || copied === -E.EINVAL || copied === -E.EOPNOTSUPP || copied === -E.ENOSYS) {
      copied = await copyByHand(from, to, offset, Math.min(CHUNK, length));
    }
    if (copied < 0) return copied;
    // The source has become shorter; the fingerprint will tell.
    if (copied === 0) return 0;
    offset += copied;
    reached(offset);
  }
  return 0;
}

async function copyByHand(from: number, to: number, offset: number, length: number): Promise<number> {
  const buffer = Buffer.allocUnsafeSlow(length);
  const got = await preadAsync(from, buffer, 0, length, offset);
  if (got <= 0) return got;
  let written = 0;
  while (written < got) {
    const put = await pwriteAsync(to, buffer, written, got - written, offset + written);
    if (put < 0) return put;
    written += put;
  }
  return got;
}

async function copyUp(context: JobContext, job: CopyUpJob): Promise<JobResult> {
  const fd = openat(job.workFd, job.temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600);
  failPoint('copy-up-temp');
  try {
    return fd < 0 ? done(fd) : await fill(context, job, fd);
  } finally {
    if (fd >= 0) close(fd);
    close(job.sourceFd);
    if (job.topFd >= 0) close(job.topFd);
    if (job.seen !== null && job.seen.fd >= 0) close(job.seen.fd);
  }
}

/** A job that copies a file of the base. */
type Copying = Pick<
  CopyUpJob,
  'sourceFd' | 'topFd' | 'layer' | 'contentLayer' | 'path' | 'osTree' | 'truncate'
>;

interface Copied {
  content: Content;
  /** What was copied, as it was before. */
  stat: Stat;
  torn: boolean;
}

const topOf = ({ sourceFd, topFd }: Copying): number => (topFd >= 0 ? topFd : sourceFd);

/** Of the file that is copied: of two where its content is another's. */
function statSource(job: Copying, out: Stat): number {
  const error = fstatFresh(topOf(job), out);
  if (error < 0 || job.topFd < 0) return error;
  const content = newStat();
  const known = fstatFresh(job.sourceFd, content);
  if (known === 0) putContent(out, content, job.contentLayer);
  return known;
}

/** Copies until the source has stood still meanwhile, three times at most; a negative errno. */
async function copyStill(copies: Copies, job: Copying, fd: number): Promise<Copied | number> {
  const stat = newStat();
  const after = newStat();
  for (let attempt = 1; ; attempt++) {
    const known = statSource(job, stat);
    if (known < 0) return known;
    const content = await copyOnce(copies, job, fd, stat);
    if (typeof content === 'number') return content;
    const again = statSource(job, after);
    if (again < 0) return again;
    const still = isUnchanged(stat, after);
    if (still) return { content, stat, torn: false };
    if (attempt === TRIES) return tornCopy(job, fd, content, stat);
    const emptied = ftruncate(fd, 0);
    if (emptied < 0) return emptied;
  }
}

/** A copy of several versions is known by what it holds: what was read for the hash may have been others. */
async function tornCopy(job: Copying, fd: number, read: Content, stat: Stat): Promise<Copied | number> {
  const known = read.bytes !== null || job.truncate;
  const content = known ? read : await readContent(fd, stat.size, false);
  return typeof content === 'number' ? content : { content, stat, torn: true };
}

async function fill(context: JobContext, job: CopyUpJob, fd: number): Promise<JobResult> {
  const copied = await copyStill(context.copies, job, fd);
  if (typeof copied === 'number') return done(copied);
  const { content, stat: before, torn } = copied;
  failPoint('copy-up-data');
  const lenient = !context.privileged;
  const attributes = copyAttributes(before, topOf(job), '', fd, '', lenient);
  if (attributes < 0) return done(attributes);
  const origin = await originOf(context, job, before, content, torn);
  const encoded = encodeOrigins([origin]);
  const set = writeOriginBytes(context.origins, fd, '', encoded);
  if (set < 0) return done(set);
  if (!job.truncate) copyTimes(before, fd, '');
  const synced = job.sync ? await fsyncAsync(fd) : 0;
  if (synced < 0) return done(synced);
  failPoint('copy-up-synced');
  return {
    result: 0,
    content: origin.content,
    fingerprint: origin.fingerprint,
    torn,
    origin: encoded.toString('base64'),
  };
}

/** What a write takes away, though nobody in the guest has written yet. */
const CAPABILITY = 'security.capability';

async function complete(context: JobContext, job: CompleteJob): Promise<JobResult> {
  const { fd, sourceFd, topFd, seen, truncate } = job;
  const before = newStat();
  try {
    const known = fstat(fd, before);
    if (known < 0) return done(known);
    const capability = getxattr(fd, '', CAPABILITY);
    const result = await fillCopy(context, job);
    failPoint('complete-data');
    if (result.result < 0) {
      // What is left of the bytes goes, and the file looks to others as it did.
      ftruncate(fd, 0);
      ftruncate(fd, before.size);
    }
    if (result.result < 0 || !truncate) {
      if (typeof capability !== 'number') setxattr(fd, '', CAPABILITY, capability, 0);
      copyTimes(before, fd, '');
    }
    const synced = result.result >= 0 && job.sync ? await fsyncAsync(fd) : 0;
    failPoint('complete-synced');
    return synced < 0 ? done(synced) : result;
  } finally {
    for (const one of [fd, sourceFd, topFd, seen?.fd ?? -1]) if (one >= 0) close(one);
  }
}

async function fillCopy(context: JobContext, job: CompleteJob): Promise<JobResult> {
  const { fd, sourceFd, basePath, before } = job;
  const emptied = ftruncate(fd, 0);
  if (emptied < 0 || sourceFd < 0) return done(emptied);
  const copied = await copyStill(context.copies, job, fd);
  if (typeof copied === 'number') return done(copied);
  const { content, stat, torn } = copied;
  if (basePath === null) return done(0);
  const whence = { ...job, basePath, ino: before?.ino ?? 0 };
  const origin = withMetadataOf(before, await originOf(context, whence, stat, content, torn));
  const { content: hash, fingerprint } = origin;
  const encoded = encodeOrigins([origin]).toString('base64');
  return { result: 0, content: hash, fingerprint, torn: origin.torn, origin: encoded };
}

/** The metadata came up before the content. If the base has others since, the guest has not seen those: look again. */
function withMetadataOf(before: Origin | null, origin: Origin): Origin {
  if (before === null) return origin;
  const { mode, uid, gid, xattrs, pin } = before;
  const same = mode === origin.mode && uid === origin.uid && gid === origin.gid && xattrs === origin.xattrs;
  return same ? { ...origin, pin } : { ...origin, mode, uid, gid, xattrs, pin, torn: true };
}

/** The content is copied from what was read where it is small, so that copy and ancestor cannot differ. */
async function copyOnce(copies: Copies, job: Copying, fd: number, stat: Stat): Promise<Content | number> {
  if (!mergeable(job.path, job.osTree, stat.size)) {
    return copies.during(job.path, stat.size, async (reached) => {
      const content = await readContent(job.sourceFd, stat.size, false);
      if (typeof content === 'number' || job.truncate) return content;
      const error = await copyData(job.sourceFd, fd, stat.size, reached);
      return error < 0 ? error : content;
    });
  }
  const content = await readContent(job.sourceFd, stat.size, true);
  if (typeof content === 'number' || job.truncate) return content;
  const { bytes } = content;
  if (bytes === null || stat.blocks * 512 < stat.size) {
    const error = await copyData(job.sourceFd, fd, stat.size);
    return error < 0 ? error : content;
  }
  let written = 0;
  while (written < bytes.length) {
    const put = await pwriteAsync(fd, bytes, written, bytes.length - written, written);
    if (put < 0) return put;
    written += put;
  }
  return content;
}

async function originOf(
  context: JobContext,
  job: Copying & Pick<CopyUpJob, 'basePath' | 'ino' | 'seen'>,
  stat: Stat,
  content: Content,
  torn: boolean,
): Promise<Origin> {
  const xattrs = readXattrs(topOf(job), '');
  if (xattrs.size > 0) putAwayXattrs(context, xattrs);
  const common = {
    path: pathHash(job.basePath),
    ino: job.ino,
    taken: Math.floor(Date.now() / 1000),
    pin: null,
  };
  const copied = hashFingerprint(fingerprintOf(stat, job.layer));
  const { seen } = job;
  if (seen !== null && seen.fingerprint !== copied) {
    const { fingerprint, mode, uid, gid, xattrs: attrs } = seen;
    const hash = seen.content !== '' ? seen.content : await readVersion(context, seen, job);
    return { ...common, mode, uid, gid, content: hash, fingerprint, xattrs: attrs, torn: false };
  }
  if (content.bytes !== null) putAway(context, content.bytes, content.hash);
  const { mode, uid, gid } = stat;
  const fingerprint = copied;
  return { ...common, mode, uid, gid, content: content.hash, fingerprint, xattrs: hashXattrs(xattrs), torn };
}

/**
 * Hash of a version's content, by a descriptor that was kept of it; '' where its bytes are gone or cannot be read.
 * They become an ancestor where policy would merge them, its attributes one of their own.
 */
export async function readVersion(
  context: Keeping,
  version: { fd: number; witness: Witness | null },
  where: { path: string; osTree: boolean },
  limit = HASH_LIMIT,
  wanted = () => true,
): Promise<string> {
  const { fd, witness } = version;
  if (fd < 0 || witness === null || !stillShows(fd, witness)) return '';
  const keep = mergeable(where.path, where.osTree, witness.size);
  // A large one is given up as soon as its bytes are gone: who looks at the path waits for this.
  const still = () => wanted() && stillShows(fd, witness);
  const content = await readContent(fd, witness.size, keep, { limit, wanted: still });
  if (typeof content === 'number') {
    // The base may have vanished: what cannot be read is unknown, and the guest's change goes on.
    context.log.warn(`${where.path}: its base cannot be read: ${errnoName(content)}`);
    return '';
  }
  const xattrs = readXattrs(fd, '');
  if (!stillShows(fd, witness)) return '';
  if (content.bytes !== null) putAway(context, content.bytes, content.hash);
  if (xattrs.size > 0) putAwayXattrs(context, xattrs);
  return content.hash;
}

function putAwayXattrs(context: Keeping, xattrs: XattrSet): void {
  const bytes = encodeXattrs(xattrs);
  putAway(context, bytes, hash128(bytes));
}

/** In the background: should it fail, the file has no ancestor, which is a conflict at worst. */
export function putAway(context: Keeping, bytes: Uint8Array, hash: string): void {
  context.ancestors.put(bytes, hash).then(
    () => {},
    (error: unknown) => context.log.warn(`an ancestor could not be kept: ${String(error)}`),
  );
}

async function take(context: JobContext, job: TakeJob): Promise<JobResult> {
  const content = await readVersion(context, { fd: job.baseFd, witness: job.witness }, job);
  if (job.baseFd >= 0) close(job.baseFd);
  const synced = job.syncFd >= 0 ? await fdatasyncAsync(job.syncFd) : 0;
  if (job.syncFd >= 0) close(job.syncFd);
  return { ...done(synced < 0 && synced !== -E.EINVAL ? synced : 0), content };
}
