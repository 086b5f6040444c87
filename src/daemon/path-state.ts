// The pure table of states (merge/states.ts) as the judge of what a person decides: a path as it lies on disk
// and in the index becomes a PathState, and what the table refuses becomes an FsError. Nothing is done here.
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { isDirectory, isRegular } from '../lib/stat.ts';
import {
  following,
  type PathState,
  type Refusal,
  type UndoRecord,
  type Version,
} from '../merge/path-state.ts';
import { step } from '../merge/states.ts';
import type { View } from '../union/assess.ts';
import type { Found } from '../union/sides.ts';
import { contentSignature, signatureOfVersion } from '../union/signature.ts';
import type { ConflictRecord, SideRef, StoredEvent, VersionRef } from '../versions/types.ts';
import type { MountContext } from './context.ts';

const errnos: Record<Refusal, [errno: number, message: string]> = {
  frozen: [E.EBUSY, 'the base is not accepted, or held: nothing is decided until it is'],
  absent: [E.ENOENT, 'there is no such file'],
  present: [E.EEXIST, 'there is a copy already'],
  closed: [E.EALREADY, 'the conflict is closed: the guest has removed the file'],
  moved: [E.ESTALE, 'a side has moved since: look at the conflict again'],
  markers: [E.EBADMSG, 'the proposal still has markers: take a side, or give a file'],
  'no-proposal': [E.ENODATA, 'nothing was proposed: take a side, or give a file'],
  'nothing-to-undo': [E.ENODATA, 'there is nothing to undo'],
  'changed-since': [E.EBUSY, 'the guest has changed it since: --force keeps today’s bytes as a version'],
  pinned: [E.EINVAL, 'it was undone'],
  'not-stale': [E.EINVAL, 'it is not stale'],
};

function refusal(refused: Refusal, about: string): FsError {
  const [errno, message] = errnos[refused];
  return new FsError(errno, `${about}: ${message}`);
}

function version(signature: string): Version {
  const blank = signature.indexOf(' ');
  return { content: signature.slice(0, blank), meta: signature.slice(blank + 1), seq: 0 };
}

export function versionOfFound(found: Found | null): Version | null {
  return found === null ? null : version(contentSignature(found));
}

export function versionOfRef(ref: VersionRef): Version {
  return version(signatureOfVersion(ref));
}

function versionOfSide(side: SideRef): Version | null {
  return side === null || side === 'unknown' ? null : versionOfRef(side);
}

function frozen(context: MountContext): PathState['frozen'] {
  const { state: baseState } = context.reconciler.acceptance;
  return baseState === 'accepted' ? null : baseState;
}

/** The base that a conflict shows: where its fingerprint is that of the base now, that is what it is. */
export function shownBase(record: ConflictRecord, view: View): Version | null {
  if (record.baseFingerprint === view.base.fingerprint) return versionOfFound(view.base.object);
  return versionOfSide(record.base);
}

export interface Resolution {
  take: 'overlay' | 'base' | 'merged' | 'file';
  rev: number | null;
  /** What merged or file puts in place; null: no proposal. */
  result: Version | null;
  markers: boolean;
}

/** The state after a resolution. Throws FsError with the errno of the refusal. `view` has its contents. */
export function judgeResolution(
  context: MountContext,
  record: ConflictRecord,
  view: View,
  what: Resolution,
): PathState {
  const { object, underOpaque, origin } = view.overlay;
  const base = shownBase(record, view);
  const state: PathState = {
    ...following(base),
    // Of a directory that was displaced nothing is there, and that is what the conflict is about.
    at: object === null && record.overlay !== null ? 'W' : 'X',
    ancestor: versionOfSide(record.ancestor),
    lost: record.ancestor === 'unknown',
    overlay: versionOfFound(object),
    underOpaque,
    pin: origin?.pin ? { base } : null,
    frozen: frozen(context),
    conflict: { id: record.id, rev: record.rev, kind: record.kind, base },
  };
  const { take, rev, result, markers } = what;
  const now = versionOfFound(view.base.object);
  const done = step(state, { type: 'resolve', id: record.id, rev, take, now, result, markers });
  if ('refused' in done) throw refusal(done.refused, `conflict ${record.id}`);
  return done.next;
}

const whatOf: Partial<Record<StoredEvent['kind'], UndoRecord['what']>> = {
  merged: 'merge',
  dropped: 'drop',
  resolved: 'resolution',
};

/** An event that has not been taken back, and could be as far as it alone is concerned. */
export function isUndoable(event: StoredEvent): boolean {
  return event.undone === 0 && event.undo !== null && whatOf[event.kind] !== undefined;
}

function undoRecord(context: MountContext, event: StoredEvent, base: Version | null): UndoRecord {
  const { undo, path } = event;
  const before = undo?.version == null ? null : context.store.versions.get(path, undo.version);
  const closed = undo?.conflict == null ? null : context.store.conflicts.get(undo.conflict);
  const overlay = before === null ? null : versionOfRef(before);
  return {
    what: whatOf[event.kind] ?? 'merge',
    before: { ancestor: null, lost: true, overlay, metadataOnly: false, pin: null },
    after: undo === null || undo.after === '' ? null : version(undo.after),
    base,
    conflict: closed === null ? null : { id: closed.id, rev: closed.rev, kind: closed.kind, base },
  };
}

/** By what the index alone knows: whether undo of this event, the last of what is at `path` now, would be heard. */
export function couldBeUndone(context: MountContext, event: StoredEvent, path: string): boolean {
  if (!isUndoable(event)) return false;
  const { store } = context;
  const at = store.conflicts.of(path) !== null ? 'X' : (store.paths.get(path)?.state ?? 'F');
  const undo = [undoRecord(context, event, null)];
  return !('refused' in step({ ...following(null), at, undo }, { type: 'undo', force: true }));
}

/** The state after an undo. Throws FsError with the errno of the refusal. `view` has its contents. */
export function judgeUndo(context: MountContext, event: StoredEvent, view: View, force: boolean): PathState {
  const { store } = context;
  const { object, state: there } = view.overlay;
  const base = versionOfFound(view.base.object);
  const pin = event.undo?.pin ?? null;
  const content = view.base.object?.content ?? null;
  const atPin =
    pin !== null &&
    (pin.fingerprint === view.base.fingerprint || (content !== null && content === pin.content));
  const recorded = store.paths.get(view.path)?.state ?? 'C';
  const open = store.conflicts.of(view.path);
  const at = object === null ? (there === 'whiteout' ? 'W' : 'F') : open !== null ? 'X' : recorded;
  const refused: Version = { content: pin?.content ?? '', meta: 'refused', seq: 0 };
  const state: PathState = {
    ...following(base),
    at: at === 'W' && object !== null ? 'C' : at,
    overlay: versionOfFound(object),
    frozen: frozen(context),
    conflict: open === null ? null : { id: open.id, rev: open.rev, kind: open.kind, base },
    undo: [undoRecord(context, event, atPin ? base : refused)],
  };
  const done = step(state, { type: 'undo', force });
  if ('refused' in done) throw refusal(done.refused, `event ${event.seq}`);
  return done.next;
}

/** Whether an object of this type can be built from a version: a directory's entries are not in it. */
export function canBePutBack(ref: VersionRef): boolean {
  return (
    !isDirectory(ref.mode) && (!isRegular(ref.mode) || ref.content !== null || ref.metadataOnly === true)
  );
}
