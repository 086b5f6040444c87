// `undo`: takes back the last merge, drop or resolution of a path. Bytes, metadata and origin come back, and the
// version of the base that was refused is pinned in the origin (native-notes/versioning.md, "Undo and resolve").
import type { UndoReport, UndoRequest } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { isDirectory } from '../lib/stat.ts';
import type { PathState } from '../merge/path-state.ts';
import type { View } from '../union/assess.ts';
import { AGAIN, base64, type CarryContext, stepOf } from '../union/carrying.ts';
import type { CommitRequest } from '../union/commit.ts';
import { keepObject } from '../union/keeping.ts';
import { numbered, numberLeft } from '../union/numbering.ts';
import { originFor, pinOf } from '../union/origin-list.ts';
import { openOverlayFile } from '../union/sides.ts';
import { builtSignature, contentSignature, isStill } from '../union/signature.ts';
import { decodeOrigins, type Origin, pathHash } from '../versions/origin.ts';
import type { StoredEvent, VersionRef } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import { contentOfVersion, expectPath } from './objects.ts';
import { isUndoable, judgeUndo } from './path-state.ts';
import { placesNow, placesOf } from './places.ts';
import { recordOf } from './resolution.ts';
import {
  buildVersion,
  enact,
  expectDecidable,
  fromDisplaced,
  type Ruling,
  ruleOn,
  withTemp,
} from './ruling.ts';

export async function undo(context: MountContext, request: UndoRequest): Promise<UndoReport> {
  await context.bringUpToDate();
  const event = await eventOf(context, request);
  const { seq, kind } = event;
  // A directory above may have been renamed since.
  const path = (await placesNow(context.store.events, [event])).get(seq) ?? event.path;
  if (event.undone !== 0) {
    if (!request.repeatOk) throw nothing(`event ${seq}: was taken back by event ${event.undone}`);
    return { seq, kind, path, reopened: null, keptVersion: null, already: true };
  }
  expectDecidable(context);
  const { reconciler } = context;
  const done = await reconciler.exclusively(path, async () => {
    await expectLast(context, seq, path);
    return ruleOn(context, path, (view) => takeBack(context, event, view, request.force));
  });
  await reconciler.look(path);
  return { seq, kind, path, ...done, already: false };
}

function nothing(message: string): FsError {
  return new FsError(E.ENODATA, message);
}

/** ENOKEY: no such number; ENODATA: it is nothing that can be taken back. */
async function eventOf(context: MountContext, { target }: UndoRequest): Promise<StoredEvent> {
  const { events } = context.store;
  if ('seq' in target) {
    const event = events.get(target.seq);
    if (event === null) throw new FsError(E.ENOKEY, `event ${target.seq}: unknown`);
    if (event.undone === 0 && !isUndoable(event)) {
      throw nothing(`event ${target.seq} (${event.kind}): nothing that can be taken back`);
    }
    return event;
  }
  await expectPath(context, target.path);
  const last = await lastUndoable(context, target.path);
  if (last === null) throw nothing(`${escapeName(target.path) || '/'}: there is nothing to undo`);
  return last;
}

async function lastUndoable(context: MountContext, path: string): Promise<StoredEvent | null> {
  if (path === '') return null;
  const { events } = context.store;
  for (const { path: at, before } of await placesOf(events, path)) {
    let last: StoredEvent | null = null;
    for await (const event of events.at(at)) if (event.seq < before && isUndoable(event)) last = event;
    if (last !== null) return last;
  }
  return null;
}

async function expectLast(context: MountContext, seq: number, path: string): Promise<void> {
  const last = await lastUndoable(context, path);
  if (last?.seq === seq) return;
  if (last === null) throw nothing(`event ${seq}: was taken back meanwhile`);
  throw new FsError(E.EBUSY, `event ${seq}: event ${last.seq} came after it: undo that first`);
}

type TakenBack = Pick<UndoReport, 'reopened' | 'keptVersion'>;

async function takeBack(
  context: MountContext,
  event: StoredEvent,
  view: View,
  force: boolean,
): Promise<TakenBack | typeof AGAIN> {
  const carry = context.reconciler.context;
  const { store } = carry;
  const next = judgeUndo(context, event, view, force);
  const before = versionBefore(context, event);
  const { object } = view.overlay;
  const list = originsBefore(event, view, next);
  const origins = isStill(object, before) ? list : numbered(carry, view, list);
  const keptVersion =
    object === null
      ? null
      : store.versions.add(
          view.path,
          await keepObject(
            store,
            object,
            () => openOverlayFile(carry.branches, view.path),
            view.overlay.origins,
          ),
        );
  const open = store.conflicts.of(view.path);
  const reopened = next.at === 'X' ? (event.undo?.conflict ?? null) : null;
  return withTemp(carry, async (temp) => {
    const plan = await planFor(carry, event, view, before, origins, temp);
    const own = originFor(origins, view.basePath);
    const ruling: Ruling = {
      ruling: 'undo',
      after: plan.after,
      origins: base64(origins),
      left: plan.left ?? 0,
      displaced: plan.displaced ?? 0,
      event: {
        kind: 'undone',
        path: view.path,
        detail: `event ${event.seq} (${event.kind}) was taken back`,
        conflict: reopened ?? open?.id ?? null,
        version: keptVersion,
      },
      close: open !== null && reopened === null ? { id: open.id, how: 'undone', take: '' } : null,
      reopen: reopened === null ? null : { id: reopened, overlay: before, origin: own },
      undoes: event.seq,
      record:
        own === null && reopened === null
          ? null
          : recordOf(context, view, next.at === 'X' ? 'X' : 'U', plan.after, own),
    };
    const seq = await enact(carry, view.path, ruling, plan.steps);
    return seq === AGAIN ? AGAIN : { reopened, keptVersion };
  });
}

/** What the overlay had. Merges, drops and resolutions all begin at an object of the overlay. */
function versionBefore(context: MountContext, event: StoredEvent): VersionRef {
  const number = event.undo?.version ?? null;
  const before = number === null ? null : context.store.versions.get(event.path, number);
  if (before === null) throw nothing(`event ${event.seq}: what was there before is kept no more`);
  return before;
}

/** Its origins, with the version that is refused now; a resolution refused none. */
function originsBefore(event: StoredEvent, view: View, next: PathState): Origin[] {
  const bytes = event.undo?.origin ?? null;
  const list = bytes === null ? [] : (decodeOrigins(Buffer.from(bytes, 'base64')) ?? []);
  const refused = event.undo?.pin ?? null;
  if (next.pin === null || refused === null) return list;
  const own = originFor(list, view.basePath) ?? unknownOrigin(view.basePath);
  const pin = pinOf(refused.fingerprint, refused.content);
  return [...list.filter((one) => one.path !== own.path), { ...own, pin }];
}

/** Holds a pin where nothing was known of an ancestor. */
function unknownOrigin(basePath: string): Origin {
  return {
    path: pathHash(basePath),
    mode: 0,
    uid: 0,
    gid: 0,
    ino: 0,
    content: '',
    fingerprint: '',
    xattrs: '',
    taken: Math.floor(Date.now() / 1000),
    torn: false,
    pin: null,
  };
}

async function planFor(
  carry: CarryContext,
  event: StoredEvent,
  view: View,
  before: VersionRef,
  origins: Origin[],
  temp: string,
): Promise<{ steps: CommitRequest[]; after: string; left?: number; displaced?: number }> {
  const { object } = view.overlay;
  // Whatever the base is by now, this comes back.
  const anyBase = { base: null };
  if (isStill(object, before)) {
    const step = stepOf(view, 'origins', { ...anyBase, origins: base64(origins) });
    return { steps: [step], after: contentSignature(object) };
  }
  const dropped = event.kind === 'dropped';
  if (dropped && object !== null && isDirectory(before.mode) && isDirectory(object.stat.mode)) {
    const step = stepOf(view, 'origins', { ...anyBase, origins: base64(origins) });
    return { steps: [step], after: contentSignature(object) };
  }
  // A directory that was dropped held nothing.
  if (dropped || !isDirectory(before.mode)) {
    await buildVersion(carry, temp, before, view.basePath, origins);
    const after = builtSignature(carry.shop, temp, contentOfVersion(before));
    return { steps: [stepOf(view, 'replace', { ...anyBase, temp })], after };
  }
  // A directory that a resolution moved to displaced/ comes back from there, with what it held.
  const displaced = event.conflict ?? 0;
  const away = object === null ? [] : [stepOf(view, 'drop', anyBase)];
  return {
    steps: [...away, fromDisplaced(carry, view.path, displaced)],
    left: numberLeft(carry, view, 1),
    displaced,
    after: builtSignature({ ...carry.shop, workFd: carry.displacedFd }, String(displaced), null),
  };
}
