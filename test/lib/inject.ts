// strace on a running daemon, to count its system calls thread by thread, or to kill it at the N-th call of a
// kind: a crash at a place that nobody has thought of, without the daemon's help.
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { tracked } from './cleanup.ts';
import { unlessGone } from './proc.ts';
import { waitUntil } from './run.ts';

/** Who calls: the serving worker, the main thread, or the pool of threads that do its blocking work. */
export const threadGroups = ['worker', 'main', 'pool'] as const;
export type ThreadGroup = (typeof threadGroups)[number];

const POLL = '7';

/** Thread ids of a daemon: its worker is the one that polls, once it has nothing to do. */
export async function threadsOf(pid: number): Promise<Record<ThreadGroup, number[]>> {
  const isPolling = (tid: number) =>
    unlessGone(() => fs.readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'latin1'), '').split(' ')[0] ===
    POLL;
  let others: number[] = [];
  let worker: number[] = [];
  const found = await waitUntil(
    () => {
      others = fs
        .readdirSync(`/proc/${pid}/task`)
        .map(Number)
        .filter((tid) => tid !== pid);
      worker = others.filter(isPolling);
      return worker.length === 1;
    },
    30_000,
    5,
  );
  if (!found) throw new Error(`the serving worker of ${pid} is not to be told from its other threads`);
  return { worker, main: [pid], pool: others.filter((tid) => !worker.includes(tid)) };
}

export interface Tracer {
  /** Lets go of the daemon, if it lives. */
  stop: () => Promise<void>;
}

async function attach(tids: readonly number[], args: readonly string[]): Promise<Tracer> {
  const child = spawn('strace', [...args, ...tids.flatMap((tid) => ['-p', String(tid)])], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const attached = () => (said.match(/ attached/g)?.length ?? 0) >= tids.length;
  const stop = tracked(() => stopTracer(child));
  if (!(await waitUntil(() => attached() || child.exitCode !== null, 30_000, 2)) || !attached()) {
    await stop();
    throw new Error(`strace did not attach: ${said}`);
  }
  return { stop };
}

async function stopTracer(child: ChildProcess): Promise<void> {
  const over = () => child.exitCode !== null || child.signalCode !== null;
  if (!over()) child.kill('SIGINT');
  if (await waitUntil(over, 5000, 2)) return;
  child.kill('SIGKILL');
  await waitUntil(over, 5000);
}

/** Kills the process when one of the threads is about to make its N-th call of that kind. */
export function killAt(tids: readonly number[], call: string, n: number): Promise<Tracer> {
  const quiet = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL:when=${n}`, '-o', '/dev/null'];
  return attach(tids, quiet);
}

/** The first calls of that kind, so many in each thread, fail. */
export function failFirst(
  tids: readonly number[],
  call: string,
  error: string,
  count: number,
): Promise<Tracer> {
  const fail = `inject=${call}:error=${error}:when=1..${count}`;
  return attach(tids, ['-e', `trace=${call}`, '-e', fail, '-o', '/dev/null']);
}

/** The N-th call of that kind fails, in each thread. `stop` says whether there was one; what was called is in a file. */
export async function failAt(
  tids: readonly number[],
  [call, n]: readonly [call: string, nth: number],
  error: string,
  file: string,
): Promise<{ stop: () => Promise<boolean> }> {
  const fail = `inject=${call}:error=${error}:when=${n}`;
  const tracer = await attach(tids, ['-e', `trace=${call}`, '-e', fail, '-o', file]);
  return {
    stop: async () => {
      await tracer.stop();
      return fs.readFileSync(file, 'latin1').includes('(INJECTED)');
    },
  };
}

/** All calls of that kind fail that are made beneath a directory itself. */
export function failBeneath(
  tids: readonly number[],
  call: string,
  directory: string,
  error: string,
): Promise<Tracer> {
  const fail = `inject=${call}:error=${error}`;
  return attach(tids, ['-e', `trace=${call}`, '-P', directory, '-e', fail, '-o', '/dev/null']);
}

/** Holds up each call of that kind for so many seconds. */
export function holdUp(tids: readonly number[], call: string, seconds: number): Promise<Tracer> {
  const delay = `inject=${call}:delay_enter=${seconds * 1_000_000}`;
  return attach(tids, ['-e', `trace=${call}`, '-e', delay, '-o', '/dev/null']);
}

/** Calls that can be held up, by their numbers. */
const heldUp = { copy_file_range: '326', fallocate: '285', ftruncate: '77', unlink: '87' } as const;
export type HeldCall = keyof typeof heldUp;

/** Waits until one of the threads is in that call and in its tracer's hands. */
export function untilHeld(pid: number, tids: readonly number[], call: HeldCall): Promise<boolean> {
  const told = (tid: number, file: string) =>
    unlessGone(() => fs.readFileSync(`/proc/${pid}/task/${tid}/${file}`, 'latin1'), '');
  return waitUntil(() =>
    tids.some((tid) => {
      if (told(tid, 'syscall').split(' ')[0] !== heldUp[call]) return false;
      const stat = told(tid, 'stat');
      return stat.slice(stat.lastIndexOf(')') + 2)[0] === 't';
    }),
  );
}

/** Writes the calls of those kinds to a file, a line each. */
export function traceTo(file: string, tids: readonly number[], calls: readonly string[]): Promise<Tracer> {
  return attach(tids, ['-e', `trace=${calls.join(',')}`, '-s', '0', '-o', file]);
}

/** Most calls of each kind that a single thread has made. */
export function countsIn(file: string): Map<string, number> {
  const each = new Map<string, number>();
  for (const line of fs.readFileSync(file, 'latin1').split('\n')) {
    const found = /^(\d+ +)?(\w+)\(/.exec(line);
    if (found === null) continue;
    const key = `${found[2]} ${found[1] ?? ''}`;
    each.set(key, (each.get(key) ?? 0) + 1);
  }
  const most = new Map<string, number>();
  for (const [key, count] of each) {
    const call = key.split(' ')[0] as string;
    most.set(call, Math.max(most.get(call) ?? 0, count));
  }
  return most;
}
