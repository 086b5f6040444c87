// `resolve`: a person decides a conflict. What is decided upon is the base that the conflict shows at its
// revision: that becomes the origin, not the base as it is now (native-notes/versioning.md, "Undo and resolve").
import type { ResolveReport, ResolveRequest } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { hash128 } from '../lib/hash.ts';
import { escapeName } from '../lib/names.ts';
import { alike } from '../merge/path-state.ts';
import type { View } from '../union/assess.ts';
import { AGAIN, base64 } from '../union/carrying.ts';
import { keepSides, numberSides } from '../union/keeping.ts';
import { isStill } from '../union/signature.ts';
import type { ConflictRecord } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import { expectPath, kindInUnion } from './objects.ts';
import { judgeResolution, shownBase, versionOfFound } from './path-state.ts';
import { originAtRevision, planFor, recordOf, type Wanted } from './resolution.ts';
import { enact, expectDecidable, type Ruling, ruleOn, withTemp } from './ruling.ts';
import { openConflict } from './verbs-read.ts';

type Resolved = ResolveReport['resolved'][number];

export async function resolve(context: MountContext, request: ResolveRequest): Promise<ResolveReport> {
  await context.bringUpToDate();
  const { take, rev } = request;
  const wanted: Wanted =
    typeof take === 'string'
      ? { take, bytes: null, rev }
      : { take: 'file', bytes: Buffer.from(take.content, 'base64'), rev };
  const records = await targets(context, request, wanted);
  const resolved: Resolved[] = [];
  for (const record of records) {
    if (record.closed !== null) {
      resolved.push({ id: record.id, rev: record.closed.rev, path: record.path, already: true });
    } else resolved.push(await resolveOne(context, record, wanted));
  }
  return { resolved };
}

/** The conflicts that are meant; a closed one only where the very same was done before, and may be repeated. */
async function targets(
  context: MountContext,
  request: ResolveRequest,
  wanted: Wanted,
): Promise<ConflictRecord[]> {
  const { target, recursive, repeatOk } = request;
  if ('id' in target) {
    const found = context.store.conflicts.get(target.id);
    const done = found?.closed ?? null;
    const same = done?.how === 'resolved' && done.take === wanted.take;
    if (repeatOk && found && done && same && (wanted.rev === null || wanted.rev === done.rev)) return [found];
    return [openConflict(context, target)];
  }
  const { path } = target;
  const isDir = kindInUnion(context, path) === 'dir';
  if (!isDir) {
    await expectPath(context, path);
    return [openConflict(context, target)];
  }
  const name = escapeName(path) || '/';
  if (!recursive) {
    throw new FsError(E.EISDIR, `${name}: is a directory: -r decides every conflict beneath it`);
  }
  if (wanted.rev !== null || wanted.take === 'file') {
    throw new FsError(E.EINVAL, `${name}: a revision or a file cannot be meant for all beneath a directory`);
  }
  const beneath = context.store.conflicts.under(path).filter((record) => record.path !== path);
  if (beneath.length === 0) throw new FsError(E.ENODATA, `${name}: no conflict is open beneath it`);
  if (wanted.take === 'merged') for (const record of beneath) expectProposal(record);
  return beneath;
}

function expectProposal(record: ConflictRecord): void {
  const { id, merged, path } = record;
  const about = `conflict ${id} (${escapeName(path)})`;
  if (merged === null)
    throw new FsError(E.ENODATA, `${about}: nothing was proposed: take a side, or give a file`);
  if (merged.markers) {
    throw new FsError(E.EBADMSG, `${about}: the proposal still has markers: take a side, or give a file`);
  }
}

async function resolveOne(context: MountContext, record: ConflictRecord, wanted: Wanted): Promise<Resolved> {
  expectDecidable(context);
  const { path, id } = record;
  const { reconciler } = context;
  const decideNow = () =>
    ruleOn(context, path, (view) => decide(context, openConflict(context, { id }), view, wanted));
  try {
    const rev = await reconciler.exclusively(path, decideNow);
    await reconciler.look(path);
    return { id, rev, path, already: false };
  } catch (error) {
    // Whoever asks next is to see what has moved.
    const moved = error instanceof FsError && (error.errno === E.ESTALE || error.errno === E.EALREADY);
    if (moved) await reconciler.look(path);
    throw error;
  }
}

/** The rev at which it was resolved. */
async function decide(
  context: MountContext,
  record: ConflictRecord,
  view: View,
  wanted: Wanted,
): Promise<number | typeof AGAIN> {
  const carry = context.reconciler.context;
  const { store } = carry;
  expectUnmoved(record, view, wanted);
  const given = wanted.bytes === null ? (record.merged?.content ?? null) : hash128(wanted.bytes);
  const next = judgeResolution(context, record, view, {
    take: wanted.take,
    rev: wanted.rev,
    result: given === null ? null : { content: given, meta: '', seq: 0 },
    markers: record.merged?.markers ?? false,
  });
  const sides = await keepSides(store, carry.branches, view);
  const numbers = numberSides(store, view.path, sides);
  const own =
    next.overlay === null || next.ancestor === null ? null : await originAtRevision(carry, record, view);
  return withTemp(carry, async (temp) => {
    const plan = await planFor(carry, record, view, wanted, next.overlay === null, own, temp);
    const ruling: Ruling = {
      ruling: 'resolution',
      after: plan.after,
      origins: plan.after === '' ? '' : base64(plan.origins),
      left: plan.left,
      displaced: plan.steps.length > 1 ? record.id : 0,
      event: {
        kind: 'resolved',
        path: view.path,
        detail: details[wanted.take],
        conflict: record.id,
        version: numbers.overlay,
        sides: numbers,
        // Where the guest had nothing there is nothing to come back to.
        undo:
          numbers.overlay === null
            ? null
            : {
                version: numbers.overlay,
                origin: base64(view.overlay.origins),
                after: plan.after,
                pin: null,
                conflict: record.id,
              },
      },
      close: { id: record.id, how: 'resolved', take: wanted.take },
      reopen: null,
      undoes: 0,
      record: own === null ? null : recordOf(context, view, next.at === 'C' ? 'C' : 'P', plan.after, own),
    };
    const seq = await enact(carry, view.path, ruling, plan.steps);
    if (seq === AGAIN) return AGAIN;
    if (plan.displaced) await forgetBeneath(context, view.path, seq);
    return record.rev;
  });
}

const details: Record<Wanted['take'], string> = {
  overlay: 'the overlay’s was taken',
  base: 'the base’s was taken',
  merged: 'the proposed merge was taken',
  file: 'a file was given',
};

/** A side that has moved since it was looked at is not decided upon unseen. */
function expectUnmoved(record: ConflictRecord, view: View, wanted: Wanted): void {
  const { overlay } = record;
  const { object } = view.overlay;
  const moved =
    object !== null && overlay !== null && overlay !== 'unknown' && !isStill(object, overlay)
      ? 'overlay'
      : alike(shownBase(record, view), versionOfFound(view.base.object))
        ? null
        : 'base';
  if (moved === null) return;
  // Without a revision it is the overlay's as it is, and the base as it was shown.
  if (wanted.rev === null && !(moved === 'overlay' && wanted.take === 'merged')) return;
  throw new FsError(E.ESTALE, `conflict ${record.id}: the ${moved} has moved since: look at it again`);
}

/** What lay beneath a directory that went to displaced/ is in the union no more. */
async function forgetBeneath(context: MountContext, path: string, seq: number): Promise<void> {
  const { store } = context;
  for await (const record of store.paths.under(path)) {
    if (record.path !== path) store.paths.delete(record.path);
  }
  for (const { id, path: at } of store.conflicts.under(path)) {
    if (at !== path) store.conflicts.close(id, { how: 'removed', take: '', seq });
  }
  await store.flush();
}
