// What the kernel is told, byte for byte and in which order; and which directories are watched for whom.
import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { chooseCoherence } from '../../src/daemon/coherence.ts';
import { Ears } from '../../src/daemon/ears.ts';
import type { Host } from '../../src/daemon/host.ts';
import { AGAIN, forEachNotification, NotifyBatch } from '../../src/fuse/notify.ts';
import { E } from '../../src/lib/errno.ts';
import { S_IFDIR, S_IFREG } from '../../src/lib/stat.ts';
import { type Collected, KernelView } from '../../src/union/kernel-view.ts';
import type { DirPart, Node, PendingWork } from '../../src/union/node.ts';
import { NodeTable } from '../../src/union/table.ts';
import type { Union } from '../../src/union/union.ts';
import { Watches } from '../../src/union/watches.ts';

/** Readable: one line per notification. */
function told(taken: Uint8Array | Collected | null): string[] {
  const lines: string[] = [];
  const batch = taken !== null && 'batch' in taken ? taken.batch : taken;
  const bytes = Buffer.from(batch ?? []);
  forEachNotification(bytes, (at, size, when) => {
    const view = bytes.subarray(at, at + size);
    const [length, code, unique] = [view.readUInt32LE(0), view.readInt32LE(4), view.readBigUInt64LE(8)];
    expect([length, unique]).toEqual([size, 0n]);
    const id = view.readBigUInt64LE(16);
    if (code === 2) lines.push(`inode ${id} ${view.readBigInt64LE(24)} ${view.readBigInt64LE(32)}`);
    if (code !== 3) return;
    const name = view.toString('latin1', 32, 32 + view.readUInt32LE(24));
    expect(size).toBe(32 + name.length + 1);
    expect(view[size - 1]).toBe(0);
    lines.push(
      `entry ${id} ${name} ${view.readUInt32LE(28) === 1 ? 'expires' : 'detaches'}${when === AGAIN ? ' twice' : ''}`,
    );
  });
  return lines;
}

let next = 100;
const table = new NodeTable(
  () => next++,
  (_, stat) => stat.ino,
);
const nodeOf = (type: number): Node => {
  const node = table.draft(type);
  node.id = next++ as Node['id'];
  node.lookups = 1;
  return node;
};

describe('notifications', () => {
  test('are packed in the order of adding, names always expired and never detached', () => {
    const batch = new NotifyBatch();
    expect(batch.isEmpty).toBe(true);
    batch.expire(2 ** 40 + 1, 'n\xe4me');
    batch.inode(7, true);
    batch.inode(8, false);
    expect(told(batch.take())).toEqual([
      `entry ${2 ** 40 + 1} n\xe4me expires`,
      'inode 7 0 0',
      'inode 8 -1 0',
    ]);
    expect(batch.isEmpty).toBe(true);
  });

  test('grow beyond the first buffer without losing any', () => {
    const batch = new NotifyBatch();
    const names = Array.from({ length: 1000 }, (_, i) => `${'x'.repeat(i % 200)}${i}`);
    for (const [i, name] of names.entries()) batch.expire(i, name);
    expect(told(batch.take())).toEqual(names.map((name, i) => `entry ${i} ${name} expires`));
    expect(told(batch.take())).toEqual([]);
  });
});

describe('what the kernel keeps', () => {
  test('nothing is told where it keeps nothing', () => {
    const kernel = new KernelView('none', 0);
    const dir = nodeOf(S_IFDIR);
    kernel.expire(dir, 'a');
    kernel.changed(dir, true);
    kernel.switched(dir);
    expect(kernel.take()).toBe(null);
    expect(kernel.mustTell(dir)).toBe(false);
  });

  test('names in a directory that is locked for a waiting request are told of when that is done', () => {
    const kernel = new KernelView('watched', 60);
    const [locked, other] = [nodeOf(S_IFDIR), nodeOf(S_IFDIR)];
    const work = { id: 1, kind: '', result: undefined, waiting: [] } as PendingWork;
    kernel.lock([locked.id], work);
    kernel.expire(locked, 'a');
    kernel.expire(other, 'b');
    expect(told(kernel.take())).toEqual([`entry ${other.id} b expires twice`]);
    for (const then of work.waiting) then(0);
    // And the listing once more, behind its names.
    const late = [`entry ${locked.id} a expires twice`, `inode ${locked.id} 0 0`];
    expect(told(kernel.take())).toEqual(late);
  });

  test('a node that shows another object is told of before it is opened', () => {
    const kernel = new KernelView('watched', 60);
    let written = 0;
    kernel.written = () => written;
    const [node, other] = [nodeOf(S_IFREG), nodeOf(S_IFREG)];
    kernel.switched(node);
    kernel.changed(other, false);
    expect(kernel.mustTell(node)).toBe(true);
    const first = kernel.take() as Collected;
    kernel.changed(other, true);
    const second = kernel.takeAnyway();
    expect(told(first)).toEqual([`inode ${node.id} 0 0`, `inode ${other.id} -1 0`]);
    expect([node, other].map((one) => kernel.mustTell(one))).toEqual([true, true]);
    written = first.number;
    expect([node, other].map((one) => kernel.mustTell(one))).toEqual([false, true]);
    written = second.number;
    expect([node, other].map((one) => kernel.mustTell(one))).toEqual([false, false]);
  });

  test('a name is told of once, if no answer with it can still be under way to the kernel’s cache', () => {
    const kernel = new KernelView('watched', 60);
    const dir = nodeOf(S_IFDIR);
    const [old, fresh] = [nodeOf(S_IFREG), nodeOf(S_IFREG)];
    table.attach(old, dir, 'old');
    table.attach(fresh, dir, 'fresh');
    kernel.answered(fresh);
    for (const name of ['old', 'fresh', 'unknown']) kernel.expire(dir, name);
    expect(told(kernel.take())).toEqual([
      `entry ${dir.id} old expires`,
      `entry ${dir.id} fresh expires twice`,
      `entry ${dir.id} unknown expires twice`,
    ]);
  });

  test('no more names that do not exist are kept than can be told of', () => {
    const kernel = new KernelView('watched', 60);
    const dir = nodeOf(S_IFDIR);
    const kept = Array.from({ length: 60_000 }, (_, i) => kernel.keepAbsent(dir, String(i))).filter(Boolean);
    expect(kept.length).toBe(50_000);
    kernel.expire(dir, '0');
    expect(kernel.keepAbsent(dir, 'again')).toBe(true);
    kernel.forgetAbsent(dir);
    expect(dir.dir?.absent).toBe(null);
    expect(kernel.keepAbsent(dir, 'and again')).toBe(true);
  });
});

describe('watches', () => {
  /** Descriptor n leads to watch n; above the limit there are none. */
  function withWatches(limit = 100) {
    const removed: number[] = [];
    const watches = new Watches({
      first: 1,
      add: (fd) => (fd > limit ? -E.ENOSPC : fd),
      remove: (watch) => removed.push(watch),
      ignore: () => {},
    });
    return { watches, removed };
  }
  const dirWith = (...fds: number[]): Node => {
    const node = nodeOf(S_IFDIR);
    if (node.dir) node.dir.parts = fds.map((fd, layer) => ({ layer, path: '', ino: fd, fd, watch: -1 }));
    return node;
  };
  const parts = (node: Node) => node.dir?.parts as DirPart[];

  test('one inode serves several nodes, and its watch goes with the last', () => {
    const { watches, removed } = withWatches();
    const [a, b] = [dirWith(5), dirWith(5)];
    for (const node of [a, b]) watches.directory(node, parts(node)[0] as DirPart);
    expect(new Set(watches.of(5))).toEqual(new Set([a, b]));
    watches.drop(a);
    expect(removed).toEqual([]);
    expect(watches.of(5)).toEqual([b]);
    watches.drop(b);
    expect(removed).toEqual([5]);
    expect(watches.size).toBe(0);
  });

  test('a node of several layers has several; opened anew on another directory, a part has another', () => {
    const { watches, removed } = withWatches();
    const node = dirWith(1, 2);
    for (const part of parts(node)) watches.directory(node, part);
    expect([watches.of(1), watches.of(2)]).toEqual([[node], [node]]);
    const part = parts(node)[0] as DirPart;
    watches.directory(node, part);
    expect(removed).toEqual([]);
    part.fd = 9;
    watches.directory(node, part);
    expect(removed).toEqual([1]);
    expect(watches.of(9)).toEqual([node]);
    watches.leave(node, part);
    expect(removed).toEqual([1, 9]);
  });

  test('a watch that the kernel has taken away leaves its directory unwatched', () => {
    const { watches, removed } = withWatches();
    const node = dirWith(3);
    watches.directory(node, parts(node)[0] as DirPart);
    if (node.dir) node.dir.watched = true;
    watches.gone(3);
    expect([node.dir?.watched, parts(node)[0]?.watch, watches.size]).toEqual([false, -1, 0]);
    watches.drop(node);
    expect(removed).toEqual([]);
  });

  test('at the limit a directory stays unwatched, and that is counted', () => {
    const { watches } = withWatches(10);
    const node = dirWith(11);
    watches.directory(node, parts(node)[0] as DirPart);
    expect([parts(node)[0]?.watch, watches.refused, watches.size]).toEqual([-1, 1, 0]);
  });

  test('something else that watches takes over: the former’s watches tell of their nodes until they are let go', () => {
    const { watches, removed } = withWatches();
    const [a, b, gone] = [dirWith(5), dirWith(6), dirWith(7)];
    for (const node of [a, b, gone]) watches.directory(node, parts(node)[0] as DirPart);
    const now: number[] = [];
    watches.exchange(
      { first: 1000, add: (fd) => 1000 + fd, remove: (watch) => now.push(watch), ignore: () => {} },
      null,
    );
    // What is looked at again is watched anew, and its former watch may have something to tell still.
    watches.directory(a, parts(a)[0] as DirPart);
    expect([watches.of(5), watches.of(1005), removed]).toEqual([[a], [a], []]);
    watches.drop(gone);
    expect(removed).toEqual([7]);
    expect(watches.ofFormer(10)).toEqual([5, 6]);
    expect(watches.carryDirectory(b, parts(b)[0] as DirPart, 6)).toBe(true);
    expect([watches.of(6), watches.of(1006)]).toEqual([[b], [b]]);
    watches.letFormer([5, 6]);
    expect([removed, watches.ofFormer(10), watches.size]).toEqual([[7, 5, 6], [], 2]);
    watches.letFormer([]);
    for (const node of [a, b]) watches.drop(node);
    expect([now, watches.size]).toEqual([[1005, 1006], 0]);
  });

  test('that there are many, or no more can be had, is said once', () => {
    for (const [at, limit] of [
      [2, 100],
      [50, 2],
    ] as const) {
      let said = '';
      const watching = {
        first: 1,
        add: (fd: number) => (fd > limit ? -E.ENOSPC : fd),
        remove: () => {},
        ignore: () => {},
      };
      const watches = new Watches(watching, { at, call: (full) => (said += full ? 'full ' : 'many ') });
      const counts = [1, 2, 3, 4].map((fd) => {
        const node = dirWith(fd);
        watches.directory(node, parts(node)[0] as DirPart);
        return said;
      });
      expect(counts).toEqual(limit === 2 ? ['', '', 'full ', 'full '] : ['', 'many ', 'many ', 'many ']);
    }
  });

  test('a file with several names has its own, once', () => {
    const { watches, removed } = withWatches();
    const file = nodeOf(S_IFREG);
    expect([watches.file(file, 4, 'a', 0), watches.file(file, 4, 'a', 0)]).toEqual([true, false]);
    watches.drop(file);
    expect(removed).toEqual([4]);
  });
});

describe('the mode', () => {
  const options = { bases: ['/'], export: 'off' } as const;

  test('is what was asked for, and check for an exported mount, with a word why', () => {
    const mode = (coherence: Parameters<typeof chooseCoherence>[0]['coherence'], more = {}) =>
      chooseCoherence({ ...options, bases: ['/'], coherence, ...more });
    expect(mode({ mode: 'notify' })).toMatchObject({
      mode: 'notify',
      keeping: 'watched',
      seconds: 60,
      note: null,
    });
    expect(mode({ mode: 'auto' })).toMatchObject({ mode: 'notify', keeping: 'watched', note: null });
    expect(mode({ mode: 'check' })).toMatchObject({ mode: 'check', keeping: 'none', seconds: 0, note: null });
    expect(mode({ mode: 'ttl', seconds: 2.5 })).toMatchObject({ keeping: 'timed', seconds: 2.5 });
    expect(mode({ mode: 'notify' }, { export: 'on' })).toMatchObject({ mode: 'check' });
    expect(mode({ mode: 'notify' }, { export: 'on' }).note).toContain('exported');
  });

  test('is check where the base lies on a file system that tells of no changes', () => {
    const remote = chooseCoherence({ bases: ['/'], export: 'off', coherence: { mode: 'auto' } }, () => 'NFS');
    expect(remote).toMatchObject({ mode: 'check' });
    expect(remote.note).toContain('NFS');
    const asked = chooseCoherence(
      { bases: ['/'], export: 'off', coherence: { mode: 'notify' } },
      () => 'NFS',
    );
    expect(asked).toMatchObject({ mode: 'notify' });
    expect(asked.note).toContain('60 seconds');
  });
});

test('events that cannot be read are said once, and are waited for no more', () => {
  const directory = fs.openSync('/', 'r');
  try {
    const said: unknown[] = [];
    let lost = 0;
    const host = { send: (message: unknown) => said.push(message), log: {} } as unknown as Host;
    const union = {
      changes: { lose: () => lost++ },
      kernel: { keeps: false },
      forgetFound: () => {},
    } as unknown as Union;
    const start = { watcher: { by: 'inotify', fd: directory }, layers: [], overlay: { rootFd: directory } };
    const ears = new Ears(start as unknown as ConstructorParameters<typeof Ears>[0]);
    for (const _ of [1, 2]) ears.hear(union, host);
    expect(said).toEqual([{ kind: 'deaf', error: -E.EISDIR }]);
    expect([lost, ears.fd]).toEqual([1, -1]);
  } finally {
    fs.closeSync(directory);
  }
});
