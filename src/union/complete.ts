// The first write to a copy of metadata alone brings its content, into the very file: all names and descriptors of
// it stay what they are. A job writes and syncs the bytes, which nobody sees as long as the attribute says that
// the content is the base's; taking that away is what makes them seen.
import { dropTimes, keepTimes, removeMetacopy } from '../branch/metacopy.ts';
import { removeRedirect } from '../branch/overlay.ts';
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { O_CLOEXEC, O_NOFOLLOW, O_RDONLY, O_RDWR } from '../sys/constants.ts';
import { close, dup, openat, reopen } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import { newRecord } from '../versions/journal.ts';
import { decodeOrigins } from '../versions/origin.ts';
import { partFd } from './dir-fds.ts';
import { failPoint } from './fail-point.ts';
import type { CompleteJob, JobResult } from './jobs.ts';
import { locate } from './locate.ts';
import { find } from './lookup.ts';
import { metacopyOf, openContent } from './metacopy.ts';
import { type DirPart, type Handle, learn, type Name, type Node } from './node.ts';
import { originFor } from './origin-list.ts';
import { readOrigins, writeOrigins } from './origins.ts';
import { basePathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import { type Union, waitFor } from './union.ts';
import { seenSource } from './version.ts';

/** A descriptor that was opened on the base goes over to the overlay; should that fail, it reads on in the old bytes. */
export function moveHandle(handle: Handle, fd: number): void {
  if (fd < 0) return;
  close(handle.fd);
  handle.fd = fd;
  handle.layer = -1;
}

/** WAIT, or a negative errno. `truncate`: the guest throws the content away, so none is copied. */
export function complete(union: Union, node: Node, truncate: boolean, callerPid: number): number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  const flags = O_RDWR | O_CLOEXEC;
  const fd = at.name === '' ? reopen(at.dirFd, flags) : openat(at.dirFd, at.name, flags | O_NOFOLLOW);
  if (fd < 0) return fd;
  // The job closes its own.
  const kept = dup(fd);
  const job = kept < 0 ? kept : jobFor(union, node, fd, truncate, callerPid);
  if (typeof job === 'number') {
    close(fd);
    if (kept >= 0) close(kept);
    return job;
  }
  // Without room for the attribute a crash shows another time, and the content comes nevertheless.
  if (fstat(kept, union.stat) === 0) keepTimes(union.overlay, kept, union.stat);
  node.busy = union.host.startJob(job, (done) => {
    node.busy = null;
    const error = done.result < 0 ? done.result : publishContent(union, node, job, done, kept);
    dropTimes(union.overlay, kept, '');
    close(kept);
    union.table.release(node);
    return error;
  });
  return waitFor(union, node.busy);
}

function jobFor(
  union: Union,
  node: Node,
  fd: number,
  truncate: boolean,
  callerPid: number,
): CompleteJob | number {
  const place = node.place;
  const here = place && metacopyOf(union, node)?.redirect === null;
  const basePath = here ? basePathAt(place.parent, place.name) : null;
  const path = place ? pathAt(place.parent, place.name) : null;
  const source = openContent(union, node);
  // What is thrown away need not be there.
  if (typeof source === 'number' && !truncate) return source;
  const sourceFd = typeof source === 'number' ? -1 : source.fd;
  const stat = newStat();
  if (sourceFd >= 0 && fstat(sourceFd, stat) === 0 && !truncate && stat.size > union.config.copyUpLimit) {
    close(sourceFd);
    return -E.EFBIG;
  }
  const contentLayer = typeof source === 'number' ? '' : (union.layers[source.layer]?.identity ?? '');
  const top = place && basePath !== null ? openTop(union, place) : null;
  const origin = basePath === null ? null : originFor(readOrigins(union, fd, ''), basePath);
  return {
    kind: 'complete',
    fd,
    sourceFd,
    topFd: top?.topFd ?? -1,
    layer: top?.layer ?? contentLayer,
    contentLayer,
    truncate,
    seen: truncate && basePath !== null ? seenSource(union, basePath, callerPid) : null,
    path: path ?? '',
    basePath,
    before: origin,
    sync: !union.config.volatile && !truncate,
    osTree: union.config.osTree,
  };
}

/** The base's file at a place, where that is itself a copy of metadata alone; else null. */
function openTop(union: Union, { parent, name }: Name): { topFd: number; layer: string } | null {
  const { found } = union;
  if (find(union, parent, name) < 0 || !found.inBase || found.baseStat.contentPrint === '') return null;
  const part = parent.dir?.parts[found.part] as DirPart;
  const topFd = openat(partFd(union, parent, part), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  return topFd < 0 ? null : { topFd, layer: union.layers[part.layer]?.identity ?? '' };
}

/** The content is there: it counts from now on, and so does the version that it was copied from. */
function publishContent(union: Union, node: Node, job: CompleteJob, done: JobResult, fd: number): number {
  const place = node.place;
  const path = place ? pathAt(place.parent, place.name) : null;
  const origin = decodeOrigins(Buffer.from(done.origin, 'base64'))?.[0];
  const list = readOrigins(union, fd, '');
  const own = origin && path === job.path ? origin : null;
  const notes = own === null ? [] : [newRecord('copy-up', job.path, own)];
  const error = publish(union, 'complete', notes, () => {
    const others = list.filter((one) => one.path !== own?.path);
    const written = own === null ? 0 : writeOrigins(union, fd, '', [...others, own]);
    if (written < 0) return written;
    failPoint('complete-between');
    return removeMetacopy(union.overlay, fd, '');
  });
  if (error < 0) return error;
  // Without the other attribute it says nothing.
  removeRedirect(union.overlay, fd, '');
  const learned = learn(node);
  learned.metacopy = null;
  learned.origins = null;
  learned.compared = null;
  node.cachedAt = null;
  union.kernel.changed(node, false);
  if (node.dataFd >= 0) close(node.dataFd);
  node.dataFd = -1;
  for (const handle of node.handles) {
    if (handle.layer >= 0 && !handle.through) moveHandle(handle, reopen(fd, O_RDONLY | O_CLOEXEC));
  }
  return 0;
}
