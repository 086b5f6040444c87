// A base of several layers: what lies in the upper ones hides what lies beneath, also by whiteouts and opaque
// directories in the layers themselves, as kernel overlayfs has it; and each layer is a base that guests follow.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { workload } from '../differential/differential.ts';
import { startAgent } from '../lib/agent.ts';
import { renameWith } from '../lib/calls.ts';
import { forgetAll, openHandles, takeHandles } from '../lib/handles.ts';
import { caughtUp, kasane, type Layers, type Mount, notifyBy, watchers, withLayers } from '../lib/kasane.ts';
import { inOverlayfs, overlayfsOver, withUnion } from '../lib/layers.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh, waitUntil } from '../lib/run.ts';
import { type Compare, diffTrees, readTree, type Tree, withBaseUntouched, wrongLinks } from '../lib/tree.ts';
import { BASE_LINE, BaseWatch, GUEST_LINE, text, updateFile } from '../lib/versioning.ts';

/** Three layers in base/a, base/b and base/c, topmost first. */
const makeLayers = `
  mkdir a b c
  for l in a b c; do mkdir -p $l/d/sub $l/x/y; echo $l > $l/d/f$l; echo $l > $l/x/y/$l; echo $l > $l/d/sub/$l; done
  echo a > a/d/all; echo b > b/d/all; echo c > c/d/all; echo b > b/d/two; echo c > c/d/two; chmod 750 b/d; chmod 711 c/x
  white() { mknod $1 c 0 0; }; opaque() { setfattr -n trusted.overlay.opaque -v y $1; }
  white a/d/gone; echo b > b/d/gone; echo c > c/d/gone; white b/d/gone2; echo c > c/d/gone2; white a/d/none
  white a/gonedir; mkdir b/gonedir; echo b > b/gonedir/f; mkdir -p c/gonedir/sub; echo c > c/back; white b/back; echo a > a/back
  mkdir a/op b/op c/op; opaque a/op; echo a > a/op/a; echo b > b/op/b; echo c > c/op/a
  mkdir a/op2 b/op2 c/op2; opaque b/op2; echo a > a/op2/a; echo b > b/op2/b; echo c > c/op2/c; mkdir c/op2/b2
  echo a > a/fd; mkdir b/fd; echo b > b/fd/b; mkdir a/df; echo a > a/df/a; echo b > b/df; mkdir c/df; echo c > c/df/c
  mkdir a/w; echo a > a/w/a; white b/w; mkdir c/w; echo c > c/w/c
  mkdir -p a/p/op b/p/op/q c/p/op/q; opaque b/p/op; echo a > a/p/op/a; echo b > b/p/op/q/b; echo c > c/p/op/q/c; echo c > c/p/op/c
  mkdir a/hollow b/hollow; white a/hollow/f; echo b > b/hollow/f; mkdir -p b/hollow2 c/hollow2; white b/hollow2/f; echo c > c/hollow2/f
  mkdir a/y b/y; setfattr -n trusted.overlay.opaque -v x a/y; echo b > b/y/b; ln -s d a/link; ln -s nowhere b/link; mkdir c/link
  setfattr -n user.of -v b b/d/two; setfattr -n user.of -v c c/x; ln c/d/fc c/linked; ln b/d/fb b/d/sub/linked
  find a b c -exec touch -h -d '2015-05-05 05:05:05.5 UTC' {} +
`;

const commands = ['setfattr', 'getfattr'];
const needs = { commands, filesystems: ['overlay'] };
const compare: Compare = { ignore: ['.kasane'], ignoreXattrs: /^trusted\.kasane\./, nlink: false };

async function make(layers: Layers): Promise<void> {
  await sh(makeLayers, [], { cwd: layers.base });
}

/** Link counts of the directories: 1 where several layers make one up, so that nobody skips subdirectories. */
const directories = (tree: Tree) =>
  [...tree.values()].filter(({ type, path }) => type === 'dir' && !path.startsWith('.kasane'));
const dirLinks = (tree: Tree) => directories(tree).map(({ path, nlink }) => `${path} ${nlink}`);

function expectSame(left: Tree, right: Tree, more: Compare = {}): void {
  expect(diffTrees(left, right, { ...compare, ...more })).toEqual([]);
}

mountTest(
  'three layers show what they show in kernel overlayfs, and every name that is listed is there',
  () =>
    withLayers(async (layers) => {
      await make(layers);
      const expected = await inOverlayfs(layers, false, readTree);
      expect([...expected.keys()]).toContain('p/op/q/b');
      await withBaseUntouched(layers.base, () =>
        withUnion(layers, async ({ dir }) => {
          const shown = await readTree(dir);
          expectSame(expected, shown, { nlink: true, mtime: 'files' });
          expect(dirLinks(shown)).toEqual(dirLinks(expected));
          const wrong = await sh(
            `find . -mindepth 1 -printf '%i %p\\n' | sort > "$1/found"
            find . -mindepth 1 -exec stat -c '%i %n' {} + | sort | diff - "$1/found" || :`,
            [layers.dir],
            { cwd: dir },
          );
          expect(wrong).toBe('');
          const inodes = [...(await readTree(dir)).values()].map(({ ino, path }) => `${ino} ${path}`);
          // Two names each of two files.
          expect(new Set(inodes.map((line) => line.split(' ')[0])).size).toBe(inodes.length - 2);
        }),
      );
    }),
  needs,
);

/** What a guest does: each line reads or changes what comes from other layers. */
const script = `
  echo more >> d/fa; echo more >> d/fb; echo more >> d/fc; echo more >> d/all; chmod 600 d/two; setfattr -n user.x -v x x
  rm d/sub/a d/sub/b; echo new > d/sub/b; rmdir hollow hollow2; mkdir hollow; echo new > hollow/f
  rm -r gonedir 2> /dev/null || mkdir gonedir; echo new > d/gone; mkdir d/gone2; rm back; rm -r w; mkdir w; echo new > w/c
  mv op renamed; mv op2 renamed/op2; mv df df2; mv fd df; mv d/sub x/sub; echo new > x/sub/new; mv p/op popped; mv popped/q q
  mv y back; ln d/fc d/link; mv x/y .; rm y/a; mkdir -p op/q; mv link d/; mv d e; mv e/fb d; rm linked; mv e/link linked2
`;

const backAgain =
  'mv q popped/q; mv popped p/op; mv renamed/op2 op2; rm -r op; mv renamed op; rm d; mv e d; mv x/sub d/sub';

mountTest(
  'what a guest does to them comes to what it comes to on a plain copy, after a remount, and in kernel overlayfs',
  () =>
    withLayers(async (layers) => {
      await make(layers);
      const plain = `${layers.dir}/plain`;
      await inOverlayfs(layers, false, (dir) => runOk('cp', ['-a', dir, plain]));
      await withBaseUntouched(layers.base, async () => {
        for (const [when, act] of Object.entries({ there: script, back: backAgain })) {
          await sh(act, [], { cwd: plain });
          const model = await readTree(plain);
          const here = { mtime: false };
          await withUnion(layers, async ({ dir }) => {
            await sh(act, [], { cwd: dir });
            expectSame(model, await readTree(dir), here);
          });
          const again = await withUnion(layers, ({ dir }) => readTree(dir));
          expectSame(model, again, here);
          await inOverlayfs(layers, true, async (dir) => {
            const expected = await readTree(dir);
            expectSame(model, expected, here);
            expect(wrongLinks(directories(again), (path) => expected.get(path)?.nlink === 1)).toEqual([]);
          });
          expect(await kasane(['check', layers.overlay]), when).toMatchObject({ code: 0, stderr: '' });
        }
      });
    }),
  needs,
);

mountTest(
  'a random guest on three layers leaves the same tree under Kasane and kernel overlayfs',
  () =>
    withLayers(async (layers) => {
      await make(layers);
      await withBaseUntouched(layers.base, async () => {
        const tree = await withUnion(layers, async ({ dir }) => {
          const { ok, failed } = await workload(dir, 41, 500);
          expect(ok).toBeGreaterThan(failed);
          return readTree(dir);
        });
        await withUnion(layers, async ({ dir }) => expectSame(tree, await readTree(dir)));
        // What it remembers of a mount's attributes need not be what lies on the disk.
        await inOverlayfs(layers, true, readTree);
        await inOverlayfs(layers, true, async (dir) => expectSame(tree, await readTree(dir)));
      });
    }),
  { ...needs, commands: [...commands, 'setfacl'] },
);

/** Three layers of which the upper two have been upper directories of overlayfs, whose guest renamed directories. */
async function makeRenamed({ base, mnt }: Layers): Promise<void> {
  await sh(
    `mkdir -p a b c work/a work/b; cd c
    for d in p/q/r s/t u v x/y z n0 n1/n2; do mkdir -p $d; echo c > $d/f; echo $d > $d/c; done; cd ..
    ${overlayfsOver('metacopy=off')}
    over c b "$1" 'mv p/q s/q; mv s/t p/t; echo b > p/t/b; mv u u2; mv u2 u3; mv v x/y/v; mv x x2; mv z zz; mkdir z
      mv n1/n2 n0/n2; rm s/q/r/f; mv n0 n1/n0; echo b > x2/y/v/b; echo b > u3/f'
    over b:c a "$1" 'mv s ss; mv ss/q/r r; echo a > r/a; mv p/t/ t; mv u3 z/u3; mv x2/y/v x2/v; rm -r x2/y; mv zz x2/y
      mv n1/n0 n1/m; mv n1 z/n1; echo a > z/n1/m/n2/a; mkdir u; echo a > t/f'
    # As others write them, and what nobody follows.
    mkdir -p c/h/i c/h/j/k c/h2; for d in h h/i h/j/k h2; do echo c > c/$d/c; done
    mkdir -p a/h/rel a/h/abs b/h/rel2/k a/oh/ab b/oh/ab c/oh/ab a/l b/h/l2; echo b > b/h/l2/b; echo c > c/oh/ab/c
    to() { setfattr -n trusted.overlay.redirect -v "$2" $1; }
    to a/h/rel i; to a/h/abs /h2; to b/h/rel2 j; to a/l /h/l2; to b/h/l2 i; to a/oh/ab /h2
    setfattr -n trusted.overlay.opaque -v y a/oh; rm -r work
    find a b c -exec touch -h -d '2015-05-05 05:05:05.5 UTC' {} +`,
    [mnt],
    { cwd: base },
  );
}

const renamedScript = `
  echo more >> r/f 2> /dev/null || echo new > r/f; echo more >> t/c; chmod 600 ss/f 2> /dev/null || :; mv z/u3 u4; echo new > u4/new
  mv r ss/q/r2; rm x2/v/f; mv x2/v v2; echo more >> v2/c; mv z/n1 n; rm -r n/m/n2; mv h/rel rel; echo more >> rel/c; mv h/abs/c h/abs/d
  mv l l2; echo more >> l2/c; rm h/rel2/k/c; mkdir -p oh/ab/new; mv x2/y y; mkdir x2/y; echo new > x2/y/f
`;

mountTest(
  'directories that were renamed in the layers themselves show what kernel overlayfs shows, and follow it',
  () =>
    withLayers(async (layers) => {
      await makeRenamed(layers);
      const expected = await inOverlayfs(layers, false, readTree);
      for (const name of [
        'r/c',
        't/c',
        'z/u3/f',
        'x2/v/c',
        'x2/y/c',
        'z/n1/m/n2/c',
        'h/rel/c',
        'h/abs/c',
        'h/rel2/k/c',
        'l/b',
      ])
        expect([...expected.keys()]).toContain(name);
      const plain = `${layers.dir}/plain`;
      await inOverlayfs(layers, false, (dir) => runOk('cp', ['-a', dir, plain]));
      await withUnion(layers, async ({ dir }) => {
        const shown = await readTree(dir);
        expectSame(expected, shown, { nlink: true, mtime: 'files' });
        expect(dirLinks(shown)).toEqual(dirLinks(expected));
        await sh(renamedScript, [], { cwd: dir });
      });
      await sh(renamedScript, [], { cwd: plain });
      const model = await readTree(plain);
      await inOverlayfs(layers, true, async (dir) =>
        expectSame(model, await readTree(dir), { mtime: false }),
      );
      await withUnion(layers, async ({ dir, sh: inside }) => {
        await kasane(['reconcile', dir]);
        expectSame(model, await readTree(dir), { mtime: false });
        expect((await kasane(['status', '--json', dir])).stdout).toMatch(/"stale": 0,/);
        // What was copied up beneath them is followed where the layer has it.
        await inside(': >> u4/c; cat u4/c > /dev/null');
        await sh('echo moved on > c/u/c', [], { cwd: layers.base });
        await caughtUp(dir);
        expect(await inside('cat u4/c u4/f')).toBe('moved on\nb\n');
      });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  needs,
);

const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });
const guestText = text({ [GUEST_LINE]: 'guest' });
const edit = `s/^line ${GUEST_LINE}$/guest/`;

/** Three layers of texts, and a guest that has edited all of them. */
function withTexts(files: Record<string, string>, body: (tools: Texts) => Promise<void>): Promise<void> {
  return withLayers(async (layers) => {
    for (const [name, content] of Object.entries(files)) {
      await sh('mkdir -p "$(dirname "$1")"; cat > "$1"', [`${layers.base}/${name}`], { input: content });
    }
    await sh('mkdir -p a b c', [], { cwd: layers.base });
    const watch = new BaseWatch(layers.base);
    await withUnion(layers, async (mount) => {
      const changing = async (work: () => Promise<unknown>) => {
        await watch.changing(work);
        await caughtUp(mount.dir);
      };
      const changeBase = (act: string) => changing(() => sh(act, [], { cwd: layers.base }));
      const update = (name: string, content: string) =>
        changing(() => updateFile(`${layers.base}/${name}`, content, 'replace'));
      const conflicts = async () => {
        const { stdout } = await kasane(['conflicts', '--json', mount.dir]);
        return (JSON.parse(stdout) as { path: string; kind: string }[]).map(
          ({ path, kind }) => `${path} ${kind}`,
        );
      };
      await body({ layers, mount, update, changeBase, conflicts });
    });
    watch.check();
  });
}

interface Texts {
  layers: Layers;
  mount: Mount;
  update: (name: string, content: string) => Promise<void>;
  changeBase: (act: string) => Promise<unknown>;
  conflicts: () => Promise<string[]>;
}

mountTest(
  'a copy of a file of any layer follows that layer by merging, and what is not copied follows at once',
  () =>
    withTexts(
      { 'a/d/one': text(), 'b/d/two': text(), 'c/d/three': text(), 'c/d/four': text(), 'b/e/five': text() },
      async ({ mount, update, conflicts }) => {
        await mount.sh(
          `mv e renamed; sed -i '${edit}' d/one d/two d/three renamed/five; stat d/* > /dev/null`,
        );
        for (const name of ['a/d/one', 'b/d/two', 'c/d/three', 'c/d/four', 'b/e/five'])
          await update(name, text({ [BASE_LINE]: 'base' }));
        for (const name of ['d/one', 'd/two', 'd/three', 'renamed/five'])
          expect(await mount.read(name)).toBe(merged);
        expect(await mount.read('d/four')).toBe(text({ [BASE_LINE]: 'base' }));
        expect(await conflicts()).toEqual([]);
      },
    ),
);

mountTest('a layer that puts a file above another’s, or takes it away again, has updated the base', () =>
  withTexts(
    { 'b/d/one': text(), 'c/d/two': text(), 'b/d/seen': text(), 'b/d/clash': text() },
    async (tools) => {
      const { mount, changeBase, update, conflicts } = tools;
      await mount.sh(`sed -i '${edit}' d/one d/two d/clash; cat d/seen > /dev/null`);
      await changeBase('mkdir a/d; cp b/d/one b/d/seen a/d/; mkdir -p b/d; cp c/d/two b/d/two');
      expect(await mount.read('d/one')).toBe(guestText);
      for (const name of ['a/d/one', 'b/d/two', 'a/d/seen'])
        await update(name, text({ [BASE_LINE]: 'base' }));
      await changeBase(`sed '${GUEST_LINE}s/.*/other/' b/d/clash > a/d/clash`);
      expect(await mount.read('d/one')).toBe(merged);
      expect(await mount.read('d/two')).toBe(merged);
      expect(await mount.read('d/seen')).toBe(text({ [BASE_LINE]: 'base' }));
      expect(await mount.read('d/clash')).toBe(guestText);
      expect(await conflicts()).toEqual(['d/clash text']);
      // Back to the version beneath: a change like any other.
      await changeBase('rm a/d/one a/d/seen a/d/clash');
      expect(await mount.read('d/one')).toBe(guestText);
      expect(await mount.read('d/seen')).toBe(text());
      expect(await mount.read('d/clash')).toBe(guestText);
      expect(await conflicts()).toEqual([]);
    },
  ),
);

mountTest(
  'a whiteout or an opaque directory that comes into a layer removes what lies beneath, but no copy',
  () =>
    withTexts(
      { 'b/d/one': text(), 'b/d/two': text(), 'c/e/three': text(), 'c/e/four': text(), 'b/f/g/five': text() },
      async ({ mount, changeBase, conflicts }) => {
        await mount.sh(`sed -i '${edit}' d/one e/three f/g/five; ls d e f/g > /dev/null`);
        await changeBase(`mkdir -p a/d a/e; mknod a/d/one c 0 0; mknod a/d/two c 0 0; mknod a/f c 0 0
        setfattr -n trusted.overlay.opaque -v y a/e`);
        expect(await mount.sh('ls d e f f/g')).toBe('d:\none\n\ne:\nthree\n\nf:\ng\n\nf/g:\nfive\n');
        for (const name of ['d/one', 'e/three', 'f/g/five']) expect(await mount.read(name)).toBe(guestText);
        expect(await conflicts()).toEqual([]);
        await changeBase('rm a/d/one a/d/two a/f; setfattr -x trusted.overlay.opaque a/e');
        expect(await mount.sh('ls d e f/g')).toBe('d:\none\ntwo\n\ne:\nfour\nthree\n\nf/g:\nfive\n');
      },
    ),
  { commands },
);

mountTest(
  'a directory of a layer that begins or ends to hide what lies beneath, or has it elsewhere, is soon shown so',
  async () => {
    for (const watcher of watchers) {
      await withLayers(async (layers) => {
        const { base } = layers;
        await sh('mkdir -p a/d b/d b/e c; touch a/d/upper b/d/lower b/e/other', [], { cwd: base });
        await withUnion(
          layers,
          async ({ dir: mnt }) => {
            const guest = startAgent();
            const shows = (...expected: string[]) =>
              waitUntil(async () => {
                const listed = await guest.call<string[]>('readdirSync', `${mnt}/d`);
                const there = await Promise.all(
                  ['lower', 'other', 'upper'].map((name) => guest.call('existsSync', `${mnt}/d/${name}`)),
                );
                // What it tells of itself is kept, too.
                await guest.call('statSync', `${mnt}/d`);
                const found = ['lower', 'other', 'upper'].filter((_, i) => there[i]);
                return [listed.sort(), found].every((names) => names.join() === expected.join());
              });
            expect(await shows('lower', 'upper')).toBe(true);
            for (const [change, ...expected] of [
              ['-n trusted.overlay.opaque -v y', 'upper'],
              ['-x trusted.overlay.opaque', 'lower', 'upper'],
              ['-n trusted.overlay.redirect -v /e', 'other', 'upper'],
              ['-x trusted.overlay.redirect', 'lower', 'upper'],
            ] as const) {
              await sh(`setfattr ${change} a/d`, [], { cwd: base });
              expect(await shows(...expected), change).toBe(true);
            }
            await guest.stop();
          },
          notifyBy(watcher),
        );
      });
    }
  },
  { commands },
);

mountTest(
  'a renamed directory shows the same of the layers as before: whiteouts and opaque ones count where they lie',
  () =>
    withLayers(async (layers) => {
      await make(layers);
      await withUnion(layers, async ({ dir }) => {
        const before = await readTree(dir);
        const inside = (tree: Tree, top: string) =>
          new Map(
            [...tree]
              .filter(([path]) => path.startsWith(`${top}/`))
              .map(([path, entry]) => {
                const rest = path.slice(top.length + 1);
                return [rest, { ...entry, path: rest }];
              }),
          );
        for (const some of [['d', 'op', 'op2', 'w', 'df', 'x', 'p/op', 'y', 'hollow'], ['p']]) {
          const away = (name: string) => `${dir}/moved-${name.replace('/', '-')}`;
          for (const name of some)
            expect(await renameWith(`${dir}/${name}`, away(name), 'plainly'), name).toBe('done');
          const moved = await readTree(dir);
          for (const name of some) {
            expectSame(inside(before, name), inside(moved, away(name).slice(dir.length + 1)), { ino: true });
            expect(moved.has(name)).toBe(false);
            expect(await renameWith(away(name), `${dir}/${name}`, 'plainly'), name).toBe('done');
          }
        }
        expectSame(before, await readTree(dir), { mtime: 'files', ino: true });
      });
    }),
  needs,
);

mountTest(
  'handles of what lies in any layer outlive forgetting, a restart, and new trees in place of the layers',
  () =>
    withLayers(async (layers) => {
      await make(layers);
      const paths = [
        'd/fa',
        'd/fb',
        'd/fc',
        'd/all',
        'op/a',
        'op2/b',
        'w/a',
        'p/op/q',
        'p/op/q/b',
        'd/sub',
        'df',
      ];
      let handles: string[] = [];
      let before: unknown[] = [];
      const contents = async (dir: string) =>
        (await openHandles(dir, handles)).map(
          ({ error, content, names: inside }) => error ?? content ?? inside,
        );
      await withUnion(
        layers,
        async ({ dir }) => {
          await sh('echo more >> d/fb; mv op renamed; mv p/op popped', [], { cwd: dir });
          const now = paths.map((path) => path.replace(/^op\//, 'renamed/').replace(/^p\/op/, 'popped'));
          handles = await takeHandles(dir, now);
          before = await contents(dir);
          expect(before.filter((one) => one === 'ESTALE')).toEqual([]);
          await forgetAll(dir);
          expect(await contents(dir)).toEqual(before);
        },
        ['--export=nfs4'],
      );
      await sh('for l in a b c; do cp -a $l $l.new; mv $l $l.old; mv $l.new $l; done; rm -r *.old', [], {
        cwd: layers.base,
      });
      await withUnion(layers, async ({ dir }) => expect(await contents(dir)).toEqual(before), [
        '--export=nfs4',
      ]);
      expect(fs.existsSync(`${layers.overlay}/d/fa`)).toBe(false);
    }),
  needs,
);
