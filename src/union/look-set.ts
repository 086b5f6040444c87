// A look at a set: paths that are reconciled wholly or not at all.
import { decideSet } from '../merge/decide.ts';
import type { SetKind } from '../merge/policy.ts';
import { isCurrent, type View, viewOf } from './assess.ts';
import { carryOutTogether, type Decided } from './carry-out.ts';
import { AGAIN, type Outcome, outcome } from './carrying.ts';
import { judge, planned } from './judging.ts';
import { keepCurrent, noteAbsent, unlessMoving } from './look-object.ts';
import { doubtIfGone, keepsChanging, type LookContext, type LookOptions, settled, TRIES } from './looking.ts';
import type { Branches } from './sides.ts';
import { basePathOf, walkOverlay } from './walk-overlay.ts';

/** The outcome of the path itself. */
export async function lookAtSet(
  context: LookContext,
  path: string,
  kind: SetKind,
  members: readonly string[],
  options: LookOptions,
): Promise<Outcome> {
  let own = outcome('current');
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const views = await viewsOf(context, members);
    const absent = views.filter((view) => view.overlay.state !== 'object');
    for (const view of absent) if (view.path === path) own = noteAbsent(context, view, options);
    const present = views.filter((view) => view.overlay.state === 'object');
    if (present.every(isCurrent)) {
      for (const view of present) {
        const done = await keepCurrent(context, view, options);
        if (done !== AGAIN && !options.dryRun) settled(context, view, done);
      }
      return own;
    }
    for (const view of present) await doubtIfGone(context, view);
    const removed = absent.some((view) => view.overlay.state === 'whiteout');
    const decided = await judgeTogether(context, kind, present, removed, options);
    if (decided === AGAIN) continue;
    const outcomes = options.dryRun
      ? decided.map(({ assessed }) => planned(assessed))
      : await unlessMoving(() => carryOutTogether(context, decided));
    if (outcomes === AGAIN) continue;
    let again = false;
    for (const [i, { assessed }] of decided.entries()) {
      const done = outcomes[i] ?? AGAIN;
      if (done === AGAIN) {
        again = true;
        continue;
      }
      if (!options.dryRun) settled(context, assessed.view, done);
      if (assessed.view.path === path) own = done;
    }
    if (!again) return own;
  }
  return keepsChanging(context, path);
}

/** `removed`: the guest has a whiteout for a member. */
async function judgeTogether(
  context: LookContext,
  kind: SetKind,
  present: readonly View[],
  removed: boolean,
  options: LookOptions,
): Promise<Decided[] | typeof AGAIN> {
  const found: Decided[] = [];
  for (const view of present) {
    const one = await unlessMoving(() => judge(context, view, options));
    if (one !== AGAIN) found.push(one);
  }
  if (found.length < present.length) return AGAIN;
  const looks = found.map(({ assessed }) => assessed.look);
  const decisions = decideSet(kind, looks, removed);
  return found.map((one, i) => ({
    ...one,
    assessed: { ...one.assessed, decision: decisions[i] ?? one.assessed.decision },
  }));
}

async function viewsOf(context: LookContext, members: readonly string[]): Promise<View[]> {
  const { overlay } = context.branches;
  const views: View[] = [];
  for (const member of members) views.push(await viewOf(context, member, basePathOf(overlay, member)));
  return views;
}

/** What the overlay has beneath a directory, for a set that is all of it. */
export async function membersBeneath({ overlay }: Branches, dir: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const entry of walkOverlay(overlay, dir)) {
    if (entry.kind === 'object') paths.push(entry.path);
  }
  return paths;
}
