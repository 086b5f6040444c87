// Origins belong to paths of the base: they stay behind when a file is renamed away, go with a renamed directory,
// and are found again by what comes back. Also hard links, attributes, and bases that will not stand still.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { decodeOrigins, encodeOrigins } from '../../src/versions/origin.ts';
import { startAgent } from '../lib/agent.ts';
import { exchangeCommand } from '../lib/calls.ts';
import { holdUp, threadsOf, untilHeld } from '../lib/inject.ts';
import { startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { BaseWatch, guestOf, snapshot, text, withGuest, writeFiles } from '../lib/versioning.ts';

const base3 = { 3: 'BASE 3' };
const guest15 = { 15: 'guest' };
const both = text({ ...base3, ...guest15 });
const edit = (file: string) => `sed -i 's/^line 15$/guest/' ${file}`;

mountTest('a file renamed away leaves its origin behind, and finds it when it comes back', () =>
  withGuest({ files: { f: text(), g: text(), h: text() } }, async (guest) => {
    await guest.mount.sh(`mv f away; ${edit('away')}; mv g h`);
    await guest.update('f', text(base3), 'replace, same mtime');
    await guest.update('h', text(base3));
    expect(await guest.exists('f')).toBe(false);
    expect(await guest.read('away')).toBe(text(guest15));
    // What lies at h now was g, and is the guest's change of h: none.
    expect(await guest.read('h')).toBe(text(base3));
    await guest.mount.sh('mv away f');
    expect(await guest.read('f')).toBe(both);
    expect(await guest.exists('g')).toBe(false);
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('two files that change places are each the other’s change', () =>
  withGuest({ files: { a: text({ 1: 'a' }), b: text({ 1: 'b' }) } }, async (guest) => {
    const exchange = 'import ctypes, sys; c = ctypes.CDLL(None); p = [x.encode() for x in sys.argv[1:]]';
    await runOk('python3', [
      '-c',
      `${exchange}; sys.exit(c.renameat2(-100, p[0], -100, p[1], 2))`,
      guest.at('a'),
      guest.at('b'),
    ]);
    await guest.update('a', text({ 1: 'a', ...base3 }));
    expect(await guest.read('a')).toBe(text({ 1: 'b', ...base3 }));
    expect(await guest.read('b')).toBe(text({ 1: 'a' }));
    await guest.mount.sh('mv a c; mv b a; mv c b');
    // It comes back as it was, to where the update is known: the guest's change of that.
    expect(await guest.read('a')).toBe(text({ 1: 'a' }));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('a renamed directory of the base goes on following it', () =>
  withGuest({ files: { 'd/f': text(), 'd/g': text(), 'd/sub/h': text() } }, async (guest) => {
    await guest.mount.sh(`${edit('d/f')}; mv d e; ${edit('e/sub/h')}`);
    await guest.update('d/f', text(base3), 'replace, same mtime');
    await guest.update('d/g', text(base3));
    await guest.update('d/sub/h', text(base3), 'in place');
    expect(await guest.read('e/f')).toBe(both);
    expect(await guest.read('e/g')).toBe(text(base3));
    expect(await guest.read('e/sub/h')).toBe(both);
    expect(await guest.exists('d')).toBe(false);
    await guest.mount.sh('mv e d');
    await guest.update('d/f', text({ ...base3, 7: 'BASE 7' }));
    expect(await guest.read('d/f')).toBe(text({ ...base3, ...guest15, 7: 'BASE 7' }));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('a file with several names in the base stays one file through a merge', () =>
  withGuest({ files: { a: text(), 'd/x': '' } }, async (guest) => {
    const link = (name: string) => fs.linkSync(`${guest.base}/a`, `${guest.base}/${name}`);
    await guest.changeBase(() => ['b', 'd/c', 'parted'].map(link));
    const names = ['a', 'b', 'd/c', 'parted'];
    await guest.mount.sh(
      "printf 'guest\\n' >> a; cat b d/c parted > /dev/null; : >> b; : >> d/c; : >> parted",
    );
    const inodes = () => guest.mount.sh(`stat -c %i ${names.join(' ')} | sort -u | wc -l`);
    expect(await inodes()).toBe('1\n');
    // The base replaces one of the names, and edits what is left of the file.
    await guest.changeBase(() => {
      fs.renameSync(`${guest.base}/d/x`, `${guest.base}/parted`);
      fs.writeFileSync(`${guest.base}/a`, text(base3));
    });
    const merged = `${text(base3)}guest\n`;
    for (const name of ['d/c', 'a', 'b']) expect(await guest.read(name)).toBe(merged);
    const same = await guest.mount.sh('[ a -ef b ] && [ a -ef d/c ] && stat -c %h a');
    expect(same).toBe('3\n');
    expect(await guest.read('parted')).toBe(`${text()}guest\n`);
    expect(await guest.mount.sh('! [ a -ef parted ]; stat -c %h parted')).toBe('1\n');
    expect(await guest.conflictList()).toEqual(['parted text']);
    for (const name of ['a', 'b', 'd/c']) expect(await guest.events(name)).toContain('merged');
    await guest.mount.sh("printf 'again\\n' >> b");
    expect(await guest.read('d/c')).toBe(`${merged}again\n`);
  }),
);

mountTest(
  'attributes and modes are merged beside the content, and never widened',
  () =>
    withGuest({ files: { acl: text(), tightened: text(), attr: text(), taken: text() } }, async (guest) => {
      await guest.changeBase(() => sh('setfacl -m u:1:r "$1/taken"; chmod 664 "$1/tightened"', [guest.base]));
      await guest.mount.sh(
        'setfacl -m u:1234:rw acl; chmod 666 tightened; setfattr -n user.note -v guest attr',
      );
      // By rename, as sed does, which keeps the list: nothing of it is the guest's own.
      await guest.mount.sh(edit('taken'));
      for (const name of ['acl', 'attr', 'taken']) await guest.update(name, text(base3));
      await guest.changeBase(() => sh('setfacl -m u:1:r "$1/taken"; chmod 600 "$1/tightened"', [guest.base]));
      for (const name of ['acl', 'attr']) expect(await guest.read(name)).toBe(text(base3));
      await guest.read('tightened');
      expect(await guest.read('taken')).toBe(both);
      expect(await guest.mount.sh('getfacl -nc acl')).toContain('user:1234:rw-');
      expect(await guest.mount.sh('getfacl -nc taken')).toContain('user:1:r--');
      expect(await guest.mount.sh('getfattr --only-values -n user.note attr')).toBe('guest');
      expect(fs.statSync(guest.at('tightened')).mode & 0o077).toBe(0);
      expect((await guest.conflictList()).filter((line) => !line.startsWith('tightened'))).toEqual([]);
    }),
  { commands: ['setfacl', 'setfattr'] },
);

mountTest('who appends builds upon what is there, even to files of records', () =>
  withGuest({ files: { 'etc/passwd': 'root:x:0:0::/:/bin/sh\n', 'etc/list': text() } }, async (guest) => {
    await guest.read('etc/passwd');
    await guest.update('etc/passwd', 'root:x:0:0::/:/bin/sh\nsvc:x:100:100::/:/bin/sh\n');
    await guest.mount.sh('echo alice:x:1000:1000::/:/bin/sh >> etc/passwd; echo guest >> etc/list');
    const content = 'root:x:0:0::/:/bin/sh\nsvc:x:100:100::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
    expect(await guest.read('etc/passwd')).toBe(content);
    await guest.update('etc/list', text(base3));
    await guest.mount.sh('echo again >> etc/list');
    expect(await guest.read('etc/list')).toBe(`${text(base3)}guest\nagain\n`);
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('a base that changes while it is copied is stale at once, and followed when it stands still', () =>
  withGuest({ files: { big: 'x'.repeat(3_000_000), quiet: text() } }, async (guest) => {
    const writer = startAgent();
    await guest.changeBase(async () => {
      const busy = writer.call('rewriteStorm', `${guest.base}/big`, 3_000_000, 1500);
      await guest.mount.sh('sleep 0.2; chmod 600 big');
      await busy;
    });
    const last = fs.readFileSync(`${guest.base}/big`, 'utf8');
    expect(await guest.read('big')).toBe(last);
    expect(new Set(last).size).toBe(1);
    expect(fs.statSync(guest.at('big')).mode & 0o777).toBe(0o600);
    await writer.stop();
  }),
);

mountTest('what is made over a whiteout of more than a day ago is the guest’s own', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { young: text(), old: text(), rest: '' });
    await withMount(layers, (mount) => mount.sh('rm young old; sleep 1.2'));
    const attr = 'trusted.kasane.origin';
    const dump = await runOk('getfattr', ['-h', '-e', 'hex', '-n', attr, `${layers.overlay}/old`]);
    const hex = /=0x([0-9a-f]+)/.exec(dump)?.[1] ?? '';
    const origins = decodeOrigins(Buffer.from(hex, 'hex')) ?? [];
    expect(origins).toHaveLength(1);
    const aged = encodeOrigins(origins.map((one) => ({ ...one, taken: one.taken - 90_000 })));
    await runOk('setfattr', ['-h', '-n', attr, '-v', `0x${aged.toString('hex')}`, `${layers.overlay}/old`]);
    writeFiles(layers.base, { young: text(base3), old: text(base3) });
    await withMount(layers, async (mount) => {
      const guest = guestOf(mount, new BaseWatch(layers.base), layers.dir);
      for (const name of ['young', 'old']) await guest.mount.write(name, text(guest15));
      expect(await guest.read('young')).toBe(both);
      // It was made in view of the base as it is now.
      expect(await guest.read('old')).toBe(text(guest15));
      expect(await guest.conflictList()).toEqual([]);
    });
  }),
);

mountTest(
  'a set beneath a renamed directory, with another one renamed in it, is found where the base has it',
  () =>
    withGuest(
      { files: { 'site/.git/config': text(), 'site/.git/old/f': text(), 'www/.git/config': 'of another\n' } },
      async (guest) => {
        await guest.mount.sh(
          `rm -r www; mv site www; ${edit('www/.git/config')}; mv www/.git/old www/.git/new; true >> www/.git/new/f`,
        );
        await guest.update('site/.git/old/f', text(base3));
        expect(await guest.read('www/.git/new/f')).toBe(text(base3));
        expect(await guest.read('www/.git/config')).toBe(text(guest15));
        expect(await guest.conflictList()).toEqual([]);
      },
    ),
);

mountTest('a read-only mount shows what is there and writes nothing, however stale it is', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { merged: text(), follows: text(), gone: text() });
    await withMount(layers, (mount) => mount.sh(`${edit('merged')}; rm gone`));
    writeFiles(layers.base, { merged: text(base3), follows: text(base3) });
    const before = snapshot(layers.overlay);
    const mount = await startMount({ ...layers, mountPoint: layers.mnt, options: ['-o', 'ro'] });
    const guest = guestOf(mount, new BaseWatch(layers.base), layers.dir);
    expect(await guest.read('merged')).toBe(text(guest15));
    expect(await guest.read('follows')).toBe(text(base3));
    expect(await guest.exists('gone')).toBe(false);
    await mount.umount();
    expect(snapshot(layers.overlay)).toEqual(before);
    await withMount(layers, async (again) => {
      expect(await again.read('merged')).toBe(both);
    });
  }),
);

mountTest(
  'a look that was asked for before directories change places is about what lies there afterwards',
  () =>
    withGuest({ files: { 'd1/f': text(), 'd2/f': text(), junk: 'junk\n' } }, async (guest) => {
      await guest.mount.write('d1/f', text({ 15: 'one' }));
      await guest.mount.write('d2/f', text({ 15: 'two' }));
      await guest.update('d1/f', text(base3));
      // The main thread is kept from the look, for it removes a journal first that it has folded.
      const { main } = await threadsOf(guest.mount.pid);
      const held = await holdUp(main, 'unlink', 100);
      await guest.mount.sh('rm junk; stat d1/f');
      expect(await untilHeld(guest.mount.pid, main, 'unlink')).toBe(true);
      await guest.mount.sh(exchangeCommand(guest.at('d1'), guest.at('d2')));
      await held.stop();
      expect(await guest.read('d2/f')).toBe(text({ ...base3, 15: 'one' }));
      expect(await guest.read('d1/f')).toBe(text({ 15: 'two' }));
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.events('')).not.toContain('conflict');
    }),
  { commands: ['strace'] },
);
