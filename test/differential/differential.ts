// The random differential test: the same operations on a union and on a plain copy of its base must come to the
// same, call by call and as trees, also after a remount or the daemon's death, and never touch the base.
//
// Two clients work at the same time. Each has a directory of its own on both sides, where it is alone, so that its
// results can be compared one by one; and both work in one shared directory, where the outcome does not depend on
// their order (shared.mjs).
import { setTimeout as wait } from 'node:timers/promises';
import { kasane, type Layers, type Mount, startMount, withLayers } from '../lib/kasane.ts';
import { sh } from '../lib/run.ts';
import type { Where } from '../lib/temp.ts';
import { withBaseUntouched } from '../lib/tree.ts';
import { type Client, openTrees, startClient } from './client.ts';
import {
  add,
  isAtomic,
  type Mix,
  newTotal,
  type Operation,
  operationsOf,
  shrink,
  summary,
  type Total,
} from './operations.ts';
import { sharedBase } from './shared.mjs';

interface RunReply {
  mix: Mix;
  allowed: number;
  /** How many operations were done. */
  done: number;
  different: string | null;
  /** The operation in the midst of which the daemon died. */
  cut: string | null;
  log: string[];
}

// No file of the base above 64 KiB: who has one open for reading keeps its old bytes when another writes to it
// (test/e2e/passthrough.test.ts), as with overlayfs.
const population = `
    mkdir -p a/b/c d/e a/f h 'x y'
    for i in 1 2 3 4 5 6; do
      for at in . a a/b a/b/c d d/e h; do head -c $((i * i * 700)) /dev/zero | tr '\\0' "$i" > $at/base$i; done
    done
    : > d/b; echo lines > a/a; echo more > h/c; printf x > $'a/caf\\xe9'
    dd if=/dev/urandom of=big bs=1k count=1 seek=60 status=none
    ln -s base1 link; ln -s a/b b; ln -s ../nowhere a/d; mkfifo a/g
    chmod 4755 base2; chmod 2775 d; chmod 1777 h; chmod 600 a/base3; chmod 000 d/base4; chown 1000:1000 a/b/base* d/e
    setfattr -n user.one -v base a/base1; setfattr -n user.two -v base d; setfattr -n trusted.mine -v base base3
    setfacl -m u:1000:rwx a/base5; setfacl -d -m u:1001:rw h`;

const linking = `
    ln a/base1 d/l1; ln a/base1 h/l2; ln d/e/base2 d/e/l3; ln base3 a/b/c/l4; ln a/b/c/base5 'x y/l5'; ln big h/big
    for i in 1 2 3 4 5 6; do ln a/b/base$i a/b/m$i; ln h/base$i a/f/n$i; ln h/base$i h/o$i; done`;

/**
 * Into `base`, and a copy into `plain`: files of all sizes, a hole, names that are no UTF-8, links, modes, owners,
 * attributes, and old times; hard links only if asked for. For two clients twice, and what they share.
 */
export async function makeBase(layers: Layers, hardLinks = false, clients: 1 | 2 = 1): Promise<void> {
  const all = `${population}\n${hardLinks ? linking : ''}`;
  const both = `for c in c0 c1; do mkdir $c; ( cd $c\n${all}\n ); done\n${sharedBase}`;
  const script = `
    cd "$1"
    ${clients === 1 ? all : both}
    find . -exec touch -h -d '2015-05-05 05:05:05.5 UTC' {} +
    cp -a . "$2"`;
  await sh(script, [layers.base, `${layers.dir}/plain`]);
}

export interface Differential {
  /** Unions, each with a base of its own. */
  runs: number;
  /** On each, by both clients together. */
  operations: number;
  /** In as many pieces, with a remount after each. */
  pieces: number;
  where: Where;
  /** Default: 2. */
  clients?: 1 | 2;
  /** The base has files with several names; link counts are not compared then. */
  hardLinks?: boolean;
  options?: readonly string[];
  /** The daemon dies in the midst of each second piece, which has atomic operations alone. */
  crashes?: boolean;
  /** For one piece, in milliseconds. */
  timeout?: number;
}

/** How a piece ends; at a fail point or by a signal it ends in its midst. */
type End = 'umount' | 'kill' | { point: string } | { killAfter: number };

const steps = [
  'copy-up',
  'special',
  'directory',
  'hard-link',
  'whiteout',
  'remove',
  'create',
  'link',
  'rename',
];
const points = [
  ...['copy-up-temp', 'copy-up-data', 'copy-up-synced', 'rename-after-rename', 'rename-swapped'],
  ...steps.flatMap((step) => [`${step}-before-journal`, `${step}-before-rename`, `${step}-after-rename`]),
];

function endOf(piece: number, seed: number, spec: Differential): End {
  if (spec.crashes !== true || piece % 2 === 0) return piece % 2 === 0 ? 'kill' : 'umount';
  const turn = seed + piece * 7919;
  if (piece % 8 === 7) return { killAfter: turn % 150 };
  const point = points[turn % points.length] as string;
  return { point: `${point}:${1 + (turn % 3)}` };
}

class Run {
  readonly #layers: Layers;
  readonly #spec: Differential;
  readonly #total: Total;
  readonly #clients: Client[];
  #mount: Mount | null = null;
  /** How many operations of the last piece one of the clients has done, at most. */
  done = 0;

  constructor(layers: Layers, spec: Differential, total: Total) {
    this.#layers = layers;
    this.#spec = spec;
    this.#total = total;
    const count = spec.clients ?? 2;
    this.#clients = Array.from({ length: count }, () => startClient(spec.timeout ?? 120_000));
  }

  async mount(end: End): Promise<void> {
    const options = ['-o', 'suid,dev', ...(this.#spec.options ?? [])];
    const env = typeof end === 'object' && 'point' in end ? { KASANE_FAIL: end.point } : {};
    this.#mount = await startMount({ ...this.#layers, mountPoint: this.#layers.mnt, options, env });
  }

  async open(): Promise<void> {
    const trees = { union: this.#layers.mnt, plain: `${this.#layers.dir}/plain` };
    const one = this.#clients.length === 1;
    for (const [i, client] of this.#clients.entries()) {
      await openTrees(client, {
        ...trees,
        client: one ? null : i,
      });
    }
  }

  /** Both at the same time. */
  async piece(operations: readonly Operation[], end: End): Promise<void> {
    const cut = typeof end === 'object';
    const chosen = cut ? operations.filter(isAtomic) : operations;
    const over = new AbortController();
    const killed = cut && 'killAfter' in end ? this.#killAfter(end.killAfter, over.signal) : null;
    const replies = await Promise.all(
      this.#clients.map((client, i) =>
        client.ask<RunReply>('run', { ops: chosen.filter((_, n) => n % this.#clients.length === i) }),
      ),
    );
    over.abort();
    await killed;
    for (const reply of replies) add(this.#total, reply);
    this.done = Math.max(...replies.map((reply) => reply.done));
    const wrong = replies.find(({ different }) => different !== null);
    if (wrong !== undefined) throw new Error(this.#different(wrong));
  }

  async #killAfter(milliseconds: number, signal: AbortSignal): Promise<void> {
    try {
      await wait(milliseconds, null, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    process.kill((this.#mount as Mount).pid, 'SIGKILL');
  }

  async compare(when: string): Promise<void> {
    for (const client of this.#clients) {
      const { differences } = await client.ask<{ differences: string[] }>('compare');
      expectNone(differences, when);
    }
    await this.#verifyShared(when);
  }

  async remount(end: End, next: End): Promise<void> {
    for (const client of this.#clients) await client.ask('pause');
    const mount = this.#mount as Mount;
    if (end === 'umount') {
      const code = await mount.umount();
      if (code !== 0) throw new Error(`the daemon ended with ${code}: ${mount.log()}`);
    } else {
      await mount.kill();
    }
    await this.mount(next);
    for (const client of this.#clients) {
      const { differences } = await client.ask<{ differences: string[] }>('resume');
      expectNone(differences, `after ${typeof end === 'string' ? end : JSON.stringify(end)} and a remount`);
    }
    await this.#verifyShared('after the remount');
  }

  async #verifyShared(when: string): Promise<void> {
    const [first] = this.#clients;
    if (first === undefined || this.#clients.length === 1) return;
    const tallies: unknown[] = [];
    for (const client of this.#clients) {
      tallies.push((await client.ask<{ tallies: unknown }>('tallies')).tallies);
    }
    const { problems } = await first.ask<{ problems: string[][] }>('verify', { tallies });
    for (const [i, found] of problems.entries()) {
      expectNone(found, `in the shared directory of the ${i === 0 ? 'union' : 'plain tree'} ${when}`);
    }
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) await client.stop();
    await this.#mount?.umount();
  }

  #different(reply: RunReply): string {
    const daemon = (this.#mount as Mount).log().trim().split('\n').slice(-5).join('\n');
    return `${reply.different}\n--- before it\n${reply.log.slice(-30).join('\n')}\n--- log of the daemon\n${daemon}`;
  }
}

function expectNone(differences: readonly string[], when: string): void {
  if (differences.length === 0) return;
  const first = differences.slice(0, 12).join('\n');
  throw new Error(`${differences.length} differences ${when}, of union and plain tree:\n${first}`);
}

/** What went wrong in a run, in which piece, and after how many operations of each client there. */
interface Failure {
  error: Error;
  done: number;
  pieces: number;
}

/** Does the operations on a fresh union. */
async function runOn(
  operations: readonly Operation[],
  seed: number,
  spec: Differential,
  total: Total,
): Promise<Failure | null> {
  return withLayers(async (layers) => {
    await makeBase(layers, spec.hardLinks, spec.clients ?? 2);
    const run = new Run(layers, spec, total);
    let piece = 0;
    try {
      await withBaseUntouched(layers.base, async () => {
        const size = Math.ceil(operations.length / spec.pieces);
        await run.mount(endOf(0, seed, spec));
        await run.open();
        for (; piece < spec.pieces; piece += 1) {
          const [end, next] = [endOf(piece, seed, spec), endOf(piece + 1, seed, spec)];
          await run.piece(operations.slice(piece * size, (piece + 1) * size), end);
          if (typeof end === 'string') await run.compare('before the remount');
          await run.remount(end, next);
        }
        await run.stop();
      });
      const checked = await kasane(['check', layers.overlay], { timeout: 60_000 });
      if (checked.code !== 0) throw new Error(`kasane check: ${checked.stdout}${checked.stderr}`);
      return null;
    } catch (error) {
      return { error: error as Error, done: run.done, pieces: piece + 1 };
    } finally {
      await run.stop();
    }
  }, spec.where);
}

/** Fewer operations that fail as well, as text. */
async function shrunk(
  operations: readonly Operation[],
  seed: number,
  spec: Differential,
  { pieces, done }: Failure,
): Promise<string> {
  const size = Math.ceil(operations.length / spec.pieces);
  const reached = operations.slice(0, (pieces - 1) * size + Math.min(size, (done + 1) * (spec.clients ?? 2)));
  const fewer = { ...spec, pieces: Math.min(pieces, spec.pieces) };
  let last: Failure | null = null;
  const fails = async (some: readonly Operation[]) => {
    const failure = await runOn(some, seed, fewer, newTotal());
    last = failure ?? last;
    return failure !== null;
  };
  const seconds = Number(process.env.KASANE_SHRINK ?? 90);
  const best = await shrink(reached, fails, seconds * 1000);
  const why = (last as Failure | null)?.error.message ?? 'the failure did not come again';
  return `\n--- shrunk to ${best.length} operations\n${JSON.stringify(best)}\n${why}`;
}

/**
 * Tries one seed (KASANE_SEED overrides it, KASANE_RUN repeats one of its runs, KASANE_OPERATIONS their length), and
 * prints it with the mix. A failure is reduced to few operations (for KASANE_SHRINK seconds, 90 if not given).
 */
export async function differential(seed: number, spec: Differential): Promise<Total> {
  const used = process.env.KASANE_SEED === undefined ? seed : Number(process.env.KASANE_SEED);
  const only = process.env.KASANE_RUN;
  const count = Number(process.env.KASANE_OPERATIONS ?? spec.operations);
  const total = newTotal();
  for (let run = 0; run < spec.runs; run += 1) {
    if (only !== undefined && run !== Number(only)) continue;
    const own = used * 1000 + run;
    const operations = operationsOf(own, count, spec.clients ?? 2);
    const failure = await runOn(operations, own, spec, total);
    if (failure === null) continue;
    const fewest = await shrunk(operations, own, spec, failure);
    const how = `KASANE_SEED=${used} KASANE_RUN=${run} KASANE_OPERATIONS=${count}`;
    throw new Error(`${how}: ${failure.error.message}${fewest}`, { cause: failure.error });
  }
  console.log(`differential: seed ${used}, ${spec.where}: ${summary(total)}`);
  return total;
}

/**
 * Random operations on one tree, such as a mount of another union file system, with nothing to compare. Returns
 * the counts.
 */
export async function workload(tree: string, seed: number, count: number): Promise<Total> {
  const total = newTotal();
  const client = startClient(60_000);
  try {
    await openTrees(client, { union: null, plain: tree });
    add(total, await client.ask<RunReply>('run', { ops: operationsOf(seed, count, 1) }));
  } finally {
    await client.stop();
  }
  return total;
}
