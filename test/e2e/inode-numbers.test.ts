// A copy shows the number that the base's object had, for as long as it lives. The base may have another object by that
// number soon: ext4 gives a freed one out again at once. No two objects of a mount may show the same.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { imageNeeds, makeLoopImage } from '../lib/images.ts';
import { caughtUp, type Mount, mainFile, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';

/** For a busy machine. */
const patient = { timeout: 100_000 };

/** st_ino by name, as a look-up tells it; it is what the listing says, and nobody else's. */
async function numbers(mount: Mount): Promise<Record<string, string>> {
  const shown = await mount.sh("stat -c '%n %i' *; echo; ls -1i | awk '{ print $2, $1 }'", [], patient);
  const [looked = '', listed = ''] = shown.trim().split('\n\n');
  expect(listed.split('\n').sort()).toEqual(looked.split('\n').sort());
  const found = looked.split('\n').map((line) => line.split(' ') as [string, string]);
  expect(new Set(found.map(([, ino]) => ino)).size).toBe(found.length);
  return Object.fromEntries(found);
}

mountTest(
  'no two objects show one number when the base gives that of a copied file to another, nor do they change later',
  () =>
    withLayers(async (outer) => {
      const image = await makeLoopImage(outer.dir, { fs: 'ext4', sizeMiB: 32 });
      const layers = { ...outer, base: `${image.dir}/base` };
      const inBase = (script: string) => sh(script, [], { cwd: layers.base });
      const expectSame = (wanted: Record<string, string>) =>
        withMount(layers, async (mount) => expect(await numbers(mount)).toEqual(wanted));
      try {
        fs.mkdirSync(layers.base);
        const freed = (await inBase('for f in a b c; do seq 9 > $f; done; stat -c %i a b'))
          .trim()
          .split('\n');
        let shown: Record<string, string> = {};
        await withMount(layers, async (mount) => {
          const before = await numbers(mount);
          await mount.sh('echo guest >> a; chmod 600 b; echo guest >> c');
          await inBase('for f in a b; do sed s/^3$/base/ $f > .n; mv .n $f; done; mv c moved; mkdir dir');
          const given = await inBase('for i in 1 2 3 4 5 6; do echo $i > new$i; done; stat -c %i new* dir');
          expect(freed.filter((ino) => given.split('\n').includes(ino))).not.toEqual([]);
          await caughtUp(mount.dir);
          shown = await numbers(mount);
          expect(shown).toMatchObject(before);
          expect(Object.keys(shown).length).toBe(11);
          await mount.sh('cat a b > /dev/null');
          expect(await numbers(mount)).toEqual(shown);
        });
        await expectSame(shown);
        await withMount(layers, (mount) =>
          mount.sh('for f in new*; do echo guest >> $f; done; chmod 700 dir'),
        );
        await expectSame(shown);
        fs.rmSync(`${layers.overlay}/.kasane/index`, { recursive: true });
        await expectSame(shown);
      } finally {
        await image.umount();
      }
    }),
  imageNeeds('ext4'),
);

mountTest(
  'a file that the guest has saved anew keeps its number when it is merged and when that is undone, and no other gets it',
  () =>
    withLayers(async (outer) => {
      const image = await makeLoopImage(outer.dir, { fs: 'ext4', sizeMiB: 32 });
      const layers = { ...outer, base: `${image.dir}/base`, overlay: `${image.dir}/overlay` };
      const raw = (name: string) => String(fs.statSync(`${layers.overlay}/${name}`).ino);
      const inBase = (script: string) => sh(script, [], { cwd: layers.base });
      try {
        for (const dir of [layers.base, layers.overlay]) fs.mkdirSync(dir);
        await inBase('for f in a b; do seq 20 > $f; done');
        let shown: Record<string, string> = {};
        await withMount(layers, async (mount) => {
          await mount.sh('sed -i s/^3$/guest/ a b; echo > c');
          const before = await numbers(mount);
          await inBase('for f in a b; do sed s/^17$/base/ $f > .n; mv .n $f; done');
          await mount.sh('until grep -l base a b | grep -c . | grep -qx 2; do sleep 0.05; done', [], patient);
          expect(await numbers(mount)).toEqual(before);
          expect([raw('a'), raw('b')]).not.toEqual([before.a, before.b]);
          expect(await mount.kasane(['undo', `${mount.dir}/b`])).toMatchObject({ code: 0 });
          await mount.sh(
            'grep -q base a; ! grep base b; mkdir d; for i in 1 2 3 4 5 6; do echo > d/$i; echo > n$i; done',
          );
          const given = Object.keys(await numbers(mount)).map(raw);
          expect(given.filter((ino) => ino === before.a || ino === before.b)).not.toEqual([]);
          shown = await numbers(mount);
          expect(shown).toMatchObject(before);
          // ls lines numbers up, and those that stand for others are longer.
          await mount.sh('cd d; [ "$(stat -c %i * | sort)" = "$(ls -1i | sed "s/^ *//; s/ .*//" | sort)" ]');
        });
        const expectSame = () =>
          withMount(layers, async (mount) => expect(await numbers(mount)).toEqual(shown));
        await expectSame();
        fs.rmSync(`${layers.overlay}/.kasane/index`, { recursive: true });
        await expectSame();
      } finally {
        await image.umount();
      }
    }),
  { ...imageNeeds('ext4'), timeout: 200_000 },
);

mountTest('names of one file show its number in listings, too, before they have been looked up', () =>
  withLayers(async (layers) => {
    await sh('seq 9 > one; ln one two; ln one three', [], { cwd: layers.base });
    const listed = (mount: Mount) => mount.sh('ls -1i | grep -vw one');
    let before = '';
    await withMount(layers, async (mount) => {
      before = await listed(mount);
      await mount.sh('sed -i s/^1$/guest/ one; echo guest >> two');
      expect(await listed(mount)).toBe(before);
    });
    await withMount(layers, async (mount) => {
      expect(await listed(mount)).toBe(before);
      expect(await mount.sh('stat -c "%i %n" three two | sort')).toBe(before);
    });
  }),
);

for (const { what, guest, drop } of [
  {
    what: 'drop',
    guest: 'exec 3<> a; read -r < b',
    drop: 'until grep base b; do sleep 0.05; done',
  },
  {
    what: 'resolution for the base’s',
    guest: 'echo guest >> a; read -r < b',
    drop: '! node "$KASANE_MAIN" reconcile b; node "$KASANE_MAIN" resolve b --take base && grep base b',
  },
]) {
  mountTest(
    `the ${what} of one of two names, undone: the other keeps the number, and what is back has its own`,
    () =>
      withLayers(async (layers) => {
        await sh('seq 9 > a; ln a b', [], { cwd: layers.base });
        await withMount(layers, async (mount) => {
          const before = (await mount.sh('stat -c %i a')).trim();
          await mount.sh(guest);
          await sh('{ seq 9; echo base; } > .n; mv .n b', [], { cwd: layers.base });
          await mount.sh(drop, [], { ...patient, env: { KASANE_MAIN: mainFile } });
          const dropped = await numbers(mount);
          expect(dropped.a).toBe(before);
          expect(await mount.kasane(['undo', `${mount.dir}/b`])).toMatchObject({ code: 0 });
          await mount.sh('! grep base b');
          expect((await numbers(mount)).a).toBe(before);
        });
        await withMount(layers, async (mount) =>
          expect(Object.keys(await numbers(mount))).toEqual(['a', 'b']),
        );
      }),
  );
}
