// RENAME. A file of the base is brought up first and leaves a whiteout; a directory that shows the base's names
// carries a redirect to where the base has it (or answers EXDEV, with --redirect-dir off). Whatever comes to a
// name of the base has that name's origin; whatever goes leaves its origin behind, with the whiteout.
// RENAME_WHITEOUT makes name and whiteout change in one step.
import { copyAttributes, copyTimes } from '../branch/copy.ts';
import { releasing, unlinkReleasing } from '../branch/origin-store.ts';
import { removeRedirect, setOpaque, setRedirect } from '../branch/overlay.ts';
import { E, errnoName } from '../lib/errno.ts';
import { escapeName } from '../lib/names.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT } from '../sys/constants.ts';
import { mkdirat, renameat2, unlinkat } from '../sys/names.ts';
import { statx } from '../sys/stat.ts';
import { type JournalRecord, newRecord } from '../versions/journal.ts';
import type { Origin } from '../versions/origin.ts';
import { copyUp } from './copy-up.ts';
import { addOrigin, isTaken, mustHide, noteArrival, preparePlace } from './create.ts';
import { overlayDirFd } from './dir-fds.ts';
import { nameCovered } from './directory-links.ts';
import { expireBeneath, expirePlace } from './expiry.ts';
import { failPoint } from './fail-point.ts';
import { nameHidden, nameRemoved } from './hard-links.ts';
import { severalAt } from './hidden-names.ts';
import { find, instantiate } from './lookup.ts';
import { IN_BASE, IN_OVERLAY, NONE, type Node, WHITEOUT } from './node.ts';
import { originsOf, writeOrigins } from './origins.ts';
import { ensureOverlayDir, firstError } from './overlay-dir.ts';
import { basePathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import { emptyAndRemove, expectWhiteout, isEmpty, keepObject, makeWhiteout } from './remove.ts';
import { isSettled } from './stale.ts';
import { leavingVersion, rememberLeft, type Taken } from './take.ts';
import { type Union, waitFor } from './union.ts';

/** In bytes. An attribute and its neighbours share a block of 4096 on ext4. */
const LONGEST_REDIRECT = 2048;

interface Side {
  parent: Node;
  name: string;
}

/** RENAME2: 0, WAIT or a negative errno. */
export function rename(union: Union, from: Side, to: Side, flags: number, callerPid: number): number {
  if (union.config.readOnly) return -E.EROFS;
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return -E.EINVAL;
  const source = movable(union, from, callerPid);
  if (typeof source === 'number') return source;
  if ((flags & RENAME_EXCHANGE) !== 0) return exchange(union, from, to, source, callerPid);
  return move(union, from, to, source, (flags & RENAME_NOREPLACE) !== 0, callerPid);
}

/** The node at a place, in the overlay by then; EXDEV for a directory that shows the base's and may not. */
function movable(union: Union, side: Side, callerPid: number): Node | number {
  const error = find(union, side.parent, side.name);
  if (error < 0) return error;
  if (union.found.state !== IN_BASE && union.found.state !== IN_OVERLAY) return -E.ENOENT;
  const node = instantiate(union, side.parent, side.name);
  if (typeof node === 'number') return node;
  if (node.dir !== null) {
    if (showsBase(node) && !union.config.redirectDir) return -E.EXDEV;
    const error = ensureOverlayDir(union, node);
    return error < 0 ? error : node;
  }
  // It is brought up under the first of its names, and it is this one that goes elsewhere.
  union.table.putFirst(node, side.parent, side.name);
  const up = copyUp(union, node, callerPid);
  return up < 0 ? up : node;
}

function showsBase(node: Node): boolean {
  return node.dir !== null && node.dir.parts.length > 0 && !node.dir.opaque;
}

/**
 * What a directory needs before it comes to another place: one that shows the base's names says where the base
 * has them (unless that is where it comes to), any other hides what the base has at the new place.
 */
function readyDirectory(
  union: Union,
  node: Node,
  at: { dirFd: number; name: string },
  to: Side,
  hidesDirectory: boolean,
): number {
  if (node.dir === null || !showsBase(node))
    return hidesDirectory ? setOpaque(union.overlay, at.dirFd, at.name) : 0;
  if (isAtHome(node, to)) return 0;
  // More than an extended attribute holds: mv copies then.
  const { basePath } = node.dir;
  if (basePath.length > LONGEST_REDIRECT) return -E.EXDEV;
  return setRedirect(union.overlay, at.dirFd, at.name, basePath);
}

/** Whether the place is the one where the base has the directory, and where it is seen without a redirect. */
function isAtHome(node: Node, { parent, name }: Side): boolean {
  return parent.dir?.opaque === false && node.dir?.basePath === basePathAt(parent, name);
}

/** A directory that is back where the base has it needs no redirect; until then it cannot do without. */
function settleDirectory(union: Union, node: Node, dirFd: number, at: Side): void {
  if (node.dir !== null && showsBase(node) && isAtHome(node, at)) {
    removeRedirect(union.overlay, dirFd, at.name);
  }
}

function move(
  union: Union,
  from: Side,
  to: Side,
  source: Node,
  noReplace: boolean,
  callerPid: number,
): number {
  const taken: Taken = { origin: null };
  const prepared = preparePlace(union, to.parent, to.name, callerPid, source.dir ? null : source, taken);
  if (prepared < 0) return prepared;
  const { state } = union.found;
  const hides = severalAt(union, to.parent, to.name);
  const hidesDirectory = mustHide(union.found);
  const exists = state === IN_BASE || state === IN_OVERLAY;
  if (exists && noReplace) return -E.EEXIST;
  let target: Node | null = null;
  if (exists) {
    const there = replaceable(union, to, source);
    if (typeof there === 'number') return there;
    if (there.busy) return waitFor(union, there.busy);
    target = there;
  }
  const targetState = state;
  if (target !== null && target.dir === null) keepObject(union, to.parent, to.name, target);
  const error = moveObject(union, from, to, source, {
    state: targetState,
    hidesDirectory,
    origin: taken.origin,
    callerPid,
  });
  if (error < 0) {
    if (target !== null && target.dir === null) union.table.letGoKept(target);
    return error;
  }
  if (target !== null && target.dir !== null && state === IN_BASE) nameCovered(union, to.parent);
  nameHidden(union, hides);
  if (target !== null && target.layer < 0) nameRemoved(union, target.ino);
  union.table.attach(source, to.parent, to.name);
  union.table.leave(source, from.parent, from.name);
  moved(source, from, to);
  // It may be stale from the start, and what a directory shows of the base depends on its place.
  if (source.dir !== null || (taken.origin !== null && !isSettledAt(union, source, to)))
    expirePlace(union, to.parent, to.name, false);
  if (source.dir !== null) expireBeneath(union, source);
  return 0;
}

/** Whether nothing is known against what has just come to a place: then the kernel may keep it there. */
function isSettledAt(union: Union, node: Node, { parent, name }: Side): boolean {
  // Their ctime may be that of before, where clocks tick slowly.
  const { learned } = node;
  if (learned !== null) {
    learned.origins = null;
    learned.compared = null;
  }
  if (find(union, parent, name) < 0 || union.found.state !== IN_OVERLAY) return false;
  return isSettled(union, node, parent, name);
}

/** What lies at the target, if it may be replaced by the source. */
function replaceable(union: Union, to: Side, source: Node): Node | number {
  const isDir = isDirectory(union.found.stat.mode);
  if (isDir && source.dir === null) return -E.EISDIR;
  if (!isDir && source.dir !== null) return -E.ENOTDIR;
  const target = instantiate(union, to.parent, to.name);
  if (typeof target === 'number' || target.dir === null) return target;
  const empty = isEmpty(union, target);
  return empty === 1 ? target : empty === 0 ? -E.ENOTEMPTY : empty;
}

function moved(node: Node, from: Side, to: Side): void {
  // What opaque and redirect mean depends on the place.
  if (node.dir !== null) node.dir.ctimeSec = -1;
  if (from.parent.dir) from.parent.dir.version += 1;
  if (to.parent.dir) to.parent.dir.version += 1;
}

interface Target {
  state: number;
  hidesDirectory: boolean;
  origin: Origin | null;
  callerPid: number;
}

/** The renames in the overlay. union.found tells of the source afterwards. */
function moveObject(union: Union, from: Side, to: Side, source: Node, target: Target): number {
  const fromFd = overlayDirFd(union, from.parent);
  const toFd = overlayDirFd(union, to.parent);
  if (fromFd < 0) return fromFd;
  if (toFd < 0) return toFd;
  const noted = noteArrival(union, source, toFd);
  if (noted < 0) return noted;
  const found = find(union, from.parent, from.name);
  if (found < 0) return found;
  const leaves = union.found.inBase;
  const leavesName = severalAt(union, from.parent, from.name);
  const path = pathAt(to.parent, to.name);
  const fromPath = pathAt(from.parent, from.name);
  if (path === null || fromPath === null) return -E.ENOENT;
  const expected = leaves ? expectWhiteout(union, fromFd, from.parent) : 0;
  if (expected < 0) return expected;
  // The base has the name no more: what is recorded of it goes, as when the object is removed.
  const recorded =
    !leaves && source.dir === null && originsOf(union, source, union.found.stat).list.length > 0;
  const leaving = leaves ? leavingVersion(union, from.parent, from.name, target.callerPid) : null;
  if (typeof leaving === 'number') return leaving;
  const way = { fromFd, toFd, fromPath, path, leaves, recorded };
  const error = moveAlong(union, from, to, source, target, way, leaving?.origin ?? null);
  if (error === 0) nameHidden(union, leavesName);
  rememberLeft(union, fromPath, leaving, error === 0);
  return error;
}

interface Way {
  fromFd: number;
  toFd: number;
  fromPath: string;
  path: string;
  /** The base has the name that is left. */
  leaves: boolean;
  /** It has not (any more), and there is a record of it. */
  recorded: boolean;
}

/** `left`: the origin of the whiteout that stays behind. */
function moveAlong(
  union: Union,
  from: Side,
  to: Side,
  source: Node,
  target: Target,
  { fromFd, toFd, fromPath, path, leaves, recorded }: Way,
  left: Origin | null,
): number {
  const time = Date.now();
  const notes: JournalRecord[] = [];
  if (source.dir !== null) {
    // What is recorded of the paths beneath goes along.
    notes.push({ kind: 'renamed', path, time, from: fromPath });
    const error = readyDirectory(
      union,
      source,
      { dirFd: fromFd, name: from.name },
      to,
      target.hidesDirectory,
    );
    if (error < 0) return error;
  }
  // Of a directory that takes the name of a file: it has not been one of the base's that became a file.
  if (target.origin !== null && isTaken(source.dir !== null, target.origin)) {
    const error = addOrigin(union, source, fromFd, from.name, target.origin);
    if (error < 0) return error;
    notes.push({
      kind: 'taken',
      path,
      time,
      origin: target.origin,
      ...(source.dir ? {} : { from: fromPath }),
    });
  }
  if (leaves)
    notes.push({
      kind: 'whiteout',
      path: fromPath,
      time,
      moved: true,
      ...(left === null ? {} : { origin: left }),
      ...(source.dir === null ? { leaf: true } : {}),
    });
  if (recorded) notes.push({ kind: 'removed', path: fromPath, time, leaf: true });
  const free = target.state === NONE || target.state === IN_BASE;
  const step = { fromFd, fromName: from.name, fromPath, toFd, toName: to.name, leaves, free };
  const error = publish(union, 'rename', notes, () =>
    withIds(union, from, to, false, () =>
      source.dir
        ? moveDirectory(union, step, target.state)
        : releasing(union.overlay.origins, toFd, to.name, () => moveLeaving(union, step)),
    ),
  );
  if (error < 0) return error;
  if (source.dir !== null) {
    settleDirectory(union, source, toFd, to);
    union.host.renamed();
  }
  if (leaves) noteLeft(union, from.parent, step, left);
  return 0;
}

/** Handles lead to what is moved, wherever a crash leaves it. */
function withIds(union: Union, from: Side, to: Side, swap: boolean, move: () => number): number {
  const at = ({ parent, name }: Side) => ({ parent: parent.id, name });
  const end = union.table.identity?.moving(at(from), at(to), swap);
  const error = move();
  end?.(error >= 0);
  return error;
}

/** What is renamed in the overlay. */
interface Step {
  fromFd: number;
  fromName: string;
  fromPath: string;
  toFd: number;
  toName: string;
  /** A whiteout stays behind. */
  leaves: boolean;
  /** The overlay has nothing at the new name. */
  free: boolean;
}

/** One rename; it leaves a whiteout in the same step where the base has the name. */
function moveLeaving(union: Union, step: Step): number {
  const { fromFd, fromName, toFd, toName, leaves } = step;
  if (!leaves) return renameat2(fromFd, fromName, toFd, toName, 0);
  const error = union.overlay.whiteoutFiles
    ? -E.EINVAL
    : renameat2(fromFd, fromName, toFd, toName, RENAME_WHITEOUT);
  // Where it cannot be had in one step (it is a file, or a kernel before 5.8 wants privileges) it follows.
  return error === -E.EPERM || error === -E.EINVAL ? moveBefore(union, step) : error;
}

/**
 * The whiteout that follows is made before: once the object has moved, want of room for it would come too late. Should it
 * not come to its place even so, the object goes back. What it has replaced would not: then the rename is done without.
 */
function moveBefore(union: Union, { fromFd, fromName, toFd, toName, free }: Step): number {
  const { workFd } = union;
  const temp = union.tempName();
  const made = makeWhiteout(union, temp, null);
  if (made < 0) return made;
  const moved = renameat2(fromFd, fromName, toFd, toName, 0);
  failPoint('rename-moved');
  const put = moved < 0 ? moved : renameat2(workFd, temp, fromFd, fromName, RENAME_NOREPLACE);
  if (put < 0) unlinkat(workFd, temp, 0);
  if (moved < 0 || put === 0) return put;
  return free && renameat2(toFd, toName, fromFd, fromName, RENAME_NOREPLACE) === 0 ? put : 0;
}

/** A directory comes to a free name, or changes places with a whiteout or an empty directory. */
function moveDirectory(union: Union, step: Step, state: number): number {
  const { fromFd, fromName, fromPath, toFd, toName, leaves } = step;
  if (state !== WHITEOUT) {
    const moved = moveLeaving(union, step);
    if (moved !== -E.ENOTEMPTY && moved !== -E.EEXIST) return moved;
    const bared = bareDirectory(union, toFd, toName);
    return bared < 0 ? bared : moveLeaving(union, step);
  }
  const swapped = renameat2(fromFd, fromName, toFd, toName, RENAME_EXCHANGE);
  if (swapped < 0) return swapped;
  failPoint('rename-swapped');
  // The whiteout that lay there is the one that is to be left.
  const gone = leaves ? 0 : unlinkReleasing(union.overlay.origins, fromFd, fromName, 0);
  if (gone < 0)
    union.host.log.warn(
      `${escapeName(fromPath)}: a whiteout is left that hides nothing (${errnoName(gone)})`,
    );
  return 0;
}

/** A directory that holds whiteouts alone gives way to an opaque one that holds nothing: guests see no difference. */
function bareDirectory(union: Union, dirFd: number, name: string): number {
  const stat = newStat();
  const temp = union.tempName();
  const error = firstError(
    () => statx(dirFd, name, AT_SYMLINK_NOFOLLOW, stat),
    () => mkdirat(union.workFd, temp, 0o700),
    () => copyAttributes(stat, dirFd, name, union.workFd, temp, !union.config.privileged),
    () => copyTimes(stat, union.workFd, temp),
    () => setOpaque(union.overlay, union.workFd, temp),
    () => renameat2(union.workFd, temp, dirFd, name, RENAME_EXCHANGE),
  );
  return error ?? emptyAndRemove(union, temp);
}

/**
 * The whiteout at a name that was left gets its origin. The rename is done by then, and what follows it does not undo it:
 * without an origin the whiteout hides what it hides, and without a whiteout what the base has is in view again.
 */
function noteLeft(
  union: Union,
  parent: Node,
  { fromFd, fromName, fromPath }: Step,
  left: Origin | null,
): void {
  const error =
    left === null
      ? statx(fromFd, fromName, AT_SYMLINK_NOFOLLOW, union.stat)
      : writeOrigins(union, fromFd, fromName, [left]);
  if (error >= 0) return;
  if (error === -E.ENOENT) union.covered.delete(parent);
  const lacks =
    error === -E.ENOENT
      ? 'no whiteout could be left, so that what the base has is in view again'
      : `its whiteout has no origin (${errnoName(error)})`;
  union.host.log.warn(`${escapeName(fromPath)}: ${lacks}`);
}

/** RENAME_EXCHANGE: both are in the overlay, and each gets the origin of the place where it comes to lie. */
function exchange(union: Union, from: Side, to: Side, source: Node, callerPid: number): number {
  const target = movable(union, to, callerPid);
  if (typeof target === 'number') return target;
  const takenTo: Taken = { origin: null };
  let error = prepareExchanged(union, to, source, callerPid, takenTo);
  if (error < 0) return error;
  const toHidesDirectory = mustHide(union.found);
  const takenFrom: Taken = { origin: null };
  error = prepareExchanged(union, from, target, callerPid, takenFrom);
  if (error < 0) return error;
  const fromHidesDirectory = mustHide(union.found);
  const fromFd = overlayDirFd(union, from.parent);
  const toFd = overlayDirFd(union, to.parent);
  if (fromFd < 0) return fromFd;
  if (toFd < 0) return toFd;
  error =
    firstError(
      () => noteArrival(union, source, toFd),
      () => noteArrival(union, target, fromFd),
      () => adopt(union, source, fromFd, from.name, to, takenTo.origin, toHidesDirectory),
      () => adopt(union, target, toFd, to.name, from, takenFrom.origin, fromHidesDirectory),
    ) ?? 0;
  if (error < 0) return error;
  const notes = [
    ...noteExchange(union, from, to, source.dir !== null || target.dir !== null),
    ...noteTaken(to, source, takenTo),
    ...noteTaken(from, target, takenFrom),
  ];
  error = publish(union, 'exchange', notes, () =>
    withIds(union, from, to, true, () => renameat2(fromFd, from.name, toFd, to.name, RENAME_EXCHANGE)),
  );
  if (error < 0) return error;
  settleDirectory(union, source, toFd, to);
  settleDirectory(union, target, fromFd, from);
  if (source.dir || target.dir) union.host.renamed();
  union.table.leave(target, to.parent, to.name);
  union.table.attach(source, to.parent, to.name);
  union.table.leave(source, from.parent, from.name);
  union.table.attach(target, from.parent, from.name);
  moved(source, from, to);
  moved(target, to, from);
  for (const [at, node] of [
    [to, source],
    [from, target],
  ] as const) {
    expirePlace(union, at.parent, at.name, false);
    if (node.dir !== null) expireBeneath(union, node);
  }
  return 0;
}

/** A directory that the base has removed leaves nothing to be taken, as when it is renamed. */
function prepareExchanged(union: Union, at: Side, node: Node, callerPid: number, taken: Taken): number {
  const error = preparePlace(union, at.parent, at.name, callerPid, node.dir ? null : node, taken);
  if (error === 0 && !union.found.inBase && isDirectory(taken.origin?.mode ?? 0)) taken.origin = null;
  return error;
}

/** What is recorded of the paths beneath goes along. */
function noteExchange(union: Union, from: Side, to: Side, hasDirectory: boolean): JournalRecord[] {
  const path = pathAt(to.parent, to.name);
  const fromPath = pathAt(from.parent, from.name);
  const fromFd = overlayDirFd(union, from.parent);
  if (!hasDirectory || path === null || fromPath === null || fromFd < 0) return [];
  if (statx(fromFd, from.name, AT_SYMLINK_NOFOLLOW, union.stat) < 0) return [];
  return [{ kind: 'exchanged', path, time: Date.now(), from: fromPath, ino: union.stat.ino }];
}

function noteTaken(at: Side, node: Node, { origin }: Taken): JournalRecord[] {
  const path = pathAt(at.parent, at.name);
  return origin === null || path === null || !isTaken(node.dir !== null, origin)
    ? []
    : [newRecord('taken', path, origin)];
}

/** What an object needs before it comes to lie at a place of the base. */
function adopt(
  union: Union,
  node: Node,
  dirFd: number,
  name: string,
  to: Side,
  origin: Origin | null,
  hidesDirectory: boolean,
): number {
  const error = node.dir === null ? 0 : readyDirectory(union, node, { dirFd, name }, to, hidesDirectory);
  if (error < 0 || origin === null || !isTaken(node.dir !== null, origin)) return error;
  return addOrigin(union, node, dirFd, name, origin);
}
