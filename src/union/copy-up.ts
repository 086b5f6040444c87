// Copy-up: bringing an object of the base into the overlay. Everything is built in work/ and published by one
// rename. Small contents in memory are copied at once, others by a job, which also syncs them. The order and what
// a crash leaves behind are in native-notes/copy-up.md.
import { copyAttributes, copyTimes } from '../branch/copy.ts';
import type { Metacopy } from '../branch/metacopy.ts';
import { branchIno } from '../branch/numbers.ts';
import { unlinkReleasing } from '../branch/origin-store.ts';
import { E } from '../lib/errno.ts';
import { hash128 } from '../lib/hash.ts';
import { copyStat, isRegular, isSymlink, newStat, S_IFMT, S_IFREG, type Stat } from '../lib/stat.ts';
import { setOf } from '../merge/policy.ts';
import { AT_SYMLINK_NOFOLLOW, O_NOFOLLOW, O_PATH, O_RDONLY, RENAME_NOREPLACE } from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { mknodat, readlinkat, renameat2, symlinkat, unlinkat } from '../sys/names.ts';
import { fstat, statx } from '../sys/stat.ts';
import { newRecord } from '../versions/journal.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
import { type BaseFile, indexOf, openBaseFile, openSource, sayContentless } from './base-content.ts';
import { complete, moveHandle } from './complete.ts';
import { type Copy, copyAtOnce } from './copy-at-once.ts';
import { copyUpMetadata, type Finishing, mayLeaveContent } from './copy-metadata.ts';
import { overlayDirFd } from './dir-fds.ts';
import { showOther } from './expiry.ts';
import { failPoint } from './fail-point.ts';
import { dropHardLink, hasHardLink, keepHardLink } from './hard-links.ts';
import { nodeIno } from './identity.ts';
import type { CopyUpJob } from './jobs.ts';
import { type Location, leavePlace, locate } from './locate.ts';
import { find, instantiate } from './lookup.ts';
import { hasOutlived, metacopyOf } from './metacopy.ts';
import { IN_BASE, IN_OVERLAY, learn, type Name, NONE, type Node, placesOf, WHITEOUT } from './node.ts';
import { newOrigin } from './origin-list.ts';
import { baseFingerprint, noteOrigins, writeOrigins } from './origins.ts';
import { ensureOverlayDir, firstError, keepingTimes } from './overlay-dir.ts';
import { divide, isApart } from './passthrough.ts';
import { basePathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import { type Union, waitFor } from './union.ts';
import { seenSource } from './version.ts';
import type { Witness } from './witness.ts';

export interface CopyUpWish {
  /** Of a file: the guest throws its content away, so the copy is empty, its origin what had been seen. */
  truncate: boolean;
  /** Of a file: its content is not to be changed, so it may stay where it is. */
  metadata: boolean;
  /** Of a copy of metadata alone: so that it appears with the change for which it is made. */
  finish?: Finishing;
  /** Asked for by name: -ESTALE, and the kernel looks the name up anew, where it leads to another object by now. */
  byName: boolean;
}

const wholly: CopyUpWish = { truncate: false, metadata: false, byName: false };
/** For who changes owner, mode, attributes or times. */
export const metadataAlone: CopyUpWish = { ...wholly, metadata: true };

/** Brings the node's object into the overlay. 0, WAIT while its content is copied, or a negative errno. */
export function copyUp(union: Union, node: Node, callerPid: number, wish = wholly): number {
  if (node.dir !== null) return ensureOverlayDir(union, node);
  if (node.busy) return waitFor(union, node.busy);
  if (node.layer < 0) return wish.metadata ? 0 : fillCopy(union, node, callerPid, wish);
  if (union.config.readOnly) return -E.EROFS;
  const place = node.place;
  if (!place) return copyUpOrphan(union, node);
  const above = ensureOverlayDir(union, place.parent);
  if (above < 0) return above;
  const found = find(union, place.parent, place.name);
  if (found < 0) return found;
  const { state, stat } = union.found;
  const type = stat.mode & S_IFMT;
  if (state === IN_OVERLAY && type === node.type && node.handles.size === 0) {
    // An undo has put a copy there.
    union.kernel.switched(node);
    const shown = showOverlay(union, node, place, overlayDirFd(union, place.parent));
    return shown < 0 || wish.metadata ? shown : fillCopy(union, node, callerPid, wish);
  }
  const moved = state === IN_BASE && !union.table.shows(node, node.layer, stat);
  const lost = moved || state === NONE || state === WHITEOUT;
  if (lost && leavePlace(union, node)) return copyUp(union, node, callerPid, wish);
  if (state !== IN_BASE || type !== node.type || (moved && node.handles.size > 0)) {
    if (wish.byName) return -E.ESTALE;
    union.kernel.expire(place.parent, place.name);
    union.table.leave(node, place.parent, place.name);
    // It may have other names.
    return node.place === null ? copyUpOrphan(union, node) : copyUp(union, node, callerPid, wish);
  }
  if (moved) showOther(union, node, node.layer, stat);
  const base = newStat();
  copyStat(stat, base);
  if (!isRegular(base.mode)) return copyUpSpecial(union, node, place, base);
  return copyUpFile(union, node, place, base, wish, callerPid);
}

/** What lies in the overlay gets a content of its own: 0, WAIT or a negative errno. */
function fillCopy(union: Union, node: Node, callerPid: number, { truncate, byName }: CopyUpWish): number {
  if (metacopyOf(union, node) === null) return 0;
  if (union.config.readOnly) return -E.EROFS;
  // Who has an older content of the base's open keeps that; the name shows another file.
  if (byName && hasOutlived(union, node, union.stat)) return -E.ESTALE;
  const place = node.place;
  const others = place ? withSet(union, place, callerPid) : 0;
  return others < 0 ? others : complete(union, node, truncate, callerPid);
}

/** The other members of the file's set first; those ask for the same set, and must not ask for this one again. */
function withSet(union: Union, { parent, name }: Name, callerPid: number): number {
  const set = setOf(pathAt(parent, name) ?? '');
  if (set?.kind !== 'accounts' || union.table.copying.has(set.id)) return 0;
  union.table.copying.add(set.id);
  const others = copyUpSet(union, parent, name, callerPid);
  union.table.copying.delete(set.id);
  return others;
}

/**
 * An object of the base that is open, and has no name any more (the base has replaced it): who changes it
 * through a descriptor gets a copy without a name.
 */
function copyUpOrphan(union: Union, node: Node): number {
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  // To open a FIFO would wait for who writes to it.
  if (node.type !== S_IFREG) return copyUpNamelessSpecial(union, node, { ...at });
  const sourceFd = reopen(at.dirFd, O_RDONLY);
  if (sourceFd < 0) return sourceFd;
  const job = newJob(union, node, { sourceFd, path: '', basePath: '' });
  node.busy = union.host.startJob(job, (done) => {
    node.busy = null;
    const result = done.result < 0 ? done.result : showNameless(union, node, job.temp);
    unlinkat(union.workFd, job.temp, 0);
    union.table.release(node);
    return result;
  });
  return waitFor(union, node.busy);
}

function copyUpNamelessSpecial(union: Union, node: Node, at: Location): number {
  const stat = newStat();
  const known = fstat(at.dirFd, stat);
  const temp = union.tempName();
  const made = known < 0 ? known : makeSpecial(union, at, stat, temp);
  if (made < 0) return made;
  const error = copyAttributes(stat, at.dirFd, at.name, union.workFd, temp, !union.config.privileged);
  if (error === 0) copyTimes(stat, union.workFd, temp);
  const shown = error < 0 ? error : showNameless(union, node, temp);
  unlinkat(union.workFd, temp, 0);
  return shown;
}

function showNameless(union: Union, node: Node, temp: string): number {
  const fd = openat(union.workFd, temp, O_PATH | O_NOFOLLOW);
  if (fd < 0) return fd;
  const error = fstat(fd, union.stat);
  if (error < 0) return error;
  union.table.show(node, -1, union.stat);
  node.orphanFd = fd;
  union.kernel.changed(node, false);
  for (const handle of node.handles) if (!handle.through) moveHandle(handle, reopen(fd, handle.flags));
  return 0;
}

function newJob(
  union: Union,
  node: Node,
  more: Pick<CopyUpJob, 'sourceFd' | 'path' | 'basePath'> & Partial<CopyUpJob>,
): CopyUpJob {
  return {
    kind: 'copy-up',
    workFd: union.workFd,
    temp: union.tempName(),
    topFd: -1,
    layer: union.layers[node.layer]?.identity ?? '',
    contentLayer: '',
    truncate: false,
    seen: null,
    ino: nodeIno(union, node, node.layer, node.ino),
    sync: false,
    osTree: union.config.osTree,
    ...more,
  };
}

/**
 * The members of a set that is reconciled wholly come up together: WAIT or another negative errno, or how many others
 * have been looked for; union.found tells of the last of them then.
 */
export function copyUpSet(union: Union, parent: Node, name: string, callerPid: number): number {
  const path = pathAt(parent, name);
  const set = path === null ? null : setOf(path);
  if (set?.kind !== 'accounts' || !set.members) return 0;
  let looked = 0;
  for (const member of set.members) {
    const other = member.slice(member.lastIndexOf('/') + 1);
    if (other === name) continue;
    looked += 1;
    const error = find(union, parent, other);
    if (error < 0) return error;
    const { state, stat } = union.found;
    if ((state !== IN_BASE && state !== IN_OVERLAY) || !isRegular(stat.mode)) continue;
    const node = instantiate(union, parent, other);
    if (typeof node === 'number') return node;
    const result = copyUp(union, node, callerPid);
    if (result < 0) return result;
  }
  return looked;
}

function copyUpFile(
  union: Union,
  node: Node,
  place: Name,
  stat: Stat,
  wish: CopyUpWish,
  callerPid: number,
): number {
  const { truncate, metadata } = wish;
  const path = pathAt(place.parent, place.name);
  const basePath = basePathAt(place.parent, place.name);
  const at = locate(union, node);
  if (typeof at === 'number') return at;
  if (metadata && path !== null && basePath !== null && mayLeaveContent(union, at, stat)) {
    const parentFd = overlayDirFd(union, place.parent);
    const target = { parent: place.parent, parentFd, name: place.name, path, basePath };
    const origin = parentFd < 0 ? parentFd : copyUpMetadata(union, { ...at }, stat, target, wish.finish);
    if (typeof origin === 'number') return origin;
    const known = { origin, copy: { redirect: null, damaged: false } };
    const shown = showOverlay(union, node, place, parentFd, known);
    // Who has asked for the change is told of the attributes by the answer.
    if (wish.finish?.done) copyStat(union.stat, wish.finish.shown);
    else union.kernel.changedLate(node);
    return shown;
  }
  if (!truncate && stat.size > union.config.copyUpLimit) return -E.EFBIG;
  const others = withSet(union, place, callerPid);
  if (others < 0) return others;
  if (path === null || basePath === null) return -E.ENOENT;
  const source = openCopied(union, node, place, path, truncate);
  if (typeof source === 'number') return source;
  const job = newJob(union, node, {
    sourceFd: source.fd,
    topFd: source.topFd,
    contentLayer: source.contentLayer,
    path,
    basePath,
    truncate,
    seen: truncate ? seenSource(union, basePath, callerPid) : null,
    sync: !union.config.volatile && !truncate && stat.size > 0,
  });
  // What is open past us has to be divided from its copy, for which the request is run anew.
  const copy = node.backing === null ? copyAtOnce(union, job, node.layer) : null;
  if (typeof copy === 'number') return copy;
  if (copy !== null) return finishCopy(union, node, place, job, stat, copy);
  node.busy = union.host.startJob(job, ({ result, origin }) => {
    const [own] = decodeOrigins(Buffer.from(origin, 'base64')) ?? [];
    return finish(union, node, place, job, stat, result, own);
  });
  return waitFor(union, node.busy);
}

/** The copy is there: it is published, after its sync where it needs one. */
function finishCopy(union: Union, node: Node, place: Name, job: CopyUpJob, stat: Stat, copy: Copy): number {
  const { fd, origin } = copy;
  if (!job.sync) {
    close(fd);
    failPoint('copy-up-synced');
    const error = publishFile(union, node, place, job, stat, origin);
    if (error < 0) unlinkat(union.workFd, job.temp, 0);
    return error;
  }
  node.busy = union.host.startJob({ kind: 'sync', fd, dataOnly: false }, ({ result }) => {
    failPoint('copy-up-synced');
    return finish(union, node, place, job, stat, result, origin);
  });
  return waitFor(union, node.busy);
}

/** What is to be copied. A content that is nowhere is EIO, but to who throws it away. */
function openCopied(
  union: Union,
  node: Node,
  place: Name,
  path: string,
  truncate: boolean,
): Pick<BaseFile, 'fd' | 'topFd' | 'contentLayer'> | number {
  const file = openBaseFile(union, place.parent, indexOf(place, node.layer), place.name, union.stat);
  if (file !== -E.ENODATA) return file;
  const at = locate(union, node);
  if (!truncate || typeof at === 'number') {
    sayContentless(union, path);
    return -E.EIO;
  }
  const fd = openSource(at.dirFd, at.name);
  return fd < 0 ? fd : { fd, topFd: -1, contentLayer: '' };
}

/** Last step of a file's copy-up for which a request has waited. */
function finish(
  union: Union,
  node: Node,
  place: Name,
  job: CopyUpJob,
  base: Stat,
  result: number,
  origin: Origin | undefined,
): number {
  node.busy = null;
  // Who waited may be gone, and the kernel may have forgotten the node: it has to last until it shows the copy.
  union.table.hold(node);
  // Moved, removed or replaced meanwhile: the request is run again and finds what is there now.
  const wanted =
    node.layer >= 0 &&
    placesOf(node).includes(place) &&
    pathAt(place.parent, place.name) === job.path &&
    !hasHardLink(union, node.layer, base);
  const error = result < 0 ? result : wanted ? publishFile(union, node, place, job, base, origin) : 0;
  if (error < 0 || !wanted) unlinkat(union.workFd, job.temp, 0);
  union.table.letGo(node);
  return error;
}

function publishFile(
  union: Union,
  node: Node,
  place: Name,
  job: CopyUpJob,
  base: Stat,
  origin: Origin | undefined,
): number {
  const parentFd = overlayDirFd(union, place.parent);
  if (parentFd < 0) return parentFd;
  if (!origin) return -E.EIO;
  if (base.nlink > 1) {
    const kept = keepHardLink(union, node.layer, base, job.temp, origin);
    if (kept < 0) return kept;
  }
  const unhashed =
    origin.content === '' && !origin.torn ? openVersion(union, node, place, origin.fingerprint) : null;
  const note = newRecord('copy-up', job.path, origin);
  const error = publish(union, 'copy-up', [note], () =>
    keepingTimes(parentFd, () => renameat2(union.workFd, job.temp, parentFd, place.name, RENAME_NOREPLACE)),
  );
  if (error < 0) {
    if (unhashed !== null) close(unhashed.fd);
    // Else the other names, and this one, would be found to have it.
    if (base.nlink > 1) dropHardLink(union, node.layer, base);
    return error;
  }
  // It was too large to be hashed while its client waited.
  if (unhashed !== null) union.host.remember(job.path, origin.fingerprint, unhashed.fd, unhashed.witness);
  const shown = showOverlay(union, node, place, parentFd, { origin: null, copy: null });
  // Its bytes are not those that are open any more.
  if (shown === 0 && job.truncate && isApart(node)) divide(union, node);
  return shown;
}

/** What the node shows of the base, if it is still the version of this fingerprint. */
function openVersion(
  union: Union,
  node: Node,
  place: Name,
  fingerprint: string,
): { fd: number; witness: Witness } | null {
  const { stat } = union;
  const file = openBaseFile(union, place.parent, indexOf(place, node.layer), place.name, stat);
  if (typeof file === 'number') return null;
  if (file.topFd >= 0) close(file.topFd);
  if (baseFingerprint(union, node.layer, stat) === fingerprint) return file;
  close(file.fd);
  return null;
}

/** From now on the node shows the overlay's object under its name; open files go over to it. */
function showOverlay(
  union: Union,
  node: Node,
  place: Name,
  parentFd: number,
  /** Its origin, and what it says of its content, where these are known. */
  known?: { origin: Origin | null; copy: Metacopy | null },
): number {
  const error = statx(parentFd, place.name, AT_SYMLINK_NOFOLLOW, union.stat);
  if (error < 0) return error;
  // Other names of a base file with hard links are led here when they are looked up.
  for (const other of node.others) union.table.leave(node, other.parent, other.name);
  union.table.show(node, -1, union.stat);
  if (known?.origin) noteOrigins(union, node, union.stat, [known.origin]);
  if (known) learn(node).metacopy = known.copy;
  // The same bytes as before: pages and size stay right.
  if (!known?.copy) union.kernel.changedLate(node);
  union.kernel.changedLate(place.parent);
  // The content is where it was.
  const copied = metacopyOf(union, node) !== null;
  for (const handle of node.handles) {
    if (copied || handle.through || handle.writable || handle.layer < 0) continue;
    moveHandle(handle, openat(parentFd, place.name, handle.flags));
  }
  return 0;
}

/** Symlinks, devices, FIFOs and sockets: nothing to wait for. */
function copyUpSpecial(union: Union, node: Node, place: Name, stat: Stat): number {
  const at = locate(union, node);
  const path = pathAt(place.parent, place.name);
  const basePath = basePathAt(place.parent, place.name);
  if (typeof at === 'number') return at;
  if (path === null || basePath === null) return -E.ENOENT;
  const { dirFd, name } = at;
  const temp = union.tempName();
  const made = makeSpecial(union, at, stat, temp);
  if (made < 0) return made;
  const parentFd = overlayDirFd(union, place.parent);
  const origin = newOrigin(basePath, stat, baseFingerprint(union, node.layer, stat), '');
  origin.content = linkHash(dirFd, name, stat);
  origin.ino = nodeIno(union, node, node.layer, branchIno(union.layers, node.layer, stat));
  const lenient = !union.config.privileged;
  const error =
    parentFd < 0
      ? parentFd
      : (firstError(
          () => copyAttributes(stat, dirFd, name, union.workFd, temp, lenient),
          () => writeOrigins(union, union.workFd, temp, [origin]),
          () => copyTimes(stat, union.workFd, temp),
          () =>
            publish(union, 'special', [newRecord('copy-up', path, origin)], () =>
              keepingTimes(parentFd, () =>
                renameat2(union.workFd, temp, parentFd, place.name, RENAME_NOREPLACE),
              ),
            ),
        ) ?? 0);
  if (error < 0) {
    unlinkReleasing(union.overlay.origins, union.workFd, temp, 0);
    return error;
  }
  const shown = showOverlay(union, node, place, parentFd);
  // Its other names go on showing the base's, which has one less: a look at this one tells.
  if (stat.nlink > 1) find(union, place.parent, place.name);
  return shown;
}

/** Hash of a symlink's target; '' for what has no content. */
function linkHash(dirFd: number, name: string, stat: Stat): string {
  const target = isSymlink(stat.mode) ? readlinkat(dirFd, name) : -1;
  return typeof target === 'number' ? '' : hash128(Buffer.from(target, 'latin1'));
}

/** In work/, without attributes. */
function makeSpecial({ workFd }: Union, { dirFd, name }: Location, stat: Stat, temp: string): number {
  if (!isSymlink(stat.mode)) return mknodat(workFd, temp, stat.mode, stat.rdevMajor, stat.rdevMinor);
  const target = readlinkat(dirFd, name);
  return typeof target === 'number' ? target : symlinkat(target, workFd, temp);
}
