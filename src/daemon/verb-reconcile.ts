// `reconcile`: every stale object now, waiting for what has not settled. To name a path exactly lifts its pin.

import type {
  Conflict,
  Emit,
  ReconcileItem,
  ReconcileOutcome,
  ReconcileReport,
  ReconcileRequest,
} from '../control/verbs.ts';
import { isDirectory } from '../lib/stat.ts';
import { AGAIN, base64, type Outcome, stepOf } from '../union/carrying.ts';
import { isLeft } from '../union/left-dirs.ts';
import type { LookOptions } from '../union/looking.ts';
import { originFor } from '../union/origin-list.ts';
import { readBase } from '../union/sides.ts';
import { contentSignature } from '../union/signature.ts';
import { type OverlayEntry, walkFrom } from '../union/walk-overlay.ts';
import type { MountContext } from './context.ts';
import { expectPath } from './objects.ts';
import { recordOf } from './resolution.ts';
import { enact, ruleOn } from './ruling.ts';
import { conflictOf, makeLasting } from './verbs-read.ts';

/** How long a writer in guest or base, or the rest of a set, is waited for. */
const PATIENCE_MS = 10_000;
/** While it waits it says so this often, and so learns that the caller has gone. */
const TELL_MS = 1000;

interface Place {
  path: string;
  basePath: string;
}

interface Waiting extends Place {
  outcome: Outcome;
  /** performance.now() when it is looked at again. */
  due: number;
}

export async function reconcile(
  context: MountContext,
  request: ReconcileRequest,
  emit: Emit<ReconcileItem>,
): Promise<ReconcileReport> {
  await context.bringUpToDate();
  const { path, dryRun } = request;
  await expectPath(context, path);
  if (context.refusal !== undefined) throw context.refusal;
  const baseAccepted = request.acceptBase && context.doubt !== null && !dryRun;
  if (request.acceptBase && !dryRun) await context.acceptBase();
  const places = await placesOf(context, path);
  const decidable =
    !dryRun && !context.options.readOnly && context.reconciler.acceptance.state === 'accepted';
  if (decidable && places.some((place) => place.path === path)) await liftPin(context, path);
  const run = new Run(context, request, places.length, emit);
  try {
    await run.all(places);
  } finally {
    run.end();
  }
  await makeLasting(context);
  return { ...run.report(), baseAccepted };
}

/** What has an origin, or something of the base beneath it. Directories are one where both have one. */
async function placesOf(context: MountContext, path: string): Promise<Place[]> {
  const { branches } = context.reconciler.context;
  const places: Place[] = [];
  for await (const entry of walkFrom(branches.overlay, path)) {
    if (isConcerned(entry)) places.push({ path: entry.path, basePath: entry.basePath });
  }
  return places;

  function isConcerned(entry: OverlayEntry): boolean {
    const { kind, basePath } = entry;
    if (kind === 'whiteout') return originFor(entry.origins, basePath) !== null;
    if (kind === 'object' && originFor(entry.origins, basePath) !== null) return true;
    const base = readBase(branches, basePath).object;
    if (kind !== 'dir') return base !== null;
    if (base !== null && !isDirectory(base.stat.mode)) return true;
    return context.store.paths.get(entry.path) !== null || isLeft(branches, entry);
  }
}

/** What a run over many places counts, tells and waits for. */
class Run {
  readonly #context: MountContext;
  readonly #request: ReconcileRequest;
  readonly #emit: Emit<ReconcileItem>;
  readonly #total: number;
  readonly #began = performance.now();
  /** What was done to whom during this run: a set is done as a whole, whoever of it is looked at first. */
  readonly #happened = new Map<string, ReconcileOutcome>();
  readonly #unsubscribe: () => void;
  readonly #counts: Record<ReconcileOutcome, number> = {
    current: 0,
    merged: 0,
    dropped: 0,
    adopted: 0,
    kept: 0,
    pending: 0,
    conflict: 0,
    failed: 0,
  };
  readonly #wouldBe: Conflict[] = [];
  #full = 0;
  #done = 0;

  constructor(context: MountContext, request: ReconcileRequest, total: number, emit: Emit<ReconcileItem>) {
    this.#context = context;
    this.#request = request;
    this.#total = total;
    this.#emit = emit;
    this.#unsubscribe = context.store.events.subscribe(({ kind, path }) => {
      if (kind === 'merged' || kind === 'dropped' || kind === 'adopted') this.#happened.set(path, kind);
    });
  }

  end(): void {
    this.#unsubscribe();
  }

  async all(places: readonly Place[]): Promise<void> {
    let waiting: Waiting[] = [];
    for (const place of places) {
      const outcome = await this.#look(place);
      if (this.#isWorthWaiting(outcome)) waiting.push(await this.#later(place, outcome));
      else await this.#settled(place, outcome);
    }
    while (waiting.length > 0) {
      const next = Math.min(...waiting.map(({ due }) => due));
      await sleep(Math.min(TELL_MS, Math.max(1, next - performance.now())));
      const still: Waiting[] = [];
      for (const one of waiting) {
        if (one.due > performance.now()) still.push(one);
        else {
          const outcome = await this.#look(one);
          if (this.#isWorthWaiting(outcome)) still.push(await this.#later(one, outcome));
          else await this.#settled(one, outcome);
        }
      }
      waiting = still;
      const first = waiting[0];
      if (first !== undefined) await this.#tell(first, null, first.outcome.detail);
    }
  }

  async #look(place: Place): Promise<Outcome> {
    const { dryRun, acceptBase, path } = this.#request;
    const options: LookOptions = dryRun
      ? { dryRun, accepted: acceptBase, unpinned: path, asked: true }
      : { dryRun, asked: true };
    const outcome = await this.#context.reconciler.look(place.path, options);
    const happened = this.#happened.get(place.path);
    return outcome.outcome === 'current' && happened !== undefined
      ? { ...outcome, outcome: happened }
      : outcome;
  }

  /** What settles will, if late; others are waited for a while, but not until somebody makes room. */
  #isWorthWaiting(outcome: Outcome): boolean {
    if (this.#request.dryRun || this.#context.options.readOnly) return false;
    if (outcome.outcome !== 'pending' || outcome.retryMs === null || outcome.full === true) return false;
    return outcome.settling === true || performance.now() - this.#began < PATIENCE_MS;
  }

  async #later(place: Place, outcome: Outcome): Promise<Waiting> {
    await this.#tell(place, null, outcome.detail);
    return { ...place, outcome, due: performance.now() + (outcome.retryMs ?? 0) };
  }

  async #settled(place: Place, outcome: Outcome): Promise<void> {
    this.#done += 1;
    this.#counts[outcome.outcome] += 1;
    if (outcome.full === true) this.#full += 1;
    if (outcome.kind !== undefined) {
      const { path } = place;
      const open = this.#context.store.conflicts.of(path);
      const fresh = { id: 0, rev: 0, kind: outcome.kind, path, since: Date.now() };
      this.#wouldBe.push(open === null ? fresh : conflictOf(open));
    }
    await this.#tell(place, outcome.outcome, outcome.detail);
  }

  async #tell(place: Place, outcome: ReconcileOutcome | null, detail: string): Promise<void> {
    const shown = outcome === null || ['kept', 'pending', 'conflict', 'failed'].includes(outcome);
    await this.#emit({
      done: this.#done,
      total: this.#total,
      path: place.path,
      outcome,
      detail: shown ? detail : '',
    });
  }

  report(): Omit<ReconcileReport, 'baseAccepted'> {
    const { current: _, conflict: __, ...counts } = this.#counts;
    const { dryRun, path } = this.#request;
    const open = this.#context.store.conflicts.under(path).map(conflictOf);
    const conflicts = dryRun ? this.#wouldBe : open;
    return { dryRun, looked: this.#done, ...counts, full: this.#full, conflicts };
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A person wants it looked at, though a version of the base was refused here. */
async function liftPin(context: MountContext, path: string): Promise<void> {
  const carry = context.reconciler.context;
  await context.reconciler.exclusively(path, () =>
    ruleOn(context, path, async (view) => {
      const { origin, origins, object } = view.overlay;
      if (origin === null || origin.pin === null || object === null) return null;
      const own = { ...origin, pin: null };
      const list = origins.map((one) => (one === origin ? own : one));
      const after = contentSignature(object);
      const state = carry.store.conflicts.of(path) === null ? 'P' : 'X';
      const done = await enact(
        carry,
        path,
        {
          ruling: 'pin-lifted',
          after,
          origins: base64(list),
          event: { kind: 'pin-lifted', path, detail: 'named by a person' },
          close: null,
          reopen: null,
          undoes: 0,
          record: recordOf(context, view, state, after, own),
        },
        [stepOf(view, 'origins', { base: null, origins: base64(list) })],
      );
      return done === AGAIN ? AGAIN : null;
    }),
  );
}
