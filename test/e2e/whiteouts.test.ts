// Whiteouts and opaque directories in the layers of the base mean the same in every form in which tools leave them.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { makeBase, workload } from '../differential/differential.ts';
import { crashAt, expectSound } from '../lib/crash.ts';
import { kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { withLayersOnOverlayfs } from '../lib/layers.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { type Compare, diffTrees, readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';

const names = ['a', 'b', 'c'] as const;
const layersOf = ({ base }: Layers) => names.map((name) => `${base}/${name}`);
const commands = ['setfattr', 'getfattr'];
const needs = { commands, filesystems: ['overlay'] };
const compare: Compare = {
  ignore: ['.kasane'],
  ignoreXattrs: /^trusted\.kasane\./,
  nlink: false,
  mtime: false,
};

/** How a name is taken away, and how a directory is made opaque, each as shell: in a layer, of $1. */
const forms = {
  device: ['mknod $1 c 0 0', 'setfattr -n trusted.overlay.opaque -v y $1'],
  user: ['mknod $1 c 0 0', 'setfattr -n user.overlay.opaque -v y $1'],
  file: [
    ': > $1; setfattr -n trusted.overlay.whiteout -v y $1; setfattr -n trusted.overlay.opaque -v x $(dirname $1)',
    'setfattr -n trusted.overlay.opaque -v y $1',
  ],
  userFile: [
    ': > $1; setfattr -n user.overlay.whiteout -v y $1; setfattr -n user.overlay.opaque -v x $(dirname $1)',
    'setfattr -n user.overlay.opaque -v y $1',
  ],
  fuse: ['mknod $1 c 0 0', 'setfattr -n user.fuseoverlayfs.opaque -v y $1'],
  marked: ['mknod $1 c 0 0', ': > $1/.wh..wh..opq'],
  oci: [': > $(dirname $1)/.wh.$(basename $1)', ': > $1/.wh..wh..opq'],
} as const;
type Form = keyof typeof forms;

/** Into base/{a,b,c}/FORM, topmost first. An empty file and one beside a whiteout are real. */
const layered = ([white, opaque]: readonly [string, string]) => `
  white() { ${white}; }; opaque() { ${opaque}; }
  mkdir -p a/$f b/$f c/$f; cd a/$f/../..
  for l in a b c; do ( mkdir -p $l/$f/d/sub $l/$f/op/sub $l/$f/p/q; cd $l/$f
    for at in d d/sub op op/sub p p/q; do echo $l > $at/$l; echo $l > $at/all; : > $at/empty; done ); done
  ( cd a/$f; rm d/all; white d/all; white d/c; white d/none; opaque op; white p/b; rm -r p/q; white p/q )
  ( cd b/$f; rm d/sub/all; white d/sub/all; white d/sub/c; opaque op/sub; rm -r d/empty; white d/empty; echo b > d/c; white back )
  ( cd c/$f; mkdir gone; echo c > gone/c; echo c > back )
  ( cd b/$f; white gone; mkdir again; echo b > again/b; opaque again ); ( cd c/$f; mkdir again; echo c > again/c )
  ( cd a/$f; echo a > back )
`;

async function make(layers: Layers, wanted: readonly Form[]): Promise<void> {
  for (const form of wanted)
    await sh(`f=${form}; mkdir -p a b c; ${layered(forms[form])}`, [], { cwd: layers.base });
}

/** What lies in a directory of the tree, by its path there. */
function inside(tree: Tree, top: string): Tree {
  const entries = [...tree].filter(([path]) => path.startsWith(`${top}/`));
  return new Map(
    entries.map(([path, entry]) => {
      const rest = path.slice(top.length + 1);
      return [rest, { ...entry, path: rest }];
    }),
  );
}

/** What a guest does in the directory of a form. */
const script = `
  rm d/a; echo new > d/all; mkdir d/c 2> /dev/null || rm d/c; echo more >> d/sub/b; rm -r op/sub; mkdir op/sub; echo x > op/sub/new
  mv d/sub p/sub; mv op popped; mv again p/q; rm back; ln p/sub/b linked; chmod 600 p/a; rmdir gone 2> /dev/null || mkdir gone
`;

async function inKernel(layers: Layers, options: string): Promise<Tree> {
  await runOk('mount', [
    '-t',
    'overlay',
    '-o',
    `lowerdir=${layersOf(layers).join(':')}${options}`,
    'none',
    layers.mnt,
  ]);
  try {
    return await readTree(layers.mnt);
  } finally {
    await takeDown(layers.mnt);
  }
}

/** Each form shows what devices show, before and after the same work of a guest and a remount. */
function sameInAll(wanted: readonly Form[], options: readonly string[] = []): Promise<void> {
  return withLayers(async (layers) => {
    await make(layers, ['device', ...wanted]);
    const kernel = inside(await inKernel(layers, ''), 'device');
    const spec = { ...layers, base: layersOf(layers), options: ['-o', 'suid,dev', ...options] };
    await withBaseUntouched(layers.base, async () => {
      const expectSame = (tree: Tree, model: Tree) => {
        for (const form of ['device', ...wanted])
          expect(diffTrees(model, inside(tree, form), compare), form).toEqual([]);
      };
      await withMount(spec, async ({ dir }) => {
        expectSame(await readTree(dir), kernel);
        for (const form of ['device', ...wanted]) await sh(script, [], { cwd: `${dir}/${form}` });
        const tree = await readTree(dir);
        expectSame(tree, inside(tree, 'device'));
      });
      await withMount(spec, async ({ dir }) => {
        const tree = await readTree(dir);
        expect([...inside(tree, 'device').keys()]).toContain('popped/sub/new');
        expectSame(tree, inside(tree, 'device'));
        await sh('for f; do rm -r $f; done', ['device', ...wanted], { cwd: dir });
        expect((await readTree(dir)).size).toBe(1);
      });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
    });
  });
}

mountTest(
  'a layer’s whiteouts as devices or as files, and its opaque directories by any tool, hide the same',
  () => sameInAll(['user', 'file', 'userFile', 'fuse', 'marked']),
  needs,
);

mountTest(
  'with --whiteouts oci files named .wh.NAME hide NAME in the layers beneath, and are no names',
  () => sameInAll(['oci'], ['--whiteouts', 'oci']),
  needs,
);

mountTest(
  'without it .wh.NAME is a name like any other, and so is an empty file whose directory announces no whiteouts',
  () =>
    withLayers(async (layers) => {
      const { base } = layers;
      await sh(
        `mkdir -p a/d c/d; echo c > c/d/f; echo a > a/d/.wh.f; : > a/d/e; echo c > c/d/e
        setfattr -n trusted.overlay.whiteout -v y a/d/e`,
        [],
        { cwd: base },
      );
      fs.mkdirSync(`${base}/b`);
      await withMount({ ...layers, base: layersOf(layers) }, async (mount) => {
        expect(await mount.sh('ls -A d; cat d/.wh.f d/f d/e')).toBe('.wh.f\ne\nf\na\nc\n');
        await mount.sh('rm d/.wh.f; echo guest > d/.wh.g');
        expect(await mount.sh('ls -A d')).toBe('.wh.g\ne\nf\n');
      });
    }),
  needs,
);

mountTest(
  'an overlay that lies on overlayfs has whiteouts that are files, and shows what a plain tree shows',
  () =>
    withLayersOnOverlayfs(async (layers) => {
      await makeBase(layers);
      const spec = { ...layers, options: ['-o', 'suid,dev'] };
      const plain = `${layers.dir}/plain`;
      const more =
        'rm -r d; mkdir d; echo x > d/base1; echo x > d/base2; rm d/base1; mv a/b moved; rm moved/base1; mv h/base1 h/x';
      await withBaseUntouched(layers.base, async () => {
        const tree = await withMount(spec, async ({ dir }) => {
          for (const [at, script] of [
            [plain, more],
            [dir, more],
          ] as const)
            await sh(script, [], { cwd: at });
          for (const at of [plain, dir]) await workload(at, 51, 300);
          return readTree(dir);
        });
        expect(diffTrees(await readTree(plain), tree, { ...compare, nlink: true })).toEqual([]);
        await withMount(spec, async ({ dir }) => {
          expect(diffTrees(tree, await readTree(dir), { ...compare, nlink: true })).toEqual([]);
          const status = JSON.parse((await kasane(['status', '--json', dir])).stdout);
          expect(status.counts.whiteouts).toBeGreaterThan(3);
          expect(status.notes.join()).toContain('whiteouts are files there');
        });
        expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
        expect(await sh('find "$1" -type c', [layers.overlay])).toBe('');
      });
    }),
  { ...needs, commands: [...commands, 'setfacl'] },
);

mountTest(
  'where there is no room for the whiteout that a rename leaves, both files stay what they were',
  () =>
    withLayersOnOverlayfs(async (layers) => {
      await sh('cd "$1"; echo base > a; mkdir d; echo base > d/f', [layers.base]);
      await withMount(layers, async (mount) => {
        await mount.sh('echo edited > a; echo own > own; touch d/g');
        // What the daemon has still to write down, and to remove after, would make room.
        await kasane(['log', mount.dir]);
        await sh('n=0; while : > "$1/fill$n"; do n=$((n + 1)); done 2> /dev/null; :', [layers.dir]);
        for (const move of ['a own', 'a new', 'd new'])
          await expect(mount.sh(`mv -T ${move}`)).rejects.toThrow('No space left on device');
        expect(await mount.sh('cat a own d/f; ls')).toBe('edited\nown\nbase\na\nd\nown\n');
        await sh('rm "$1"/fill*', [layers.dir]);
        await mount.sh('mv -T a own; mv -T d new');
        expect(await mount.sh('cat own new/f; ls')).toBe('edited\nbase\nnew\nown\n');
      });
    }, 'nr_inodes=200,size=16m'),
  needs,
);

for (const [how, recover] of [
  ['the next mount', async () => {}],
  ['a verb without a mount', ({ overlay }: Layers) => kasane(['check', overlay]).then(() => {})],
] as const) {
  mountTest(
    `of a rename that was cut off before its whiteout came, ${how} makes the whiteout`,
    () =>
      withLayersOnOverlayfs(async (layers) => {
        await sh('cd "$1"; echo base > a; mkdir d; echo base > d/f', [layers.base]);
        await withBaseUntouched(layers.base, async () => {
          await withMount(layers, (mount) => mount.sh('echo edited > a'));
          for (const move of ['a new', 'd dir']) {
            await crashAt(layers, 'rename-moved', `mv -T ${move}`);
            await recover(layers);
          }
          await withMount(layers, async (mount) => {
            expect(await mount.sh('ls; cat new dir/f')).toBe('dir\nnew\nedited\nbase\n');
          });
          await expectSound(layers.overlay, layers.base);
        });
      }),
    needs,
  );
}
