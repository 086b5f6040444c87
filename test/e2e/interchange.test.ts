// The on-disk format is that of kernel overlayfs: an overlay that Kasane wrote to shows the same tree there, and
// one that overlayfs or Debian's fuse-overlayfs wrote to shows the same tree here, after random operations.
import { expect } from 'vitest';
import { makeBase, workload } from '../differential/differential.ts';
import { kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, sh, sleep } from '../lib/run.ts';
import { type Compare, diffTrees, readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';

const OPERATIONS = 400;
const commands = ['setfattr', 'getfattr', 'setfacl'];

/** What each of them keeps in attributes of its own, and shows to others. */
const compare: Compare = { ignore: ['.kasane'], ignoreXattrs: /^(trusted\.kasane|user\.fuseoverlayfs)\./ };

interface Program {
  name: string;
  mount: (layers: Layers, options: string) => Promise<unknown>;
}

const overlayOptions = ({ base, overlay, dir }: Layers, more: string) =>
  `lowerdir=${base},upperdir=${overlay},workdir=${dir}/work${more && `,${more}`}`;

const kernel: Program = {
  name: 'kernel overlayfs',
  mount: async (layers, more) => {
    const args = ['-t', 'overlay', '-o', overlayOptions(layers, more), 'none', layers.mnt];
    let result = await run('mount', args);
    // With index=on an upper is busy as long as a mount namespace that somebody made meanwhile has it.
    for (let i = 0; i < 120 && /already mounted|busy/.test(result.stderr); i++) {
      await sleep(500);
      result = await run('mount', args);
    }
    if (result.code !== 0) throw new Error(result.stderr);
  },
};

const fuseOverlayfs: Program = {
  name: 'fuse-overlayfs',
  mount: (layers, more) => runOk('fuse-overlayfs', ['-o', overlayOptions(layers, more), layers.mnt]),
};

/** Mounts with another program than Kasane; the tree that it shows at the end. */
async function elsewhere(
  { mount }: Program,
  layers: Layers,
  options: string,
  body: () => Promise<unknown> = async () => {},
): Promise<Tree> {
  await sh('mkdir -p "$1"/work', [layers.dir]);
  // Twice, for a mount may show attributes that it remembers, and not those on the disk.
  for (const work of [body, () => readTree(layers.mnt)]) {
    await mount(layers, options);
    try {
      const result = await work();
      if (result instanceof Map) return result;
    } finally {
      await takeDown(layers.mnt);
    }
  }
  throw new Error('unreachable');
}

async function busy(layers: Layers, seed: number): Promise<void> {
  const { ok, failed } = await workload(layers.mnt, seed, OPERATIONS);
  expect(ok).toBeGreaterThan(failed);
}

/** As `elsewhere`, with Kasane; `check` finds nothing wrong afterwards. */
async function here(
  layers: Layers,
  body: () => Promise<unknown> = async () => {},
  options: readonly string[] = [],
): Promise<Tree> {
  const tree = await withMount({ ...layers, options: ['-o', 'suid,dev', ...options] }, async () => {
    await body();
    return await readTree(layers.mnt);
  });
  expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
  return tree;
}

function expectSame(left: Tree, right: Tree, more: Compare = {}): void {
  expect(diffTrees(left, right, { ...compare, ...more })).toEqual([]);
}

mountTest(
  'an overlay made by Kasane shows the same tree under kernel overlayfs, with its defaults',
  () =>
    withLayers(async (layers) => {
      await makeBase(layers);
      await withBaseUntouched(layers.base, async () => {
        const options = ['--redirect-dir', 'off', '--metacopy', 'off'];
        const tree = await here(layers, () => busy(layers, 21), options);
        expectSame(tree, await elsewhere(kernel, layers, ''));
      });
    }),
  { commands, filesystems: ['overlay'] },
);

mountTest(
  'one with renamed directories of the base does so with the options that status prints',
  () =>
    withLayers(async (layers) => {
      await makeBase(layers);
      await withBaseUntouched(layers.base, async () => {
        let printed = '';
        const tree = await here(layers, async () => {
          const script = `
            cd "$1"; mv a/b moved; echo x > moved/c/new; mv moved/c d/c; mkdir -p a/b/c
            rm -r h; mkdir h; echo x > h/base1; echo x > h/base2; rm h/base1; mv h/base2 h/other
          `;
          await sh(script, [layers.mnt]);
          await busy(layers, 22);
          const status = JSON.parse((await kasane(['status', '--json', layers.mnt])).stdout);
          printed = status.overlayfsOptions;
        });
        expect(printed).toBe('metacopy=on,redirect_dir=on');
        expectSame(tree, await elsewhere(kernel, layers, printed));
      });
    }),
  { commands, filesystems: ['overlay'] },
);

for (const [program, options, seed] of [
  [kernel, '', 31],
  [kernel, 'redirect_dir=on', 32],
  [kernel, 'index=on,redirect_dir=follow', 34],
  [kernel, 'metacopy=on,redirect_dir=on', 35],
  [fuseOverlayfs, '', 33],
] as const) {
  mountTest(
    `an overlay made by ${program.name} (${options || 'defaults'}) shows the same tree under Kasane, and goes to and fro`,
    () =>
      withLayers(async (layers) => {
        await makeBase(layers);
        await withBaseUntouched(layers.base, async () => {
          const first = await elsewhere(program, layers, options, async () => {
            // The second directory has no mark of its own, for the first one hides all beneath it.
            await sh('cd "$1"; rm -r d; mkdir -p d/e; ls d/e', [layers.mnt]);
            await busy(layers, seed);
          });
          // fuse-overlayfs counts links as it pleases.
          expectSame(first, await here(layers), { nlink: program === kernel });
          const second = await here(layers, async () => {
            await kasane(['reconcile', layers.mnt]);
            expectSame(first, await readTree(layers.mnt), { nlink: program === kernel });
            await busy(layers, seed + 100);
          });
          // It lists names that are none where fuse-overlayfs has been.
          if (program !== kernel) return;
          const redirects = 'metacopy=on,redirect_dir=on';
          const third = await elsewhere(kernel, layers, redirects, async () => {
            expectSame(second, await readTree(layers.mnt));
            await busy(layers, seed + 200);
          });
          expectSame(third, await here(layers));
        });
      }),
    {
      commands: [...commands, ...(program === fuseOverlayfs ? ['fuse-overlayfs'] : [])],
      filesystems: ['overlay'],
    },
  );
}
