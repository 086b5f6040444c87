// Rows that are no workload in one mount: memory, page cache, mounting, a copy-up beside a storm, an update of the
// base. Each measures what it likes and hands it to `record`. `bare` says why a row has neither processor time nor
// requests.
import * as fs from 'node:fs';
import { closeCell, daemonMemory, dropCaches, make, measured, openCell, startWork, work } from './cell.mjs';
import { bigFile } from './materials.mjs';
import { peers } from './peers.mjs';
import { readProc, sleep } from './stage.mjs';
import { conffileScene } from './updates.mjs';

const withDaemon = Object.keys(peers).filter((name) => peers[name].family !== 'kernel' && !peers[name].rows);

const SIZE = 'it is a size';

async function withCell(bench, peer, place, options, body) {
  const cell = await openCell(bench, peer, place, options);
  try {
    return await body(cell);
  } finally {
    await closeCell(cell);
  }
}

const mounting = {
  key: 'mount',
  on: 'tmpfs',
  rows: [
    {
      key: 'mount',
      name: 'mount until the first answer',
      unit: 's',
      value: true,
      goals: [{ most: 0.5 }],
      bare: 'the daemon starts in it, so there is nothing to measure from',
    },
  ],
  async measure(bench, peer, place, record) {
    const prepare = ({ at }) => fs.writeFileSync(`${at.base}/file`, 'x');
    await withCell(bench, peer, place, { prepare }, (cell) => record('mount', { wall: cell.firstAnswer }));
  },
};

/** Of the process that is the daemon: its helpers, a watchdog or supervisor, are smaller, and apart. */
function residentSet(cell) {
  const sizes = cell.pids.map((pid) => daemonMemory({ pids: [pid] }, 'status', 'VmRSS'));
  return Math.max(...sizes);
}

const QUIET_MS = 3000;

const memory = {
  key: 'memory',
  on: 'tmpfs',
  peers: withDaemon,
  why: 'no daemon',
  rounds: 1,
  rows: [
    {
      key: 'rss',
      name: 'daemon RSS after mount',
      unit: 'MiB',
      value: true,
      bare: SIZE,
      goals: [{ most: 90 }],
    },
    {
      key: 'rss-nodes',
      name: 'daemon RSS per 100,000 nodes',
      unit: 'MiB',
      value: true,
      bare: SIZE,
      goals: [{ most: 40 }],
    },
  ],
  async measure(bench, peer, place, record) {
    const { known } = bench.size;
    const prepare = ({ at }) => make(bench, 'tree', `${at.base}/tree`, known / 100, 100, 0);
    await withCell(bench, peer, place, { prepare }, async (cell) => {
      // Memory is given back once it is quiet.
      await sleep(QUIET_MS);
      const before = residentSet(cell);
      await work(cell, 'walk', 'tree');
      await sleep(QUIET_MS);
      record('rss', { wall: before });
      record('rss-nodes', { wall: ((residentSet(cell) - before) * 100_000) / known });
    });
  },
};

const idle = {
  key: 'idle',
  on: 'tmpfs',
  peers: withDaemon,
  why: 'no daemon',
  rounds: 1,
  rows: [{ key: 'pss', name: 'PSS of many idle mounts, per mount', unit: 'MiB', value: true, bare: SIZE }],
  async measure(bench, peer, place, record) {
    const cells = [];
    try {
      for (let i = 0; i < bench.size.idle; i += 1) cells.push(await openCell(bench, peer, place));
      const sum = cells.reduce((all, cell) => all + daemonMemory(cell, 'smaps_rollup', 'Pss'), 0);
      record('pss', { wall: sum / cells.length });
    } finally {
      for (const cell of cells.reverse()) await closeCell(cell);
    }
  },
};

const cached = () => Number(/^Cached:\s+(\d+)/m.exec(readProc('meminfo'))[1]) * 1024;

const pageCache = {
  key: 'page-cache',
  on: 'ext4',
  rounds: 1,
  rows: [
    {
      key: 'page-cache',
      name: 'page cache of one file read by four guests',
      unit: '×',
      value: true,
      bare: SIZE,
      goals: [{ most: 1.1 }],
    },
  ],
  async measure(bench, peer, place, record) {
    const base = await bigFile(bench, place, bench.size.guests, 'guests');
    const cells = [];
    try {
      for (let i = 0; i < 4; i += 1) cells.push(await openCell(bench, peer, place, { base }));
      await dropCaches(cells[0]);
      const before = cached();
      for (const cell of cells) await work(cell, 'read', '.', ['big']);
      record('page-cache', { wall: (cached() - before) / (bench.size.guests * 2 ** 20) });
    } finally {
      for (const cell of cells.reverse()) await closeCell(cell);
    }
  },
};

const STORM = [10, 100];

/** Calls per second while `body` runs; it gives at least a second to the storm. */
async function stormBeside(cell, body) {
  const storm = startWork(cell, 'storm', 'tree', STORM);
  await Promise.all([body(), sleep(1000)]);
  storm.child.stdin.end();
  const { seconds, operations } = JSON.parse(await storm.done);
  return operations / seconds;
}

function bringUp(cell, name, options) {
  const copy = ['sh', '-c', `cp ${name} ${name}.copy && sync -d ${name}.copy`];
  return cell.peer.plain
    ? work(cell, 'run', '.', copy, options)
    : work(cell, 'copy-up', '.', [name], options);
}

const copyUp = {
  key: 'copy-up',
  on: 'ext4',
  rounds: 2,
  rows: [
    {
      key: 'copy-up',
      name: 'copy-up of a big file (dir: cp) and fdatasync',
      unit: 's',
      value: true,
      goals: [{ peer: 'dir', most: 1.1, metric: 'wall' }],
    },
    {
      key: 'copy-up-storm',
      name: 'stat storm during copy-up ÷ alone',
      unit: '×',
      value: true,
      goals: [{ most: 1.5 }],
      bare: 'it is a ratio of two speeds, and the daemon serves storm and copy-up at once',
    },
  ],
  /** Two files, for a file is brought up once: one by itself, to be told apart from the storm, the other beside it. */
  async measure(bench, peer, place, record, count) {
    const prepare = async ({ at }) => {
      await make(bench, 'tree', `${at.base}/tree`, ...STORM, 0);
      for (const name of ['big', 'other']) await make(bench, 'big', at.base, name, bench.size.copyUp);
    };
    await withCell(bench, peer, place, { prepare }, async (cell) => {
      record('copy-up', await measured(cell, 1, count, (before) => bringUp(cell, 'big', { before })));
      const alone = await stormBeside(cell, () => {});
      const beside = await stormBeside(cell, () => bringUp(cell, 'other'));
      record('copy-up-storm', { wall: alone / beside });
    });
  },
};

export const specialScenes = [mounting, memory, idle, pageCache, copyUp, conffileScene];
