// What a measurement was made on.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';

export function fileSystemOf(dir) {
  return spawnSync('stat', ['-f', '-c', '%T', dir], { encoding: 'utf8' }).stdout?.trim() ?? '';
}

export function machine(where) {
  const git = (...args) =>
    spawnSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' }).stdout?.trim() ?? '';
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
    where: fileSystemOf(where),
    node: process.version,
  };
}
