// A look at one path: what the overlay has there is judged by itself, and its other names with it. A directory that the
// base has removed is judged by what has come of what lies in it.
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { isDirectory } from '../lib/stat.ts';
import { writes } from '../merge/decide.ts';
import { isCurrent, type View, viewOf } from './assess.ts';
import { carryOut, carryOutTogether, type Decided, noteHidden, renewOrigin } from './carry-out.ts';
import { AGAIN, base64, closeConflict, failed, type Outcome, outcome, stepOf } from './carrying.ts';
import { judge, planned } from './judging.ts';
import { doubtIfGone, keepsChanging, type LookContext, type LookOptions, settled, TRIES } from './looking.ts';
import { readOverlay } from './sides.ts';
import { pinIfPutBack } from './undone.ts';
import { basePathOf } from './walk-overlay.ts';

/** What has come of what lies in a directory that the base has removed. */
export interface Beneath {
  /** None of it stays, or (dryRun) would. */
  emptied: boolean;
  /** Some of it waits: for so long, in milliseconds; 0: none. */
  waitMs: number;
}

/** `beneath`: of a directory that the base has removed, else null. */
export async function lookAtObject(
  context: LookContext,
  path: string,
  options: LookOptions,
  beneath: Beneath | null,
): Promise<Outcome> {
  const done = await untilStill(() => lookOnce(context, path, options, beneath));
  return done === AGAIN ? keepsChanging(context, path) : done;
}

async function lookOnce(
  context: LookContext,
  path: string,
  options: LookOptions,
  beneath: Beneath | null,
): Promise<Outcome | typeof AGAIN> {
  // As it is by now: a directory above may have been renamed since somebody asked for the look.
  const view = await viewOf(context, path, basePathOf(context.branches.overlay, path));
  if (view.overlay.state !== 'object') return noteAbsent(context, view, options);
  await doubtIfGone(context, view);
  if (!options.dryRun && (await pinIfPutBack(context, view))) return AGAIN;
  view.emptied = options.dryRun && beneath?.emptied === true;
  const done =
    (await lookAtDirectory(context, view, options)) ??
    (isCurrent(view)
      ? await keepCurrent(context, view, options)
      : await decideAndDo(context, view, options, beneath?.waitMs ?? 0));
  if (done !== AGAIN && !options.dryRun) settled(context, view, done);
  return done;
}

/** Directories of overlay and base are one, and the guest's own is nobody's business; null: anything else. */
async function lookAtDirectory(
  context: LookContext,
  view: View,
  options: LookOptions,
): Promise<Outcome | typeof AGAIN | null> {
  const { path, base, overlay } = view;
  if (overlay.object === null || !isDirectory(overlay.object.stat.mode)) return null;
  if (base.object !== null) {
    return isDirectory(base.object.stat.mode) ? followDirectory(context, view, options) : null;
  }
  const { store } = context;
  if (isKept(context, path, base.fingerprint, options)) return outcome('kept', store.paths.get(path)?.detail);
  if (overlay.origin !== null || overlay.foreignCopy || store.conflicts.of(path) !== null) return null;
  if (!options.dryRun) store.paths.delete(path);
  return outcome('current');
}

/** The guest had something in it when the base removed it: it does not go when the guest takes that away. */
export function isKept(
  context: LookContext,
  path: string,
  fingerprint: string,
  { asked = false }: LookOptions,
): boolean {
  const record = context.store.paths.get(path);
  return !asked && record?.state === 'K' && record.baseSeen === fingerprint;
}

/** The base has the directory again, if it ever was gone: what was decided then is over. */
async function followDirectory(
  context: LookContext,
  view: View,
  { dryRun }: LookOptions,
): Promise<Outcome | typeof AGAIN> {
  const { store } = context;
  if (dryRun) return outcome('current');
  const { origin, origins } = view.overlay;
  if (origin !== null && origin.pin !== null) {
    const list = origins.map((one) => (one === origin ? { ...origin, pin: null } : one));
    const result = await context.commit(stepOf(view, 'origins', { origins: base64(list) }));
    if (result < 0) return failed(context, view, result);
  }
  if (store.conflicts.of(view.path)?.overlay !== null) closeConflict(context, view, 'withdrawn');
  store.paths.delete(view.path);
  return outcome('current');
}

/** Nothing has moved, whatever was thought of it before. */
export async function keepCurrent(
  context: LookContext,
  view: View,
  options: LookOptions,
): Promise<Outcome | typeof AGAIN> {
  return options.dryRun ? outcome('current') : renewOrigin(context, view, 'current');
}

async function decideAndDo(
  context: LookContext,
  view: View,
  options: LookOptions,
  beneathMs: number,
): Promise<Outcome | typeof AGAIN> {
  const { assessed, waitMs } = await judge(context, view, options, beneathMs);
  if (options.dryRun) return planned(assessed);
  const others = writes(assessed.decision) ? await otherNames(context, view) : [];
  if (others.length === 0) return carryOut(context, assessed, waitMs);
  const decided = [{ assessed, waitMs }];
  for (const other of others) {
    const one = await judge(context, other, options);
    if (one.assessed.decision.do === assessed.decision.do) decided.push(one);
  }
  const [own = AGAIN, ...rest] = await carryOutTogether(context, decided, true);
  for (const [i, done] of rest.entries()) {
    const { assessed: one } = decided[i + 1] as Decided;
    if (done !== AGAIN) settled(context, one.view, done);
  }
  return own;
}

/** The names that are one file with this one, whose base objects were one and are one. */
async function otherNames(context: LookContext, view: View): Promise<View[]> {
  const { object, origin, origins } = view.overlay;
  if (object === null || origin === null || origins.length < 2 || object.stat.nlink < 2) return [];
  const names = new Set(await context.otherNames(view.path));
  for (const { path: hash } of origins) {
    const path = await context.store.paths.ofHash(hash);
    if (path !== null) names.add(path);
  }
  names.delete(view.path);
  const found: View[] = [];
  for (const name of names) {
    const other = await viewOf(context, name, basePathOf(context.branches.overlay, name));
    const one = other.overlay.object?.stat.ino === object.stat.ino;
    const was = other.overlay.origin?.fingerprint === origin.fingerprint;
    if (one && was && other.base.fingerprint === view.base.fingerprint) found.push(other);
  }
  return found;
}

/** The guest has removed the object; a conflict about it is over. */
export function noteAbsent(context: LookContext, view: View, { dryRun }: LookOptions): Outcome {
  const { store } = context;
  if (view.overlay.state === 'whiteout' && !dryRun && context.acceptance.state === 'accepted') {
    noteHidden(context, view);
  }
  if (!dryRun) {
    context.verdict(view.path, null);
    forgetStray(context, view);
  }
  const open = store.conflicts.of(view.path);
  // One about what was displaced never had an object.
  if (open !== null && open.overlay !== null && !dryRun) {
    const detail = 'the guest has removed the file';
    const seq = store.events.add({ kind: 'resolved', path: view.path, conflict: open.id, detail });
    store.conflicts.close(open.id, { how: 'removed', take: '', seq });
  }
  return outcome('current');
}

/** With a directory that made way for what the base has there now, what lay beneath it has gone, and nobody noted it. */
function forgetStray({ store, branches }: LookContext, { path, basePath, overlay }: View): void {
  if (overlay.state !== 'none' || store.paths.get(path) === null) return;
  // As it is at this very moment: the guest may have brought it up since.
  if (readOverlay(branches, path, basePath).state === 'none') store.paths.delete(path);
}

/** AGAIN where a side has moved while it was read. */
export async function unlessMoving<T>(work: () => Promise<T>): Promise<T | typeof AGAIN> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof FsError && error.errno === E.EAGAIN) return AGAIN;
    throw error;
  }
}

/** Does it anew as long as a side moves meanwhile; AGAIN: that is given up. */
export async function untilStill<T>(work: () => Promise<T | typeof AGAIN>): Promise<T | typeof AGAIN> {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const done = await unlessMoving(work);
    if (done !== AGAIN) return done;
  }
  return AGAIN;
}
