// The same rows at 1,000 to 1,000,000 files, and at 1 to 32 mounts of one base: what a figure does when the tree
// or the host grows. One pass; for the shape of the curve, not for the last percent.
import { closeCell, daemonMemory, dropCaches, make, measured, openCell, startWork, work } from './cell.mjs';
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
      const sample = await measured(cell, undefined, false, () => work(cell, name, folder, args, LONG));
      record(step.name, step.unit, sample.wall);
    }
    if (cell.pids.length > 0) record(MEMORY, 'MiB', daemonMemory(cell, 'status', 'VmRSS'));
  } finally {
    await closeCell(cell);
  }
}

const NAMES = [20, 100];
const STORM_MS = 1500;

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
    record('lstat storm in all mounts at once', 'call', longest / calls);
    const walks = await Promise.all(cells.map((cell) => work(cell, 'walk', 'tree', [], LONG)));
    const names = walks.reduce((sum, { operations }) => sum + operations, 0);
    record('walk in all mounts at once', 'name', Math.max(...walks.map(({ seconds }) => seconds)) / names);
    record('mount until the first answer', 's', cells.at(-1).firstAnswer);
    const pss = cells.reduce((sum, cell) => sum + daemonMemory(cell, 'smaps_rollup', 'Pss'), 0);
    if (cells[0].pids.length > 0) record('PSS of all mounts', 'MiB', pss);
  } finally {
    for (const cell of cells.reverse()) await closeCell(cell);
  }
}

export async function measureGrowth(bench, progress) {
  const place = await placeOn(bench, bench.on ?? 'tmpfs');
  await make(bench, 'tree', `${place.shared}/growth/tree`, ...NAMES, 64);
  const names = Object.keys(bench.usable).filter(
    (name) => !bench.usable[name].rows && bench.usable[name].rounds > 1,
  );
  const series = [
    { by: 'files', counts: bench.quick ? FILES.slice(0, 2) : FILES, measure: withFiles },
    { by: 'mounts', counts: bench.quick ? MOUNTS.slice(0, 3) : MOUNTS, measure: withMounts },
  ];
  const growth = new Map();
  const all = series.reduce((sum, { counts }) => sum + counts.length * names.length, 0);
  let done = 0;
  for (const { by, counts, measure } of series) {
    for (const [column, count] of counts.entries()) {
      for (const name of names) {
        progress.step(done, all, `${count} ${by}: ${name}`);
        done += 1;
        const record = (row, unit, value) => {
          const key = `${by} ${row}`;
          if (!growth.has(key))
            growth.set(key, {
              name: row,
              unit,
              value: unit === 'MiB' || unit === 's',
              by,
              counts,
              peers: {},
            });
          growth.get(key).peers[name] ??= counts.map(() => null);
          growth.get(key).peers[name][column] = value;
        };
        try {
          await measure(bench, bench.usable[name], place, count, record);
        } catch (error) {
          if (bench.stage.ended) throw error;
          bench.notes.add(`${count} ${by}: ${name}: ${error.message}`);
        }
      }
    }
  }
  return [...growth.values()];
}
