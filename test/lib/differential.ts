// The random differential test: the same operations on a union and on a plain copy of its base must come to the
// same, call by call and as trees, also after a remount, and never touch the base. Everything that touches the
// mount happens in a child (differential-child.mjs).
import { type ChildProcess, spawn } from 'node:child_process';
import * as path from 'node:path';
import * as readline from 'node:readline';
import fc from 'fast-check';
import { tracked } from './cleanup.ts';
import { kasane, type Layers, repository, startMount, withLayers } from './kasane.ts';
import { sh } from './run.ts';
import type { Where } from './temp.ts';
import { withBaseUntouched } from './tree.ts';

/** How often each kind comes, relative to the others. */
const weights: Record<string, number> = {
  create: 9,
  write: 8,
  append: 4,
  truncate: 3,
  allocate: 2,
  read: 6,
  copyRange: 1,
  mkdir: 5,
  rmdir: 3,
  unlink: 7,
  symlink: 3,
  mknod: 1,
  link: 4,
  rename: 10,
  chmod: 4,
  chown: 3,
  utimes: 4,
  setxattr: 3,
  removexattr: 2,
  acl: 2,
  getxattrs: 2,
  readdir: 4,
  stat: 6,
  readlink: 1,
  umask: 1,
  openFile: 5,
  openDirectory: 2,
  readHandle: 4,
  writeHandle: 4,
  statHandle: 4,
  truncateHandle: 1,
  allocateHandle: 1,
  changeHandle: 3,
  seekHandle: 1,
  closeFile: 2,
  temporary: 2,
  inDirectory: 3,
};

export type Operation = [kind: string, seed: number];

const operation: fc.Arbitrary<Operation> = fc.tuple(
  fc.oneof(...Object.entries(weights).map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind) }))),
  fc.noBias(fc.integer({ min: 0, max: 0x7fffffff })),
);

type Mix = Record<string, { ok: number; failed: number }>;

interface RunReply {
  mix: Mix;
  allowed: number;
  different: string | null;
  log: string[];
}

interface Child {
  ask: <T>(command: string, args?: Record<string, unknown>) => Promise<T>;
  stop: () => Promise<void>;
}

function startChild(timeout: number): Child {
  const script = path.join(import.meta.dirname, 'differential-child.mjs');
  const child: ChildProcess = spawn(process.execPath, [script], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const stop = tracked(async () => {
    child.kill('SIGKILL');
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 3000))]);
  });
  const lines = readline.createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const replies = lines[Symbol.asyncIterator]();
  const ask = async <T>(command: string, args: Record<string, unknown> = {}): Promise<T> => {
    child.stdin?.write(`${JSON.stringify({ command, ...args })}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${command} took more than ${timeout} ms`)), timeout);
    });
    try {
      const { value, done } = await Promise.race([replies.next(), late]);
      if (done) throw new Error(`the child ended in ${command}`);
      const reply = JSON.parse(value as string) as T & { error?: string };
      if (reply.error !== undefined) throw new Error(reply.error);
      return reply;
    } finally {
      clearTimeout(timer);
    }
  };
  return { ask, stop };
}

/** Into `base`, and a copy into `plain`: files of all sizes, a hole, names that are no UTF-8, links, modes, owners, attributes, and old times; hard links only if asked for. */
export async function makeBase({ base, dir }: Layers, hardLinks = false): Promise<void> {
  const script = `
    cd "$1"
    mkdir -p a/b/c d/e a/f h 'x y'
    for i in 1 2 3 4 5 6; do
      for at in . a a/b a/b/c d d/e h; do head -c $((i * i * 700)) /dev/zero | tr '\\0' "$i" > $at/base$i; done
    done
    : > d/b; echo lines > a/a; echo more > h/c; printf x > $'a/caf\\xe9'
    dd if=/dev/urandom of=big bs=1k count=1 seek=300 status=none
    ln -s base1 link; ln -s a/b b; ln -s ../nowhere a/d; mkfifo a/g
    chmod 4755 base2; chmod 2775 d; chmod 1777 h; chmod 600 a/base3; chmod 000 d/base4; chown 1000:1000 a/b/base* d/e
    setfattr -n user.one -v base a/base1; setfattr -n user.two -v base d; setfattr -n trusted.mine -v base base3
    setfacl -m u:1000:rwx a/base5; setfacl -d -m u:1001:rw h
    if [ "$3" = true ]; then
      ln a/base1 d/l1; ln a/base1 h/l2; ln d/e/base2 d/e/l3; ln base3 a/b/c/l4; ln a/b/c/base5 'x y/l5'; ln big h/big
    fi
    find . -exec touch -h -d '2015-05-05 05:05:05.5 UTC' {} +
    cp -a . "$2"
  `;
  await sh(script, [base, `${dir}/plain`, String(hardLinks)]);
}

export interface Differential {
  /** Unions, each with a base of its own. */
  runs: number;
  /** On each. */
  operations: number;
  /** In as many pieces, with a remount after each. */
  pieces: number;
  where: Where;
  /** The base has files with several names; link counts are not compared then. */
  hardLinks?: boolean;
  options?: readonly string[];
  /** For one piece, in milliseconds. */
  timeout?: number;
}

interface Total {
  ok: number;
  failed: number;
  allowed: number;
  mix: Mix;
}

/** Does the operations on a fresh union; throws with what was different and what led to it. */
async function runOn(operations: readonly Operation[], spec: Differential, total: Total): Promise<void> {
  await withLayers(async (layers) => {
    await makeBase(layers, spec.hardLinks);
    const child = startChild(spec.timeout ?? 120_000);
    try {
      await withBaseUntouched(layers.base, () => inPieces(operations, layers, spec, child, total));
      const checked = await kasane(['check', layers.overlay], { timeout: 60_000 });
      if (checked.code !== 0) throw new Error(`kasane check: ${checked.stdout}${checked.stderr}`);
    } finally {
      await child.stop();
    }
  }, spec.where);
}

async function inPieces(
  operations: readonly Operation[],
  layers: Layers,
  spec: Differential,
  child: Child,
  total: Total,
): Promise<void> {
  const options = ['-o', 'suid,dev', ...(spec.options ?? [])];
  const mount = () => startMount({ ...layers, mountPoint: layers.mnt, options });
  let mounted = await mount();
  try {
    await child.ask('open', {
      dist: path.join(repository, 'dist'),
      union: layers.mnt,
      plain: `${layers.dir}/plain`,
      countsLinks: spec.hardLinks !== true,
      report: process.env.KASANE_REPORT ?? null,
    });
    const size = Math.ceil(operations.length / spec.pieces);
    for (let from = 0; from < operations.length; from += size) {
      const reply = await child.ask<RunReply>('run', { ops: operations.slice(from, from + size) });
      add(total, reply);
      if (reply.different !== null) throw new Error(different(reply, mounted.log()));
      await sameTrees(child, 'before the remount');
      await child.ask('pause');
      const code = await mounted.umount();
      if (code !== 0) throw new Error(`the daemon ended with ${code}: ${mounted.log()}`);
      mounted = await mount();
      await child.ask('resume', { union: layers.mnt });
      await sameTrees(child, 'after the remount');
    }
  } finally {
    await child.stop();
    await mounted.umount();
  }
}

/**
 * Random operations on one tree, such as a mount of another union file system, with nothing to compare. Returns
 * the counts.
 */
export async function workload(tree: string, seed: number, count: number): Promise<Total> {
  const list = fc.array(operation, { minLength: count, maxLength: count, size: 'max' });
  const [operations = []] = fc.sample(list, { seed, numRuns: 1 });
  const total: Total = { ok: 0, failed: 0, allowed: 0, mix: {} };
  const child = startChild(60_000);
  try {
    await child.ask('open', {
      dist: path.join(repository, 'dist'),
      union: null,
      plain: tree,
      countsLinks: true,
      report: null,
    });
    add(total, await child.ask<RunReply>('run', { ops: operations }));
  } finally {
    await child.stop();
  }
  return total;
}

async function sameTrees(child: Child, when: string): Promise<void> {
  const { differences } = await child.ask<{ differences: string[] }>('compare');
  if (differences.length > 0) {
    const first = differences.slice(0, 10).join('\n');
    throw new Error(`${differences.length} differences ${when}, of union and plain tree:\n${first}`);
  }
}

function different(reply: RunReply, log: string): string {
  const daemon = log.trim().split('\n').slice(-5).join('\n');
  return `${reply.different}\n--- before it\n${reply.log.slice(-30).join('\n')}\n--- log of the daemon\n${daemon}`;
}

function add(total: Total, { mix, allowed }: RunReply): void {
  total.allowed += allowed;
  for (const [kind, { ok, failed }] of Object.entries(mix)) {
    total.mix[kind] ??= { ok: 0, failed: 0 };
    total.mix[kind].ok += ok;
    total.mix[kind].failed += failed;
    total.ok += ok;
    total.failed += failed;
  }
}

/**
 * Tries one seed (KASANE_SEED overrides it, KASANE_PATH repeats one run) and prints it with the mix. With KASANE_SHRINK=1 a failure is
 * reduced to few operations, which takes its time. Returns the counts.
 */
export async function differential(seed: number, spec: Differential): Promise<Total> {
  const used = process.env.KASANE_SEED === undefined ? seed : Number(process.env.KASANE_SEED);
  const shrink = process.env.KASANE_SHRINK === '1';
  const total: Total = { ok: 0, failed: 0, allowed: 0, mix: {} };
  const count = Number(process.env.KASANE_OPERATIONS ?? spec.operations);
  const list = fc.array(operation, { minLength: shrink ? 1 : count, maxLength: count, size: 'max' });
  const property = fc.asyncProperty(list, (operations) => runOn(operations, spec, total));
  const path = process.env.KASANE_PATH;
  const again = path === undefined ? {} : { path };
  const result = await fc.check(property, {
    seed: used,
    ...again,
    numRuns: spec.runs,
    endOnFailure: !shrink,
  });
  console.log(summary(used, spec, total));
  if (!result.failed) return total;
  const fewest = shrink ? `\n--- after shrinking\n${JSON.stringify(result.counterexample)}` : '';
  const why =
    result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance);
  throw new Error(`seed ${used}, path ${result.counterexamplePath}: ${why}${fewest}`);
}

function summary(seed: number, spec: Differential, { ok, failed, allowed, mix }: Total): string {
  const kinds = Object.keys(weights).map((kind) => `${kind} ${mix[kind]?.ok ?? 0}/${mix[kind]?.failed ?? 0}`);
  const done = `${ok} succeeded, ${failed} failed alike, ${allowed} times mv's copy for EXDEV`;
  return `differential: seed ${seed}, ${spec.where}: ${done}\n  ${kinds.join(', ')}`;
}
