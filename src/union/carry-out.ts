// Does what a decision says: builds, keeps every version first, commits by the serving thread, records. A merge
// is told only when all of it is durable. The intent that is written before the rename lets a restart finish
// the record of a merge that a crash cut off.
import type { ReconcileOutcome } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { parentPath } from '../lib/names.ts';
import type { Decision } from '../merge/decide.ts';
import type { MergedMetadata } from '../merge/metadata.ts';
import { type Origin, pathHash } from '../versions/origin.ts';
import type { NewEvent, PathState, UndoInfo } from '../versions/types.ts';
import { type Assessed, isCurrent, loadContents, proposal, type View } from './assess.ts';
import { type Built, build, discard, linkBuilt, syncNames } from './build.ts';
import {
  AGAIN,
  base64,
  type CarryContext,
  closeConflict,
  failed,
  type Intent,
  isStill,
  type Outcome,
  outcome,
  pending,
  record,
  stepOf,
} from './carrying.ts';
import type { CommitRequest } from './commit.ts';
import { displace } from './displace.ts';
import { failPoint } from './fail-point.ts';
import { keepSides, numberSides, type Sides } from './keeping.ts';
import { keepNumbers, numbered, numberLeft } from './numbering.ts';
import { newOrigin } from './origin-list.ts';
import { blueprint, buildFrom, leavesContent, leftContent, type Source } from './plan.ts';
import { type Found, isMetadataOnly } from './sides.ts';
import { builtSignature, contentSignature } from './signature.ts';
import { ungranted, ungrantStep } from './ungrant.ts';
import { hashXattrs } from './xattr-set.ts';

/** A decision, and for how long it is to wait if it has to. */
export interface Decided {
  assessed: Assessed;
  waitMs: number;
}

/** Names that are one file and stay one: the object that comes under the first comes under all. */
interface Sharing {
  views: readonly View[];
  /** In work/; '' until it is built. */
  temp: string;
}

/** A step that can be taken, its intent durable; what follows when it has been taken, and when it could not be. */
interface Ready {
  step: CommitRequest;
  taken: () => Promise<Outcome | typeof AGAIN>;
  refused: (result: number) => Outcome | typeof AGAIN;
}

/** Carries a decision out; AGAIN when a side has moved meanwhile. Throws FsError for what is not expected. */
export async function carryOut(
  context: CarryContext,
  assessed: Assessed,
  waitMs: number,
): Promise<Outcome | typeof AGAIN> {
  return (await carryOutTogether(context, [{ assessed, waitMs }]))[0] ?? AGAIN;
}

/**
 * The same for the members of a set, or (`oneFile`) for the names of a file: what is written is written by one
 * step, or not at all.
 */
export async function carryOutTogether(
  context: CarryContext,
  decided: readonly Decided[],
  oneFile = false,
): Promise<(Outcome | typeof AGAIN)[]> {
  const sharing = oneFile ? { views: decided.map(({ assessed }) => assessed.view), temp: '' } : null;
  const ready: Ready[] = [];
  const results: (Outcome | typeof AGAIN | Ready)[] = [];
  try {
    for (const one of decided) {
      const result = await prepareOne(context, one, sharing);
      results.push(result);
      if (result !== AGAIN && 'step' in result) ready.push(result);
    }
  } catch (error) {
    for (const one of ready) one.refused(-E.EAGAIN);
    throw error;
  }
  if (decided.length > 1 && results.includes(AGAIN)) {
    // All of them or none.
    for (const one of ready) one.refused(-E.EAGAIN);
    return decided.map(() => AGAIN);
  }
  if (ready.length === 0) return results as (Outcome | typeof AGAIN)[];
  const count = await context.commit(...ready.map((one) => one.step));
  const outcomes = new Map<Ready, Outcome | typeof AGAIN>();
  for (const [i, one] of ready.entries()) {
    outcomes.set(one, i < count ? await one.taken() : one.refused(count < 0 ? count : -E.EIO));
  }
  if (count > 0) await makeDurable(context);
  return results.map((result) => outcomes.get(result as Ready) ?? (result as Outcome | typeof AGAIN));
}

async function prepareOne(
  context: CarryContext,
  { assessed, waitMs }: Decided,
  sharing: Sharing | null,
): Promise<Outcome | typeof AGAIN | Ready> {
  const { view, decision } = assessed;
  if (decision.do !== 'pending') {
    // Notes of what the guest did before, folded afterwards, would cover the record, and close the conflict.
    await context.caughtUp();
    if (!isStill(context, view)) return AGAIN;
  }
  if (decision.do === 'pinned' || decision.do === 'conflict') {
    const rest = ungranted(view);
    if (rest !== null) return ungrantStep(context, view, rest);
  }
  switch (decision.do) {
    case 'current':
      return renewOrigin(context, view, 'current');
    case 'pinned':
      closeConflict(context, view, 'withdrawn');
      return recordState(context, view, 'U', 'undone: this version of the base was refused', 'current');
    case 'pending':
      return pending(context, view, decision.reason, waitMs);
    case 'kept':
      return kept(context, assessed, decision);
    case 'adopt':
      return adopt(context, assessed, decision.metadata, sharing);
    case 'drop':
      return drop(context, view, decision.gone, sharing?.views.length ?? 1);
    case 'take-base':
      return replace(context, assessed, decision.metadata, 'base', sharing);
    case 'merge-text':
      return changesNothing(assessed, decision.metadata)
        ? renewOrigin(context, view, 'merged')
        : replace(context, assessed, decision.metadata, 'merged', sharing);
    case 'metadata':
      return decision.metadata.changes
        ? replace(context, assessed, decision.metadata, 'overlay', sharing)
        : renewOrigin(context, view, 'merged');
    case 'displace':
      return displace(context, view, decision.into === 'target');
    case 'conflict':
      return conflict(context, assessed, decision);
  }
}

/** The guest has all of the base's changes already: its file stays as it is, the very inode. */
function changesNothing({ view, merged }: Assessed, metadata: MergedMetadata): boolean {
  const bytes = view.overlay.object?.bytes ?? null;
  return !metadata.changes && bytes !== null && merged?.bytes.equals(bytes) === true;
}

/** Of a file with several names, which all come to have what the base has now. */
function sharedOrigins(views: readonly View[], view: View, origin: Origin): Origin[] {
  const fresh = views.map((one) => ({ ...origin, path: pathHash(one.basePath) }));
  const others = view.overlay.origins.filter((old) => fresh.every((one) => one.path !== old.path));
  return [...others, ...fresh];
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

async function kept(
  context: CarryContext,
  assessed: Assessed,
  decision: Decision & { do: 'kept' },
): Promise<Outcome | typeof AGAIN | Ready> {
  const { view } = assessed;
  // A conflict that the base's deletion overtakes stays one: somebody is to decide.
  if (decision.reason === 'deleted' && context.store.conflicts.of(view.path) !== null) {
    return conflict(context, assessed, {
      do: 'conflict',
      kind: 'deleted',
      reason: decision.detail,
      proposal: 'none',
    });
  }
  if (decision.fill) return fillFromAncestor(context, assessed, decision);
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

/** What had left its content in the base, which has it no more, gets the bytes of its ancestor. */
async function fillFromAncestor(
  context: CarryContext,
  { view }: Assessed,
  { detail }: Decision & { do: 'kept' },
): Promise<Ready | typeof AGAIN> {
  const { object } = view.overlay;
  if (object === null || view.ancestorBytes === null) return AGAIN;
  const origins = numbered(context, view, view.overlay.origins);
  const temp = context.tempName();
  const { mode, uid, gid } = object.stat;
  const metadata = { mode, uid, gid, xattrs: object.xattrs };
  await build(context.shop, temp, blueprint(object, metadata, view.ancestorBytes, origins, 'overlay'));
  return {
    step: stepOf(view, 'replace', { temp }),
    taken: async () => {
      await syncNames(context.shop, context.branches.overlay, parentPath(view.path));
      closeConflict(context, view, 'reconciled');
      const seq = context.store.events.add({ kind: 'kept', path: view.path, detail });
      record(context, view, 'K', detail, seq, false);
      return outcome('kept', detail);
    },
    refused: (result) => {
      discard(context.shop, temp);
      return failed(context, view, result);
    },
  };
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
export async function renewOrigin(
  context: CarryContext,
  view: View,
  kind: 'current' | 'merged' | 'adopted',
): Promise<Outcome | typeof AGAIN> {
  if (view.base.object !== null && !isCurrent(view)) {
    // What follows the base needs no ancestor, and nobody waits for a large file to be read.
    if (!isMetadataOnly(view.overlay.object)) await loadContents(context, view);
    // The ancestor of the next merge.
    if (view.base.object.bytes !== null) await context.store.ancestors.put(view.base.object.bytes);
    const fresh = originFromBase(view) as Origin;
    const result = await context.commit(
      stepOf(view, 'origins', {
        origins: base64(withOrigin(view, fresh)),
      }),
    );
    if (result < 0) return failed(context, view, result);
  }
  closeConflict(context, view, kind === 'current' ? 'withdrawn' : 'reconciled');
  record(context, view, 'C', '', 0, false);
  return outcome(kind);
}

async function adopt(
  context: CarryContext,
  assessed: Assessed,
  metadata: MergedMetadata,
  sharing: Sharing | null,
): Promise<Outcome | typeof AGAIN | Ready> {
  if (metadata.changes) return replace(context, assessed, metadata, 'overlay', sharing);
  const done = await renewOrigin(context, assessed.view, 'adopted');
  if (done === AGAIN || done.outcome !== 'adopted') return done;
  const { path } = assessed.view;
  context.store.events.add({ kind: 'adopted', path, detail: 'the guest already has what the base has now' });
  return done;
}

/** An untouched copy goes, and the base shows again. The version is kept. */
async function drop(context: CarryContext, view: View, gone: boolean, names: number): Promise<Ready> {
  const left = numberLeft(context, view, names);
  const sides = await keepSides(context.store, context.branches, view);
  failPoint('merge-kept');
  const event = await prepare(context, view, sides, 'drop', '', [], left);
  failPoint('merge-intent');
  const detail = !gone
    ? 'untouched by the guest: the base shows'
    : isMetadataOnly(view.overlay.object)
      ? 'gone from the base, and its content with it'
      : 'untouched by the guest, and gone from the base';
  return {
    step: stepOf(view, 'drop'),
    taken: async () => {
      await syncNames(context.shop, context.branches.overlay, parentPath(view.path));
      closeConflict(context, view, 'reconciled');
      finishEvent(context, view, { ...event, kind: 'dropped', detail }, null);
      context.store.paths.delete(view.path);
      // No path of the base is shown with it.
      context.store.numbers.take({ ino: left, path: '' });
      return outcome('dropped', detail);
    },
    refused: (result) => {
      context.store.intents.drop(view.path);
      return failed(context, view, result);
    },
  };
}

/** The event that the commit is about to make true, with what undo needs; its intent is durable afterwards. */
async function prepare(
  context: CarryContext,
  view: View,
  sides: Sides,
  what: string,
  after: string,
  origins: readonly Origin[],
  left = 0,
): Promise<Omit<NewEvent, 'kind'>> {
  const numbers = numberSides(context.store, view.path, sides);
  const undo: UndoInfo = {
    version: numbers.overlay,
    origin: base64(view.overlay.origins),
    after,
    pin: { fingerprint: view.base.fingerprint, content: view.base.object?.content ?? '' },
    conflict: null,
  };
  const event = { path: view.path, version: numbers.overlay, sides: numbers, undo };
  const intent: Intent = { what, base: view.base.fingerprint, origins: base64(origins), left, event };
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

/** The copy gets other bytes or metadata, by a file that is whole and synced before it takes the name. */
async function replace(
  context: CarryContext,
  assessed: Assessed,
  metadata: MergedMetadata,
  source: Source,
  sharing: Sharing | null,
): Promise<Ready | typeof AGAIN> {
  const { view, merged } = assessed;
  const origin = originFromBase(view);
  const { object } = view.overlay;
  if (origin === null || object === null) return AGAIN;
  const leaves = sharing === null && leavesContent(context, assessed, metadata, source);
  await loadContents(context, view);
  origin.content = view.base.object?.content ?? '';
  const sides = await keepSides(context.store, context.branches, view);
  const temp = context.tempName();
  const from = source === 'base' ? (view.base.object as Found) : object;
  const bytes = source === 'merged' ? (merged?.bytes ?? null) : from.bytes;
  const all = sharing === null ? withOrigin(view, origin) : sharedOrigins(sharing.views, view, origin);
  const origins = numbered(context, view, all, sharing?.views);
  const plan = {
    ...blueprint(from, metadata, bytes, origins, source),
    ...(leaves ? leftContent(view, source) : {}),
  };
  failPoint('merge-kept');
  let built: Built | null = null;
  if (sharing === null || sharing.temp === '')
    built = await buildFrom(context, view, temp, plan, from, source);
  else linkBuilt(context.shop, sharing.temp, temp);
  if (sharing !== null) sharing.temp = temp;
  failPoint('merge-built');
  let event: Awaited<ReturnType<typeof prepare>>;
  try {
    const content =
      source === 'merged' && bytes !== null ? await context.store.ancestors.put(bytes) : from.content;
    event = await prepare(context, view, sides, source, builtSignature(context.shop, temp, content), origins);
    // It and the intent were synced together.
    const unsynced = built === null ? null : await built.synced;
    if (unsynced !== null) throw unsynced;
  } catch (error) {
    // On a full disk, which it would only make fuller.
    discard(context.shop, temp);
    context.store.intents.drop(view.path);
    throw error;
  }
  failPoint('merge-intent');
  const detail = { merged: 'both changes merged', base: 'the base’s content', overlay: 'metadata merged' }[
    source
  ];
  const notes = metadata.notes.length > 0 ? `${detail}; ${metadata.notes.join('; ')}` : detail;
  return {
    step: stepOf(view, 'replace', { temp }),
    taken: async () => {
      await syncNames(context.shop, context.branches.overlay, parentPath(view.path));
      closeConflict(context, view, 'reconciled');
      view.ancestorContent = origin.content;
      keepNumbers(context.store, origins);
      finishEvent(context, view, { ...event, kind: 'merged', detail: notes }, 'C');
      return outcome('merged', notes);
    },
    refused: (result) => {
      discard(context.shop, temp);
      context.store.intents.drop(view.path);
      return failed(context, view, result);
    },
  };
}

/** Nothing changes but the record: the overlay's file stays as it is, and a person is asked. */
async function conflict(
  context: CarryContext,
  assessed: Assessed,
  decision: Decision & { do: 'conflict' },
): Promise<Outcome | typeof AGAIN> {
  const { view } = assessed;
  const { store } = context;
  await loadContents(context, view);
  const known = store.conflicts.of(view.path);
  const same =
    known !== null &&
    known.kind === decision.kind &&
    known.baseFingerprint === view.base.fingerprint &&
    store.paths.get(view.path)?.overlaySig === contentSignature(view.overlay.object);
  if (same) return outcome('conflict', known.reason);
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
  // Who has removed it meanwhile has decided, and nothing would close what is opened after that.
  if (!isStill(context, view)) return AGAIN;
  const open = store.conflicts.of(view.path);
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
