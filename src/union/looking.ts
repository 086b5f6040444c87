// What a look at a path is asked for and works with, whichever way it goes, and the telling of what came of it.
import type { Stat } from '../lib/stat.ts';
import type { View } from './assess.ts';
import type { BaseAcceptance } from './base-acceptance.ts';
import type { CarryContext, Outcome } from './carrying.ts';
import type { MergeThread } from './merge-thread.ts';
import type { Verdict } from './node.ts';
import type { Settling } from './settling.ts';
import { readBase } from './sides.ts';

export interface LookOptions {
  /** Decide, and change nothing. */
  dryRun: boolean;
  /** With dryRun: as if the base were accepted. */
  accepted?: boolean;
  /** With dryRun: as if nothing had been undone at this path. */
  unpinned?: string;
  /** By a person: what was kept of the guest's for what lay in it is judged anew. */
  asked?: boolean;
}

export interface LookContext extends CarryContext {
  readOnly: boolean;
  acceptance: BaseAcceptance;
  settling: Settling;
  merger: MergeThread;
  /** Paths that the serving thread knows of the file at a path, itself among them. */
  otherNames(path: string): Promise<readonly string[]>;
  /** Tells the serving thread what came of a look; null: forget what was told. */
  verdict(path: string, verdict: Verdict | null): void;
}

/** A side that moves again and again is given up so often, until it is looked at anew. */
export const TRIES = 4;
const RETRY_MOVING_MS = 250;
export const RETRY_FAILED_MS = 1000;
/** A fingerprint as young as the clock's granularity may hide a later change. */
const CLOCK_MS = 100;

/** Remembers that this version of the base was looked at, and tells the serving thread. */
export function settled(context: LookContext, view: View, done: Outcome): void {
  const base = view.base.object;
  if (done.outcome !== 'pending' && base !== null && base.content !== null) {
    const { ctimeSec, ctimeNsec } = base.stat;
    // While it was read, the file may have come to be another.
    const still = readBase(context.branches, view.basePath).fingerprint === view.base.fingerprint;
    if (still && Date.now() - (ctimeSec * 1000 + ctimeNsec / 1e6) > CLOCK_MS) {
      context.store.hashes.set(view.base.fingerprint, base.content);
    }
  }
  const overlay = view.overlay.object;
  const stays = done.outcome === 'pending' || done.outcome === 'kept' || done.outcome === 'conflict';
  if (overlay === null || !stays) context.verdict(view.path, null);
  // It is about the sides that were judged: what was written since then, or put there by this look, gets another.
  else tell(context, view.path, overlay.stat, done, view.base.fingerprint);
}

/** Something that the base had has gone from it. That may be the base itself, of which nothing is to be concluded. */
export async function doubtIfGone(context: LookContext, view: View): Promise<void> {
  if (view.base.object !== null || view.overlay.origin === null) return;
  await context.acceptance.doubtIfVanished(view.basePath);
}

/** Once whoever writes to it has closed it, it is looked at again without further waiting. */
export function keepsChanging(context: LookContext, path: string): Outcome {
  const found: Outcome = {
    outcome: 'pending',
    detail: 'it keeps changing',
    retryMs: RETRY_MOVING_MS,
    writer: true,
  };
  tell(context, path, null, found);
  return found;
}

/** Tells the serving thread what holds until either side moves or the time has come; without sides, for that time. */
export function tell(
  context: LookContext,
  path: string,
  stat: Pick<Stat, 'ino' | 'ctimeSec' | 'ctimeNsec'> | null,
  { retryMs, writer = false }: Pick<Outcome, 'retryMs' | 'writer'>,
  fingerprint = '',
): void {
  context.verdict(path, {
    overlayIno: stat?.ino ?? 0,
    overlayCtimeSec: stat?.ctimeSec ?? 0,
    overlayCtimeNsec: stat?.ctimeNsec ?? 0,
    fingerprint,
    retryMs: retryMs ?? Number.POSITIVE_INFINITY,
    writer,
  });
}
