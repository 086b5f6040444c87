// Noticing: does what the base has at a place still equal the origin of what the overlay has there? Both stats
// are at hand at every look-up; a hash is computed only when one of them has moved since the last comparison.
// LOOKUP and GETATTR start a look; OPEN waits for it. What came of the last look is a verdict, which holds
// until either side moves again.
import { isDirectory, type Stat } from '../lib/stat.ts';
import type { Origin } from '../versions/origin.ts';
import { expireNode } from './expiry.ts';
import { nodeAt } from './known.ts';
import { metacopyOf } from './metacopy.ts';
import {
  type Compared,
  type DirState,
  type Found,
  type Handle,
  IN_OVERLAY,
  isOpenForWriting,
  learn,
  type Node,
  placesOf,
  type Verdict,
} from './node.ts';
import { isPinned, isRacy, originFor } from './origin-list.ts';
import { baseFingerprint, originsOf } from './origins.ts';
import { originPathAt, pathAt } from './place.ts';
import { type Union, waitFor } from './union.ts';

function sameOverlay(compared: Compared, { stat }: Found): boolean {
  return compared.overlayCtimeSec === stat.ctimeSec && compared.overlayCtimeNsec === stat.ctimeNsec;
}

function sameBase(compared: Compared, { inBase, baseStat }: Found): boolean {
  if (!inBase) return compared.baseMode === 0;
  return (
    compared.baseCtimeSec === baseStat.ctimeSec &&
    compared.baseCtimeNsec === baseStat.ctimeNsec &&
    compared.baseMtimeSec === baseStat.mtimeSec &&
    compared.baseMtimeNsec === baseStat.mtimeNsec &&
    compared.baseIno === baseStat.ino &&
    compared.baseSize === baseStat.size &&
    compared.baseContent === baseStat.contentPrint &&
    compared.baseMode === baseStat.mode
  );
}

/** Compares the sides in union.found, of the node at a place; the result is kept on the node. */
function compare(union: Union, node: Node, parent: Node, name: string): Compared | null {
  const found = union.found;
  if (found.state !== IN_OVERLAY) return null;
  const known = node.learned?.compared;
  const stands = known != null && sameBase(known, found);
  if (stands && sameOverlay(known, found)) return known;
  const basePath = originPathAt(parent, name);
  if (basePath === null) return null;
  const { stat, baseStat, inBase } = found;
  const layer = inBase ? (parent.dir?.parts[found.part]?.layer ?? 0) : 0;
  // A file that is being written to moves with each write, and what is beneath it does not.
  const fingerprint = stands ? known.fingerprint : inBase ? baseFingerprint(union, layer, baseStat) : '';
  const origin = originFor(originsOf(union, node, stat).list, basePath);
  const compared: Compared = {
    overlayCtimeSec: stat.ctimeSec,
    overlayCtimeNsec: stat.ctimeNsec,
    baseCtimeSec: baseStat.ctimeSec,
    baseCtimeNsec: baseStat.ctimeNsec,
    baseMtimeSec: baseStat.mtimeSec,
    baseMtimeNsec: baseStat.mtimeNsec,
    baseIno: baseStat.ino,
    baseSize: baseStat.size,
    baseContent: inBase ? baseStat.contentPrint : '',
    baseMode: inBase ? baseStat.mode : 0,
    stale: isStale(union, node, origin, fingerprint),
    moved: origin !== null && origin.fingerprint !== fingerprint,
    fingerprint,
  };
  learn(node).compared = compared;
  return compared;
}

function isStale(union: Union, node: Node, origin: Origin | null, fingerprint: string): boolean {
  const { baseStat, inBase } = union.found;
  if (node.dir !== null && inBase && isDirectory(baseStat.mode))
    return origin !== null && origin.pin !== null;
  if (node.dir !== null && !inBase) return isLeft(node.dir, origin);
  if (origin === null) return inBase;
  // A pin is off once the base is back at what it was, which a look has to say.
  if (origin.pin !== null) return !isPinned(origin.pin, fingerprint);
  if (origin.fingerprint !== fingerprint) return true;
  if (origin.torn) return true;
  // What follows the base in any case has missed nothing.
  return isRacy(baseStat, origin.taken) && metacopyOf(union, node) === null;
}

/** A directory was brought up for what lies in it, and the base has removed its own. */
function isLeft({ opaque, redirect }: DirState, origin: Origin | null): boolean {
  if (origin === null || !isDirectory(origin.mode) || opaque || redirect !== null) return false;
  return origin.pin === null || !isPinned(origin.pin, '');
}

function holds(verdict: Verdict & { until: number }, fingerprint: string, stat: Stat): boolean {
  if (verdict.overlayIno === 0) return performance.now() < verdict.until;
  return (
    verdict.fingerprint === fingerprint &&
    verdict.overlayIno === stat.ino &&
    (isDirectory(stat.mode) || isUnchanged(verdict, stat)) &&
    performance.now() < verdict.until
  );
}

/** What is put into a directory moves its ctime, and changes nothing of what was decided about it. */
function isUnchanged({ overlayCtimeSec, overlayCtimeNsec }: Verdict, stat: Stat): boolean {
  return overlayCtimeSec === stat.ctimeSec && overlayCtimeNsec === stat.ctimeNsec;
}

/**
 * Whether the object in union.found wants a look that nobody has given it; its path, or null. What was looked at
 * before (a conflict, say) is looked at again when it is stale no more: it may be over.
 */
function wanting(union: Union, node: Node, parent: Node, name: string): string | null {
  if (!union.baseAccepted || !union.config.mergesLive) return null;
  const compared = compare(union, node, parent, name);
  if (compared === null || (!compared.stale && union.verdicts.size === 0)) return null;
  const path = pathAt(parent, name);
  if (path === null) return null;
  const verdict = union.verdicts.get(path);
  if (verdict === undefined) return compared.stale ? path : null;
  return holds(verdict, compared.fingerprint, union.found.stat) ? null : path;
}

/** LOOKUP and GETATTR: a stale object is looked at in the background. */
export function noticeIfStale(union: Union, node: Node, parent: Node, name: string): void {
  const path = wanting(union, node, parent, name);
  if (path !== null) union.host.noticed(path);
}

/**
 * Whether what the object in union.found is stays as it is until a side moves. One that waits for something else (for
 * the base to come to rest, for a writer) is looked at again when it is met, so the kernel may not keep it.
 */
export function isSettled(union: Union, node: Node, parent: Node, name: string): boolean {
  if (!union.baseAccepted || !union.config.mergesLive || union.found.state !== IN_OVERLAY) return true;
  const compared = compare(union, node, parent, name);
  if (compared === null || (!compared.stale && union.verdicts.size === 0)) return true;
  const path = pathAt(parent, name);
  const verdict = path === null ? undefined : union.verdicts.get(path);
  if (verdict === undefined) return !compared.stale;
  if (verdict.retryMs !== Number.POSITIVE_INFINITY || verdict.writer) return false;
  return holds(verdict, compared.fingerprint, union.found.stat);
}

/** OPEN: 0, or WAIT while a merge is being computed (the host keeps the limit, and answers then). */
export function awaitIfStale(union: Union, node: Node, parent: Node, name: string): number {
  const path = wanting(union, node, parent, name);
  if (path === null) return 0;
  return waitFor(union, union.host.look(path));
}

/** Takes note of what came of a look; null: nothing is known any more. */
export function setVerdict(union: Union, path: string, verdict: Verdict | null): void {
  if (verdict === null || (verdict.writer && !isWritten(union, path))) union.verdicts.delete(path);
  else union.verdicts.set(path, { ...verdict, until: performance.now() + verdict.retryMs });
  // What the kernel was told before may have been that all is well.
  const node = union.kernel.keeps ? nodeAt(union, path) : undefined;
  if (node) expireNode(union, node, false);
}

/** Whether somebody has the file at a path open for writing. */
function isWritten(union: Union, path: string): boolean {
  const node = nodeAt(union, path);
  return node !== undefined && isOpenForWriting(node);
}

/** An open file is closed: what waited for its writer need not wait for its time. */
export function noLongerWritten(union: Union, { node, writable }: Handle): void {
  if (!writable || union.verdicts.size === 0) return;
  for (const { parent, name } of placesOf(node)) {
    const path = pathAt(parent, name);
    if (path !== null && union.verdicts.get(path)?.writer) union.verdicts.delete(path);
  }
}
