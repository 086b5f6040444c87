// Does what a decision says: builds, keeps every version first, commits by the serving thread, records. A merge
// is told only when all of it is durable. The intent that is written before the rename lets a restart finish
// the record of a merge that a crash cut off.
import type { ReconcileOutcome } from '../control/verbs.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isRegular, S_IFMT } from '../lib/stat.ts';
import type { Decision } from '../merge/decide.ts';
import type { MergedMetadata } from '../merge/metadata.ts';
import { close } from '../sys/file.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { NewEvent, PathRecord, PathState, UndoInfo } from '../versions/types.ts';
import { type Assessed, loadContents, proposal, type View } from './assess.ts';
import { type Blueprint, build, discard, type Workshop } from './build.ts';
import { type CommitRequest, signatureOf } from './commit.ts';
import { keepSides, numberSides, type Sides } from './keeping.ts';
import { newOrigin } from './origin-list.ts';
import { type Branches, type Found, openBase, openOverlayFile } from './sides.ts';
import { builtSignature, contentSignature } from './signature.ts';
import { hashXattrs, type XattrSet } from './xattr-set.ts';

export interface CarryContext {
  branches: Branches;
  store: Store;
  shop: Workshop;
  osTree: boolean;
  log: Log;
  displacedFd: number;
  tempName(): string;
  /** The last step, on the serving thread: see commit.ts. */
  commit(request: CommitRequest): Promise<number>;
}

export interface Outcome {
  outcome: ReconcileOutcome;
  detail: string;
  /** When to look again, in milliseconds; null: when a side moves. */
  retryMs: number | null;
}

/** A side has moved since the decision: decide anew. */
export const AGAIN = 'again';

const RETRY_WRITER_MS = 500;
const RETRY_FULL_MS = 5000;

function outcome(kind: ReconcileOutcome, detail = '', retryMs: number | null = null): Outcome {
  return { outcome: kind, detail, retryMs };
}

/** Carries a decision out; AGAIN when a side has moved meanwhile. Throws FsError for what is not expected. */
export async function carryOut(
  context: CarryContext,
  assessed: Assessed,
  waitMs: number,
): Promise<Outcome | typeof AGAIN> {
  const { view, decision } = assessed;
  switch (decision.do) {
    case 'current':
      return renewOrigin(context, view, 'current');
    case 'pinned':
      return recordState(context, view, 'U', 'undone: this version of the base was refused', 'current');
    case 'pending':
      return pending(context, view, decision.reason, waitMs);
    case 'kept':
      return kept(context, view, decision);
    case 'adopt':
      return adopt(context, assessed, decision.metadata);
    case 'drop':
      return drop(context, view, decision.gone);
    case 'take-base':
      return replace(context, assessed, decision.metadata, 'base');
    case 'merge-text':
      return replace(context, assessed, decision.metadata, 'merged');
    case 'metadata':
      return decision.metadata.changes
        ? replace(context, assessed, decision.metadata, 'overlay')
        : renewOrigin(context, view, 'merged');
    case 'displace':
      return conflict(context, assessed, {
        do: 'conflict',
        kind: 'type',
        reason: 'a directory of the guest lies where the base has something else now',
        proposal: 'none',
      });
    case 'conflict':
      return conflict(context, assessed, decision);
  }
}

/** The base's object as the origin of what the overlay has from now on. */
export function originFromBase(view: View): Origin | null {
  const { object, fingerprint } = view.base;
  if (object === null) return null;
  const origin = newOrigin(view.basePath, object.stat, fingerprint, object.content ?? '');
  origin.ino = view.overlay.origin?.ino ?? 0;
  origin.xattrs = hashXattrs(object.xattrs);
  return origin;
}

/** What the object carries, with another origin for this path; null: with none. */
export function withOrigin(view: View, origin: Origin | null): Origin[] {
  const others = view.overlay.origins.filter((one) => one !== view.overlay.origin);
  return origin === null ? others : [...others, origin];
}

function request(view: View, action: CommitRequest['action']): CommitRequest {
  const { object } = view.overlay;
  return {
    path: view.path,
    overlay: object === null ? null : signatureOf(object.stat),
    base: view.base.fingerprint,
    action,
    temp: '',
    origins: '',
    noWriter: action !== 'origins',
    displacedFd: -1,
  };
}

/** What the answer of the last step means when it is not 0. */
function failed(context: CarryContext, view: View, result: number): Outcome | typeof AGAIN {
  if (result === -E.EAGAIN) return AGAIN;
  if (result === -E.EBUSY) return pending(context, view, 'writer', RETRY_WRITER_MS);
  if (result === -E.ENOSPC || result === -E.EDQUOT) return pending(context, view, 'full', RETRY_FULL_MS);
  if (result === -E.EROFS) return pending(context, view, 'read-only', RETRY_FULL_MS);
  if (result === -E.ESHUTDOWN) return outcome('pending', 'the mount has ended');
  throw new FsError(-result, `${view.path}: cannot be replaced (${errnoName(result)})`);
}

function record(
  context: CarryContext,
  view: View,
  state: PathState,
  detail: string,
  seq: number,
  merged: boolean,
): void {
  const before = context.store.paths.get(view.path);
  // Each change of the base that has been taken note of, pending ones not, begins an epoch.
  if (state !== 'P' && before !== null && before.baseSeen !== view.base.fingerprint) {
    context.store.events.bumpEpoch();
  }
  const origin = view.overlay.origin;
  const needs = [view.ancestorContent, origin?.pin?.content, origin?.content].filter(
    (hash): hash is string => typeof hash === 'string' && hash !== '',
  );
  const next: PathRecord = {
    path: view.path,
    state,
    detail,
    fingerprint: before?.fingerprint ?? null,
    baseSeen: view.base.fingerprint,
    overlaySig: contentSignature(view.overlay.object),
    lastMerges: [...(before?.lastMerges ?? []), ...(merged ? [Date.now()] : [])].slice(-16),
    lastSeq: seq !== 0 ? seq : (before?.lastSeq ?? 0),
    needs: [...new Set(needs)],
  };
  context.store.paths.put(next);
}

/** Records a state once for each version of the base, with an event. */
function recordState(
  context: CarryContext,
  view: View,
  state: PathState,
  detail: string,
  kind: ReconcileOutcome,
): Outcome {
  const before = context.store.paths.get(view.path);
  const news =
    before?.state !== state || before.baseSeen !== view.base.fingerprint || before.detail !== detail;
  if (news) record(context, view, state, detail, before?.lastSeq ?? 0, false);
  return outcome(kind, detail);
}

const pendingReasons: Record<string, string> = {
  held: 'the base is held for an update',
  unaccepted: 'the base is not accepted',
  settling: 'the base has not settled',
  writer: 'somebody has it open for writing',
  set: 'another file of its set is not ready',
  full: 'no space is left in the overlay',
  'read-only': 'the overlay is read-only',
  hashing: 'its content could not be read',
};

function pending(context: CarryContext, view: View, reason: string, waitMs: number): Outcome {
  const detail = pendingReasons[reason] ?? reason;
  const before = context.store.paths.get(view.path);
  if (before?.state !== 'P' || before.detail !== detail || before.baseSeen !== view.base.fingerprint) {
    // Who is in conflict stays so; the other side just has not come to rest.
    if (context.store.conflicts.of(view.path) === null) {
      const seq =
        before?.state === 'P'
          ? before.lastSeq
          : context.store.events.add({ kind: 'pending', path: view.path, detail });
      record(context, view, 'P', detail, seq, false);
    }
  }
  const retryMs =
    reason === 'settling' ? waitMs : reason === 'unaccepted' || reason === 'held' ? null : RETRY_WRITER_MS;
  return outcome('pending', detail, retryMs);
}

function kept(context: CarryContext, view: View, decision: Decision & { do: 'kept' }): Outcome {
  const before = context.store.paths.get(view.path);
  const detail =
    decision.regenerate === null ? decision.detail : `${decision.detail}; run ${decision.regenerate}`;
  closeConflict(context, view, 'reconciled');
  if (before?.state !== 'K' || before.baseSeen !== view.base.fingerprint) {
    const seq = context.store.events.add({ kind: 'kept', path: view.path, detail });
    record(context, view, 'K', detail, seq, false);
  }
  return outcome('kept', detail);
}

/** The open conflict of a path is over. */
function closeConflict(context: CarryContext, view: View, how: 'withdrawn' | 'reconciled'): void {
  const open = context.store.conflicts.of(view.path);
  if (open === null) return;
  const kind = how === 'withdrawn' ? 'withdrawn' : 'resolved';
  const detail = how === 'withdrawn' ? 'the base is back at what it was' : 'both sides agree';
  const seq = context.store.events.add({ kind, path: view.path, conflict: open.id, detail });
  context.store.conflicts.close(open.id, { how, take: '', seq });
}

/** A whiteout stays whatever the base does; each version that it hides is recorded once. */
export function noteHidden(context: CarryContext, view: View): void {
  const before = context.store.paths.get(view.path);
  const { origin } = view.overlay;
  const { fingerprint } = view.base;
  if (origin === null || fingerprint === '' || fingerprint === origin.fingerprint) return;
  if (before?.state === 'W' && before.baseSeen === fingerprint) return;
  const detail = 'removed by the guest; the base has another version now';
  const seq = context.store.events.add({ kind: 'kept', path: view.path, detail });
  record(context, view, 'W', detail, seq, false);
}

/** Nothing to be done but to note that this version of the base is the origin. */
async function renewOrigin(
  context: CarryContext,
  view: View,
  kind: 'current' | 'merged',
): Promise<Outcome | typeof AGAIN> {
  const fresh = originFromBase(view);
  if (fresh !== null) {
    const result = await context.commit({
      ...request(view, 'origins'),
      origins: encodeOrigins(withOrigin(view, fresh)).toString('base64'),
    });
    if (result < 0) return failed(context, view, result);
  }
  closeConflict(context, view, 'withdrawn');
  record(context, view, 'C', '', 0, false);
  return outcome(kind);
}

async function adopt(
  context: CarryContext,
  assessed: Assessed,
  metadata: MergedMetadata,
): Promise<Outcome | typeof AGAIN> {
  if (metadata.changes) return replace(context, assessed, metadata, 'overlay');
  const done = await renewOrigin(context, assessed.view, 'current');
  if (done === AGAIN) return done;
  const { path } = assessed.view;
  context.store.events.add({ kind: 'adopted', path, detail: 'the guest already has what the base has now' });
  return outcome('adopted');
}

/** An untouched copy goes, and the base shows again. The version is kept. */
async function drop(context: CarryContext, view: View, gone: boolean): Promise<Outcome | typeof AGAIN> {
  const sides = await keepSides(context.store, context.branches, view);
  failPoint('merge-kept');
  const event = await prepare(context, view, sides, 'drop', '', []);
  failPoint('merge-intent');
  const result = await context.commit(request(view, 'drop'));
  if (result < 0) {
    context.store.intents.drop(view.path);
    return failed(context, view, result);
  }
  await syncNames(context.shop, context.branches.overlay, parentPath(view.path));
  closeConflict(context, view, 'reconciled');
  const detail = gone
    ? 'untouched by the guest, and gone from the base'
    : 'untouched by the guest: the base shows';
  finishEvent(context, view, { ...event, kind: 'dropped', detail }, null);
  context.store.paths.delete(view.path);
  await makeDurable(context);
  return outcome('dropped', detail);
}

/** The event that the commit is about to make true, with what undo needs; its intent is durable afterwards. */
async function prepare(
  context: CarryContext,
  view: View,
  sides: Sides,
  what: string,
  after: string,
  origins: readonly Origin[],
): Promise<Omit<NewEvent, 'kind'>> {
  const numbers = numberSides(context.store, view.path, sides);
  const undo: UndoInfo = {
    version: numbers.overlay,
    origin: encodeOrigins(view.overlay.origins).toString('base64'),
    after,
    pin: { fingerprint: view.base.fingerprint, content: view.base.object?.content ?? '' },
    conflict: null,
  };
  const event = { path: view.path, version: numbers.overlay, sides: numbers, undo };
  const intent: Intent = { what, base: view.base.fingerprint, origins: base64(origins), event };
  await context.store.intents.put(view.path, intent);
  return event;
}

/** What was recorded is told only when it cannot be lost any more. */
async function makeDurable(context: CarryContext): Promise<void> {
  failPoint('merge-recorded');
  await context.store.flush();
  failPoint('merge-durable');
}

function finishEvent(context: CarryContext, view: View, event: NewEvent, state: PathState | null): void {
  const seq = context.store.events.add(event);
  if (state !== null) record(context, view, state, '', seq, event.kind === 'merged');
  context.store.intents.drop(view.path);
}

type Source = 'overlay' | 'base' | 'merged';

/** The copy gets other bytes or metadata, by a file that is whole and synced before it takes the name. */
async function replace(
  context: CarryContext,
  assessed: Assessed,
  metadata: MergedMetadata,
  source: Source,
): Promise<Outcome | typeof AGAIN> {
  const { view, merged } = assessed;
  const origin = originFromBase(view);
  const { object } = view.overlay;
  if (origin === null || object === null) return AGAIN;
  await loadContents(context, view);
  origin.content = view.base.object?.content ?? '';
  const sides = await keepSides(context.store, context.branches, view);
  const temp = context.tempName();
  const from = source === 'base' ? (view.base.object as Found) : object;
  const bytes = source === 'merged' ? (merged?.bytes ?? null) : from.bytes;
  const origins = withOrigin(view, origin);
  const plan = blueprint(from, metadata, bytes, origins, source);
  failPoint('merge-kept');
  await buildFrom(context, view, temp, plan, from, source);
  failPoint('merge-built');
  const content = source === 'merged' && bytes !== null ? await context.store.ancestors.put(bytes) : from.content;
  const after = builtSignature(context.shop, temp, content);
  const event = await prepare(context, view, sides, source, after);
  const result = await context.commit({ ...request(view, 'replace'), temp });
  if (result < 0) {
    discard(context.shop, temp);
    context.store.intents.drop(view.path);
    return failed(context, view, result);
  }
  closeConflict(context, view, 'reconciled');
  const detail = { merged: 'both changes merged', base: 'the base’s content', overlay: 'metadata merged' }[
    source
  ];
  const notes = metadata.notes.length > 0 ? `${detail}; ${metadata.notes.join('; ')}` : detail;
  view.ancestorContent = origin.content;
  finishEvent(context, view, { ...event, kind: 'merged', detail: notes }, 'C');
  await context.store.flush();
  return outcome('merged', notes);
}

const none: XattrSet = new Map();

export function blueprint(
  from: Found,
  metadata: Pick<MergedMetadata, 'mode' | 'uid' | 'gid' | 'xattrs'>,
  bytes: Buffer | null,
  origins: Origin[],
  source: Source,
): Blueprint {
  const now = Date.now();
  const fresh = source === 'merged';
  const times = fresh
    ? { mtimeSec: Math.floor(now / 1000), mtimeNsec: (now % 1000) * 1_000_000 }
    : { mtimeSec: from.stat.mtimeSec, mtimeNsec: from.stat.mtimeNsec };
  return {
    mode: (from.stat.mode & S_IFMT) | (metadata.mode & 0o7777),
    uid: metadata.uid,
    gid: metadata.gid,
    xattrs: metadata.xattrs ?? none,
    ...times,
    content: bytes,
    target: from.target ?? '',
    rdevMajor: from.stat.rdevMajor,
    rdevMinor: from.stat.rdevMinor,
    origins,
  };
}

/** Builds; a large file is copied from its branch. */
export async function buildFrom(
  context: CarryContext,
  view: View,
  temp: string,
  plan: Blueprint,
  from: Found,
  source: Source,
): Promise<void> {
  if (plan.content !== null || !isRegular(plan.mode)) return build(context.shop, temp, plan);
  const fd =
    source === 'base'
      ? openBase(context.branches, view.basePath)
      : openOverlayFile(context.branches, view.path);
  if (fd < 0) throw new FsError(-fd, `${view.path}: cannot be read (${errnoName(fd)})`);
  try {
    await build(context.shop, temp, { ...plan, content: { fd, size: from.stat.size } });
  } finally {
    close(fd);
  }
}

/** Nothing changes but the record: the overlay's file stays as it is, and a person is asked. */
async function conflict(
  context: CarryContext,
  assessed: Assessed,
  decision: Decision & { do: 'conflict' },
): Promise<Outcome> {
  const { view } = assessed;
  const { store } = context;
  await loadContents(context, view);
  const open = store.conflicts.of(view.path);
  const same =
    open !== null &&
    open.kind === decision.kind &&
    open.baseFingerprint === view.base.fingerprint &&
    store.paths.get(view.path)?.overlaySig === contentSignature(view.overlay.object);
  if (same) return outcome('conflict', open.reason);
  const sides = await keepSides(store, context.branches, view);
  const offered = proposal(assessed);
  const merged =
    offered === null
      ? null
      : {
          content: await store.ancestors.put(offered.bytes),
          markers: !offered.clean,
          size: offered.bytes.length,
        };
  const fields = {
    kind: decision.kind,
    path: view.path,
    since: Date.now(),
    reason: decision.reason,
    ...sides,
    merged,
    origin: view.overlay.origin,
    baseFingerprint: view.base.fingerprint,
  };
  const found =
    open === null
      ? store.conflicts.open(fields)
      : store.conflicts.update(open.id, { ...fields, since: open.since }, true);
  const numbers = numberSides(store, view.path, sides);
  const seq = store.events.add({
    kind: 'conflict',
    path: view.path,
    detail: decision.reason,
    conflict: found?.id ?? null,
    sides: numbers,
    version: numbers.overlay,
  });
  record(context, view, 'X', decision.reason, seq, false);
  return outcome('conflict', decision.reason);
}
