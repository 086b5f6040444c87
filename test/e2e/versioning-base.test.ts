// The right base: another tree, another release, none at all. What is doubted is served as it is, and nothing is
// merged, dropped or tidied until a person accepts it.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { imageNeeds, makeLoopImage } from '../lib/images.ts';
import { type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { BaseWatch, baseState, type Guest, guestOf, text, withGuest, writeFiles } from '../lib/versioning.ts';

const base3 = { 3: 'BASE 3' };
const guest15 = { 15: 'guest' };
const both = text({ ...base3, ...guest15 });
const release = (version: string) => `ID=demo\nVERSION_ID="${version}"\n`;

/** Mounts, does, and takes down again. */
function session<T>(layers: Layers, body: (guest: Guest) => Promise<T>): Promise<T> {
  return withMount(layers, (mount) => body(guestOf(mount, new BaseWatch(layers.base), layers.dir)));
}

const accept = (guest: Guest) => guest.kasane(['reconcile', guest.mnt, '--accept-base']);

/** One file changed by the guest, one brought up and not changed, one removed. */
async function work(guest: Guest): Promise<void> {
  await guest.mount.sh("sed -i 's/^line 15$/guest/' etc/changed; true >> etc/untouched; rm etc/removed");
}

const files = { 'etc/changed': text(), 'etc/untouched': text(), 'etc/removed': text(), 'etc/plain': text() };
const nextFiles = { ...files, 'etc/changed': text(base3), 'etc/untouched': text(base3) };

mountTest('an empty directory in the place of the base is doubted, and costs the guest nothing', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, files);
    await session(layers, work);
    fs.renameSync(layers.base, `${layers.base}.away`);
    fs.mkdirSync(layers.base);
    await session(layers, async (guest) => {
      expect(await baseState(guest)).toBe('unaccepted');
      expect(await guest.read('etc/changed')).toBe(text(guest15));
      expect(await guest.read('etc/untouched')).toBe(text());
      expect(await guest.exists('etc/plain')).toBe(false);
      expect(guest.raw('etc/untouched')).toBe(text());
    });
    fs.rmdirSync(layers.base);
    fs.renameSync(`${layers.base}.away`, layers.base);
    writeFiles(layers.base, nextFiles);
    await session(layers, async (guest) => {
      expect(await baseState(guest)).toBe('accepted');
      expect(await guest.read('etc/changed')).toBe(both);
      expect(await guest.read('etc/untouched')).toBe(text(base3));
      expect(await guest.exists('etc/removed')).toBe(false);
      expect(await guest.conflictList()).toEqual([]);
    });
  }),
);

mountTest('another release waits for a person, and is merged once it is accepted', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { ...files, 'etc/os-release': release('1') });
    await session(layers, work);
    writeFiles(layers.base, { ...nextFiles, 'etc/os-release': release('2') });
    await session(layers, async (guest) => {
      expect(await baseState(guest)).toBe('unaccepted');
      expect(await guest.read('etc/changed')).toBe(text(guest15));
      expect(await guest.read('etc/untouched')).toBe(text());
      expect(await accept(guest)).toMatchObject({ code: 0 });
      expect(await baseState(guest)).toBe('accepted');
      expect(await guest.read('etc/changed')).toBe(both);
      expect(await guest.read('etc/untouched')).toBe(text(base3));
    });
    await session(layers, async (guest) => {
      expect(await baseState(guest)).toBe('accepted');
      expect(await guest.read('etc/changed')).toBe(both);
    });
  }),
);

for (const mounted of [true, false]) {
  mountTest(
    `a new tree of the same release, put in place by renames ${mounted ? 'under a mount' : 'between mounts'}, is taken`,
    () =>
      withLayers(async (layers) => {
        writeFiles(layers.base, { ...files, 'etc/os-release': release('1') });
        writeFiles(`${layers.dir}/next`, {
          ...nextFiles,
          'etc/os-release': release('1'),
          'etc/new': 'new\n',
        });
        const swap = () => {
          fs.renameSync(layers.base, `${layers.dir}/old`);
          fs.renameSync(`${layers.dir}/next`, layers.base);
        };
        const look = async (guest: Guest) => {
          expect(await waitUntil(() => guest.exists('etc/new'))).toBe(true);
          expect(await baseState(guest)).toBe('accepted');
          expect(await guest.read('etc/plain')).toBe(text());
          expect(await guest.read('etc/changed')).toBe(both);
          expect(await guest.read('etc/untouched')).toBe(text(base3));
          expect(await guest.exists('etc/removed')).toBe(false);
          expect(await guest.conflictList()).toEqual([]);
          await guest.mount.write('etc/removed', text(guest15));
          expect(await guest.read('etc/removed')).toBe(text(guest15));
        };
        await session(layers, async (guest) => {
          await work(guest);
          await guest.read('etc/plain');
          if (!mounted) return;
          await guest.changeBase(swap);
          await look(guest);
        });
        if (mounted) return;
        swap();
        await session(layers, look);
      }),
  );
}

for (const [what, uuid] of [
  ['with a UUID each', false],
  ['with the same UUID', true],
] as const) {
  mountTest(
    `two EROFS images ${what} that differ in a byte, with the same inode numbers, sizes and times, are told apart`,
    () =>
      withLayers(async (layers) => {
        const mkfs = ['-T', '1000000000', ...(uuid ? ['-U', '01234567-89ab-cdef-0123-456789abcdef'] : [])];
        const image = async (name: string, content: Record<string, string>) => {
          writeFiles(`${layers.dir}/${name}.tree`, content);
          const from = `${layers.dir}/${name}.tree`;
          return makeLoopImage(layers.dir, { fs: 'erofs', name, from, mkfs });
        };
        const one = await image('one', files);
        const stats = async () =>
          sh('cd "$1"; stat -c "%n %i %s %Y" etc/changed etc/untouched', [layers.base]);
        const bind = (dir: string) => sh('mount --bind "$1" "$2"', [dir, layers.base]);
        const unbind = () => sh('umount "$1"', [layers.base]);
        await bind(one.dir);
        const first = await stats();
        await withMount(layers, (mount) => work(guestOf(mount, new BaseWatch(layers.base), layers.dir)));
        await unbind();
        await one.umount();
        const two = await image('two', nextFiles);
        await bind(two.dir);
        expect(await stats()).toBe(first);
        await withMount(layers, async (mount) => {
          const guest = guestOf(mount, new BaseWatch(layers.base), layers.dir);
          expect(await guest.read('etc/untouched')).toBe(text(base3));
          expect(await guest.read('etc/changed')).toBe(both);
          expect(await guest.conflictList()).toEqual([]);
        });
        await unbind();
      }),
    imageNeeds('erofs'),
  );
}

mountTest('a base that goes away under a mount is served on, and found again when it is back', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, files);
    await session(layers, async (guest) => {
      await work(guest);
      fs.renameSync(layers.base, `${layers.dir}/away`);
      expect(await guest.read('etc/plain')).toBe(text());
      expect(await guest.read('etc/untouched')).toBe(text());
      // Between umount and mount there is an empty directory.
      fs.mkdirSync(layers.base);
      expect(await guest.read('etc/changed')).toBe(text(guest15));
      expect(await waitUntil(async () => (await baseState(guest)) === 'unaccepted')).toBe(true);
      expect(await guest.read('etc/untouched')).toBe(text());
      fs.rmdirSync(layers.base);
      fs.renameSync(`${layers.dir}/away`, layers.base);
      await guest.changeBase(() => writeFiles(layers.base, nextFiles), true);
      expect(await waitUntil(async () => (await guest.read('etc/changed')) === both)).toBe(true);
      expect(await guest.read('etc/untouched')).toBe(text(base3));
      expect(await guest.read('etc/plain')).toBe(text());
      expect(await baseState(guest)).toBe('accepted');
      expect(await guest.conflictList()).toEqual([]);
    });
  }),
);

mountTest('a base that is emptied under a mount is doubted before anything is dropped', () =>
  withGuest({ files }, async (guest) => {
    await work(guest);
    const away = `${guest.dir}/away`;
    await guest.changeBase(() => {
      fs.mkdirSync(away);
      fs.renameSync(`${guest.base}/etc`, `${away}/etc`);
    });
    expect(await guest.read('etc/untouched')).toBe(text());
    expect(await waitUntil(async () => (await baseState(guest)) === 'unaccepted')).toBe(true);
    await guest.changeBase(() => fs.renameSync(`${away}/etc`, `${guest.base}/etc`));
    expect(await guest.read('etc/untouched')).toBe(text());
    expect(await guest.read('etc/changed')).toBe(text(guest15));
    expect(await accept(guest)).toMatchObject({ code: 0 });
    await guest.update('etc/changed', text(base3));
    expect(await guest.read('etc/changed')).toBe(both);
  }),
);

mountTest('an emptied base takes no member of a set with it, of which the guest has changed another', () => {
  const accounts = { 'etc/passwd': 'root:x:0:0::/root:/bin/sh\n', 'etc/group': 'root:x:0:\n' };
  return withGuest({ files: accounts }, async (guest) => {
    await guest.mount.sh('echo guest:x:5:5::/:/bin/sh >> etc/passwd');
    await guest.changeBase(() => fs.rmSync(`${guest.base}/etc`, { recursive: true }));
    expect(await guest.read('etc/group')).toBe(accounts['etc/group']);
    expect(await waitUntil(async () => (await baseState(guest)) === 'unaccepted')).toBe(true);
    expect(await guest.read('etc/group')).toBe(accounts['etc/group']);
    expect(await guest.read('etc/passwd')).toContain('guest');
  });
});

mountTest('a tenth of all known files gone at once, and a hundred, is not taken for an update', () => {
  const many = Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`d${i % 2}/f${i}`, `${i}\n`]));
  return withGuest({ files: { ...many, other: text() } }, async (guest) => {
    await guest.mount.sh('for f in d0/* d1/*; do true >> $f; done');
    // So many only: an update.
    await guest.changeBase(() => fs.rmSync(`${guest.base}/d1`, { recursive: true }));
    await guest.mount.sh('cat d1/* > /dev/null 2>&1 || true; ls d1 > /dev/null 2>&1 || true');
    expect(await baseState(guest)).toBe('accepted');
    expect(await waitUntil(() => guest.raw('d1/f1') === null)).toBe(true);
    await guest.changeBase(() => {
      for (const name of Object.keys(many)) writeFiles(guest.base, { [name]: many[name] as string });
    });
    // They are counted once a second at most.
    await guest.mount.sh('for f in d1/*; do true >> $f; done; cat d0/* d1/* > /dev/null; sleep 1.1');
    await guest.changeBase(() => sh('rm -r "$1"/d0 "$1"/d1', [guest.base]));
    await guest.mount.sh('cat d0/* d1/* > /dev/null');
    expect(await waitUntil(async () => (await baseState(guest)) === 'unaccepted')).toBe(true);
    await guest.mount.sh('cat d0/* d1/* > /dev/null');
    expect(guest.raw('d0/f0')).toBe('0\n');
    expect(await accept(guest)).toMatchObject({ code: 0 });
    await guest.mount.sh('cat d0/* d1/* > /dev/null 2>&1 || true');
    expect(await waitUntil(() => guest.raw('d0/f0') === null)).toBe(true);
  });
});
