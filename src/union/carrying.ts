// What carrying out a decision is made of: the step to be committed, what came of it, and the path's record.
import type { ConflictKind, ReconcileOutcome } from '../control/verbs.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { errnoOf, isOutOfRoom } from '../versions/files.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { NewEvent, PathRecord, PathState } from '../versions/types.ts';
import type { View } from './assess.ts';
import type { Workshop } from './build.ts';
import { type CommitRequest, sameSignature, signatureOf } from './commit.ts';
import { type Branches, readOverlay } from './sides.ts';
import { contentSignature } from './signature.ts';

export interface CarryContext {
  branches: Branches;
  store: Store;
  shop: Workshop;
  osTree: boolean;
  log: Log;
  displacedFd: number;
  linksFd: number;
  /** The mount has ended: no look begins any more, and none goes on reading. */
  isOver(): boolean;
  tempName(): string;
  /** The index knows all that the guest did before the call. */
  caughtUp(): Promise<void>;
  /** The last step, or steps that are taken together, on the serving thread: see commit.ts. */
  commit(...requests: CommitRequest[]): Promise<number>;
}

export interface Outcome {
  outcome: ReconcileOutcome;
  detail: string;
  /** When to look again, in milliseconds; null: when a side moves. */
  retryMs: number | null;
  /** Of a pending one: it waits for the base to come to rest, which it will; else for somebody. */
  settling?: boolean;
  /** Of a pending one: somebody has it open for writing. */
  writer?: boolean;
  /** Of a pending one: there is no room for what was decided. */
  full?: boolean;
  /** A directory has made way: nothing lies beneath it any more. */
  displaced?: boolean;
  /** Of a conflict that would be. */
  kind?: ConflictKind;
}

/** What is about to be done to a path, durable before it is: a restart learns from it what a crash cut off. */
export interface Intent {
  what: string;
  /** Fingerprint of the base. */
  base: string;
  /** Those of the object that comes under the name, encoded in base64. */
  origins: string;
  /** The number that a copy goes on showing under its other names; 0 or absent: none. */
  left?: number;
  event: Omit<NewEvent, 'kind'>;
}

/** A side has moved since the decision: decide anew. */
export const AGAIN = 'again';

const RETRY_WRITER_MS = 500;
const RETRY_FULL_MS = 5000;

export function outcome(kind: ReconcileOutcome, detail = '', retryMs: number | null = null): Outcome {
  return { outcome: kind, detail, retryMs };
}

export function mountHasEnded(): Outcome {
  return outcome('pending', 'the mount has ended');
}

/** A step to be committed, of what was seen. */
export function stepOf(
  view: View,
  action: CommitRequest['action'],
  more: Partial<CommitRequest> = {},
): CommitRequest {
  const { object } = view.overlay;
  return stepAt(view.path, action, {
    overlay: object === null ? null : signatureOf(object.stat),
    base: view.base.fingerprint,
    noWriter: action !== 'origins',
    ...more,
  });
}

/** A step where the overlay has nothing, whatever the base has. */
export function stepAt(
  path: string,
  action: CommitRequest['action'],
  more: Partial<CommitRequest>,
): CommitRequest {
  const none = {
    overlay: null,
    base: null,
    temp: '',
    origins: '',
    noWriter: false,
    displacedFd: -1,
    target: '',
  };
  return { path, action, ...none, ...more };
}

/** As it stands in records and steps. */
export function base64(origins: readonly Origin[]): string {
  return encodeOrigins(origins).toString('base64');
}

/** What the answer of the last step means when it is not 0. */
export function failed(context: CarryContext, view: View, result: number): Outcome | typeof AGAIN {
  if (result === -E.EAGAIN) return AGAIN;
  if (result === -E.EBUSY) return pending(context, view, 'writer', RETRY_WRITER_MS);
  if (result === -E.ENOSPC || result === -E.EDQUOT) return pending(context, view, 'full', RETRY_FULL_MS);
  if (result === -E.EROFS) return pending(context, view, 'read-only', RETRY_FULL_MS);
  if (result === -E.ESHUTDOWN) return mountHasEnded();
  throw new FsError(-result, `${view.path}: cannot be replaced (${errnoName(result)})`);
}

/** Whether the overlay has what was judged. Nothing may come between this and what it is asked for. */
export function isStill(context: CarryContext, view: View): boolean {
  const now = readOverlay(context.branches, view.path, view.basePath).object;
  const then = view.overlay.object;
  if (now === null || then === null) return now === then;
  return sameSignature(signatureOf(now.stat), signatureOf(then.stat));
}

/** The path's record from now on. `seq`: the event that says so, 0: none. */
export function record(
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

/** Stale, and not merged yet; said once. */
export function pending(context: CarryContext, view: View, reason: string, waitMs: number): Outcome {
  const detail = pendingReasons[reason] ?? reason;
  // Nothing is to be concluded from a base that is not accepted, not even that something has gone.
  if (reason === 'unaccepted' || reason === 'held') return outcome('pending', detail);
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
  const retryMs = reason === 'settling' || reason === 'full' ? waitMs : RETRY_WRITER_MS;
  return {
    ...outcome('pending', detail, retryMs),
    settling: reason === 'settling',
    writer: reason === 'writer',
    full: reason === 'full',
  };
}

/** What was thrown because no room, or no leave, is there to write anything; null: anything else. */
export function whyUnwritable(error: unknown): 'full' | 'read-only' | null {
  if (isOutOfRoom(error)) return 'full';
  return errnoOf(error) === E.EROFS ? 'read-only' : null;
}

/** What was decided could not be written: the path waits until it can be. `view` null: nothing is to be recorded of it. */
export function pendingUnwritable(
  context: CarryContext,
  view: View | null,
  reason: 'full' | 'read-only',
): Outcome {
  try {
    if (view !== null) return pending(context, view, reason, RETRY_FULL_MS);
  } catch (error) {
    // Not even another number for an event can be had: it is looked at again all the same.
    if (whyUnwritable(error) === null) throw error;
  }
  return { ...outcome('pending', pendingReasons[reason], RETRY_FULL_MS), full: reason === 'full' };
}

/** The open conflict of a path is over. */
export function closeConflict(context: CarryContext, view: View, how: 'withdrawn' | 'reconciled'): void {
  const open = context.store.conflicts.of(view.path);
  if (open === null) return;
  const kind = how === 'withdrawn' ? 'withdrawn' : 'resolved';
  const detail = how === 'withdrawn' ? 'the base is back at what it was' : 'both sides agree';
  const seq = context.store.events.add({ kind, path: view.path, conflict: open.id, detail });
  context.store.conflicts.close(open.id, { how, take: '', seq });
}
