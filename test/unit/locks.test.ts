// Locks of guests as a table: ranges that are cut and put together, kinds that do not meet, who waits for whom.
import { describe, expect, test } from 'vitest';
import { E } from '../../src/lib/errno.ts';
import { F_RDLCK, F_UNLCK, F_WRLCK } from '../../src/sys/constants.ts';
import {
  awaitLock,
  dropHandle,
  dropOwner,
  giveUpLock,
  grantWaiting,
  setLock,
  testLock,
} from '../../src/union/locks.ts';
import type { Handle, Lock, LockWaiter, Node } from '../../src/union/node.ts';
import type { Union } from '../../src/union/union.ts';

const END = 2 ** 63;

function newNode(): Node {
  return { locks: null, successor: null } as Node;
}

function newUnion(): Union {
  return { lockWaiters: new Set<LockWaiter>() } as Union;
}

function handleOf(node: Node): Handle {
  return { node } as Handle;
}

function lock(owner: string, type: number, start = 0, end = END, more: Partial<Lock> = {}): Lock {
  return { flock: false, owner, handle: handleOf(newNode()), type, start, end, pid: 1, ...more };
}

/** What is held, as `owner type start-end`. */
function held(node: Node): string[] {
  const all = node.locks?.held ?? [];
  return all.map((one) => `${one.owner} ${one.type === F_WRLCK ? 'w' : 'r'} ${one.start}-${one.end}`).sort();
}

describe('ranges', () => {
  test('what an owner locks takes the place of what it had there, and leaves the rest', () => {
    const node = newNode();
    expect(setLock(node, lock('a', F_WRLCK, 0, 99))).toBe(0);
    expect(setLock(node, lock('a', F_RDLCK, 40, 59))).toBe(0);
    expect(held(node)).toEqual(['a r 40-59', 'a w 0-39', 'a w 60-99']);
    expect(setLock(node, lock('a', F_UNLCK, 30, 69))).toBe(0);
    expect(held(node)).toEqual(['a w 0-29', 'a w 70-99']);
    expect(setLock(node, lock('a', F_UNLCK))).toBe(0);
    expect(held(node)).toEqual([]);
  });

  test('readers share, a writer is alone, and what does not touch does not meet', () => {
    const node = newNode();
    expect(setLock(node, lock('a', F_RDLCK, 0, 9))).toBe(0);
    expect(setLock(node, lock('b', F_RDLCK, 5, 14))).toBe(0);
    expect(setLock(node, lock('b', F_WRLCK, 9, 20))).toBe(-E.EAGAIN);
    expect(setLock(node, lock('b', F_WRLCK, 10, 20))).toBe(0);
    expect(testLock(node, lock('a', F_RDLCK, 0, END))).toMatchObject({ owner: 'b', start: 10, end: 20 });
    expect(testLock(node, lock('a', F_RDLCK, 0, 9))).toBeUndefined();
  });

  test('a refused lock changes nothing', () => {
    const node = newNode();
    setLock(node, lock('a', F_RDLCK, 0, 9));
    setLock(node, lock('b', F_RDLCK, 0, 9));
    expect(setLock(node, lock('a', F_WRLCK, 0, 9))).toBe(-E.EAGAIN);
    expect(held(node)).toEqual(['a r 0-9', 'b r 0-9']);
  });
});

describe('flock', () => {
  const whole = (owner: string, type: number) => lock(owner, type, 0, END, { flock: true });

  test('it does not meet ranges', () => {
    const node = newNode();
    expect(setLock(node, whole('a', F_WRLCK))).toBe(0);
    expect(setLock(node, lock('b', F_WRLCK))).toBe(0);
    expect(setLock(node, whole('b', F_RDLCK))).toBe(-E.EAGAIN);
  });

  test('who asks for another kind lets go of the one it has, even if it is refused', () => {
    const node = newNode();
    setLock(node, whole('a', F_RDLCK));
    setLock(node, whole('b', F_RDLCK));
    expect(setLock(node, whole('a', F_WRLCK))).toBe(-E.EAGAIN);
    expect(held(node)).toEqual([`b r 0-${END}`]);
  });
});

describe('waiting', () => {
  test('those who wait have their locks in turn, as far as these go together', () => {
    const [union, node] = [newUnion(), newNode()];
    const order: string[] = [];
    const ask = (owner: string, type: number) =>
      awaitLock(union, node, lock(owner, type), () => void order.push(owner));
    expect(ask('a', F_WRLCK)).toBe(0);
    const [b, c, d] = [ask('b', F_RDLCK), ask('c', F_WRLCK), ask('d', F_RDLCK)];
    expect([b, c, d].every((one) => typeof one === 'object')).toBe(true);
    dropOwner(union, node, 'a');
    expect(order).toEqual(['b', 'd']);
    dropOwner(union, node, 'b');
    expect(order).toEqual(['b', 'd']);
    setLock(node, lock('d', F_UNLCK));
    grantWaiting(union, node);
    expect(order).toEqual(['b', 'd', 'c']);
    expect(union.lockWaiters.size).toBe(0);
  });

  test('who gives up is passed over', () => {
    const [union, node] = [newUnion(), newNode()];
    setLock(node, lock('a', F_WRLCK));
    const waiter = awaitLock(union, node, lock('b', F_WRLCK), () => expect.unreachable());
    giveUpLock(union, waiter as LockWaiter);
    dropOwner(union, node, 'a');
    expect(held(node)).toEqual([]);
  });

  test('a ring of waiters over several files is refused to whoever would close it', () => {
    const union = newUnion();
    const nodes = [newNode(), newNode(), newNode()] as const;
    const ask = (at: 0 | 1 | 2, owner: string) => awaitLock(union, nodes[at], lock(owner, F_WRLCK), () => {});
    for (const [i, owner] of ['a', 'b', 'c'].entries()) expect(ask(i as 0 | 1 | 2, owner)).toBe(0);
    expect(typeof ask(1, 'a')).toBe('object');
    expect(typeof ask(2, 'b')).toBe('object');
    expect(ask(0, 'c')).toBe(-E.EDEADLK);
    expect(typeof ask(0, 'd')).toBe('object');
  });
});

test('an open file that is closed for good holds nothing, whoever locked by it', () => {
  const [union, node] = [newUnion(), newNode()];
  const [one, other] = [handleOf(node), handleOf(node)];
  setLock(node, lock('a', F_RDLCK, 0, 9, { handle: one }));
  setLock(node, lock('b', F_RDLCK, 0, 9, { handle: other }));
  setLock(node, lock('c', F_RDLCK, 0, END, { handle: one, flock: true }));
  dropHandle(union, one);
  expect(held(node)).toEqual(['b r 0-9']);
});

test('locks go along to the node that an object has after it was divided', () => {
  const [old, now] = [newNode(), newNode()];
  setLock(old, lock('a', F_WRLCK));
  now.locks = old.locks;
  old.locks = null;
  old.successor = now;
  expect(setLock(now, lock('b', F_WRLCK))).toBe(-E.EAGAIN);
  expect(setLock(old, lock('b', F_WRLCK))).toBe(-E.EAGAIN);
  expect(setLock(old, lock('a', F_UNLCK))).toBe(0);
  expect(setLock(now, lock('b', F_WRLCK))).toBe(0);
});
