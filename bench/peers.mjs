// Who is measured: how each is mounted and taken down, and why it cannot be, where it cannot.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';

export const mainFile = path.join(
  path.dirname(path.dirname(fileURLToPath(import.meta.url))),
  'dist',
  'main.js',
);

/** Ends with what the program said if it fails or hangs. */
export function run(command, args, seconds = 60) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: '/',
    timeout: seconds * 1000,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (error?.code === 'ETIMEDOUT') throw new Error(`${command} did not end within ${seconds} s`);
  if (error) throw error;
  if (status !== 0)
    throw new Error(`${path.basename(command)} ended with ${status}: ${(stderr || stdout).trim()}`);
  return stdout;
}

const layersOf = ({ base, overlay, work }) => `lowerdir=${base},upperdir=${overlay},workdir=${work}`;

export const peers = {
  kasane: {
    mount: (at) =>
      run(process.execPath, [
        mainFile,
        'mount',
        '--base',
        at.base,
        '--overlay',
        at.overlay,
        ...at.options,
        at.mnt,
      ]),
    version: () => run(process.execPath, [mainFile, '--version']).trim(),
  },
  dir: {
    mount: (at) => run('mount', ['--bind', at.base, at.mnt]),
    version: () => 'plain directory (bind mount)',
  },
  overlayfs: {
    mount: (at) => run('mount', ['-t', 'overlay', 'overlay', '-o', layersOf(at), at.mnt]),
    version: () => `kernel ${run('uname', ['-r']).trim()}`,
  },
  'fuse-overlayfs': {
    mount: (at) => run('fuse-overlayfs', ['-o', layersOf(at), at.mnt]),
    version: () => /fuse-overlayfs.*/.exec(run('fuse-overlayfs', ['--version']))?.[0] ?? 'unknown version',
  },
};

function mountAt(point) {
  const lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse();
  return lines.map((line) => line.split(' ')).find((fields) => fields[4] === point);
}

function pause(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Daemons whose command line names the mount point; the next measurement must not run beside their end. */
function daemonsOf(point) {
  const pids = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(point);
    } catch (error) {
      if (error.code === 'ENOENT' || error.code === 'ESRCH') return false;
      throw error;
    }
  });
}

/** Unmounts whatever state it is in: a hung connection is aborted, a busy mount detached. */
export function unmount(point) {
  const daemons = daemonsOf(point);
  for (let tries = 0; mountAt(point) && tries < 20; tries += 1) {
    spawnSync('umount', [point], { timeout: 5000, killSignal: 'SIGKILL' });
    if (mountAt(point)) pause(100);
  }
  const left = mountAt(point);
  if (left) {
    spawnSync('mount', ['-t', 'fusectl', 'fusectl', '/sys/fs/fuse/connections'], { timeout: 5000 });
    const abort = `/sys/fs/fuse/connections/${left[2].split(':')[1]}/abort`;
    if (fs.existsSync(abort)) fs.writeFileSync(abort, '1');
    spawnSync('umount', ['-l', point], { timeout: 5000, killSignal: 'SIGKILL' });
  }
  for (let i = 0; i < 100 && daemons.some((pid) => fs.existsSync(`/proc/${pid}`)); i += 1) pause(50);
}

/** Fresh layers in DIR and a mount of them; `prepare` fills the base first. */
export function mountFresh(name, dir, prepare, options = []) {
  const at = { options };
  for (const part of ['base', 'overlay', 'work', 'mnt']) {
    at[part] = path.join(dir, part);
    fs.mkdirSync(at[part], { recursive: true });
  }
  prepare(at.base, dir);
  run('sync', ['-f', dir]);
  peers[name].mount(at);
  for (let i = 0; !mountAt(at.mnt); i += 1) {
    if (i === 100) throw new Error(`${name} did not mount`);
    pause(50);
  }
  return at;
}

/** Mounts each once, reads a file through it, and gives versions and, for the others, the reason. */
export function tryPeers(names, where) {
  const usable = {};
  const missing = {};
  for (const name of names) {
    const dir = fs.mkdtempSync(path.join(where, 'kasane-bench-'));
    try {
      if (!(name in peers)) throw new Error(`unknown; known are ${Object.keys(peers).join(', ')}`);
      const version = peers[name].version();
      const at = mountFresh(name, dir, (base) => fs.writeFileSync(path.join(base, 'probe'), 'x'));
      run('cat', [path.join(at.mnt, 'probe')], 10);
      usable[name] = version;
    } catch (error) {
      missing[name] = error.code === 'ENOENT' ? 'not installed' : error.message.split('\n')[0];
    } finally {
      unmount(path.join(dir, 'mnt'));
      fs.rmSync(dir, { recursive: true, force: true });
    }
  }
  return { usable, missing };
}
