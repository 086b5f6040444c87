// Reconciling: what is stale is looked at, by path, one look at a time for each path (or set of paths), on the
// main thread. Decisions are merge/decide.ts's, what follows from them is carry-out.ts's.
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { setOf } from '../merge/policy.ts';
import { isCurrent, type View, viewOf } from './assess.ts';
import { type AcceptanceParts, BaseAcceptance } from './base-acceptance.ts';
import {
  type CarryContext,
  mountHasEnded,
  type Outcome,
  pendingUnwritable,
  whyUnwritable,
} from './carrying.ts';
import { followersIn, isLeft, type Place } from './left-dirs.ts';
import { type Beneath, isKept, lookAtObject } from './look-object.ts';
import { LookQueue } from './look-queue.ts';
import { lookAtSet, membersBeneath } from './look-set.ts';
import { type LookContext, type LookOptions, RETRY_FAILED_MS, settled, tell } from './looking.ts';
import { MergeThread } from './merge-thread.ts';
import { Settling } from './settling.ts';
import { basePathOf } from './walk-overlay.ts';

export interface ReconcilerParts
  extends AcceptanceParts,
    Omit<LookContext, 'acceptance' | 'settling' | 'merger'> {
  settleMs: number;
}

export class Reconciler {
  readonly acceptance: BaseAcceptance;
  readonly context: CarryContext;
  readonly #looks: LookContext;
  readonly #queue = new LookQueue();

  constructor(parts: ReconcilerParts) {
    this.acceptance = new BaseAcceptance(parts);
    this.context = parts;
    this.#looks = {
      ...parts,
      acceptance: this.acceptance,
      settling: new Settling(parts.settleMs),
      merger: new MergeThread(parts.log),
    };
  }

  /** Runs `work` when no other look at the path (or its set) is under way. */
  exclusively<T>(path: string, work: () => Promise<T>): Promise<T> {
    return this.#queue.exclusively(path, work);
  }

  /** All that waits for looks is done. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }

  /** Looks at a path, with its set; the outcome of the path itself. Never rejects: failures are outcomes. */
  look(path: string, options: LookOptions = { dryRun: false }): Promise<Outcome> {
    const { branches } = this.#looks;
    const place = { path, basePath: basePathOf(branches.overlay, path) };
    if (!isLeft(branches, place)) return this.#lookAlone(path, options, null);
    return this.#queue.preparing(
      this.#lookInto(place, options).then((beneath) => this.#lookAlone(path, options, beneath)),
    );
  }

  /** A directory that the base has removed: what lies in it comes first, and not while it is itself looked at. */
  async #lookInto(dir: Place, options: LookOptions): Promise<Beneath> {
    const stays = { emptied: false, waitMs: 0 };
    const kept = isKept(this.#looks, dir.path, '', options);
    const followers = kept ? null : followersIn(this.#looks.branches, dir);
    if (followers === null) return stays;
    let waitMs = 0;
    for (const entry of followers) {
      const done = await this.look(entry.path, options);
      if (done.outcome === 'pending') waitMs = Math.max(waitMs, done.retryMs ?? RETRY_FAILED_MS);
      else if (done.outcome !== 'dropped') return stays;
    }
    return { emptied: true, waitMs };
  }

  /** `beneath`: of a directory that the base has removed, else null. */
  async #lookAlone(path: string, options: LookOptions, beneath: Beneath | null): Promise<Outcome> {
    const looks = this.#looks;
    const done = await this.exclusively(path, async (): Promise<Outcome> => {
      if (looks.isOver()) return mountHasEnded();
      try {
        const set = beneath === null ? setOf(path) : null;
        const members = set === null ? [] : (set.members ?? (await membersBeneath(looks.branches, set.id)));
        if (set !== null && members.length > 1) {
          return await lookAtSet(looks, path, set.kind, members, options);
        }
        return await lookAtObject(looks, path, options, beneath);
      } catch (error) {
        if (error instanceof FsError && error.errno === E.ESHUTDOWN) return mountHasEnded();
        const reason = whyUnwritable(error);
        if (reason !== null) return this.#waitForRoom(path, reason, options);
        const detail = messageOf(error);
        looks.log.error(`${path}: ${error instanceof FsError ? detail : (error as Error).stack}`);
        if (!options.dryRun) tell(looks, path, null, { retryMs: RETRY_FAILED_MS });
        return { outcome: 'failed', detail, retryMs: null };
      }
    });
    if (!done.displaced) return done;
    try {
      await this.#queue.preparing(this.#lookBeneath(path, options));
    } catch (error) {
      looks.log.error(`${path}: what lay beneath is not looked at: ${messageOf(error)}`);
    }
    return done;
  }

  /** After looks at what lay beneath that were under way: they have recorded what they saw. */
  async #lookBeneath(dir: string, options: LookOptions): Promise<void> {
    const { store } = this.#looks;
    const paths = new Set(store.conflicts.under(dir).map((one) => one.path));
    for await (const record of store.paths.under(dir)) paths.add(record.path);
    paths.delete(dir);
    for (const path of paths) await this.look(path, options);
  }

  /** What was decided could not be written, and nothing has come of it. */
  async #waitForRoom(path: string, reason: 'full' | 'read-only', { dryRun }: LookOptions): Promise<Outcome> {
    const looks = this.#looks;
    let view: View;
    try {
      view = await viewOf(looks, path, basePathOf(looks.branches.overlay, path));
    } catch (error) {
      return { outcome: 'failed', detail: messageOf(error), retryMs: null };
    }
    // What was done has only not been recorded durably yet.
    const isDone = view.overlay.state !== 'object' || isCurrent(view);
    const done = pendingUnwritable(looks, dryRun || isDone ? null : view, reason);
    if (!dryRun) settled(looks, view, done);
    return done;
  }
}
