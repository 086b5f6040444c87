// What a measurement was made on.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';

/** As the kernel names it: stat -f calls ext4 `ext2/ext3`. By the mount's id, for a longer path may lie beneath another mount. */
export function fileSystemOf(dir) {
  const fd = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  const id = /^mnt_id:\s+(\d+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  fs.closeSync(fd);
  const lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const line = lines.find((one) => one.startsWith(`${id} `));
  return / - (\S+)/.exec(line ?? '')?.[1] ?? 'unknown';
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
