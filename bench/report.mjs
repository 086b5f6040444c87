// Numbers to text: medians with their spread, ratios of Kasane to each peer, and what they were measured on.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function summary(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/** Round by round, so that what slowed a whole round down does not count. */
export function ratios(own, other) {
  const pairs = own.flatMap((value, round) => (other[round] === undefined ? [] : [value / other[round]]));
  return pairs.length === 0 ? null : summary(pairs);
}

export function machine(where) {
  const git = (...args) =>
    spawnSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' }).stdout?.trim() ?? '';
  const type = spawnSync('stat', ['-f', '-c', '%T', where], { encoding: 'utf8' }).stdout?.trim() ?? '';
  const release = fs.existsSync('/etc/os-release') ? fs.readFileSync('/etc/os-release', 'utf8') : '';
  return {
    date: new Date().toISOString(),
    commit: git('rev-parse', '--short=12', 'HEAD'),
    changed: git('status', '--porcelain') !== '',
    cpu: os.cpus()[0]?.model ?? '',
    cores: os.cpus().length,
    memoryMiB: Math.round(os.totalmem() / 2 ** 20),
    load: os.loadavg()[0],
    kernel: os.release(),
    system: /^PRETTY_NAME="(.*)"$/m.exec(release)?.[1] ?? '',
    fileSystem: type,
    node: process.version,
  };
}

function timeText(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(1)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
}

function ratioText(ratio) {
  return ratio === null
    ? '–'
    : `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`;
}

function align(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
  return [text[0], widths.map((width) => '-'.repeat(width)).join('  '), ...text.slice(1)].join('\n');
}

/** Each peer's time per operation, then Kasane's ratio to each: below 1 Kasane is faster. */
export function table(result) {
  const names = Object.keys(result.versions);
  const others = names.filter((name) => name !== 'kasane');
  const head = ['row', ...names, ...(names.includes('kasane') ? others.map((name) => `kasane/${name}`) : [])];
  const lines = result.rows.map((row) => [
    `${row.name} (per ${row.unit})`,
    ...names.map((name) =>
      row.peers[name] ? timeText(row.peers[name].median) : row.failed[name] ? 'failed' : '–',
    ),
    ...(names.includes('kasane') ? others.map((name) => ratioText(row.ratios[name] ?? null)) : []),
  ]);
  return align([head, ...lines]);
}
