// Child processes with a time limit. Every access to a mount under test goes through one: a hung file system
// hangs the child, and never the test. A child that cannot even be killed is left behind and said.
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { unlessGone } from './proc.ts';

export interface RunOptions {
  /** Milliseconds. */
  timeout?: number;
  cwd?: string;
  env?: Record<string, string>;
  input?: string | Uint8Array;
  uid?: number;
  gid?: number;
}

export interface RunResult {
  /** null: ended by a signal or the time limit. */
  code: number | null;
  signal: NodeJS.Signals | null;
  timedOut: boolean;
  out: Buffer;
  stdout: string;
  stderr: string;
}

/** Only what hangs comes to it: a slow machine must not. */
export const DEFAULT_TIMEOUT = 60_000;

/** Runs in a process group of its own, which the time limit ends as a whole. Never rejects for an exit code. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd ?? '/',
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let timedOut = false;
    let giveUp: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child);
      giveUp = setTimeout(() => finish(null, 'SIGKILL'), 2000);
    }, options.timeout ?? DEFAULT_TIMEOUT);
    const finish = (code: number | null, signal: NodeJS.Signals | null) => {
      clearTimeout(timer);
      clearTimeout(giveUp);
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      const bytes = Buffer.concat(out);
      const stderr = Buffer.concat(err).toString() + (timedOut ? '\n(time limit reached)' : '');
      resolve({
        code: timedOut ? null : code,
        signal,
        timedOut,
        out: bytes,
        stdout: bytes.toString(),
        stderr,
      });
    };
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', finish);
    // A child that ends without reading its input is no error of the test.
    child.stdin.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET') reject(error);
    });
    child.stdin.end(options.input);
  });
}

/** Its standard output; anything but exit code 0 throws with what it said. */
export async function runOk(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(command, args, options);
  if (result.code === 0) return result.stdout;
  const how = result.timedOut ? 'timed out' : `ended with ${result.code ?? result.signal}`;
  throw new Error(`${command} ${args.join(' ')} ${how}: ${result.stderr.trim() || result.stdout.trim()}`);
}

/** A bash script with -eu and pipefail; "$1" … are `args`. */
export function sh(script: string, args: readonly string[] = [], options: RunOptions = {}): Promise<string> {
  return runOk('bash', ['-euo', 'pipefail', '-c', script, 'bash', ...args], options);
}

/** As another user, without supplementary groups. */
export function asUser(
  uid: number,
  command: readonly string[],
  options: RunOptions & { groups?: readonly number[] } = {},
): Promise<RunResult> {
  const gid = options.gid ?? uid;
  const groups = options.groups?.length ? `--groups=${options.groups.join(',')}` : '--clear-groups';
  const { gid: _, groups: __, ...rest } = options;
  return run('setpriv', [`--reuid=${uid}`, `--regid=${gid}`, groups, '--inh-caps=-all', ...command], rest);
}

function killGroup(child: ChildProcess): void {
  try {
    process.kill(-(child.pid as number), 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Asks until the answer is true; false if it never was. What is given up is at fault, and not merely slow. */
export async function waitUntil(
  ask: () => boolean | Promise<boolean>,
  timeout = 30_000,
  interval = 20,
): Promise<boolean> {
  const end = Date.now() + timeout;
  while (!(await ask())) {
    if (Date.now() >= end) return false;
    await sleep(interval);
  }
  return true;
}

/** Is there a process of that id, and not just its remains? */
export function isAlive(pid: number): boolean {
  const stat = unlessGone(() => fs.readFileSync(`/proc/${pid}/stat`, 'latin1'), ') Z');
  return stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z';
}
