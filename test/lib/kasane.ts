// Kasane as a user runs it: `node dist/main.js`. A mount under test runs in the foreground as a child of the
// test, so that its process id and its log are known; it is taken down whatever happens.
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tracked } from './cleanup.ts';
import { mountAt, takeDown } from './mounts.ts';
import { unlessGone } from './proc.ts';
import { isAlive, type RunOptions, type RunResult, run, sh, waitUntil } from './run.ts';
import { withTemp } from './temp.ts';

export const repository = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
export const mainFile = path.join(repository, 'dist', 'main.js');

export function kasane(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(process.execPath, [mainFile, ...args], options);
}

/** What it says, where it ends with that code. */
export async function say(code: number, ...args: string[]): Promise<string> {
  const result = await kasane(args);
  if (result.code !== code) {
    throw new Error(`kasane ${args.join(' ')} ended with ${result.code}: ${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

export interface MountSpec {
  base: string | readonly string[];
  overlay: string;
  mountPoint: string;
  /** Further arguments of `kasane mount`; `--settle 0` comes first, so that they may say otherwise. */
  options?: readonly string[];
  env?: Record<string, string>;
  timeout?: number;
}

export interface Mount {
  /** The mount point. */
  dir: string;
  base: string;
  overlay: string;
  pid: number;
  /** What the daemon has logged so far. */
  log: () => string;
  /** The exit code, once it has ended; null after a signal. */
  ended: Promise<number | null>;
  kasane: (args: readonly string[], options?: RunOptions) => Promise<RunResult>;
  /** A bash script in the mount's root. */
  sh: (script: string, args?: readonly string[], options?: RunOptions) => Promise<string>;
  read: (name: string) => Promise<string>;
  write: (name: string, content: string | Uint8Array) => Promise<void>;
  /** umount, and wait for the daemon's end; its exit code. */
  umount: () => Promise<number | null>;
  /** kill -9, then detach what is left of the mount. */
  kill: () => Promise<void>;
}

/** Mounts; rejects with the exit code and message where `kasane mount` refuses. The caller takes it down. */
export async function startMount(spec: MountSpec): Promise<Mount> {
  const bases = typeof spec.base === 'string' ? [spec.base] : spec.base;
  const args = ['mount', ...bases.flatMap((base) => ['--base', base]), '--overlay', spec.overlay];
  args.push('--foreground', '--settle', '0', ...(spec.options ?? []), spec.mountPoint);
  const before = mountAt(spec.mountPoint);
  const child = spawn(process.execPath, [mainFile, ...args], {
    cwd: '/',
    env: { ...process.env, LC_ALL: 'C', ...spec.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stdout.on('data', (chunk: Buffer) => (log += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const stop = tracked(() => stopDaemon(child, spec.mountPoint));
  const mounted = () => {
    const now = mountAt(spec.mountPoint);
    return now !== null && (before === null || now.minor !== before.minor);
  };
  // The socket comes after the mount, and then the line that says so.
  const serves = () => mounted() && log.includes(`, pid ${child.pid}`);
  const ready = () => serves() || child.exitCode !== null || child.signalCode !== null;
  const inTime = await waitUntil(ready, spec.timeout ?? 60_000);
  if (!inTime || !serves()) {
    await stop();
    const how = inTime ? `ended with ${child.exitCode ?? child.signalCode}` : 'did not serve in time';
    throw new Error(`kasane mount ${how}: ${log.trim()}`);
  }
  return makeMount(spec, bases[0] as string, child, { log: () => log, ended, stop });
}

function makeMount(
  spec: MountSpec,
  base: string,
  child: ChildProcess,
  life: { log: () => string; ended: Promise<number | null>; stop: () => Promise<void> },
): Mount {
  const dir = spec.mountPoint;
  return {
    dir,
    base,
    overlay: spec.overlay,
    pid: child.pid as number,
    log: life.log,
    ended: life.ended,
    kasane,
    sh: (script, args, options) => sh(script, args, { cwd: dir, ...options }),
    read: async (name) => {
      const result = await run('cat', ['--', path.join(dir, name)]);
      if (result.code !== 0) throw new Error(result.stderr.trim());
      return result.stdout;
    },
    write: async (name, content) => {
      await sh('cat > "$1"', [path.join(dir, name)], { input: content });
    },
    umount: async () => {
      await life.stop();
      return child.exitCode;
    },
    kill: async () => {
      child.kill('SIGKILL');
      await life.stop();
    },
  };
}

/** The mount first (its end ends the daemon), the daemon by its process id if it stays. */
async function stopDaemon(child: ChildProcess, mountPoint: string): Promise<void> {
  const over = () => child.exitCode !== null || child.signalCode !== null;
  await takeDown(mountPoint);
  if (await waitUntil(over)) return;
  child.kill('SIGKILL');
  if (!(await waitUntil(over))) throw new Error(`the daemon ${child.pid} cannot be killed`);
}

export interface Layers {
  base: string;
  overlay: string;
  mnt: string;
  /** Folder that holds the three, for whatever else the test needs. */
  dir: string;
}

/** What can tell a mount of changes of its base. */
export const watchers = ['inotify', 'fanotify'] as const;
export const notifyBy = (watcher: (typeof watchers)[number]) => ['--coherence', 'notify', '--watch', watcher];

/** Fresh, empty directories for a mount, outside it. */
export function withLayers<T>(
  body: (layers: Layers) => Promise<T>,
  where: 'disk' | 'memory' = 'disk',
): Promise<T> {
  return withTemp(where, (dir) => {
    const layers = { base: `${dir}/base`, overlay: `${dir}/overlay`, mnt: `${dir}/mnt`, dir };
    for (const name of [layers.base, layers.overlay, layers.mnt]) fs.mkdirSync(name);
    return body(layers);
  });
}

/** A mount for the time of `body`. Its log is added to the message of a test that fails in it. */
export async function withMount<T>(
  spec: { base: string | readonly string[]; overlay: string; mnt: string } & Omit<MountSpec, 'mountPoint'>,
  body: (mount: Mount) => Promise<T>,
): Promise<T> {
  const mount = await startMount({ ...spec, mountPoint: spec.mnt });
  try {
    return await body(mount);
  } catch (error) {
    const log = mount.log().trim().split('\n').slice(-30).join('\n');
    if (error instanceof Error && log !== '') error.message += `\n--- log of the daemon\n${log}`;
    throw error;
  } finally {
    await mount.umount();
  }
}

/**
 * Waits until a mount shows what has been done to its base by now: whoever has opened a control file sees that. Where
 * nothing answers (any more) there is nothing to wait for.
 */
export async function caughtUp(mountPoint: string): Promise<void> {
  const { code, stderr } = await run('cat', [`${mountPoint}/.kasane/control.last`]);
  if (code !== 0 && !/not connected|No such file|Permission denied/.test(stderr)) throw new Error(stderr);
}

/** The daemon of a mount made in the background, by its command line; null if there is none. */
export function daemonOf(mountPoint: string): number | null {
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const words = commandLine(name);
    if (words.includes(mountPoint) && words.some((word) => /kasane|main\.js$/.test(word)))
      return Number(name);
  }
  return null;
}

function commandLine(pid: string): string[] {
  return unlessGone(() => fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0'), []);
}

/** Takes down a mount that `kasane mount` made in the background, and waits for its daemon. */
export async function stopBackground(mountPoint: string): Promise<void> {
  const pid = daemonOf(mountPoint);
  await takeDown(mountPoint);
  if (pid === null || (await waitUntil(() => !isAlive(pid)))) return;
  process.kill(pid, 'SIGKILL');
}
