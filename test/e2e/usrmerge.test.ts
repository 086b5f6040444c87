// A directory of the base that becomes something else: a symlink to another directory (as usrmerge makes of /lib),
// or a file. The base's object shows, what the guest has in the directory moves to where the symlink leads, and what
// finds no place there lies in displaced/ and is a conflict. Nothing is lost.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { crashAt, differences } from '../lib/crash.ts';
import { withExport } from '../lib/handles.ts';
import { kasane, type Layers, type Mount, say, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { readTree, type Tree } from '../lib/tree.ts';
import { type Guest, withGuest, writeFiles } from '../lib/versioning.ts';

const files = {
  'lib/f': 'f\n',
  'lib/gone': 'gone\n',
  'lib/sub/x': 'x\n',
  'lib/old/z': 'z\n',
  'usr/lib/ld.so': 'so\n',
  'usr/lib/sub/u': 'u\n',
};

/** What the base does: everything in lib moves to usr/lib, but for lib/old, which goes. */
const usrmerge = `rm -r lib/old; mv lib/f lib/gone usr/lib/; mv lib/sub/x usr/lib/sub/; rm -r lib; ln -s usr/lib lib`;

const inBase = (guest: Guest, script: string) => guest.changeBase(() => sh(script, [], { cwd: guest.base }));
const ls = (guest: Guest, ...dirs: string[]) => guest.mount.sh(`ls -A ${dirs.join(' ')}`);

/** Somebody looks, and it has been dealt with. */
async function settled(guest: Guest, name: string): Promise<void> {
  const isDirectory = async () =>
    (await guest.mount.sh('[ -h "$1" ] || [ ! -d "$1" ] || echo yes', [name])) !== '';
  await waitUntil(async () => !(await isDirectory()));
  expect(await isDirectory()).toBe(false);
}

mountTest(
  'what the guest has in the directory moves to where the symlink leads, with what it removed there',
  () =>
    withGuest({ files }, async (guest) => {
      await guest.mount.sh(`echo own > lib/own; mkdir -p lib/new/deep; echo n > lib/new/deep/n; ln -s own lib/ownlink
      echo y > lib/sub/y; rm lib/gone; echo z2 > lib/old/z2; chmod 700 lib/sub; mv lib/new lib/made`);
      await inBase(guest, usrmerge);
      await settled(guest, 'lib');
      expect(
        await guest.mount.sh(
          'readlink lib; cat lib/own lib/ownlink lib/f lib/made/deep/n lib/sub/y lib/sub/x',
        ),
      ).toBe('usr/lib\nown\nown\nf\nn\ny\nx\n');
      expect(await ls(guest, 'lib/', 'lib/old', 'lib/sub')).toBe(
        'lib/:\nf\nld.so\nmade\nold\nown\nownlink\nsub\n\nlib/old:\nz2\n\nlib/sub:\nu\nx\ny\n',
      );
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.events('lib')).toContain('merged');
      expect(fs.readdirSync(`${guest.overlay}/.kasane/displaced`)).toEqual([]);
      expect(fs.existsSync(`${guest.overlay}/lib`)).toBe(false);
    }),
);

mountTest('of what lay in it the index has nothing any more, also where the other directory goes, too', () =>
  withGuest({ files: { 'd1/s/x': 'x\n', 'd1/y': 'y\n', 'd2/y': 'y\n', 'd3/z': 'z\n' } }, async (guest) => {
    await guest.mount.sh('for f in d1/s/x d1/y d2/y d3/z; do echo guest >> $f; done');
    await inBase(guest, 'rm -r d1 d2 d3; ln -s d2 d1; echo file > d2; ln -s d4 d3; mkdir d4');
    for (const name of ['d1', 'd2', 'd3']) await settled(guest, name);
    const { conflicts } = JSON.parse((await guest.kasane(['reconcile', '--json', guest.mnt])).stdout);
    expect(conflicts).not.toEqual([]);
    expect(await guest.mount.sh('cat d2 d3/z')).toBe('file\nz\nguest\n');
    expect(await say(0, 'check', guest.mnt)).toContain(': no damage, 0 warnings');
  }),
);

mountTest('what finds no place there is a conflict that names it, and lies in displaced/', () =>
  withGuest({ files: { ...files, 'usr/lib/taken': 'base\n' } }, async (guest) => {
    await guest.mount.sh(`echo more >> lib/f; echo guest > lib/taken; mkdir lib/ld.so; echo in > lib/ld.so/in
      echo own > lib/own; echo more >> lib/sub/x; echo y > lib/sub/y`);
    await inBase(guest, usrmerge);
    await settled(guest, 'lib');
    await waitUntil(async () => (await guest.conflictList()).length > 0);
    expect(await guest.conflictList()).toEqual(['lib type']);
    const id = (await guest.conflicts())[0]?.id;
    expect(await guest.mount.sh('cat lib/f lib/taken lib/own lib/sub/x lib/sub/y lib/ld.so')).toBe(
      'f\nbase\nown\nx\ny\nso\n',
    );
    const aside = `${guest.overlay}/.kasane/displaced/${id}`;
    expect(await sh('cd "$1"; find . -type f | sort; cat f taken sub/x ld.so/in', [aside])).toBe(
      './f\n./ld.so/in\n./sub/x\n./taken\nf\nmore\nguest\nx\nmore\nin\n',
    );
    const info = await guest.read(`.kasane/conflict/${id}/info`);
    for (const name of ['lib/f', 'lib/taken', 'lib/sub/x', 'lib/ld.so/in']) expect(info).toContain(name);
    expect(await guest.kasane(['check', guest.overlay])).not.toMatchObject({ code: 2 });
    expect(await guest.kasane(['resolve', guest.mnt, String(id), '--take', 'base'])).toMatchObject({
      code: 0,
    });
    expect(await guest.conflictList()).toEqual([]);
    expect(await guest.mount.sh('readlink lib; cat lib/own')).toBe('usr/lib\nown\n');
  }),
);

mountTest('a directory that becomes a file shows the file, and what was in it lies in displaced/', () =>
  withGuest({ files: { 'd/f': 'f\n', 'd/sub/g': 'g\n', 'e/f': 'f\n', 'h/f': 'f\n' } }, async (guest) => {
    await guest.mount.sh('echo own > d/own; echo more >> d/sub/g; rm e/f; chmod 700 h');
    await inBase(guest, 'rm -r d e h; echo file d > d; echo file e > e; echo file h > h');
    for (const name of ['d', 'e', 'h']) {
      await settled(guest, name);
      expect(await guest.read(name)).toBe(`file ${name}\n`);
    }
    await waitUntil(async () => (await guest.conflictList()).length > 0);
    expect(await guest.conflictList()).toEqual(['d type']);
    const id = (await guest.conflicts())[0]?.id;
    expect(await sh('cd "$1"; cat own sub/g', [`${guest.overlay}/.kasane/displaced/${id}`])).toBe(
      'own\ng\nmore\n',
    );
  }),
);

mountTest('a symlink that leads to no directory of the union, or to itself, moves nothing', () =>
  withGuest({ files: { 'a/f': 'f\n', 'b/f': 'f\n', 'c/f': 'f\n', file: 'file\n' } }, async (guest) => {
    await guest.mount.sh('for d in a b c; do echo own > $d/own; done');
    await inBase(guest, 'rm -r a b c; ln -s nowhere a; ln -s file b; ln -s c c');
    await guest.mount.sh('ls a b c > /dev/null; stat a b c > /dev/null');
    await waitUntil(async () => (await guest.conflictList()).length === 3);
    expect(await guest.conflictList()).toEqual(['a type', 'b type', 'c type']);
    expect(await guest.mount.sh('cat a/own b/own c/own')).toBe('own\nown\nown\n');
  }),
);

mountTest('an absolute symlink is one within the union, and a chain of directories goes along', () =>
  withGuest(
    { files: { 'lib/f': 'f\n', 'usr/lib/u': 'u\n', 'x/y/lib/g': 'g\n', 'x/z/h': 'h\n' } },
    async (guest) => {
      await guest.mount.sh('echo own > lib/own; echo own > x/y/lib/own');
      await inBase(guest, 'rm -r lib x/y/lib; ln -s /usr/lib lib; ln -s ../z x/y/lib');
      await settled(guest, 'lib');
      await settled(guest, 'x/y/lib');
      expect(await guest.mount.sh('cat usr/lib/own x/y/lib/own; readlink lib x/y/lib')).toBe(
        'own\nown\n/usr/lib\n../z\n',
      );
      expect(await guest.conflictList()).toEqual([]);
    },
  ),
);

mountTest('who has a file or the directory itself open goes on, and finds it under its new name', () =>
  withGuest({ files }, async (guest) => {
    await guest.mount.sh('echo own > lib/own; mkdir lib/mine; echo m > lib/mine/m');
    const agent = startAgent({ cwd: guest.at('lib/mine') });
    const fd = await agent.call<number>('openSync', guest.at('lib/own'), 'a+');
    await inBase(guest, usrmerge);
    await settled(guest, 'lib');
    await agent.call('writeSync', fd, 'more\n');
    expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe('own\nmore\n');
    expect(await guest.read('usr/lib/own')).toBe('own\nmore\n');
    await guest.mount.sh(
      'echo again >> lib/own; chmod 600 lib/own; stat usr/lib/own; echo x > usr/lib/mine/x',
    );
    expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe('own\nmore\nagain\n');
    await agent.call('closeSync', fd);
    expect(await guest.mount.sh('mv lib/own lib/own2; cat lib/own2 lib/mine/m lib/mine/x')).toBe(
      'own\nmore\nagain\nm\nx\n',
    );
    await agent.stop();
  }),
);

mountTest('handles of what moves to where the symlink leads go along; those of the directory are stale', () =>
  withExport({ files }, async (guest) => {
    await sh('echo own > own; mkdir mine; echo m > mine/m; echo y > sub/y; echo more >> f', [], {
      cwd: guest.at('lib'),
    });
    const handles = await guest.take(
      'lib',
      'lib/own',
      'lib/mine',
      'lib/mine/m',
      'lib/sub/y',
      'lib/f',
      'usr/lib/ld.so',
    );
    await guest.changeBase(() => sh(usrmerge, [], { cwd: guest.base }));
    await settled(guest, 'lib');
    const expected = {
      lib: 'ESTALE',
      'lib/own': 'own\n',
      'lib/mine': 'm',
      'lib/mine/m': 'm\n',
      'lib/sub/y': 'y\n',
      'lib/f': 'ESTALE',
      'usr/lib/ld.so': 'so\n',
    };
    await guest.forget();
    expect(await guest.openAll(handles)).toEqual(expected);
    await guest.restart();
    expect(await guest.openAll(handles)).toEqual(expected);
    await guest.crash();
    expect(await guest.openAll(handles)).toEqual(expected);
  }),
);

/** One of these happens to `lib`, each to that of its own directory; '' for none. */
const cuts = [
  '',
  'commit-before-rename:1',
  'commit-after-rename:1',
  'commit-before-rename:2',
  'commit-after-rename:2',
];

async function expectMoved(layers: Layers, mount: Mount): Promise<void> {
  const list = async () =>
    JSON.parse((await kasane(['conflicts', '--json', mount.dir])).stdout) as { path: string }[];
  for (const i of cuts.keys()) {
    await waitUntil(async () => (await mount.sh(`readlink d${i}/lib || ls d${i}/lib`)) === 'usr/lib\n');
    const found = await mount.sh(`cd d${i}; readlink lib; cat lib/own lib/sub/y lib/f lib/ld.so`);
    expect(found, cuts[i]).toBe('usr/lib\nown\ny\nf\nso\n');
  }
  await waitUntil(async () => (await list()).length === cuts.length);
  expect((await list()).map(({ path }) => path).sort()).toEqual(cuts.map((_, i) => `d${i}/lib`));
  const aside = await sh('cat "$1"/.kasane/displaced/*/f', [layers.overlay]);
  expect(aside).toBe('f\nmore\n'.repeat(cuts.length));
}

mountTest(
  'it is found at the first access when it happened while nothing was mounted, and finished after kill -9',
  () =>
    withLayers(async (layers) => {
      for (const i of cuts.keys()) writeFiles(`${layers.base}/d${i}`, files);
      await withMount(layers, async (mount) => {
        for (const i of cuts.keys())
          await mount.sh(`cd d${i}/lib; echo own > own; echo y > sub/y; echo more >> f`);
      });
      for (const i of cuts.keys()) await sh(usrmerge, [], { cwd: `${layers.base}/d${i}` });
      for (const [i, point] of cuts.entries()) {
        const look = `for i in 1 2 3 4 5 6 7 8 9 10; do ls d${i}/lib; sleep 0.2; done`;
        if (point !== '') await crashAt(layers, point, look);
      }
      let tree: Tree = new Map();
      await withMount(layers, async (mount) => {
        await expectMoved(layers, mount);
        tree = await readTree(mount.dir);
      });
      await withMount(layers, async ({ dir }) => expect(differences(tree, await readTree(dir))).toEqual([]));
    }),
  { timeout: 240_000 },
);

mountTest(
  'a directory that the guest put where the base has something else is none of the base that changed',
  () =>
    withGuest(
      { files: { a: 'a\n', b: 'b\n', 'c/f': 'f\n', 'd/f': 'f\n', 'usr/x': 'x\n' } },
      async (guest) => {
        await inBase(guest, 'ln -s usr link');
        await guest.mount.sh(`rm a b link; mkdir a; echo in > a/in; mv c b; echo in > b/in; mkdir link; echo in > link/in
      rm -r d`);
        // The base makes a file of a directory that the guest has removed; then the guest puts one of its own there.
        await inBase(guest, 'rm -r d; echo d > d');
        await guest.mount.sh('mkdir d; echo in > d/in; ls -A a b link d > /dev/null; cat */in > /dev/null');
        expect(await guest.kasane(['reconcile', guest.mnt])).not.toMatchObject({ code: 2 });
        expect(await guest.mount.sh('cat a/in b/in b/f link/in d/in')).toBe('in\nin\nf\nin\nin\n');
        expect((await guest.conflictList()).filter((line) => !line.startsWith('d '))).toEqual([]);
        // The base changes what the guest has removed: the guest's directory stays, and a person is asked.
        await guest.update('a', 'newer\n');
        await guest.mount.sh('ls a > /dev/null; stat a > /dev/null');
        await waitUntil(async () => (await guest.conflictList()).includes('a type'));
        expect(await guest.conflictList()).toContain('a type');
        expect(await guest.read('a/in')).toBe('in\n');
        expect(fs.readdirSync(`${guest.overlay}/.kasane/displaced`)).toEqual([]);
      },
    ),
);
