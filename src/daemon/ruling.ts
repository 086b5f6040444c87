// What a person has decided about a path, on its way to the disk: everything is kept first, the intent is made
// durable, the serving thread does the last step, the record follows, and all of it is durable before it is
// told. A restart finishes the record of a ruling that a crash cut off (recovery.ts) by the same function.
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName, parentPath } from '../lib/names.ts';
import { isRegular } from '../lib/stat.ts';
import { O_CLOEXEC, O_CREAT, O_EXCL, O_RDWR } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { unlinkat } from '../sys/names.ts';
import { loadContents, type View, viewOf } from '../union/assess.ts';
import { type Blueprint, build, discard, syncNames } from '../union/build.ts';
import { AGAIN, base64, type CarryContext, stepAt } from '../union/carrying.ts';
import type { CommitRequest } from '../union/commit.ts';
import { failPoint } from '../union/fail-point.ts';
import { untilStill } from '../union/look-object.ts';
import { keepNumbers } from '../union/numbering.ts';
import { type Branches, fillContent, openOverlayFile, readBase, readOverlay } from '../union/sides.ts';
import { contentSignature } from '../union/signature.ts';
import { basePathOf } from '../union/walk-overlay.ts';
import { WHOLE_LIMIT } from '../versions/ancestors.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { Closing, NewEvent, PathRecord, SideRef, VersionRef } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import { assessContext, kindInUnion } from './objects.ts';

/** Plain JSON: it is the intent. */
export interface Ruling {
  ruling: 'resolution' | 'undo' | 'pin-lifted';
  /** Signature of the overlay's object afterwards, '' for none. */
  after: string;
  /** Its origins afterwards, base64; '' with `after` ''. */
  origins: string;
  /** The number that a copy goes on showing under its other names; 0 or absent: none. */
  left?: number;
  /** What lies in displaced/ID, or is about to, has to lie at the path while nothing else does; 0 or absent: nothing. */
  displaced?: number;
  event: NewEvent;
  close: { id: number; how: Closing['how']; take: string } | null;
  /** Conflict that opens again, with what the overlay has then. */
  reopen: { id: number; overlay: SideRef; origin: Origin | null } | null;
  /** Event that is taken back, 0 for none. */
  undoes: number;
  /** The path's record afterwards; null: it follows the base, or is the guest's own. */
  record: PathRecord | null;
}

export function isRuling(data: unknown): data is Ruling {
  return typeof data === 'object' && data !== null && 'ruling' in data;
}

/** Records it; buffered. The number of its event. */
export function applyRuling(store: Store, path: string, ruling: Ruling): number {
  const { event, close: closing, reopen, undoes, record } = ruling;
  const seq = store.events.add(event);
  keepNumbers(store, decodeOrigins(Buffer.from(ruling.origins, 'base64')) ?? []);
  store.numbers.take({ ino: ruling.left ?? 0, path: '' });
  if (closing !== null) store.conflicts.close(closing.id, { how: closing.how, take: closing.take, seq });
  if (reopen !== null) {
    const { id, overlay, origin } = reopen;
    store.conflicts.reopen(id, { path, overlay, origin });
  }
  if (undoes !== 0) store.events.markUndone(undoes, seq);
  if (record === null) store.paths.delete(path);
  else store.paths.put({ ...record, lastSeq: seq });
  store.intents.drop(path);
  return seq;
}

/** After a crash: whether the overlay is as the ruling would have left it. */
export async function hasHappened(branches: Branches, path: string, ruling: Ruling): Promise<boolean> {
  const { state, object, origins } = readOverlay(branches, path, basePathOf(branches.overlay, path));
  if (ruling.after === '') return state === 'none';
  if (object === null || base64(origins) !== ruling.origins) return false;
  await fillContent(object, () => openOverlayFile(branches, path), false);
  return contentSignature(object) === ruling.after;
}

/** A directory comes back from displaced/ID to where nothing is. */
export function fromDisplaced({ displacedFd }: CarryContext, path: string, id: number): CommitRequest {
  return stepAt(path, 'replace', { temp: String(id), displacedFd });
}

/** Commits and records; the event's number, or AGAIN when a side has moved meanwhile. Throws FsError. */
export async function enact(
  context: CarryContext,
  path: string,
  ruling: Ruling,
  steps: readonly CommitRequest[],
): Promise<number | typeof AGAIN> {
  const { store } = context;
  failPoint('ruling-kept');
  await store.intents.put(path, ruling);
  failPoint('ruling-intent');
  for (const step of steps) {
    const result = await context.commit(step);
    if (result >= 0) continue;
    // What has been put aside for what does not come now goes back, if not at once, then at the next start.
    const aside = step === steps[0] ? 0 : (ruling.displaced ?? 0);
    const back = aside === 0 ? 0 : await context.commit(fromDisplaced(context, path, aside));
    if (back >= 0) store.intents.drop(path);
    else context.log.warn(leftAside(store, path, aside, back));
    if (result === -E.EAGAIN && step === steps[0]) return AGAIN;
    throw refused(path, result);
  }
  await syncNames(context.shop, context.branches.overlay, parentPath(path));
  const seq = applyRuling(store, path, ruling);
  failPoint('ruling-recorded');
  await store.flush();
  failPoint('ruling-durable');
  return seq;
}

/** Nothing else may tell of it: the conflict may be about something else by now, or closed. */
export function leftAside({ stateDir }: Store, path: string, id: number, error: number): string {
  const why = `could not be put back (${errnoName(error)})`;
  return `${escapeName(path)}: the directory that made way ${why}: it lies in ${stateDir}/displaced/${id}`;
}

function refused(path: string, result: number): FsError {
  const name = escapeName(path);
  switch (-result) {
    case E.EBUSY:
      return new FsError(E.EBUSY, `${name}: somebody has it open for writing`);
    case E.EAGAIN:
      return new FsError(E.EBUSY, `${name}: it keeps changing`);
    case E.ENOSPC:
    case E.EDQUOT:
      return new FsError(-result, `${name}: no space is left in the overlay`);
    case E.EROFS:
      return new FsError(E.EROFS, `${name}: the overlay is read-only`);
    case E.ESHUTDOWN:
      return new FsError(E.ESHUTDOWN, `${name}: the mount has ended`);
    default:
      return new FsError(-result, `${name}: cannot be replaced (${errnoName(result)})`);
  }
}

/** Sees a path with its contents and rules, again while a side moves under the ruling. */
export async function ruleOn<T>(
  context: MountContext,
  path: string,
  rule: (view: View) => Promise<T | typeof AGAIN>,
): Promise<T> {
  const assess = assessContext(context);
  const basePath = basePathOf(assess.branches.overlay, path);
  const done = await untilStill(async () => {
    const view = await viewOf(assess, path, basePath);
    await loadContents(assess, view);
    return rule(view);
  });
  if (done !== AGAIN) return done;
  if (kindInUnion(context, parentPath(path)) !== 'dir') {
    throw new FsError(E.ENOENT, `${escapeName(path)}: its directory has gone`);
  }
  throw refused(path, -E.EAGAIN);
}

/** Refuses what would write where nothing can be written, or what nobody can decide now. */
export function expectDecidable(context: MountContext): void {
  if (context.options.readOnly) throw new FsError(E.EROFS, 'the overlay is read-only');
  if (context.refusal !== undefined) throw context.refusal;
}

/** Builds an object as a version had it. EUCLEAN where its content is damaged, ENODATA where it is not kept. */
export async function buildVersion(
  context: CarryContext,
  temp: string,
  ref: VersionRef,
  basePath: string,
  origins: readonly Origin[],
): Promise<void> {
  const mtimeSec = Math.floor(ref.mtime / 1000);
  const plan: Blueprint = {
    mode: ref.mode,
    uid: ref.uid,
    gid: ref.gid,
    xattrs: new Map(ref.xattrs.map(([name, value]) => [name, Buffer.from(value, 'base64')])),
    mtimeSec,
    // Of a time before 1970, too.
    mtimeNsec: Math.floor((ref.mtime - mtimeSec * 1000) * 1e6),
    content: null,
    target: ref.target ?? '',
    rdevMajor: ref.rdev?.[0] ?? 0,
    rdevMinor: ref.rdev?.[1] ?? 0,
    origins,
  };
  if (ref.metadataOnly) {
    const base = readBase(context.branches, basePath).object;
    if (base === null || !isRegular(base.stat.mode)) {
      throw new FsError(E.ENODATA, 'this version had no content of its own, and the base has none any more');
    }
    return build(context.shop, temp, { ...plan, content: { leftOfSize: base.stat.size } });
  }
  if (ref.content === null) return build(context.shop, temp, plan);
  const { ancestors } = context.store;
  if (!ancestors.has(ref.content)) throw new FsError(E.ENODATA, 'the content of this version is not kept');
  if (ref.size <= WHOLE_LIMIT) {
    const bytes = await ancestors.get(ref.content);
    if (bytes === null) throw damaged();
    return build(context.shop, temp, { ...plan, content: bytes });
  }
  const { workFd } = context.shop;
  const source = `${temp}-content`;
  const fd = openat(workFd, source, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600);
  if (fd < 0) throw new FsError(-fd, `cannot make a file in work/: ${errnoName(fd)}`);
  try {
    unlinkat(workFd, source, 0);
    const size = await ancestors.writeTo(ref.content, fd);
    if (size < 0) throw damaged();
    await build(context.shop, temp, { ...plan, content: { fd, size } });
  } finally {
    close(fd);
  }
}

function damaged(): FsError {
  return new FsError(E.EUCLEAN, 'the content of this version is damaged: see kasane check');
}

/** Runs `work` with what it built taken away again, unless it was put in place. */
export async function withTemp<T>(
  context: CarryContext,
  work: (temp: string) => Promise<T | typeof AGAIN>,
): Promise<T | typeof AGAIN> {
  const temp = context.tempName();
  let placed = false;
  try {
    const done = await work(temp);
    placed = done !== AGAIN;
    return done;
  } finally {
    if (!placed) discard(context.shop, temp);
  }
}
