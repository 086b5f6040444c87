// A system call of the serving worker's that fails: who asked is told of it, and all is as it was before, also to who
// mounts it anew. Crashes at such calls are in crash-inject.test.ts.
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { failAt, threadsOf } from '../lib/inject.ts';
import { daemonOf, kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { withLayersOnOverlayfs } from '../lib/layers.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

type Step = readonly [name: string, ...args: string[]];
type Call = readonly [call: string, nth: number];
type Steps = readonly (readonly [Step, ...Call[]])[];

/**
 * What a guest does where the base has a, its other name b, c, which it has edited, gone, which it has removed, and d/f;
 * and which calls fail, the first of their kind that the step makes, or the second.
 */
const steps: Steps = [
  [
    ['appendFileSync', 'a', 'guest'],
    ['renameat2', 1],
    ['linkat', 1],
  ],
  [
    ['writeFileSync', 'a', 'guest'],
    ['renameat2', 1],
    ['linkat', 1],
  ],
  [
    ['renameSync', 'a', 'new'],
    ['renameat2', 1],
    ['renameat2', 2],
    ['linkat', 1],
  ],
  [
    ['renameSync', 'a', 'own'],
    ['renameat2', 1],
    ['renameat2', 2],
    ['linkat', 1],
  ],
  [
    ['renameSync', 'own', 'c'],
    ['renameat', 1],
  ],
  [
    ['renameSync', 'd', 'new'],
    ['renameat2', 1],
    ['renameat2', 2],
  ],
  [
    ['linkSync', 'own', 'gone'],
    ['linkat', 1],
    ['renameat', 1],
  ],
  [
    ['mkdirSync', 'gone'],
    ['renameat2', 1],
  ],
  [
    ['unlinkSync', 'c'],
    ['mknodat', 1],
    ['renameat', 1],
  ],
];

/** The same where whiteouts are files, which are not left by the call that renames. */
const withFiles: Steps = [
  [
    ['renameSync', 'c', 'new'],
    ['renameat', 1],
    ['renameat2', 1],
  ],
  [
    ['renameSync', 'c', 'own'],
    ['renameat', 1],
  ],
  [
    ['renameSync', 'd', 'new'],
    ['renameat', 1],
    ['renameat2', 2],
  ],
  [
    ['renameSync', 'made', 'gone'],
    ['renameat2', 1],
    ['unlinkat', 1],
  ],
];

const make = 'mkdir -p d; for f in a c gone d/f; do echo "base $f" > $f; done; ln a b';
const prepare = 'echo edited >> c; rm gone; echo own > own; mkdir made';
/** The count of links of a directory is another once the overlay has it. */
const listed = 'find . -mindepth 1 -type d -printf "%p %m\\n" -o -mindepth 1 -printf "%p %y %m %n\\n" | sort';
const look = `${listed}; find . -type f | sort | xargs tail -n +1`;

function take(agent: Agent, dir: string, [name, ...args]: Step): Promise<string> {
  const paths = args.map((arg) => (arg === 'guest' ? arg : `${dir}/${arg}`));
  return agent.call(name, ...paths).then(
    () => 'done',
    (error: { code: string }) => error.code,
  );
}

/** Takes each step with each of its calls failing, and expects all to be as before, or as after the step. */
async function failEach(layers: Layers, steps: Steps): Promise<void> {
  const cases = steps.flatMap(([step, ...calls], at) =>
    [undefined, ...calls].map((fail, nth) => ({ step, fail, dir: `${at}-${nth}` })),
  );
  await sh(
    `for dir; do mkdir "$dir"; (cd "$dir"; ${make}); done`,
    cases.map(({ dir }) => dir),
    { cwd: layers.base },
  );
  const wrong: unknown[] = [];
  const kept = new Map<string, string>();
  await withBaseUntouched(layers.base, () =>
    withMount(layers, async (mount) => {
      const { worker } = await threadsOf(daemonOf(mount.dir) as number);
      const agent = startAgent();
      let whole = '';
      for (const { step, fail, dir } of cases) {
        const cwd = `${mount.dir}/${dir}`;
        await sh(prepare, [], { cwd });
        const before = await sh(look, [], { cwd });
        const failing = fail && (await failAt(worker, fail, 'ENOSPC', `${layers.dir}/calls`));
        const result = await take(agent, cwd, step);
        const failed = await failing?.stop();
        const after = await sh(look, [], { cwd });
        if (fail === undefined) whole = after;
        // The call that failed may have been one that switches the journal.
        const right = result === 'done' ? whole : before;
        kept.set(dir, right);
        if (after !== right || failed === false) wrong.push({ step, fail, failed, result, after, right });
      }
      await agent.stop();
    }),
  );
  // What the kernel has kept is no help then.
  await withMount(layers, async (mount) => {
    for (const [dir, right] of kept) {
      const after = await sh(look, [], { cwd: `${mount.dir}/${dir}` });
      if (after !== right) wrong.push({ dir, after, right });
    }
  });
  expect(wrong).toEqual([]);
}

mountTest(
  'a change that fails leaves all as it was, and the base as it is, whichever call fails',
  () => withLayers((layers) => failEach(layers, steps)),
  { commands: ['strace'] },
);

mountTest(
  'so it does where whiteouts are files',
  () => withLayersOnOverlayfs((layers) => failEach(layers, withFiles)),
  { commands: ['strace'], filesystems: ['overlay'] },
);

mountTest(
  'what a rename replaces is not lost where its whiteout, a file, cannot be left: the rename is done, and the base’s is seen',
  () =>
    withLayersOnOverlayfs(async (layers) => {
      await sh('echo base > a', [], { cwd: layers.base });
      const look = 'cat a own';
      await withMount(layers, async (mount) => {
        await mount.sh('echo guest > a; echo own > own');
        const { worker } = await threadsOf(daemonOf(mount.dir) as number);
        const failing = await failAt(worker, ['renameat2', 1], 'ENOSPC', `${layers.dir}/calls`);
        await mount.sh('mv a own');
        expect(await failing.stop()).toBe(true);
        expect(await mount.sh(look)).toBe('base\nguest\n');
        expect(mount.log()).toContain('a: no whiteout could be left');
        expect(await sh('ls "$1/.kasane/work"', [layers.overlay])).toBe('');
      });
      await withMount(layers, async (mount) => expect(await mount.sh(look)).toBe('base\nguest\n'));
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0 });
    }),
  { commands: ['strace'], filesystems: ['overlay'] },
);
