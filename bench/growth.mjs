// A few rows at 1,000 to 1,000,000 files, and others at 1 to 32 mounts of one base: what a figure does when the
// tree or the host grows. One pass; for the shape of the curve, not for the last percent. Each is a wall time; of those
// that can be told apart from what goes on beside them the processor time, too, and by files the requests.
import {
  closeCell,
  daemonCpu,
  daemonMemory,
  dropCaches,
  make,
  measured,
  openCell,
  startWork,
  work,
} from './cell.mjs';
import { placeOn } from './places.mjs';

const FILES = [1000, 10_000, 100_000, 1_000_000];
const MOUNTS = [1, 2, 8, 32];
const LONG = { seconds: 1800 };

/** Of a tree with directories of 100 files. */
const steps = [
  { name: 'walk with stat, cold', unit: 'name', cold: true, work: () => ['walk', 'tree'] },
  { name: 'walk with stat, warm', unit: 'name', work: () => ['walk', 'tree'] },
  {
    name: 'lstat storm over all names',
    unit: 'call',
    work: (files) => ['lstat', 'tree', files / 100, 100, Math.min(files, 50_000)],
  },
  {
    name: 'open+read+close',
    unit: 'file',
    work: (files) => ['open', 'tree', files / 100, 100, Math.min(files, 3000)],
  },
  { name: 'create+unlink', unit: 'pair', work: () => ['create', 'tree/0', 1000, 0] },
];
const MEMORY = 'daemon RSS after these';

async function withFiles(bench, peer, place, files, record) {
  const prepare = ({ at }) => make(bench, 'tree', `${at.base}/tree`, files / 100, 100, 64);
  const cell = await openCell(bench, peer, place, { prepare });
  try {
    for (const step of steps) {
      if (step.cold) await dropCaches(cell);
      const [name, folder, ...args] = step.work(files);
      const sample = await measured(cell, undefined, true, (before) =>
        work(cell, name, folder, args, { ...LONG, before }),
      );
      record(step.name, step.unit, sample);
    }
    if (cell.pids.length > 0) record(MEMORY, 'MiB', { wall: daemonMemory(cell, 'status', 'VmRSS') });
  } finally {
    await closeCell(cell);
  }
}

const NAMES = [20, 100];
const STORM_MS = 1500;
const inMounts = {
  storm: 'lstat storm in all mounts at once',
  walk: 'walk in all mounts at once',
  mount: 'mount until the first answer',
  memory: 'PSS of all mounts',
};

/** By what they grow with, for the help. */
export const growthRows = {
  files: [...steps.map(({ name }) => name), MEMORY],
  mounts: Object.values(inMounts),
};

async function walkAll(bench, cells) {
  const pids = cells.flatMap((cell) => cell.pids);
  const before = await daemonCpu({ bench, pids });
  const walks = await Promise.all(cells.map((cell) => work(cell, 'walk', 'tree', [], LONG)));
  const daemon = (await daemonCpu({ bench, pids })) - before;
  const sum = (read) => walks.reduce((all, walk) => all + read(walk), 0);
  const names = sum(({ operations }) => operations);
  return {
    wall: Math.max(...walks.map(({ seconds }) => seconds)) / names,
    client: sum(({ cpu }) => cpu) / names,
    daemon: daemon / names,
    requests: null,
  };
}

/** One client in each mount, all at once: calls of all of them together. */
async function withMounts(bench, peer, place, count, record) {
  const base = `${place.shared}/growth`;
  const cells = [];
  try {
    for (let i = 0; i < count; i += 1) cells.push(await openCell(bench, peer, place, { base }));
    const storms = cells.map((cell) => startWork(cell, 'storm', 'tree', NAMES));
    await new Promise((resolve) => setTimeout(resolve, STORM_MS));
    for (const { child } of storms) child.stdin.end();
    const results = await Promise.all(storms.map(async ({ done }) => JSON.parse(await done)));
    const calls = results.reduce((sum, { operations }) => sum + operations, 0);
    const longest = Math.max(...results.map(({ seconds }) => seconds));
    // Its processor time would be that of what comes before its clock, too: most of what the daemons do in it.
    record(inMounts.storm, 'call', { wall: longest / calls });
    record(inMounts.walk, 'name', await walkAll(bench, cells));
    record(inMounts.mount, 's', { wall: cells.at(-1).firstAnswer });
    const pss = cells.reduce((sum, cell) => sum + daemonMemory(cell, 'smaps_rollup', 'Pss'), 0);
    if (cells[0].pids.length > 0) record(inMounts.memory, 'MiB', { wall: pss });
  } finally {
    for (const cell of cells.reverse()) await closeCell(cell);
  }
}

/** Why a peer takes no part; null where it does. Those that no goal names would make a run much longer. */
function absence(bench, { rows, why, rounds }) {
  if (rows) return why;
  return rounds > 1 || bench.named ? null : 'it takes part only where --peers names it';
}

/** Tables by row, with a column for each count: `peers` has wall times, `costs` what else was found. */
function createTables() {
  const tables = new Map();
  const keep =
    ({ by, counts }, column, peer) =>
    (row, unit, { wall, ...cost }) => {
      const key = `${by} ${row}`;
      const isValue = unit === 'MiB' || unit === 's';
      if (!tables.has(key))
        tables.set(key, { name: row, unit, value: isValue, by, counts, peers: {}, costs: {} });
      const { peers, costs } = tables.get(key);
      peers[peer] ??= counts.map(() => null);
      peers[peer][column] = wall;
      if (cost.client === undefined) return;
      costs[peer] ??= counts.map(() => null);
      costs[peer][column] = cost;
    };
  return { keep, all: () => [...tables.values()] };
}

export async function measureGrowth(bench, progress) {
  const place = await placeOn(bench, bench.on ?? 'tmpfs');
  await make(bench, 'tree', `${place.shared}/growth/tree`, ...NAMES, 64);
  const reasons = Object.entries(bench.usable).map(([peer, one]) => ({ peer, why: absence(bench, one) }));
  const names = reasons.filter(({ why }) => why === null).map(({ peer }) => peer);
  const absent = reasons.filter(({ why }) => why !== null).map((one) => ({ ...one, rows: ['growth'] }));
  const series = [
    { by: 'files', counts: bench.quick ? FILES.slice(0, 2) : FILES, measure: withFiles },
    { by: 'mounts', counts: bench.quick ? MOUNTS.slice(0, 3) : MOUNTS, measure: withMounts },
  ];
  const plan = series.flatMap((one) =>
    one.counts.flatMap((count, column) => names.map((name) => ({ one, count, column, name }))),
  );
  const tables = createTables();
  const failed = [];
  for (const [done, { one, count, column, name }] of plan.entries()) {
    progress.step(done, plan.length, `${count} ${one.by}: ${name}`);
    try {
      await one.measure(bench, bench.usable[name], place, count, tables.keep(one, column, name));
    } catch (error) {
      if (bench.stage.ended) throw error;
      failed.push(`${count} ${one.by}: ${name}: ${error.message}`);
    }
  }
  return { growth: tables.all(), absent, failed };
}
