// kill -9 at every system call that changes something (strace injects the signal), for each thread of the
// daemon and a fixed piece of a guest's work: after a new mount the union is as after one of the guest's steps,
// and nothing is half done. In two overlays, for two processors; within a limit of time, by steps if need be.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { dpkgReplace } from '../lib/base-update.ts';
import { differences, expectSound } from '../lib/crash.ts';
import { countsIn, killAt, type ThreadGroup, threadGroups, threadsOf, traceTo } from '../lib/inject.ts';
import { kasane, type Layers, type Mount, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh, sleep } from '../lib/run.ts';
import { readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';

const LIMIT_MS = 180_000;
/** Most writes are replies to the kernel, or wake another thread; most opens are for reading. */
const LARGER_STEPS: Readonly<Record<string, number>> = { write: 8, openat: 3 };
const DIRECTORIES = 120;
const CHECK_EVERY = 10;

const calls = [
  ...['openat', 'write', 'pwrite64', 'copy_file_range', 'ftruncate', 'fsync', 'fdatasync'],
  ...['mknodat', 'mkdirat', 'mkdir', 'linkat', 'symlinkat', 'unlinkat', 'unlink', 'rmdir'],
  ...['rename', 'renameat', 'renameat2', 'setxattr', 'lsetxattr', 'fsetxattr', 'removexattr', 'lremovexattr'],
  ...['fchmodat', 'fchmod', 'chmod', 'fchownat', 'fchown', 'utimensat'],
  // Which an older strace does not know.
  '?fchmodat2',
];

/** What the guest does in its directory, in steps that are seen wholly or not at all. */
const steps = [
  'printf guest >> append',
  'chmod 600 chmod',
  'chmod 600 sparse',
  'rm gone',
  'mv moving moved',
  ': > own',
  'printf own >> own',
  'mv own over',
  ': > trunc',
  'printf guest >> trunc',
  'ln link linked',
  'setfattr -n user.k -v v xattr',
  'chown -h 1:1 sym',
  'mv dir renamed',
  'rm renamed/sub/file',
  'mkdir new',
  ': > gone',
  'rm linked',
];

interface Target {
  group: ThreadGroup;
  call: string;
  n: number;
}

async function makeBase(base: string, dirs: readonly string[]): Promise<void> {
  const first = `${base}/${dirs[0]}`;
  await sh(
    `mkdir "$1"; cd "$1"
     for f in append chmod gone moving over trunc link xattr; do printf 'base\\n%.0s' {1..20} > $f; done
     printf 'one\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n' > merge
     truncate -s 64K sparse; printf end >> sparse; ln -s append sym; mkdir -p dir/sub; echo x > dir/sub/file`,
    [first],
  );
  for (const dir of dirs.slice(1)) await runOk('cp', ['-a', first, `${base}/${dir}`]);
}

/** The tree after no step, after the first, the second … in a plain copy; `merge` is merged in all of them. */
async function modelStates(layers: Layers, dir: string): Promise<Tree[]> {
  const model = `${layers.dir}/model`;
  await runOk('cp', ['-a', `${layers.base}/${dir}`, model]);
  fs.writeFileSync(`${model}/merge`, 'guest\n2\n3\n4\n5\n6\n7\nbase\n');
  const states = [await readTree(model)];
  for (const step of steps) {
    await sh(step, [], { cwd: model });
    states.push(await readTree(model));
  }
  return states;
}

/** The guest's work, up to where it is cut off; reading `events` has the daemon fold its journal. */
const work = (dir: string) =>
  `cd ${dir} && cat merge > /dev/null && ${steps.join(' && ')} && cat ../.kasane/events > /dev/null`;

/** Every call of the work as a target, the groups and kinds of calls interleaved. */
async function countTargets(layers: Layers, dir: string): Promise<Target[]> {
  const lists: Target[][] = [];
  await withMount(layers, async (mount) => {
    const threads = await threadsOf(mount.pid);
    const files = threadGroups.map((group) => `${layers.dir}/${group}.trace`);
    const tracers = await Promise.all(
      threadGroups.map((group, i) => traceTo(files[i] as string, threads[group], calls)),
    );
    await mount.sh(work(dir));
    for (const tracer of tracers) await tracer.stop();
    for (const [i, group] of threadGroups.entries()) {
      for (const [call, count] of countsIn(files[i] as string)) {
        // Calls that it does not know are in every trace.
        if (call.startsWith('syscall_')) continue;
        const step = LARGER_STEPS[call] ?? 1;
        const numbers = Array.from({ length: Math.ceil(count / step) }, (_, k) => 1 + k * step);
        lists.push(numbers.map((n) => ({ group, call, n })));
      }
    }
  });
  const longest = Math.max(...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, k) => lists.flatMap((list) => list.slice(k, k + 1))).flat();
}

/** One overlay: counts, then lets the daemon die at every second target. */
async function dieEverywhere(
  layers: Layers,
  half: number,
  ends: number,
  covered: Target[],
): Promise<Target[]> {
  const dirs = Array.from({ length: DIRECTORIES }, (_, i) => `d${i}`);
  await makeBase(layers.base, dirs);
  const states = await modelStates(layers, 'd0');
  const editing = dirs.map((dir) => `sed -i s/one/guest/ ${dir}/merge`).join('\n');
  await withMount(layers, async (mount) => void (await mount.sh(editing, [], { timeout: 60_000 })));
  for (const dir of dirs) await dpkgReplace(`${layers.base}/${dir}/merge`, 'one\n2\n3\n4\n5\n6\n7\nbase\n');
  let targets: Target[] = [];
  await withBaseUntouched(layers.base, async () => {
    targets = (await countTargets(layers, 'd0')).filter((_, i) => i % 2 === half);
    let last: { dir: string; target: Target } | null = null;
    for (const [i, target] of targets.slice(0, DIRECTORIES - 1).entries()) {
      if (Date.now() > ends) break;
      const dir = `d${i + 1}`;
      const mount = await startMount({ ...layers, mountPoint: layers.mnt });
      try {
        if (last !== null) await expectOneOf(states, layers, last.dir, last.target);
        const tracer = await killAt((await threadsOf(mount.pid))[target.group], target.call, target.n);
        // Cut off in the midst of it, as a rule; a count may be lower this time.
        await mount.sh(work(dir)).catch(() => '');
        if (await isDead(mount)) covered.push(target);
        await tracer.stop();
      } finally {
        await mount.kill();
      }
      last = { dir, target };
      if (i % CHECK_EVERY === 0) await expectNoDamage(layers, target);
    }
    await withMount(layers, async (mount) => {
      if (last !== null) await expectOneOf(states, layers, last.dir, last.target);
      expect(await mount.umount()).toBe(0);
    });
    await expectSound(layers.overlay, layers.base);
  });
  return targets;
}

const named = ({ group, call, n }: Target) => `${group} ${call} ${n}`;

/** The union's directory is as after one of the steps. */
async function expectOneOf(
  states: readonly Tree[],
  layers: Layers,
  dir: string,
  target: Target,
): Promise<void> {
  // Opening it waits for the merge; a mere stat would tell of the file of before.
  await runOk('cat', [`${layers.mnt}/${dir}/merge`]);
  const tree = await readTree(`${layers.mnt}/${dir}`);
  const found = states.map((state) => differences(state, tree));
  const nearest = found.reduce((best, lines) => (lines.length < best.length ? lines : best));
  expect(nearest, `after the death at ${named(target)}, against the nearest step`).toEqual([]);
}

/** Straight after the crash: what is in work/ is a warning, for the next mount removes it. */
async function expectNoDamage(layers: Layers, target: Target): Promise<void> {
  const check = await kasane(['check', layers.overlay]);
  const odd = check.stdout
    .split('\n')
    .filter((line) => /^(damage|warning)\t/.test(line) && !/\torphan-work\t/.test(line));
  expect(odd, `check after the death at ${named(target)}`).toEqual([]);
  expect(check.code).toBe(0);
}

async function isDead(mount: Mount): Promise<boolean> {
  return (await Promise.race([mount.ended.then(() => true), sleep(50).then(() => false)])) === true;
}

/** How many places of each kind a daemon has died at, of how many. */
function report(targets: readonly Target[], covered: readonly Target[]): string {
  const count = (some: readonly Target[], { group, call }: Target) =>
    some.filter((one) => one.group === group && one.call === call).length;
  const kinds = new Map(targets.map((target) => [`${target.group} ${target.call}`, target]));
  const lines = [...kinds].map(([name, kind]) => `${name} ${count(covered, kind)}/${count(targets, kind)}`);
  return `died at ${covered.length} of ${targets.length} places: ${lines.sort().join(', ')}`;
}

mountTest(
  'a daemon that dies at any system call leaves the union as after one of the guest’s steps',
  async () => {
    const ends = Date.now() + LIMIT_MS;
    const covered: Target[] = [];
    const halves = await Promise.all(
      [0, 1].map((half) => withLayers((layers) => dieEverywhere(layers, half, ends, covered))),
    );
    const targets = halves.flat();
    process.stdout.write(`${report(targets, covered)}\n`);
    // The kinds of calls take turns, so that little time still meets some of each thread.
    expect(covered.length).toBeGreaterThan(5);
  },
  { timeout: 600_000, commands: ['strace'] },
);
