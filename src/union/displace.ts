// A directory of the base has become something else: a symlink to another directory (usrmerge), or a file.
import { baseName, escapeName } from '../lib/names.ts';
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
  const { store, branches } = context;
  const target = toTarget ? linkedDirectory(branches, view) : null;
  if (target !== null) {
    const moved = await context.commit(stepOf(view, 'scatter', { noWriter: false, target }));
    if (moved < 0) return failed(context, view, moved);
    // Its times and size have changed by that.
    view.overlay = readOverlay(branches, view.path, view.basePath);
  }
  const left: string[] = [];
  for await (const entry of walkOverlay(branches.overlay, view.path))
    if (entry.kind !== 'dir') left.push(entry.path);
  const temp = `${Date.now().toString(36)}-${baseName(view.path)}`;
  const result = await context.commit(
    stepOf(view, 'displace', {
      noWriter: false,
      temp,
      displacedFd: context.displacedFd,
    }),
  );
  if (result < 0) return failed(context, view, result);
  const detail = `${target === null ? 'the base has something else here now' : `its entries are in ${target} now`}`;
  if (left.length === 0) {
    store.events.add({ kind: 'merged', path: view.path, detail });
    store.paths.delete(view.path);
    await store.flush();
    return outcome('merged', detail);
  }
  const names = left.slice(0, 20).map(escapeName).join(', ');
  const reason = `${left.length} files of the guest found no place and lie in displaced/${escapeName(temp)}: ${names}`;
  const base = (await keepSides(store, branches, view)).base;
  const found = store.conflicts.open({
    kind: 'type',
    path: view.path,
    since: Date.now(),
    reason,
    ancestor: 'unknown',
    overlay: null,
    base,
    merged: null,
    origin: null,
    baseFingerprint: view.base.fingerprint,
  });
  store.events.add({ kind: 'conflict', path: view.path, detail: reason, conflict: found.id });
  await store.flush();
  return outcome('conflict', reason);
}
