// One peer in one fresh set of directories: mounted, measured, taken away.
import * as fs from 'node:fs';
import * as path from 'node:path';
import {
  asUser,
  awaitEnd,
  connectionOf,
  mountAt,
  processesWith,
  readProc,
  run,
  runNow,
  sleep,
  start,
  unmount,
} from './stage.mjs';

let cells = 0;

/**
 * `prepare(cell)` fills the base first. With `base`, that directory is the base instead, and stays. The result
 * knows how long it took until the mount gave its first answer.
 */
export async function openCell(bench, peer, place, { prepare, finish, base, options } = {}) {
  cells += 1;
  const dir = path.join(place.dir, `cell-${cells}`);
  const cell = {
    bench,
    peer,
    dir,
    place,
    mark: `${bench.stage.token}-${cells}`,
    pids: [],
    finish,
    closed: false,
  };
  cell.at = { base: base ?? path.join(dir, 'base'), options };
  for (const part of ['overlay', 'work', 'mnt']) cell.at[part] = path.join(dir, part);
  fs.mkdirSync(dir);
  const shut = () => shutCell(cell);
  bench.stage.undo.push(shut);
  cell.forget = () => bench.stage.undo.splice(bench.stage.undo.indexOf(shut), 1);
  try {
    for (const part of ['base', 'overlay', 'work', 'mnt']) fs.mkdirSync(cell.at[part], { recursive: true });
    await prepare?.(cell);
    if (peer.user !== undefined) await run(bench.stage, ['chown', '-R', `${peer.user}:${peer.user}`, dir]);
    await run(bench.stage, ['sync', '-f', dir]);
    await mount(cell);
  } catch (error) {
    await closeCell(cell);
    throw error;
  }
  return cell;
}

async function mount(cell) {
  const { bench, peer, at } = cell;
  const env = { KASANE_BENCH: cell.mark };
  const before = performance.now();
  await run(bench.stage, peer.mount(at, bench), { user: peer.user, seconds: 30, env, daemon: true });
  for (let tries = 0; !mountAt(at.mnt); tries += 1) {
    if (tries === 500) throw new Error('did not mount');
    await sleep(10);
  }
  await run(bench.stage, ['stat', '-c', '%i', at.mnt], { user: peer.user, seconds: 10 });
  cell.firstAnswer = (performance.now() - before) / 1000;
  cell.pids = processesWith(cell.mark);
}

/** At once, for an interrupt. */
function shutCell(cell) {
  unmount(cell.at.mnt);
  awaitEnd(processesWith(cell.mark));
}

export async function closeCell(cell) {
  if (cell.closed) return;
  cell.closed = true;
  shutCell(cell);
  cell.finish?.(cell);
  cell.forget();
  await run(cell.bench.stage, ['rm', '-rf', cell.dir]);
}

/** Runs a workload of the client in a folder of the mount; its line of JSON. */
export async function work(cell, name, folder, args = [], options = {}) {
  const { bench, peer } = cell;
  const argv = [...bench.client, name, path.resolve(cell.at.mnt, folder), ...args.map(String)];
  // perf needs more than an ordinary user has, so it comes before becoming one.
  const become = peer.user === undefined ? [] : asUser(peer.user);
  return JSON.parse(await run(bench.stage, [...(options.before ?? []), ...become, ...argv], options));
}

/** The same outside the mount, for what is prepared. */
export async function make(bench, name, folder, ...args) {
  fs.mkdirSync(folder, { recursive: true });
  const out = await run(bench.stage, [...bench.client, name, folder, ...args.map(String)]);
  return out === '' ? null : JSON.parse(out);
}

export function startWork(cell, name, folder, args) {
  const { bench, peer } = cell;
  const argv = [...bench.client, name, path.resolve(cell.at.mnt, folder), ...args.map(String)];
  return start(bench.stage, argv, { user: peer.user, stdin: 'pipe' });
}

/** Seconds that the daemon and its helpers have run. */
export async function daemonCpu({ bench, pids }) {
  if (pids.length === 0) return 0;
  return Number(await run(bench.stage, [...bench.client, 'cpu', '/', ...pids.map(String)]));
}

/** Of status files and smaps: the daemon with its helpers, in MiB. */
export function daemonMemory(cell, file, field) {
  let kibibytes = 0;
  for (const pid of cell.pids) {
    kibibytes += Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readProc(`${pid}/${file}`))?.[1] ?? 0);
  }
  return kibibytes / 1024;
}

/** Kasane renders its metrics anew once a second at most. */
const METRICS_MS = 1100;

async function metrics(cell) {
  const { bench, peer, at } = cell;
  await sleep(METRICS_MS);
  const text = await run(bench.stage, ['cat', `${at.mnt}/.kasane/metrics`], { user: peer.user, seconds: 10 });
  return [...text.matchAll(/^kasane_requests_total\{.*\} (\d+)$/gm)].reduce(
    (sum, hit) => sum + Number(hit[1]),
    0,
  );
}

/**
 * Counts the requests of a piece of work: by the kernel's tracepoint through perf, the same for all; else of
 * Kasane by its own metrics, less what reading them takes; else not at all (null).
 */
async function counting(cell, body) {
  const { bench, peer } = cell;
  if (peer.family === 'kernel') return { result: await body([]), requests: 0 };
  if (!bench.perf && !peer.metrics) return { result: await body([]), requests: null };
  if (!bench.perf) {
    const first = await metrics(cell);
    const second = await metrics(cell);
    const result = await body([]);
    const third = await metrics(cell);
    return { result, requests: Math.max(0, third - second - (second - first)) };
  }
  const out = path.join(bench.stage.dir, 'perf.out');
  const filter = ['--filter', `connection==${connectionOf(cell.at.mnt)}`];
  const argv = ['perf', 'stat', '-x,', '-o', out, '-a', '-e', 'fuse:fuse_request_send', ...filter, '--'];
  const result = await body(argv);
  const count = /^(\d+),/m.exec(fs.readFileSync(out, 'utf8'))?.[1];
  return { result, requests: count === undefined ? null : Number(count) };
}

/** Wall and processor seconds and, with `count`, requests, each per operation. */
export async function measured(cell, operations, count, body) {
  let before;
  let after;
  const clocked = async (wrapped) => {
    before = await daemonCpu(cell);
    const result = await body(wrapped);
    after = await daemonCpu(cell);
    return result;
  };
  const counted = count ? await counting(cell, clocked) : { result: await clocked([]), requests: null };
  const { seconds, cpu, operations: own } = counted.result;
  const many = operations ?? own;
  return {
    wall: seconds / many,
    client: cpu / many,
    daemon: (after - before) / many,
    requests: counted.requests === null ? null : counted.requests / many,
  };
}

/** Says how it was done: by drop_caches, or by mounting again where that is not allowed. */
export async function dropCaches(cell) {
  await run(cell.bench.stage, ['sync', '-f', cell.dir]);
  try {
    fs.writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS', 'ENOENT'].includes(error.code)) throw error;
    cell.bench.notes.add('cold rows: drop_caches is not permitted, so the union was mounted anew instead');
    shutCell(cell);
    if (cell.place.remount) runNow(...cell.place.remount);
    await mount(cell);
  }
}
