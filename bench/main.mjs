// npm run bench [-- --quick] [--only NAME] [--peers LIST] [--rounds N] [--where DIR] [--json FILE]
// Interleaves Kasane with a plain directory, kernel overlayfs and fuse-overlayfs: in each round every peer does
// every row once, on fresh directories and a fresh mount, in an order that rotates. Ratios are taken round by
// round. As root, on an otherwise idle machine.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { mountFresh, peers, run, tryPeers, unmount } from './peers.mjs';
import { machine, ratios, summary, table } from './report.mjs';
import { conffileRow, rows } from './rows.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    peers: { type: 'string', default: Object.keys(peers).join(',') },
    rounds: { type: 'string' },
    where: { type: 'string', default: '/var/tmp' },
    json: { type: 'string' },
  },
});

const client = path.join(import.meta.dirname, 'client.mjs');
const rounds = Number(options.rounds ?? (options.quick ? 2 : 5));
const sizeOf = (row) => row.size[options.quick ? 1 : 0];

/** Seconds per operation. */
function measure(workload, dir, size) {
  const { seconds, operations } = JSON.parse(
    run(process.execPath, [client, workload, dir, String(size)], 300),
  );
  return seconds / operations;
}

function withFolder(work) {
  const dir = fs.mkdtempSync(path.join(options.where, 'kasane-bench-'));
  try {
    return work(dir);
  } finally {
    unmount(path.join(dir, 'mnt'));
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

function measureRow(row, name) {
  return withFolder((dir) => {
    const size = sizeOf(row);
    const at = mountFresh(name, dir, (base, beside) => row.prepare(base, beside, size));
    if (row.cold) fs.writeFileSync('/proc/sys/vm/drop_caches', '3');
    if (row.twice) measure(row.workload, at.mnt, size);
    return measure(row.workload, at.mnt, size);
  });
}

const conffile = (lines) =>
  `${Array.from({ length: 200 }, (_, i) => lines[i] ?? `key${i} = ${i}`).join('\n')}\n`;

/**
 * What one update of a configuration file costs a guest that has edited it: from the rename in the base to
 * the merged bytes read through the mount, which Kasane has by then synced, renamed and recorded.
 */
function measureConffile(row) {
  const count = sizeOf(row);
  const name = (dir, i) => path.join(dir, 'conf', String(i));
  return withFolder((dir) => {
    const prepare = (base) => {
      fs.mkdirSync(path.join(base, 'conf'));
      for (let i = 0; i < count; i += 1) fs.writeFileSync(name(base, i), conffile({}));
    };
    const at = mountFresh('kasane', dir, prepare, ['--settle', '0']);
    const edit = 'for f in "$1"/conf/*; do sed -i "s/^key20 = .*/guest = yes/" "$f"; done';
    run('sh', ['-c', edit, 'sh', at.mnt]);
    const times = [];
    for (let i = 0; i < count; i += 1) {
      fs.writeFileSync(`${name(at.base, i)}.dpkg-new`, conffile({ 150: 'update = yes' }), { flush: true });
      fs.renameSync(`${name(at.base, i)}.dpkg-new`, name(at.base, i));
      times.push(measure(row.workload, at.mnt, i));
    }
    return times;
  });
}

function note(text) {
  fs.writeSync(2, `${text}\n`);
}

/** The failure of a peer in a row is a result, too: it is named, and the others go on. */
function attempt(row, name, work) {
  if (row.failed[name]) return;
  try {
    const times = work();
    row.times[name] = [...(row.times[name] ?? []), ...times];
  } catch (error) {
    row.failed[name] = error.message.split('\n')[0];
    note(`${row.name}: ${name}: ${row.failed[name]}`);
  }
}

function rowResult({ name, unit, times, failed, size }) {
  const found = Object.fromEntries(
    Object.entries(times).map(([peer, list]) => [peer, { ...summary(list), times: list }]),
  );
  const others = Object.keys(times).filter((peer) => peer !== 'kasane' && times.kasane);
  const compared = Object.fromEntries(others.map((peer) => [peer, ratios(times.kasane, times[peer])]));
  return { name, unit, size, peers: found, ratios: compared, failed };
}

function main() {
  if (process.getuid() !== 0) throw new Error('the benchmark mounts file systems: run it as root');
  const wanted = (name) => !options.only || options.only.some((part) => name.includes(part));
  const { usable, missing } = tryPeers(options.peers.split(','), options.where);
  for (const [name, why] of Object.entries(missing)) note(`${name} is missing: ${why}`);
  const names = Object.keys(usable);
  const measured = rows.filter((row) => wanted(row.name)).map((row) => ({ ...row, times: {}, failed: {} }));
  for (let round = 0; round < rounds; round += 1) {
    for (const row of measured) {
      note(`round ${round + 1} of ${rounds}: ${row.name}`);
      for (let i = 0; i < names.length; i += 1) {
        const name = names[(i + round) % names.length];
        attempt(row, name, () => [measureRow(row, name)]);
      }
    }
  }
  if (wanted(conffileRow.name) && 'kasane' in usable) {
    const row = { ...conffileRow, times: {}, failed: {} };
    note(row.name);
    attempt(row, 'kasane', () => measureConffile(row));
    measured.push(row);
  }
  const results = measured.map((row) => rowResult({ ...row, size: sizeOf(row) }));
  const about = { machine: machine(options.where), versions: usable, missing, rounds, quick: options.quick };
  const result = { ...about, rows: results };
  if (options.json) fs.writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
  const { machine: host } = result;
  fs.writeSync(
    1,
    `${host.date} ${host.commit}${host.changed ? '+' : ''}, ${host.cpu} × ${host.cores}, kernel ${host.kernel}, `,
  );
  fs.writeSync(1, `${host.fileSystem}, node ${host.node}, ${rounds} rounds\n`);
  for (const [name, version] of Object.entries(usable)) fs.writeSync(1, `${name}: ${version}\n`);
  for (const [name, why] of Object.entries(missing)) fs.writeSync(1, `missing: ${name}: ${why}\n`);
  fs.writeSync(
    1,
    `medians; kasane/peer below 1 is faster, in brackets the spread over the rounds\n\n${table(result)}\n`,
  );
  const failures = results.flatMap((row) =>
    Object.entries(row.failed).map(([peer, why]) => `${row.name}: ${peer}: ${why}`),
  );
  for (const failure of failures) fs.writeSync(1, `failed: ${failure}\n`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = main();
