// How soon a change of the base shows: random changes, one after another, while two guests look; of each, how long it
// was until both saw the base as it is. Beside them two readers open a file again and again that is replaced by
// rename: what they read must be one of its versions. `node bench/coherence.mjs [--changes N] [--where DIR] [--seed N]
// [--json FILE]`; exit code 1 where a change was missed, or something torn.
import { fork, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generator, lookAt, makeTree, randomChange, version } from './coherence-changes.mjs';
import { closeStage, createStage, onInterrupt, runNow, sleep } from './stage.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const daemon = path.join(here, '..', 'dist', 'main.js');
const say = (text) => fs.writeSync(2, `coherence: ${text}\n`);

const { values: options } = parseArgs({
  options: {
    changes: { type: 'string', default: '100000' },
    where: { type: 'string', default: '/var/tmp' },
    seed: { type: 'string', default: '1' },
    json: { type: 'string' },
  },
});

/** A child that looks at a mount; `ask` gives its next answer. */
function child(stage, ...args) {
  const process = fork(path.join(here, 'coherence-guest.mjs'), args, { detached: true });
  stage.children.add(process);
  const ask = (message) =>
    new Promise((resolve, reject) => {
      const gone = (code) => reject(new Error(`${args.join(' ')}: ended with ${code}`));
      process.once('exit', gone);
      process.once('message', (answer) => {
        process.off('exit', gone);
        resolve(answer);
      });
      process.send(message);
    });
  return { ask };
}

async function mountGuest(stage, base, name) {
  const dir = path.join(stage.dir, name);
  for (const part of ['overlay', 'mnt']) fs.mkdirSync(path.join(dir, part), { recursive: true });
  const at = path.join(dir, 'mnt');
  const args = ['mount', '--foreground', '--coherence', 'notify', '--base', base];
  const process_ = spawn(process.execPath, [daemon, ...args, '--overlay', path.join(dir, 'overlay'), at], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  stage.undo.push(() => runNow('umount', '-l', at));
  await new Promise((resolve, reject) => {
    process_.stdout.on('data', (text) => /, pid \d/.test(text) && resolve());
    process_.once('exit', (code) => reject(new Error(`kasane mount ended with ${code}`)));
  });
  return at;
}

function summary(times) {
  const sorted = Float64Array.from(times).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { n: sorted.length, median: at(0.5), p99: at(0.99), p999: at(0.999), most: sorted.at(-1) };
}

const ms = (value) => value.toFixed(2).padStart(9);

function table(results) {
  const lines = [`${'change'.padEnd(28)}        n    median       99%     99.9%      most  (ms)`];
  for (const [kind, { n, median, p99, p999, most }] of Object.entries(results)) {
    lines.push(`${kind.padEnd(28)}${String(n).padStart(9)} ${[median, p99, p999, most].map(ms).join(' ')}`);
  }
  return `${lines.join('\n')}\n`;
}

async function measure(stage) {
  const base = path.join(stage.dir, 'base');
  makeTree(base);
  const mounts = [await mountGuest(stage, base, 'one'), await mountGuest(stage, base, 'two')];
  const guests = mounts.map((at) => child(stage, 'look', at));
  const readers = mounts.map((at) => child(stage, 'read', path.join(at, 'replaced')));
  const reading = readers.map(({ ask }) => ask('begin'));
  // They take their time to start, which is not the first change's.
  const nothing = { done: '0', paths: [], expected: [] };
  await Promise.all(guests.map(({ ask }) => ask(nothing)));
  const random = generator(Number(options.seed));
  const times = new Map();
  const problems = [];
  const wanted = Number(options.changes);
  const begun = performance.now();
  for (let made = 0; made < wanted && problems.length < 20; ) {
    const change = randomChange(base, random, made);
    if (change === null) continue;
    made += 1;
    const done = process.hrtime.bigint();
    const expected = change.paths.map((name) => lookAt(path.join(base, name)));
    const message = { done: String(done), paths: change.paths, expected };
    for (const answer of await Promise.all(guests.map(({ ask }) => ask(message)))) {
      if (answer.problem) problems.push(`${change.kind} of ${change.paths}: ${answer.problem}`);
      else if (times.has(change.kind)) times.get(change.kind).push(answer.ms);
      else times.set(change.kind, [answer.ms]);
    }
    if (made % 10_000 === 0)
      say(
        `${made} changes, ${Math.round((performance.now() - begun) / 1000)} s, ${problems.length} problems`,
      );
  }
  fs.writeFileSync(path.join(base, '.next'), version('end'));
  fs.renameSync(path.join(base, '.next'), path.join(base, 'replaced'));
  const read = await Promise.all(reading);
  problems.push(...read.flatMap((report) => report.problems));
  const results = Object.fromEntries([...times].sort().map(([kind, all]) => [kind, summary(all)]));
  results.all = summary([...times.values()].flat());
  return { results, problems, reads: read.map(({ count, versions }) => ({ count, versions })) };
}

const stage = createStage(options.where);
onInterrupt(stage, say);
try {
  const report = await measure(stage);
  process.stdout.write(table(report.results));
  for (const { count, versions } of report.reads) say(`${count} reads saw ${versions} versions of one file`);
  for (const problem of report.problems) say(problem);
  if (options.json) fs.writeFileSync(options.json, JSON.stringify(report));
  process.exitCode = report.problems.length > 0 ? 1 : 0;
} finally {
  await sleep(100);
  for (const failure of closeStage(stage)) say(failure);
}
