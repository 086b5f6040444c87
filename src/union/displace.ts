// A directory of the base has become something else: a symlink to another directory (usrmerge), or a file.
import * as fs from 'node:fs';
import { escapeName } from '../lib/names.ts';
import type { NewConflict } from '../versions/conflicts.ts';
import type { View } from './assess.ts';
import { type AGAIN, type CarryContext, failed, type Outcome, outcome, stepOf } from './carrying.ts';
import { keepSides } from './keeping.ts';
import { linkedDirectory, readOverlay } from './sides.ts';
import { walkOverlay } from './walk-overlay.ts';

/**
 * The base has something else where it had a directory: that shows. What the guest's directory holds moves to where
 * the base's symlink leads, and what finds no place there lies in displaced/ and is a conflict.
 */
export async function displace(
  context: CarryContext,
  view: View,
  toTarget: boolean,
): Promise<Outcome | typeof AGAIN> {
  const { branches } = context;
  const target = toTarget ? linkedDirectory(branches, view) : null;
  if (target !== null) {
    const moved = await context.commit(stepOf(view, 'scatter', { noWriter: false, target }));
    if (moved < 0) return failed(context, view, moved);
    // Its times and size have changed by that.
    view.overlay = readOverlay(branches, view.path, view.basePath);
  }
  const left: string[] = [];
  for await (const entry of walkOverlay(branches.overlay, view.path)) {
    if (entry.kind === 'object') left.push(entry.path);
  }
  const detail =
    target === null ? 'the base has something else here now' : `its entries are in ${target} now`;
  return left.length === 0
    ? removeEmpty(context, view, detail)
    : putAside(context, view, `${left.length} files of the guest found no place: ${some(left)}`);
}

const NAMED = 20;

function some(paths: readonly string[]): string {
  return `${paths.slice(0, NAMED).map(escapeName).join(', ')}${paths.length > NAMED ? ' …' : ''}`;
}

/** Moves what is left to displaced/NAME; 0 or a negative errno. */
function moveAside(context: CarryContext, view: View, name: string): Promise<number> {
  return context.commit(
    stepOf(view, 'displace', { noWriter: false, temp: name, displacedFd: context.displacedFd }),
  );
}

async function removeEmpty(
  context: CarryContext,
  view: View,
  detail: string,
): Promise<Outcome | typeof AGAIN> {
  const { store } = context;
  const name = `empty-${context.tempName()}`;
  const result = await moveAside(context, view, name);
  if (result < 0) return failed(context, view, result);
  fs.rmSync(displacedPath(context, name), { recursive: true, force: true });
  store.events.add({ kind: 'merged', path: view.path, detail });
  store.paths.delete(view.path);
  await store.flush();
  return { ...outcome('merged', detail), displaced: true };
}

/** A conflict, with what found no place in displaced/ID. It is told before it is done: nothing lies there unnamed. */
async function putAside(context: CarryContext, view: View, why: string): Promise<Outcome | typeof AGAIN> {
  const { store, branches } = context;
  const { base } = await keepSides(store, branches, view);
  const fields: NewConflict = {
    kind: 'type',
    path: view.path,
    since: Date.now(),
    reason: why,
    ancestor: 'unknown',
    overlay: null,
    base,
    merged: null,
    origin: null,
    baseFingerprint: view.base.fingerprint,
  };
  // One that is open here may be about this very directory: a crash came between, or the symlink led nowhere before.
  const known = store.conflicts.of(view.path);
  const again = known !== null && !fs.existsSync(displacedPath(context, known.id));
  const { id } = again ? known : store.conflicts.open(fields);
  const reason = `${why}; they lie in displaced/${id}`;
  store.conflicts.update(id, { ...fields, reason }, again);
  await store.flush();
  const result = await moveAside(context, view, String(id));
  if (result < 0) {
    if (!again) store.conflicts.close(id, { how: 'withdrawn', take: '', seq: 0 });
    return failed(context, view, result);
  }
  store.events.add({ kind: 'conflict', path: view.path, detail: reason, conflict: id });
  await store.flush();
  return { ...outcome('conflict', reason), displaced: true };
}

function displacedPath({ store }: CarryContext, name: string | number): Buffer {
  return Buffer.from(`${store.stateDir}/displaced/${name}`, 'latin1');
}
