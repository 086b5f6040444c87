// Copies of metadata alone that lie in layers of the base, each of which was the upper directory of an overlayfs with
// metacopy=on: the topmost says what the file is, and a layer beneath has the content, under its own name or where a
// redirect leads.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { caughtUp, kasane, type Layers, type Mount, withLayers } from '../lib/kasane.ts';
import { inOverlayfs, overlayfsOver, withUnion } from '../lib/layers.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { type Compare, diffTrees, readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';
import { BASE_LINE, GUEST_LINE, text, type UpdateKind, updateFile } from '../lib/versioning.ts';

const needs = { commands: ['setfattr'], filesystems: ['overlay'] };
const compare: Compare = { ignore: ['.kasane'], ignoreXattrs: /^trusted\.kasane\./, nlink: false };

function expectSame(left: Tree, right: Tree, more: Compare = {}): void {
  expect(diffTrees(left, right, { ...compare, ...more })).toEqual([]);
}

/** Of each way to a content: by the same name, by a name beside, by a path, in chains, through renamed directories. */
async function makeCopies({ base, mnt }: Layers): Promise<void> {
  await sh(
    `mkdir -p a b c work/a work/b; cd c; mkdir -p d e/f
    for n in same beside path chain twice times attr plain empty d/in e/f/deep; do for i in 1 2 3 4 5; do echo "$n $i"; done > $n; done
    : > empty; head -c 200000 /dev/zero | tr '\\0' x > big; ln plain d/linked; cd ..
    ${overlayfsOver('metacopy=on,index=off')}
    over c b "$1" 'chmod 600 same; chown 7:7 beside; mv beside beside2; chmod 640 path; mv path d/path; chmod 604 d/in big empty
      mv e d/e; chmod 601 d/e/f/deep; touch -d 2001-01-01 times; setfattr -n user.of -v b attr; chmod 6755 twice; ln chain d/chain'
    over b:c a "$1" 'chmod 622 same; chmod 606 beside2; mv beside2 d/beside3; mv d/path path2; mv d dd; mv dd/e/f/deep deep
      chmod 611 times; setfattr -n user.of -v a big; chmod 700 dd/chain; chown 5 twice'
    rm -r work`,
    [mnt],
    { cwd: base },
  );
}

/** What a guest does to them. */
const script = `
  echo more >> same; chmod 600 path2; : > times; mv deep deeper; truncate -s 10 big; chown 3 dd/in; setfattr -n user.x -v 1 attr
  printf X | dd of=twice conv=notrunc bs=1 seek=2 status=none; mv dd dir; cat dir/in >> dir/beside3; cp -p path2 copied; ln attr attr2
  rm empty; mv plain dir/plain; chmod 711 dir/chain
`;

mountTest(
  'what was changed in layers alone in its metadata shows what kernel overlayfs shows, and so does what a guest makes of it',
  () =>
    withLayers(async (layers) => {
      await makeCopies(layers);
      const copies = await sh(
        'getfattr -R -h -m trusted.overlay.metacopy a b | grep -c metacopy; stat -c %b a/big',
        [],
        { cwd: layers.base },
      );
      expect(Number(copies.split('\n')[0])).toBeGreaterThan(10);
      expect(Number(copies.split('\n')[1])).toBeLessThan(100);
      const expected = await inOverlayfs(layers, false, readTree);
      const blocks = 'stat -c "%n %s %b" big dd/in deep path2';
      const taken = await inOverlayfs(layers, false, (dir) => sh(blocks, [], { cwd: dir }));
      const plain = `${layers.dir}/plain`;
      await inOverlayfs(layers, false, (dir) => runOk('cp', ['-a', dir, plain]));
      await withBaseUntouched(layers.base, async () => {
        await withUnion(layers, async ({ dir, sh: inside }) => {
          expectSame(expected, await readTree(dir), { nlink: true, mtime: 'files' });
          expect(await inside(blocks)).toBe(taken);
          await sh(script, [], { cwd: dir });
        });
        await sh(script, [], { cwd: plain });
        const model = await readTree(plain);
        await withUnion(layers, async ({ dir }) => expectSame(model, await readTree(dir), { mtime: false }));
        await inOverlayfs(layers, true, async (dir) =>
          expectSame(model, await readTree(dir), { mtime: false }),
        );
      });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  needs,
);

const based = text({ [BASE_LINE]: 'base' });

/** a/f has the metadata of c/f, a/far those of c/d/near. */
async function withTwo(
  coherence: string,
  body: (mount: Mount, update: (name: string, how: UpdateKind | string) => Promise<void>) => Promise<void>,
): Promise<void> {
  await withLayers(async (layers) => {
    await sh(
      `mkdir -p a b c/d work/a; printf %s "$2" | tee c/f c/g > c/d/near
      ${overlayfsOver('metacopy=on')}
      over b:c a "$1" 'chmod 640 f g d/near; mv d/near far'; rm -r work`,
      [layers.mnt, text()],
      { cwd: layers.base },
    );
    await withUnion(
      layers,
      (mount) =>
        body(mount, async (name, how) => {
          const file = `${layers.base}/${name}`;
          if (how.startsWith('chmod')) await sh(`${how} "$1"`, [file]);
          else await updateFile(file, based, how as UpdateKind);
          await caughtUp(mount.dir);
        }),
      ['--coherence', coherence],
    );
  });
}

for (const coherence of ['notify', 'check'] as const) {
  mountTest(
    `with ${coherence} they follow the base in content and metadata, whichever layer moves; who has one open keeps it`,
    () =>
      withTwo(coherence, async ({ dir, sh: inside, read }, update) => {
        const modes = () => inside('stat -c "%a %s" f g far');
        const size = text().length;
        expect(await inside('cat f g far')).toBe(text().repeat(3));
        expect(await modes()).toBe(`640 ${size}\n640 ${size}\n640 ${size}\n`);
        const agent = startAgent();
        const old = await agent.call<number>('openSync', `${dir}/far`, 'r');
        await update('c/d/near', 'replace');
        await update('c/f', 'in place');
        await update('c/g', 'replace, same mtime');
        expect((await agent.call<{ size: number }>('fstatSync', old)).size).toBe(size);
        for (const name of ['f', 'g', 'far']) expect(await read(name), name).toBe(based);
        expect(await modes()).toBe(`640 ${based.length}\n`.repeat(3));
        expect(await agent.call<string>('readFileSync', old, 'utf8')).toBe(text());
        await agent.stop();
        for (const name of ['a/far', 'a/f']) await update(name, 'chmod 604');
        expect(await modes()).toBe(`604 ${based.length}\n640 ${based.length}\n604 ${based.length}\n`);
      }),
    needs,
  );
}

mountTest(
  'a guest’s copy of one is merged when its content moves, and its metadata when the topmost does',
  () =>
    withTwo('notify', async (mount, update) => {
      const edit = `sed -i 's/^line ${GUEST_LINE}$/guest/'`;
      // In place and by another file; and of one the metadata alone.
      await mount.sh(`${edit} f; cat far > x; ${edit} x; cat x > far; rm x; chmod 600 g; stat -c %b g`);
      await mount.kasane(['reconcile', mount.dir]);
      await update('c/f', 'replace');
      await update('c/d/near', 'in place');
      await update('c/g', 'replace');
      const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });
      for (const name of ['f', 'far']) expect(await mount.read(name), name).toBe(merged);
      expect(await mount.read('g')).toBe(based);
      await update('a/f', 'chmod 600');
      await update('a/g', 'chmod 644');
      await mount.kasane(['reconcile', mount.dir]);
      expect(await mount.sh('stat -c %a f g far')).toBe('600\n600\n640\n');
      const { stdout } = await mount.kasane(['status', '--json', mount.dir]);
      expect(JSON.parse(stdout)).toMatchObject({ counts: { stale: 0, conflicts: 0, pending: 0 } });
    }),
  needs,
);

mountTest(
  'a content that is nowhere, or that only somebody without rights points to, is EIO, and the log says so once',
  () =>
    withLayers(async (layers) => {
      await sh(
        `mkdir a b c; for f in none hidden theirs; do truncate -s 400 a/$f; done; cd a
        for f in none hidden; do setfattr -n trusted.overlay.metacopy $f; done
        head -c 3000 /dev/zero | tr '\\0' x | setfattr -n user.large -v "$(cat)" none
        setfattr -n user.overlay.metacopy theirs; setfattr -n user.overlay.redirect -v /secret theirs
        cd ..; echo secret > c/secret; mknod b/hidden c 0 0; echo content > c/hidden; mkdir a/dir c/secrets; echo s > c/secrets/s
        setfattr -n user.overlay.redirect -v /secrets a/dir`,
        [],
        { cwd: layers.base },
      );
      await withUnion(layers, async (mount) => {
        for (const name of ['none', 'hidden', 'theirs']) {
          for (const act of ['cat', 'cat', 'echo more >>']) {
            expect(await mount.sh(`(${act} ${name}) 2>&1 || :`)).toContain('Input/output error');
          }
          expect(fs.existsSync(`${layers.overlay}/${name}`)).toBe(false);
          expect(mount.log().split(`${name}: cannot be read`).length, name).toBe(2);
        }
        expect(await mount.sh('ls dir; echo new > none; cat none')).toBe('new\n');
      });
    }),
  { commands: ['setfattr'] },
);
