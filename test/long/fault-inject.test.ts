// A system call of the serving worker's that fails: who asked is told of it, and all is as it was before, also to who
// mounts it anew. Crashes at such calls are in crash-inject.test.ts.
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { failAt, threadsOf } from '../lib/inject.ts';
import { daemonOf, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

type Step = readonly [name: string, ...args: string[]];
type Call = readonly [call: string, nth: number];

/**
 * What a guest does where the base has a, its other name b, c, which it has edited, gone, which it has removed, and d/f;
 * and which calls fail, the first of their kind that the step makes, or the second.
 */
const steps: readonly (readonly [Step, ...Call[]])[] = [
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

const make = 'mkdir -p d; for f in a c gone d/f; do echo "base $f" > $f; done; ln a b';
const prepare = 'echo edited >> c; rm gone; echo own > own';
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

mountTest(
  'a change that fails leaves all as it was, and the base as it is, whichever call fails',
  () =>
    withLayers(async (layers) => {
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
            const failing = fail && (await failAt(worker, ...fail, 'ENOSPC'));
            const result = await take(agent, cwd, step);
            await failing?.stop();
            const after = await sh(look, [], { cwd });
            if (fail === undefined) whole = after;
            // The call that failed may have been one that switches the journal.
            const right = result === 'done' ? whole : before;
            kept.set(dir, right);
            if (after !== right) wrong.push({ step, fail, result, after, right });
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
    }),
  { commands: ['strace'] },
);
