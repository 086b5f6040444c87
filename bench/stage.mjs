// What a run leaves behind while it goes on: child processes, mounts, images, folders. Each is noted before it is
// made, and taken away in reverse order at the end, however the run ends. Nothing here looks into a mount from
// this process: a mount that hangs must hang a child, which has a time limit.
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

export function createStage(where) {
  const stage = { children: new Set(), undo: [], ended: false, token: `kasane-bench-${process.pid}` };
  stage.dir = fs.mkdtempSync(path.join(where, 'kasane-bench-'));
  stage.undo.push(() => fs.rmSync(stage.dir, { recursive: true, force: true, maxRetries: 3 }));
  fs.chmodSync(stage.dir, 0o755);
  return stage;
}

/** Also when it was interrupted half way; a step that fails does not keep the others from being taken. */
export function closeStage(stage) {
  stage.ended = true;
  for (const child of stage.children) endGroup(child);
  const failures = [];
  for (const undo of stage.undo.splice(0).reverse()) {
    try {
      undo();
    } catch (error) {
      failures.push(error.message);
    }
  }
  return failures;
}

/** Signals come in pairs, from npm or timeout(1) and from the terminal: the second must not end the clearing up. */
export function onInterrupt(stage, say) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (stage.ended) return;
      say(`${signal}: taking everything down`);
      for (const failure of closeStage(stage)) say(failure);
      process.exit(128 + os.constants.signals[signal]);
    });
  }
}

function endGroup(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** A person's line of what a failed program said: its last one, for the first is often a heading. */
function complaint(text) {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return (lines.find((line) => /error|cannot|fail|refus|not /i.test(line)) ?? lines.at(-1) ?? '').trim();
}

export const asUser = (uid) => ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'];

/** Without certificates that this machine may add: every Node reads them before anything else, for 20 to 40 ms. */
function environment() {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  return env;
}

/**
 * Starts a program in a process group of its own. `done` gives its standard output, or fails with what it said
 * if it fails or takes too long. `user` is a numeric uid that it runs as.
 */
export function start(stage, argv, options = {}) {
  if (stage.ended) throw new Error('interrupted');
  const { user, seconds = 120, env, cwd = '/' } = options;
  const [command, ...args] = user === undefined ? argv : [...asUser(user), ...argv];
  const child = spawn(command, args, {
    cwd,
    detached: true,
    env: { ...environment(), LC_ALL: 'C.UTF-8', ...env },
    stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
  });
  stage.children.add(child);
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (chunk) => {
      text[name] += chunk;
    });
  }
  const name = path.basename(argv[0]);
  const done = new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      endGroup(child);
      reject(new Error(`${name} did not end within ${seconds} s`));
    }, seconds * 1000);
    child.once('error', (error) => {
      clearTimeout(timer);
      stage.children.delete(child);
      reject(error.code === 'ENOENT' ? new Error(`${name}: not installed`) : error);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      stage.children.delete(child);
      if (code !== 0) setImmediate(() => reject(failed(name, code ?? signal, text)));
    });
    // A daemon that a mount command leaves behind may keep the pipes: then they never close.
    const finish = () => resolve(text.stdout);
    child.once('close', (code) => code === 0 && finish());
    child.once('exit', (code) => code === 0 && options.daemon && setImmediate(finish));
  });
  done.catch(() => child.stdout.destroy());
  return { child, done };
}

function failed(name, how, text) {
  return new Error(`${name} ended with ${how}: ${complaint(text.stderr || text.stdout)}`);
}

export const run = (stage, argv, options) => start(stage, argv, options).done;

/** For taking down, where nothing may be awaited. */
export function runNow(command, ...args) {
  return spawnSync(command, args, { cwd: '/', timeout: 10_000, killSignal: 'SIGKILL', encoding: 'utf8' });
}

export function mountAt(point) {
  const lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse();
  return lines.map((line) => line.split(' ')).find((fields) => fields[4] === point);
}

/** The number by which the kernel knows the FUSE connection of a mount. */
export const connectionOf = (point) => mountAt(point)?.[2].split(':')[1];

function pause(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Unmounts whatever state it is in: a hung connection is aborted, a busy mount detached. */
export function unmount(point) {
  for (let tries = 0; mountAt(point) && tries < 20; tries += 1) {
    runNow('umount', point);
    if (mountAt(point)) pause(50);
  }
  if (!mountAt(point)) return;
  const control = '/sys/fs/fuse/connections';
  const bare = !fs.existsSync(control) || fs.readdirSync(control).length === 0;
  if (bare) runNow('mount', '-t', 'fusectl', 'fusectl', control);
  const abort = `${control}/${connectionOf(point)}/abort`;
  if (fs.existsSync(abort)) fs.writeFileSync(abort, '1');
  if (bare) runNow('umount', control);
  runNow('umount', '-l', point);
}

/** Processes that were started with this in their environment: a daemon, its helpers, its watchdog. */
export function processesWith(mark) {
  const found = [];
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (readProc(`${pid}/environ`).split('\0').includes(`KASANE_BENCH=${mark}`)) found.push(Number(pid));
  }
  return found;
}

/** Empty for a process that has just ended. */
export function readProc(name) {
  try {
    return fs.readFileSync(`/proc/${name}`, 'latin1');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES'].includes(error.code)) return '';
    throw error;
  }
}

/** Waits until they are gone, so that their end does not run beside the next measurement; then ends them. */
export function awaitEnd(pids, seconds = 5) {
  const alive = () => pids.filter((pid) => /^State:\t[^ZX]/m.test(readProc(`${pid}/status`)));
  for (const until = Date.now() + seconds * 1000; alive().length > 0 && Date.now() < until; ) pause(10);
  for (const pid of alive()) process.kill(pid, 'SIGKILL');
}
