// What the benchmark says of its goals: against a peer, and against the floor, below which no file system can be.
import { describe, expect, test } from 'vitest';
import { report, tally, verdict } from '../../bench/report.mjs';
import { rowResult } from '../../bench/result.mjs';

const row = {
  key: 'create',
  name: 'create',
  unit: 'pair',
  goals: [{ peer: 'fuse-overlayfs', most: 0.5, metric: 'wall' }],
};

/** Two rounds, the second ten times slower for all. */
const rounds = (wall: number, requests: number) => [
  { round: 0, wall, client: wall, daemon: 0, requests },
  { round: 1, wall: 10 * wall, client: wall, daemon: 0, requests: null },
];

function resultWith(walls: Record<string, number>) {
  const create = Object.fromEntries(Object.entries(walls).map(([name, wall]) => [name, rounds(wall, 7)]));
  const store = { samples: { create }, failed: {}, lacks: {}, places: { create: 'tmpfs' } };
  return rowResult(row, store, 'kasane');
}

describe('a goal that is missed', () => {
  test('is out of reach where the better floor misses it, too', () => {
    const { goals, floor } = resultWith({ kasane: 9, 'fuse-overlayfs': 10, floor: 8, 'floor-waiting': 6 });
    expect([goals[0].met, goals[0].floor?.median, floor?.median]).toEqual([false, 0.6, 0.6]);
    expect(verdict(goals[0])).toBe('missed, out of reach');
    expect(tally(goals)).toBe('0 of 1 met, 1 out of reach');
  });

  test('is in reach where a floor meets it', () => {
    const { goals } = resultWith({ kasane: 9, 'fuse-overlayfs': 10, floor: 4, 'floor-waiting': 6 });
    expect([goals[0].floor?.median, verdict(goals[0])]).toEqual([0.4, 'missed']);
  });

  test('is just missed where no floor was measured', () => {
    const { goals, floor } = resultWith({ kasane: 9, 'fuse-overlayfs': 10 });
    expect([goals[0].floor, floor, verdict(goals[0]), tally(goals)]).toEqual([
      null,
      null,
      'missed',
      '0 of 1 met',
    ]);
  });
});

test('the report sets what is measured beside the floor and the requests of both', () => {
  const measured = resultWith({ kasane: 9, 'fuse-overlayfs': 10, floor: 8, 'floor-waiting': 6 });
  const machine = {
    date: '',
    commit: '',
    cpu: '',
    cores: 2,
    memoryMiB: 1,
    load: 0,
    system: '',
    kernel: '',
    node: '',
  };
  const peers = { kasane: {}, 'fuse-overlayfs': {}, floor: {}, 'floor-waiting': {} };
  const common = {
    machine,
    peers,
    missing: {},
    noise: [],
    notes: [],
    subject: 'kasane',
    rounds: 2,
    client: '',
    seconds: 1,
  };
  const text = report({ ...common, rows: [measured], growth: null });
  expect(text).toMatch(/^create, per pair +0\.90 .*0\.60 .*1\.13 .*1\.50 .*7\.00 +7\.00 +7\.00$/m);
});
