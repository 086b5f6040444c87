// A directory is about to be listed: of what it has only because something in it was touched, and the base has removed,
// a listing would tell, and a look-up a moment later deny it. So that is looked at before.
import { readBeneath } from '../branch/listing.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { DT_DIR, DT_UNKNOWN } from '../sys/constants.ts';
import { fstat } from '../sys/stat.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { find, instantiate } from './lookup.ts';
import { type DirState, IN_OVERLAY, type Node } from './node.ts';
import { awaitIfStale, isSettled } from './stale.ts';
import type { Union } from './union.ts';

/** 0, or WAIT. The base's directory has changed when something has gone from it: else nobody is asked. */
export function awaitLeft(union: Union, node: Node): number {
  const { dir } = node;
  if (dir === null || !mayHaveLeft(union, dir)) return 0;
  const state = stateOf(union, node, dir);
  if (state === dir.lookedInto) return 0;
  let wait = 0;
  let settled = true;
  for (const name of directoriesIn(union, node)) {
    if (find(union, node, name) < 0 || union.found.state !== IN_OVERLAY || union.found.inBase) continue;
    if (!isDirectory(union.found.stat.mode)) continue;
    const child = instantiate(union, node, name);
    if (typeof child === 'number') continue;
    if (!isSettled(union, child, node, name)) settled = false;
    wait = awaitIfStale(union, child, node, name) || wait;
    union.table.release(child);
  }
  if (settled) dir.lookedInto = state;
  return wait;
}

/** Whether all that awaitLeft looks at has come to rest, so that a listing holds until an event. */
export function isLookedInto(union: Union, node: Node): boolean {
  const { dir } = node;
  return dir === null || !mayHaveLeft(union, dir) || stateOf(union, node, dir) === dir.lookedInto;
}

function mayHaveLeft(union: Union, dir: DirState): boolean {
  if (!dir.hasOverlay || dir.opaque || dir.parts.length === 0) return false;
  return union.config.mergesLive && union.baseAccepted;
}

const partStat = newStat();

/** Another number when one of the base's directories has changed; it fits. */
function stateOf(union: Union, node: Node, { parts }: DirState): number {
  let state = 0;
  for (const part of parts) {
    const fd = partFd(union, node, part);
    if (fd < 0 || fstat(fd, partStat) < 0) continue;
    state = (state + (partStat.ctimeSec % 2 ** 20) * 1e9 + partStat.ctimeNsec) % Number.MAX_SAFE_INTEGER;
  }
  return state;
}

function directoriesIn(union: Union, node: Node): string[] {
  const names: string[] = [];
  const pathFd = overlayDirFd(union, node);
  if (pathFd < 0) return names;
  readBeneath(pathFd, (name, _, type) => {
    if (type === DT_DIR || type === DT_UNKNOWN) names.push(name);
  });
  return names;
}
