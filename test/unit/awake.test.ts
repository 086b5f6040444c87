// When processors are asked to stay awake, and that they are let go again: the descriptor is a pipe that is read back.
import { expect, test } from 'vitest';
import { keepsAwake } from '../../src/daemon/cpu-latency.ts';
import { Awake } from '../../src/fuse/awake.ts';
import { close, read } from '../../src/sys/file.ts';
import { socketpair } from '../../src/sys/socket.ts';
import { drive, lookup } from '../lib/fuse-driver.ts';

/** What is asked of the kernel in turn, in microseconds. */
function asked(body: (fd: number) => void): number[] {
  const pair = socketpair();
  if (typeof pair === 'number') throw new Error('no socketpair');
  const [theirs, fd] = pair;
  try {
    body(fd);
    close(fd);
    const bytes = Buffer.alloc(4096);
    const length = read(theirs, bytes, 0, bytes.length);
    return Array.from({ length: length / 4 }, (_, i) => bytes.readInt32LE(4 * i));
  } finally {
    close(theirs);
  }
}

const NO_MATTER = 2_000_000_000;

test('a stream of sixteen requests keeps processors awake, until none has come for 2 ms', () => {
  const seen: number[] = [];
  const told = asked((fd) => {
    const awake = new Awake(fd);
    for (let i = 0; i < 40; i++) {
      awake.came(i % 2 === 0 ? 0 : 0.9);
      seen.push(awake.patience);
    }
    awake.rest();
    awake.rest();
    seen.push(awake.patience);
    for (let i = 0; i < 15; i++) awake.came(0);
    awake.came(1);
    for (let i = 0; i < 15; i++) awake.came(0);
    seen.push(awake.patience);
  });
  expect(seen).toEqual([...Array(15).fill(-1), ...Array(25).fill(2), -1, -1]);
  expect(told).toEqual([0, NO_MATTER]);
});

test('without the device, or where the kernel refuses, nothing is asked and nothing waited for', () => {
  for (const fd of [-1, 1_000_000]) {
    const awake = new Awake(fd);
    for (let i = 0; i < 40; i++) awake.came(0);
    expect(awake.patience).toBe(-1);
  }
});

test('the server lets processors go when it ends', () => {
  const told = asked((latencyFd) => {
    drive(
      () => ({ LOOKUP: () => 0 }),
      function* () {
        for (let i = 0; i < 1000; i++) yield lookup('a');
      },
      () => ({ latencyFd }),
    );
  });
  // More than once where this process had to wait for a processor.
  expect(told.length).toBeGreaterThan(0);
  expect(told).toEqual(Array.from(told, (_, i) => (i % 2 === 0 ? 0 : NO_MATTER)));
  expect(told.length % 2).toBe(0);
});

test('the server lets processors go when no request follows', () => {
  const pair = socketpair();
  if (typeof pair === 'number') throw new Error('no socketpair');
  const [theirs, latencyFd] = pair;
  const words: number[] = [];
  let requests = 0;
  let pauses = 0;
  drive(
    (sides) => ({
      LOOKUP: () => {
        sides.drain();
        // From the last on nobody calls.
        if (requests++ < 1000) sides.feed(lookup('a'));
        return 0;
      },
    }),
    function* () {},
    (sides) => ({
      latencyFd,
      onWake: () => sides.feed(lookup('a')),
      eventsFd: () => theirs,
      onEvents: () => {
        const bytes = Buffer.alloc(4);
        if (read(theirs, bytes, 0, 4) === 4) words.push(bytes.readInt32LE());
        if (words.at(-1) === NO_MATTER) sides.server().stop();
      },
      // Or it would wait for ever, or again and again.
      idle: { isDue: () => true, run: () => sides.server().stop() },
      onPause: () => {
        if (++pauses > 2000) sides.server().stop();
      },
    }),
  );
  expect(words.slice(0, 2)).toEqual([0, NO_MATTER]);
  for (const fd of pair) close(fd);
});

test('by itself only in small virtual machines with more than one processor; never over fuse-native', () => {
  const here = { count: 2, ours: 2, driver: 'haltpoll' };
  const auto = { cpuLatency: 'auto', transport: 'direct' } as const;
  expect(keepsAwake(auto, here)).toBe(true);
  for (const other of [{ ours: 1 }, { count: 9 }, { driver: 'intel_idle' }, { driver: '' }]) {
    expect(keepsAwake(auto, { ...here, ...other })).toBe(false);
  }
  expect(keepsAwake({ ...auto, cpuLatency: 'low' }, { count: 9, ours: 9, driver: '' })).toBe(true);
  expect(keepsAwake({ ...auto, cpuLatency: 'off' }, here)).toBe(false);
  expect(keepsAwake({ cpuLatency: 'low', transport: 'fuse-native' }, here)).toBe(false);
});
