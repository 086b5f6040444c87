// What the benchmark says of its goals: against a peer, and against the floor, below which no file system can be.
import { describe, expect, test } from 'vitest';
import { report, spread, tally, verdict } from '../../bench/report.mjs';
import { absencesIn, noiseGaps, rowResult } from '../../bench/result.mjs';
import { steppedScenes } from '../../bench/rows.mjs';
import { specialScenes } from '../../bench/special.mjs';

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
const common = {
  machine,
  missing: {},
  noise: [],
  notes: [],
  subject: 'kasane',
  rounds: 2,
  client: '',
  seconds: 1,
  growth: null,
};

test('the report sets what is measured beside the floor and the requests of both', () => {
  const measured = resultWith({ kasane: 9, 'fuse-overlayfs': 10, floor: 8, 'floor-waiting': 6 });
  const peers = { kasane: {}, 'fuse-overlayfs': {}, floor: {}, 'floor-waiting': {} };
  const text = report({ ...common, peers, rows: [measured] });
  expect(text).toMatch(/^create, per pair +0\.90 .*0\.60 .*1\.13 .*1\.50 .*7\.00 +7\.00 +7\.00$/m);
});

describe('who takes no part', () => {
  const scenes = [
    ...steppedScenes.map((scene) => ({ scene, rows: scene.steps })),
    ...specialScenes.map((scene) => ({ scene, rows: scene.rows })),
  ];
  const only = (...keys: string[]) =>
    scenes.map(({ scene, rows }) => ({ scene, rows: rows.filter(({ key }) => keys.includes(key)) }));

  test('is named with a reason, of each row that was chosen', () => {
    const names = ['kasane', 'kasane-user', 'dir', 'mercurial'];
    expect(absencesIn(only('chown', 'rss', 'create'), names)).toEqual([
      { peer: 'kasane-user', why: 'an ordinary user may not chown', rows: ['chown -R of files of the base'] },
      { peer: 'dir', why: 'no daemon', rows: ['daemon RSS after mount'] },
      {
        peer: 'mercurial',
        why: 'it is no file system, and only updates a conffile',
        rows: ['create+unlink', 'chown -R of files of the base', 'daemon RSS after mount'],
      },
    ]);
  });

  test('is one line of the report for each reason, in the fewest rows', () => {
    const rows = ['one', 'two', 'three', 'four'].map((name) => ({
      ...resultWith({ kasane: 1, dir: 2 }),
      name,
      bare: name === 'four' ? 'it is a size' : null,
    }));
    const absent = ['floor', 'mercurial', 'kasane-again'].map((peer) => ({
      peer,
      why: peer === 'kasane-again' ? 'noise' : 'other',
      rows: peer === 'kasane-again' ? ['one', 'two', 'three'] : rows.map(({ name }) => name),
    }));
    const peers = { kasane: {}, dir: {}, 'kasane-again': {} };
    const gaps = noiseGaps(rows, { missing: {}, usable: peers, absent });
    const text = report({ ...common, peers, rows, absent, noiseGaps: gaps });
    const lines = text.split('\n').filter((line: string) => /^no /.test(line) || /^noise/.test(line));
    expect(lines).toEqual([
      'noise not measured: any row but four: kasane-again takes no part',
      'noise not measured: four: it failed',
      'no part in any of these rows: floor, mercurial: other',
      'no part in any row but four: kasane-again: noise',
      'no processor time, no requests: four: it is a size',
    ]);
  });
});

test('a spread is told in the unit of its median', () => {
  const row = { name: 'x', unit: 'file' };
  expect(spread({ median: 0.0009, min: 0.0004, max: 0.0021, n: 3 }, row)).toBe('900 µs (400–2100)');
  expect(spread({ median: 82, min: 82, max: 82, n: 1 }, { ...row, value: true, unit: 'MiB' })).toBe(
    '82.0 MiB',
  );
  expect(spread(undefined, row)).toBe('–');
});
