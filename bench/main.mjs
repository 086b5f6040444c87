// npm run bench: reads the options, measures, and writes the reports. `--help` says what it takes.
import * as fs from 'node:fs';
import { checkWhere, checkWritable, readResult, writeEach } from './files.mjs';
import { measureGrowth } from './growth.mjs';
import { page } from './html.mjs';
import { fileSystemOf, machine } from './machine.mjs';
import { defaultChroot, makeChroot } from './materials.mjs';
import { measureAll, rowsOf } from './measure.mjs';
import { helpText, readOptions, UsageError } from './options.mjs';
import { peers } from './peers.mjs';
import { createProgress } from './progress.mjs';
import { report } from './report.mjs';
import { absencesIn, noiseGaps, noiseOf, rowResult } from './result.mjs';
import { callRoster, makeClient, makeFloor, tryPerf } from './roster.mjs';
import { sizes, steppedScenes } from './rows.mjs';
import { specialScenes } from './special.mjs';
import { closeStage, createStage, onInterrupt, runNow } from './stage.mjs';

const scenes = [...steppedScenes, ...specialScenes];
const allRows = scenes.flatMap(rowsOf);
const say = (text) => fs.writeSync(2, `bench: ${text}\n`);

function wantedBy({ only }) {
  const matches = (row, part) =>
    row.key.includes(part) || row.name.toLowerCase().includes(part.toLowerCase());
  const strange = only?.find((part) => !allRows.some((row) => matches(row, part)));
  if (strange !== undefined) throw new UsageError(`--only ${strange}: no such row: see --list`);
  return (row) => only?.some((part) => matches(row, part)) ?? true;
}

function listing() {
  const rows = allRows.map(({ key, name, unit }) => `${key.padEnd(14)} ${name} (${unit})`);
  return `${rows.join('\n')}\n\npeers: ${Object.keys(peers).join(', ')}\n`;
}

async function prepare(stage, options) {
  const bench = {
    stage,
    on: options.on,
    quick: options.quick === true,
    fresh: options.fresh === true || options.growth === true,
    size: options.quick ? sizes.quick : sizes.full,
    rounds: options.growth ? 1 : Number(options.rounds ?? (options.quick ? 2 : 5)),
    named: options.named,
    chroot: options.chroot ?? defaultChroot(),
    places: new Map(),
    notes: new Set(),
    whereType: fileSystemOf(options.where),
  };
  const client = await makeClient(bench);
  bench.client = client.argv;
  bench.clientName = client.name;
  bench.floor = await makeFloor(bench);
  bench.perf = await tryPerf(bench);
  return bench;
}

async function measure(stage, options, wanted) {
  const host = machine(options.where);
  const bench = await prepare(stage, options);
  const { usable, missing, subject } = await callRoster(bench, options.peers);
  for (const [name, why] of Object.entries(missing)) say(`${name} is missing: ${why}`);
  if (Object.keys(usable).length === 0) throw new Error('none of the peers can be mounted');
  Object.assign(bench, { usable, missing, subject });
  const progress = createProgress();
  const common = {
    format: 1,
    machine: host,
    quick: bench.quick,
    fresh: bench.fresh,
    rounds: bench.rounds,
    client: bench.clientName,
    subject: subject ?? null,
    peers: Object.fromEntries(
      Object.entries(usable).map(([name, { about, version, family }]) => [name, { about, version, family }]),
    ),
    missing,
  };
  const began = performance.now();
  const measured = options.growth
    ? {
        rows: [],
        noise: [],
        noiseGaps: [{ row: 'growth', why: 'it is one pass' }],
        ...(await measureGrowth(bench, progress)),
      }
    : await measureRows(bench, wanted, progress);
  progress.end();
  const seconds = Math.round((performance.now() - began) / 1000);
  if (!bench.perf) bench.notes.add('requests of other FUSE peers are unknown: perf cannot count them here');
  return { ...common, seconds, notes: [...bench.notes], ...measured };
}

async function measureRows(bench, wanted, progress) {
  const store = await measureAll(bench, scenes, wanted, progress.step);
  const rows = allRows.filter(wanted).map((row) => rowResult(row, store, bench.subject));
  const measured = scenes.map((scene) => ({
    scene,
    rows: rowsOf(scene).filter((row) => wanted(row) && !store.lacks[row.key]),
  }));
  const absent = absencesIn(measured, Object.keys(bench.usable));
  const gaps = noiseGaps(rows, { ...bench, absent });
  return { rows, absent, noise: noiseOf(rows), noiseGaps: gaps, growth: null };
}

/** The table first: whatever becomes of the files, it has been shown. */
function writeReports(result, { json, html }) {
  const failures = writeEach([
    ['the table', () => fs.writeFileSync(1, report(result))],
    ...(json
      ? [[`--json ${json}`, () => fs.writeFileSync(json, `${JSON.stringify(result, null, 1)}\n`)]]
      : []),
    ...(html ? [[`--html ${html}`, () => fs.writeFileSync(html, page(result))]] : []),
  ]);
  for (const failure of failures) say(failure);
  const failed = result.rows.some((row) => Object.keys(row.failed).length > 0);
  return failed || (result.failed ?? []).length > 0 || failures.length > 0 ? 1 : 0;
}

async function withStage(options, body) {
  if (process.getuid() !== 0) throw new UsageError('it mounts file systems: run it as root');
  checkWhere(options.where);
  const traced = fs.existsSync('/sys/kernel/tracing/events');
  const stage = createStage(options.where);
  // perf mounts it for itself, and leaves it.
  if (!traced) stage.undo.push(() => runNow('umount', '/sys/kernel/tracing'));
  onInterrupt(stage, say);
  try {
    return await body(stage);
  } finally {
    for (const failure of closeStage(stage)) say(failure);
  }
}

async function main(args) {
  const options = readOptions(args);
  if (options.help || options.list) {
    fs.writeSync(1, options.help ? helpText() : listing());
    return 0;
  }
  checkWritable(options);
  if (options.from !== undefined) return writeReports(readResult(options.from), options);
  const wanted = wantedBy(options);
  return withStage(options, async (stage) => {
    if (!options['make-chroot']) return writeReports(await measure(stage, options, wanted), options);
    const file = options.chroot ?? defaultChroot();
    await makeChroot({ stage }, file);
    say(`made ${file}`);
    return 0;
  });
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  say(error.message);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
