// What the FUSE operations share: the union, the server, how long the kernel may keep what it is told, and how
// a request waits. One object per mount, owned by the serving worker.
import * as fs from 'node:fs';
import type { ControlEntry, ControlStat } from '../control/tree.ts';
import { writeEntryOut } from '../fuse/attr.ts';
import { FOPEN_DIRECT_IO, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH } from '../fuse/constants.ts';
import type { Parked } from '../fuse/parked.ts';
import type { FuseRequest } from '../fuse/request.ts';
import { PARK, supplementaryGroups } from '../fuse/request.ts';
import type { FuseServer } from '../fuse/server.ts';
import { E } from '../lib/errno.ts';
import { isRegular } from '../lib/stat.ts';
import type { Caller } from '../union/caller.ts';
import type { JobArgs } from '../union/jobs.ts';
import { giveUpLock, isLocked } from '../union/locks.ts';
import type { Handle, LockWaiter, Name, Node, PendingWork } from '../union/node.ts';
import { current } from '../union/revive.ts';
import type { Union } from '../union/union.ts';
import { WAIT } from '../union/union.ts';
import type { Ahead } from './ahead.ts';
import type { Allowances } from './allowance.ts';
import type { Listings } from './listings.ts';

/** What the control directory (on the main thread) is asked. Paths are relative to `.kasane`. */
export type ControlRequest =
  | { op: 'stat'; path: string }
  | { op: 'list'; path: string }
  | { op: 'open'; path: string }
  | { op: 'read'; handle: number; offset: number; length: number }
  | { op: 'close'; handle: number }
  | { op: 'write'; path: string; bytes: Uint8Array };

/** A negative errno, or what was asked for; `open` gives a handle, `write` a count. */
export type ControlReply = number | ControlStat | ControlEntry[] | Uint8Array;

export type AskControl = (request: ControlRequest, done: (reply: ControlReply) => void) => void;

export interface Front {
  union: Union;
  /** Set before the first request is served. */
  server: FuseServer;
  askControl: AskControl;
  owner: { uid: number; gid: number };
  /** Seconds for which the kernel may keep names and attributes, where it may at all. */
  keepSeconds: number;
  /** The kernel asks when a directory is opened; else it keeps each listing that it has read to the end. */
  opensDirectories: boolean;
  listings: Listings;
  ahead: Ahead;
  allowances: Allowances;
  /** OPENs and first READDIRs that wait, by their unique number: the names that the node had when they came. */
  opening: Map<number, readonly Name[]>;
  /** Requests that wait for a lock. */
  lockWaiters: Map<Parked, LockWaiter>;
  /** Requests whose job changes a file: nothing must change any more once their client is gone. */
  changing: Set<Parked>;
  /** Paths of control objects by their number. */
  controlPaths: Map<number, string>;
  /** For an NFS server: what is found by name must be found by reading its directory, too. */
  exported: boolean;
}

/** The node of a request; undefined when it is not known. */
export function nodeOf(front: Front, id: number): Node | undefined {
  return front.exported ? current(front.union, id) : front.union.table.get(id);
}

/** The caller of a request; `mask` is its umask, for requests that carry one. */
export function callerOf(r: FuseRequest, mask: number): Caller {
  const groups = r.extLength > 0 ? supplementaryGroups(r) : [];
  return { uid: r.uid, gid: r.gid, pid: r.pid, umask: mask, groups };
}

/** Replies with union.entry and counts the reference that the kernel gets by it. An old handle asks by its own id. */
export function replyEntry(front: Front, r: FuseRequest, id: number = front.union.entry.node.id): number {
  const { node, stat, ino, keepName } = front.union.entry;
  front.union.table.refer(node, id);
  if (keepName) front.union.kernel.answered(node);
  return writeEntryOut(r, id, 1, validFor(front, keepName), tellAttributes(front), stat, ino);
}

/** The attributes in union.entry are told now: the seconds for which the kernel keeps them. */
export function tellAttributes(front: Front): number {
  const { node, stat, keepAttributes } = front.union.entry;
  return validFor(front, front.union.kernel.attributesTold(node, stat.size) && keepAttributes);
}

/** Seconds for which the kernel keeps what it may keep; 0: it asks each time. */
export function validFor(front: Front, keeps: boolean): number {
  return keeps ? front.keepSeconds : 0;
}

/**
 * The handler's result for what an operation returned: WAIT parks the request, to be run again. `locked`: directories
 * that the kernel has locked for it meanwhile.
 */
export function resultOf(front: Front, result: number, locked: readonly number[] = []): number {
  return result === WAIT ? parkUntilDone(front, locked) : result;
}

/** Parks the request until union.waiting is done: then it is run again, or answered with the error. */
function parkUntilDone(front: Front, locked: readonly number[]): number {
  const { server } = front;
  const work = front.union.waiting as PendingWork;
  if (locked.length > 0 && work.result === undefined) front.union.kernel.lock(locked, work);
  const token = park(front, work);
  onResult(work, (result) => {
    if (result >= 0) {
      server.rerun(token);
      return;
    }
    front.opening.delete(uniqueOf(token.view));
    server.answer(token, result);
  });
  return PARK;
}

/** Parks the request until union.waiting is done, whose result makes the answer. */
export function parkForResult(front: Front, payload: (result: number) => Buffer | undefined): number {
  const work = front.union.waiting as PendingWork;
  const token = park(front, work);
  onResult(work, (result) => front.server.answer(token, result, result < 0 ? undefined : payload(result)));
  return PARK;
}

/** Jobs that change the file that the guest has, and not a copy that nobody sees yet. */
const changes: readonly string[] = ['allocate', 'copy-range', 'truncate'] satisfies JobArgs['kind'][];

/**
 * Told by the work's kind, and not by whose it is: who has to wait for another's work waits for what makes a node busy,
 * and these jobs never do.
 */
function park(front: Front, work: PendingWork): Parked {
  const token = front.server.park();
  if (work.result === undefined && changes.includes(work.kind)) {
    front.changing.add(token);
    onResult(work, () => front.changing.delete(token));
  }
  return token;
}

/** Calls `then` with what comes of the work, at once where that is known. */
export function onResult(work: PendingWork, then: (result: number) => void): void {
  if (work.result === undefined) work.waiting.push(then);
  else then(work.result);
}

/** Parks the request until the control directory has answered. */
export function parkForControl(
  front: Front,
  request: ControlRequest,
  answer: (token: Parked, reply: ControlReply) => void,
): number {
  const token = front.server.park();
  front.askControl(request, (reply) => {
    if (typeof reply === 'number' && reply < 0) front.server.answer(token, reply);
    else answer(token, reply);
  });
  return PARK;
}

const SIGKILL_BIT = 1n << 8n;

/**
 * A signal interrupts a request that waits. Other file systems let nothing but death interrupt an open or a
 * chmod, so neither does this one: EINTR only for who has been killed, and not while what it has asked for changes a
 * file: whoever writes there after its end would lose that. Waiting for a lock ends with any signal.
 */
export function interrupted(front: Front, token: Parked): void {
  const waiter = front.lockWaiters.get(token);
  if (waiter !== undefined) {
    front.lockWaiters.delete(token);
    giveUpLock(front.union, waiter);
    front.server.answer(token, -E.EINTR);
    return;
  }
  if (front.changing.has(token) || !isDying(token.pid)) return;
  front.opening.delete(uniqueOf(token.view));
  front.server.answer(token, -E.EINTR);
}

/** Of a listing that has just been read to its end the kernel keeps nothing: its changes are not heard of. */
export function dropListing(front: Front, nodeId: number): void {
  if (!front.opensDirectories) front.server.dropListing(nodeId);
}

/** The number of a request, from its message. The kernel counts up from 1: it fits. */
export function uniqueOf(view: DataView): number {
  return view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
}

function isDying(pid: number): boolean {
  // Outside our pid namespace: nothing is known of it.
  if (pid === 0) return false;
  try {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
    const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\t([0-9a-f]+)/gm)];
    return pending.some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return true;
    throw error;
  }
}

/** Whether the kernel's pages of this file are still those of the object: then they may be kept. */
export function mayKeepCache(
  handle: Handle,
  stat: { ino: number; ctimeSec: number; ctimeNsec: number; size: number; mode: number },
): boolean {
  const { node } = handle;
  const before = node.cachedAt;
  const { ino, ctimeSec, ctimeNsec, size } = stat;
  node.cachedAt = isRegular(stat.mode) ? { ino, ctimeSec, ctimeNsec, size } : null;
  return (
    before != null &&
    before.ino === ino &&
    before.ctimeSec === ctimeSec &&
    before.ctimeNsec === ctimeNsec &&
    before.size === size
  );
}

/**
 * What the kernel is told of an open file, but for KEEP_CACHE. By the FLUSH of a close a process gives up what it has
 * locked, by whichever descriptor: a request for each close, which what is open for reading only is spared as long as
 * nobody has locked the file (semantics.md, "Locks").
 */
export function openFlagsOf({ through, direct, writable, node }: Handle): number {
  const quiet = !writable && !isLocked(node);
  return (through ? FOPEN_PASSTHROUGH : 0) | (direct ? FOPEN_DIRECT_IO : 0) | (quiet ? FOPEN_NOFLUSH : 0);
}

export function backingOf({ node, through }: Handle): number {
  return through ? (node.backing?.id ?? 0) : 0;
}
