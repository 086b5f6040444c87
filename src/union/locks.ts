// Locks of guests, kept by object: a node that is divided at a copy-up (passthrough.ts) is two inodes for the
// kernel, whose own locks would not meet. Ranges of fcntl(2) belong to a process or to an open file, which the
// kernel tells apart by owner; flock(2) has the whole file, by open file. The two kinds do not see each other.
import { E } from '../lib/errno.ts';
import { F_UNLCK, F_WRLCK } from '../sys/constants.ts';
import { type FileLocks, type Handle, type Lock, type LockWaiter, livingNode, type Node } from './node.ts';
import type { Union } from './union.ts';

function locksOf(node: Node): FileLocks {
  const living = livingNode(node);
  living.locks ??= { held: [], waiting: [] };
  return living.locks;
}

function inTheWay(held: readonly Lock[], lock: Lock): Lock[] {
  return held.filter(
    (one) =>
      one.flock === lock.flock &&
      one.owner !== lock.owner &&
      one.start <= lock.end &&
      lock.start <= one.end &&
      (one.type === F_WRLCK || lock.type === F_WRLCK),
  );
}

/** The lock that keeps this one from being had; undefined: none does. */
export function testLock(node: Node, lock: Lock): Lock | undefined {
  return inTheWay(locksOf(node).held, lock)[0];
}

/** SETLK: 0 or -EAGAIN. */
export function setLock(node: Node, lock: Lock): number {
  const locks = locksOf(node);
  prepare(locks, lock);
  if (lock.type !== F_UNLCK && inTheWay(locks.held, lock).length > 0) return -E.EAGAIN;
  take(locks, lock);
  return 0;
}

/** SETLKW: 0 when it holds at once, -EDEADLK, or the waiter, whose `granted` will be called. */
export function awaitLock(union: Union, node: Node, lock: Lock, granted: () => void): LockWaiter | number {
  const locks = locksOf(node);
  prepare(locks, lock);
  const others = lock.type === F_UNLCK ? [] : inTheWay(locks.held, lock);
  if (others.length === 0) {
    take(locks, lock);
    return 0;
  }
  if (!lock.flock && waitsFor(union, others, lock.owner)) return -E.EDEADLK;
  const waiter = { lock, locks, granted };
  locks.waiting.push(waiter);
  union.lockWaiters.add(waiter);
  return waiter;
}

/** Whoever waited waits no more. */
export function giveUpLock(union: Union, waiter: LockWaiter): void {
  union.lockWaiters.delete(waiter);
  waiter.locks.waiting = waiter.locks.waiting.filter((one) => one !== waiter);
}

/** Whether those who hold these locks wait, one for the other, for one that `owner` holds. */
function waitsFor(union: Union, held: readonly Lock[], owner: string): boolean {
  const asked = new Set<string>();
  const open = held.map((one) => one.owner);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next === owner) return true;
    if (asked.has(next)) continue;
    asked.add(next);
    for (const { lock, locks } of union.lockWaiters) {
      if (lock.owner === next && !lock.flock)
        open.push(...inTheWay(locks.held, lock).map((one) => one.owner));
    }
  }
  return false;
}

/** flock(2) lets go of what it had before it asks for another kind: that is how it is documented. */
function prepare(locks: FileLocks, { flock, owner, type }: Lock): void {
  if (!flock) return;
  const kept = locks.held.filter((one) => !(one.flock && one.owner === owner && one.type !== type));
  if (kept.length === locks.held.length) return;
  locks.held = kept;
}

/**
 * Puts a lock in place of what its owner had there. As in the kernel an owner's ranges stand together, in their order and
 * joined where they touch, at the place of its first: that is what decides which lock GETLK tells of.
 */
function take(locks: FileLocks, lock: Lock): void {
  const isOwn = (one: Lock) => one.flock === lock.flock && one.owner === lock.owner;
  const first = locks.held.findIndex(isOwn);
  const others = locks.held.filter((one) => !isOwn(one));
  const own = locks.held.filter(isOwn).flatMap((one) => without(one, lock));
  if (lock.type !== F_UNLCK) own.push(lock);
  others.splice(first < 0 ? others.length : first, 0, ...joined(own.sort((a, b) => a.start - b.start)));
  locks.held = others;
}

/** Ranges of one owner, in their order and apart, with those of one kind that touch as one. */
function joined(own: readonly Lock[]): Lock[] {
  const ranges: Lock[] = [];
  for (const one of own) {
    const before = ranges.at(-1);
    if (before && before.type === one.type && before.end + 1 === one.start) {
      ranges[ranges.length - 1] = { ...one, start: before.start };
    } else {
      ranges.push(one);
    }
  }
  return ranges;
}

/** What is left of a range. */
function without(one: Lock, { start, end }: Lock): Lock[] {
  const rest: Lock[] = [];
  if (one.start < start) rest.push({ ...one, end: Math.min(one.end, start - 1) });
  if (one.end > end) rest.push({ ...one, start: Math.max(one.start, end + 1) });
  return rest;
}

/** To be called after a lock went or became another one: those who waited have theirs, as far as they can. */
export function grantWaiting(union: Union, node: Node): void {
  const locks = livingNode(node).locks;
  if (locks === null || locks.waiting.length === 0) return;
  for (const waiter of [...locks.waiting]) {
    if (inTheWay(locks.held, waiter.lock).length > 0) continue;
    giveUpLock(union, waiter);
    take(locks, waiter.lock);
    waiter.granted();
  }
}

/** A process has closed the file: its ranges go, whichever of its descriptors they came by. */
export function dropOwner(union: Union, node: Node, owner: string): void {
  drop(union, node, (lock) => !lock.flock && lock.owner === owner);
}

/** An open file is closed for good: what it held goes. */
export function dropHandle(union: Union, handle: Handle): void {
  drop(union, handle.node, (lock) => lock.handle === handle);
}

function drop(union: Union, node: Node, goes: (lock: Lock) => boolean): void {
  const { locks } = livingNode(node);
  if (locks === null) return;
  const kept = locks.held.filter((lock) => !goes(lock));
  if (kept.length === locks.held.length) return;
  locks.held = kept;
  grantWaiting(union, node);
}

export function isLocked(node: Node): boolean {
  return (livingNode(node).locks?.held.length ?? 0) > 0;
}
