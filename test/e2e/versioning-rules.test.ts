// The rules of native-notes/versioning.md on real mounts: what is merged and what is not, whiteouts, sets, pins,
// writers, readers, settling.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { ripen } from '../lib/base-update.ts';
import { caughtUp, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sleep, waitUntil } from '../lib/run.ts';
import { BaseWatch, guestOf, text, type UpdateKind, withGuest, writeFiles } from '../lib/versioning.ts';

const base3 = { 3: 'BASE 3' };
const guest15 = { 15: 'guest' };
const both = text({ ...base3, ...guest15 });
/** A second is not much: one of them comes off in time. */
const trials = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`f${i}`, text()]));
const edit = (file: string) => `sed -i 's/^line 15$/guest/' ${file}`;

mountTest('an untouched copy follows the base, and what only changed its mode keeps that', () =>
  withGuest(
    { files: { touched: text(), chmodded: text(), grown: text(), emptied: text() } },
    async (guest) => {
      await ripen(`${guest.base}/emptied`);
      await guest.mount.sh(
        'true >> touched; chmod 600 chmodded; echo x >> grown; sed -i "\\$d" grown; : > emptied',
      );
      expect(fs.statSync(`${guest.overlay}/chmodded`).blocks).toBeLessThanOrEqual(8);
      for (const name of ['touched', 'chmodded', 'grown', 'emptied']) {
        expect(guest.raw(name)).not.toBe(null);
        await guest.update(name, text(base3));
      }
      expect(await guest.read('touched')).toBe(text(base3));
      expect(guest.raw('touched')).toBe(null);
      expect(await guest.read('grown')).toBe(text(base3));
      expect(guest.raw('grown')).toBe(null);
      expect(await guest.read('chmodded')).toBe(text(base3));
      expect(fs.statSync(guest.at('chmodded')).mode & 0o777).toBe(0o600);
      expect(await guest.events('chmodded')).toEqual(['copy-up']);
      // Emptied is a change as any other: the base's lines have none to meet.
      expect(await guest.read('emptied')).toBe('');
      expect(await guest.conflictList()).toEqual(['emptied text']);
      expect(await guest.events('touched')).toEqual(['copy-up', 'dropped']);
    },
  ),
);

mountTest('overlapping edits leave the guest’s file byte for byte, and no marker in any live file', () =>
  withGuest({ files: { 'etc/f': text() } }, async (guest) => {
    await ripen(`${guest.base}/etc/f`);
    await guest.mount.sh(edit('etc/f'));
    const before = fs.statSync(guest.at('etc/f'), { bigint: true });
    await guest.update('etc/f', text({ 15: 'BASE 15' }));
    expect(await guest.read('etc/f')).toBe(text(guest15));
    const after = fs.statSync(guest.at('etc/f'), { bigint: true });
    expect([after.ino, after.mtimeNs, after.ctimeNs]).toEqual([before.ino, before.mtimeNs, before.ctimeNs]);
    const [conflict] = await guest.conflicts();
    expect(conflict).toMatchObject({ kind: 'text', path: 'etc/f', rev: 1 });
    // The control directory tells the same.
    expect(await guest.mount.sh('cat .kasane/conflicts')).toBe(`${conflict?.id}\ttext\tetc/f\n`);
    const marked = await guest.mount.sh(`cat .kasane/conflict/${conflict?.id}/merged`);
    expect(marked).toMatch(
      /^<<<<<<< overlay\nguest\n\|\|\|\|\|\|\| ancestor\nline 15\n=======\nBASE 15\n>>>>>>> base$/m,
    );
    // Another update of the base is another revision of the same conflict.
    await guest.update('etc/f', text({ 15: 'BASE again' }));
    expect(await guest.read('etc/f')).toBe(text(guest15));
    expect(await guest.conflicts()).toMatchObject([{ id: conflict?.id, rev: 2 }]);
    // The guest comes to agree: it is over.
    await guest.mount.sh("sed -i 's/^guest$/BASE again/' etc/f");
    expect(await guest.read('etc/f')).toBe(text({ 15: 'BASE again' }));
    expect(await guest.conflicts()).toEqual([]);
  }),
);

mountTest('a conflict about a file that the guest removes is over', () =>
  withGuest({ files: { f: text(), g: text() } }, async (guest) => {
    await guest.mount.sh(`${edit('f')}; ${edit('g')}`);
    for (const name of ['f', 'g']) await guest.update(name, text({ 15: 'BASE 15' }));
    await guest.mount.sh('cat f g > /dev/null');
    expect(await guest.conflictList()).toEqual(['f text', 'g text']);
    await guest.mount.sh('rm f; mv g h');
    expect(await waitUntil(async () => (await guest.conflicts()).length === 0)).toBe(true);
    expect(await guest.mount.sh('cat .kasane/conflicts; ls')).toBe('h\n');
    expect(await guest.read('h')).toBe(text(guest15));
  }),
);

mountTest(
  'a conflict about a file that the base has removed is over when the guest renames or removes it',
  () =>
    withGuest({ files: { f: text(), g: text(), other: 'so that the base is not empty' } }, async (guest) => {
      await guest.mount.sh(`${edit('f')}; ${edit('g')}`);
      for (const name of ['f', 'g']) await guest.update(name, text({ 15: 'BASE 15' }));
      await guest.mount.sh('cat f g > /dev/null');
      expect(await guest.conflictList()).toEqual(['f text', 'g text']);
      await guest.changeBase(() => {
        for (const name of ['f', 'g']) fs.rmSync(`${guest.base}/${name}`);
      });
      await guest.kasane(['reconcile', guest.mnt]);
      expect(await guest.conflictList()).toEqual(['f deleted', 'g deleted']);
      await guest.mount.sh('rm f; mv g h');
      expect(await guest.kasane(['conflicts', guest.mnt])).toMatchObject({ code: 0, stdout: '' });
      expect(await guest.read('h')).toBe(text(guest15));
    }),
);

mountTest('a base that goes back to what it was withdraws the conflict', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    await guest.mount.sh(edit('f'));
    await guest.update('f', text({ 15: 'BASE 15' }));
    await guest.read('f');
    expect(await guest.conflictList()).toEqual(['f text']);
    await guest.update('f', text());
    expect(await guest.read('f')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual([]);
    expect(await guest.events('f')).toContain('withdrawn');
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(both);
    // A guest that takes over what is in its way has decided, and the base is not back.
    const again = { ...base3, 15: 'BASE 15' };
    await guest.update('f', text(again));
    expect(await guest.read('f')).toBe(both);
    expect(await guest.conflictList()).toEqual(['f text']);
    await guest.mount.write('f', text({ ...again, 9: 'guest 9' }));
    expect(await guest.read('f')).toBe(text({ ...again, 9: 'guest 9' }));
    expect(await guest.conflictList()).toEqual([]);
    expect((await guest.events('f')).at(-1)).toBe('resolved');
  }),
);

mountTest('what the guest has removed stays known by its bytes, though the base has written over them', () =>
  withGuest({ files: { 'd/f': text() } }, async (guest) => {
    // An opaque directory hides the name, and with it whatever the base does to the file in place.
    await guest.mount.sh('cat d/f > /dev/null; rm -r d; mkdir d');
    await guest.update('d/f', text(base3), 'in place');
    await guest.update('d/f', text({ 15: 'BASE 15' }));
    await guest.mount.write('d/f', text(guest15));
    expect(await guest.read('d/f')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual(['d/f text']);
    await guest.update('d/f', text());
    expect(await guest.read('d/f')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual([]);
    expect(await guest.events('d/f')).toContain('withdrawn');
  }),
);

mountTest('what the guest removed stays removed; what it makes there again continues the origin', () =>
  withGuest({ files: { a: text(), b: text(), c: text(), d: text() } }, async (guest) => {
    await guest.mount.sh('rm a b c d');
    await guest.update('a', text(base3));
    expect(await guest.exists('a')).toBe(false);
    await guest.update('b', text(base3), 'replace, same mtime');
    await guest.mount.write('b', text(guest15));
    expect(await guest.read('b')).toBe(both);
    // Whiteouts of long ago do not: it is a file of the guest's own.
    await guest.mount.write('c', text(guest15));
    await guest.update('c', text(base3), 'in place');
    expect(await guest.read('c')).toBe(both);
    // A file where the base's has gone meanwhile.
    await guest.changeBase(() => fs.rmSync(`${guest.base}/d`));
    await guest.mount.write('d', text(guest15));
    expect(await guest.read('d')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('who removes or renames a directory has seen one, whatever file of its name was read before', () =>
  withGuest({ files: { removed: text(), renamed: text() } }, async (guest) => {
    for (const name of ['removed', 'renamed']) {
      await guest.read(name);
      await guest.changeBase(() => {
        fs.rmSync(`${guest.base}/${name}`);
        writeFiles(guest.base, { [`${name}/in`]: 'in\n' });
      });
    }
    await guest.mount.sh('rm -r removed; mv renamed elsewhere; echo mine > removed; echo mine > renamed');
    expect((await guest.kasane(['reconcile', guest.mnt])).code).toBe(0);
    expect(await guest.conflictList()).toEqual([]);
    for (const name of ['removed', 'renamed']) expect(await guest.read(name)).toBe('mine\n');
    expect(await guest.read('elsewhere/in')).toBe('in\n');
  }),
);

mountTest(
  'who has read a file that is hidden and becomes a directory in the base meets that when it is made anew',
  () =>
    withGuest({ files: { 'd/f': text() } }, async (guest) => {
      await guest.read('d/f');
      await guest.mount.sh('rm -r d; mkdir d');
      await guest.changeBase(() => {
        fs.rmSync(`${guest.base}/d/f`);
        writeFiles(guest.base, { 'd/f/in': 'in\n' });
      });
      await guest.mount.write('d/f', 'mine\n');
      expect(await guest.read('d/f')).toBe('mine\n');
      expect(await guest.conflictList()).toEqual(['d/f type']);
    }),
);

mountTest(
  'a directory of the guest’s in place of one that it removed hides what the base puts there again',
  () =>
    withGuest({ files: { 'made/f': '', 'moved/f': '', 'never/f': '' } }, async (guest) => {
      await guest.mount.sh('rm -r made moved; mkdir own');
      const names = ['made', 'moved', 'never'];
      await guest.changeBase(() => {
        for (const name of names) fs.rmSync(`${guest.base}/${name}`, { recursive: true });
      });
      await guest.mount.sh('mkdir made never; mv own moved');
      await guest.changeBase(() => {
        for (const name of names) writeFiles(guest.base, { [`${name}/g`]: '' });
      });
      expect(await guest.mount.sh('ls made moved never')).toBe('made:\n\nmoved:\n\nnever:\ng\n');
    }),
);

mountTest('deleted by the base: an untouched copy goes, a changed one is kept', () =>
  withGuest(
    { files: { 'd/untouched': text(), 'd/changed': text(), 'd/follows': text(), rest: '' } },
    async (guest) => {
      await guest.mount.sh(`true >> d/untouched; ${edit('d/changed')}`);
      await guest.read('d/follows');
      await guest.changeBase(() => fs.rmSync(`${guest.base}/d`, { recursive: true }));
      expect(await guest.exists('d/follows')).toBe(false);
      await guest.exists('d/untouched');
      expect(await waitUntil(async () => !(await guest.exists('d/untouched')))).toBe(true);
      expect(await guest.read('d/changed')).toBe(text(guest15));
      expect(await guest.mount.sh('ls d')).toBe('changed\n');
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.events('d/changed')).toContain('kept');
      // It comes back, as it was: the guest's is a change of it again.
      await guest.changeBase(() => writeFiles(guest.base, { 'd/changed': text(base3) }));
      expect(await guest.read('d/changed')).toBe(both);
    },
  ),
);

mountTest('what a redirect shows is not hidden by an opaque directory above it', () =>
  withGuest({ files: { 'src/f': text(), 'src/g': text(), 'd/old': '' } }, async (guest) => {
    await guest.mount.sh(
      `rm -r d; mkdir d; mv src d/moved; ${edit('d/moved/f')}; chmod 600 d/moved/g; true >> d/moved/g`,
    );
    await guest.update('src/f', text({ 15: 'BASE 15' }));
    await guest.read('d/moved/f');
    expect(await guest.conflictList()).toEqual(['d/moved/f text']);
    expect((await guest.kasane(['resolve', '--take', 'base', guest.at('d/moved/f')])).code).toBe(0);
    expect(guest.raw('d/moved/f')).toBe(null);
    await guest.mount.sh('chmod 644 d/moved/g');
    await guest.update('src/g', text(base3));
    expect(await guest.read('d/moved/g')).toBe(text(base3));
    expect(guest.raw('d/moved/g')).toBe(null);
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('added on both sides: the same is adopted, another is in conflict', () =>
  withGuest({ files: { 'd/x': '' } }, async (guest) => {
    await guest.mount.write('d/same', text());
    await guest.mount.write('d/other', text(guest15));
    await guest.changeBase(() => writeFiles(guest.base, { 'd/same': text(), 'd/other': text() }));
    await guest.read('d/same');
    expect(await guest.read('d/other')).toBe(text(guest15));
    // Replaced by the guest, it still has no ancestor that somebody made up.
    await guest.mount.sh("sed -i 's/^line 16$/more/' d/other");
    expect(await guest.read('d/other')).toBe(text({ ...guest15, 16: 'more' }));
    expect(await guest.conflictList()).toEqual(['d/other added']);
    await guest.update('d/same', text(base3));
    expect(await guest.read('d/same')).toBe(text(base3));
  }),
);

mountTest('who removes a file of their own hides what the base has added there, and meets it again', () =>
  withGuest({ files: { other: '' } }, async (guest) => {
    await guest.mount.sh('echo own > x; echo own > y');
    for (const name of ['x', 'y']) await guest.update(name, text());
    await guest.mount.sh('rm x; mv y elsewhere');
    for (const name of ['x', 'y']) await guest.update(name, text(base3));
    for (const name of ['x', 'y']) await guest.mount.write(name, text(guest15));
    for (const name of ['x', 'y']) expect(await guest.read(name)).toBe(both);
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('a guest that puts back the bytes of before a merge has undone it, and is not overruled', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    await guest.mount.sh(edit('f'));
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(both);
    // By a tool that knows what it wants, whatever is there (and has seen what is).
    await guest.mount.sh('cat f > /dev/null; cat > f.new; mv f.new f', [], { input: text(guest15) });
    expect(await guest.read('f')).toBe(text(guest15));
    await guest.update('f', text({ ...base3, 7: 'BASE 7' }));
    expect(await guest.read('f')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual(['f undone']);
    // The base goes back to the version that was refused: all is quiet.
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(text(guest15));
    expect(await guest.conflictList()).toEqual([]);
    await guest.update('f', text(guest15));
    expect(await guest.read('f')).toBe(text(guest15));
  }),
);

mountTest('an editor that had read the file before a merge does not undo it', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    await guest.mount.sh(edit('f'));
    const agent = startAgent();
    const content = await agent.call<string>('readFileSync', guest.at('f'), 'utf8');
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(both);
    await agent.call('writeFileSync', guest.at('f'), content.replace('line 18', 'again'));
    expect(await guest.read('f')).toBe(text({ ...base3, ...guest15, 18: 'again' }));
    await agent.stop();
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('undo gives back the bytes and pins the version that it refused', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    await guest.mount.sh(edit('f'));
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(both);
    expect(await guest.kasane(['undo', guest.at('f')])).toMatchObject({ code: 0 });
    expect(await guest.read('f')).toBe(text(guest15));
    await guest.mount.sh("sed -i 's/^line 18$/again/' f");
    expect(await guest.read('f')).toBe(text({ ...guest15, 18: 'again' }));
    expect(await guest.conflictList()).toEqual([]);
    await guest.update('f', text({ ...base3, 7: 'BASE 7' }));
    expect(await guest.read('f')).toBe(text({ ...guest15, 18: 'again' }));
    expect(await guest.conflictList()).toEqual(['f undone']);
  }),
);

mountTest('who has a file open keeps the bytes of before a merge, a replacement and a removal', () =>
  withGuest({ files: { merged: text(), followed: text(), removed: text() } }, async (guest) => {
    await guest.mount.sh(edit('merged'));
    const agent = startAgent();
    const names = ['merged', 'followed', 'removed'];
    const fds = new Map<string, number>();
    for (const name of names) {
      fds.set(name, await agent.call<number>('openSync', guest.at(name), 'r'));
    }
    const whole = async (name: string) => (await agent.call<Buffer>('readWhole', fds.get(name))).toString();
    // Half of it is in the kernel already.
    await agent.call('readSync', fds.get('merged'), Buffer.alloc(16), 0, 16, 0);
    await guest.update('merged', text(base3));
    await guest.update('followed', text(base3), 'replace, same mtime');
    await guest.changeBase(() => fs.rmSync(`${guest.base}/removed`));
    expect(await guest.read('merged')).toBe(both);
    expect(await guest.read('followed')).toBe(text(base3));
    expect(await guest.exists('removed')).toBe(false);
    expect(await whole('merged')).toBe(text(guest15));
    expect(await whole('followed')).toBe(text());
    expect(await whole('removed')).toBe(text());
    // While others read what is there now.
    expect(await guest.read('merged')).toBe(both);
    expect(await guest.read('followed')).toBe(text(base3));
    await agent.stop();
  }),
);

mountTest('a merge waits for the writer, and comes when the file is closed', () =>
  withGuest({ files: { f: text(), mapped: text() } }, async (guest) => {
    await guest.mount.sh(`${edit('f')}; ${edit('mapped')}`);
    const agent = startAgent();
    const fd = await agent.call<number>('openSync', guest.at('f'), 'r+');
    await guest.update('f', text(base3));
    expect(await guest.read('f')).toBe(text(guest15));
    await agent.call('writeSync', fd, 'LINE', 0);
    expect(await guest.read('f')).toBe(text({ ...guest15, 1: 'LINE 1' }));
    await agent.call('closeSync', fd);
    expect(await guest.read('f')).toBe(text({ ...base3, ...guest15, 1: 'LINE 1' }));
    await agent.stop();
    // A shared map lives on when its descriptor is closed.
    const script = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
map = mmap.mmap(fd, 0)
os.close(fd)
open(sys.argv[2], 'w').close()
sys.stdin.readline()
map[0:4] = b'MMAP'
map.flush()
map.close()`;
    const ready = `${guest.dir}/mapped.ready`;
    const held = startHeld(['python3', '-c', script, guest.at('mapped'), ready]);
    expect(await waitUntil(() => fs.existsSync(ready))).toBe(true);
    await guest.update('mapped', text(base3));
    expect(await guest.read('mapped')).toBe(text(guest15));
    await held.letGo();
    expect(await guest.read('mapped')).toBe(text({ ...base3, ...guest15, 1: 'MMAP 1' }));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('a database whose changes lie beside it is never half the base’s', () =>
  withGuest(
    { files: { 'db/app.db': 'pages v1\n', 'db/app.db-wal': 'log v1\n', 'db/quiet.db': 'v1\n' } },
    async (guest) => {
      // The guest has written to the log alone; the database itself is brought up and untouched.
      await guest.mount.sh('true >> db/app.db; echo guest >> db/app.db-wal; true >> db/quiet.db');
      await guest.update('db/app.db', 'pages v2\n');
      await guest.update('db/app.db-wal', '');
      await guest.update('db/quiet.db', 'v2\n');
      expect(await guest.read('db/app.db')).toBe('pages v1\n');
      expect(await guest.read('db/app.db-wal')).toBe('log v1\nguest\n');
      expect(await guest.read('db/quiet.db')).toBe('v2\n');
      expect((await guest.conflictList()).map((line) => line.split(' ')[1])).toContain('binary');
      expect(guest.raw('db/app.db')).toBe('pages v1\n');
    },
  ),
);

mountTest('a database whose log the guest has removed is the guest’s', () =>
  withGuest({ files: { 'app.db': 'pages v1\n', 'app.db-wal': 'log v1\n' } }, async (guest) => {
    await guest.mount.sh('true >> app.db; rm app.db-wal');
    await guest.update('app.db', 'pages v2\n');
    expect(await guest.read('app.db')).toBe('pages v1\n');
    expect(await guest.conflictList()).toEqual(['app.db binary']);
  }),
);

mountTest('binary files, symlinks and other types on both sides are for a person', () =>
  withGuest({ files: { binary: 'a\0b\n', 'd/f': text(), tofile: text() } }, async (guest) => {
    await guest.changeBase(() => fs.symlinkSync('one', `${guest.base}/link`));
    await guest.mount.sh('printf "a\\0c\\n" > binary; ln -sfn mine link; echo x >> d/f; echo x >> tofile');
    await guest.update('binary', 'a\0d\n');
    await guest.changeBase(() => {
      fs.rmSync(`${guest.base}/link`);
      fs.symlinkSync('two', `${guest.base}/link`);
      fs.rmSync(`${guest.base}/d/f`);
      fs.mkdirSync(`${guest.base}/d/f`);
      fs.rmSync(`${guest.base}/tofile`);
      fs.symlinkSync('d', `${guest.base}/tofile`);
    });
    const look = () => guest.mount.sh('readlink link; cat binary d/f tofile > /dev/null');
    expect(await look()).toBe('mine\n');
    const expected = ['binary binary', 'd/f type', 'link text', 'tofile type'];
    expect(await waitUntil(async () => (await guest.conflictList()).length === 4)).toBe(true);
    expect(await guest.conflictList()).toEqual(expected);
    expect(await guest.read('binary')).toBe('a\0c\n');
    expect(await guest.read('d/f')).toBe(`${text()}x\n`);
  }),
);

mountTest('in an OS tree programs stay as they are, and configuration is merged', () =>
  withGuest(
    {
      files: {
        'etc/os-release': 'ID=demo\nVERSION_ID="1"\n',
        'etc/f': text(),
        'usr/share/f': text(),
        'etc/machine-id': 'base\n',
        'var/lib/f': text(),
      },
    },
    async (guest) => {
      await guest.mount.sh(
        `${edit('etc/f')}; ${edit('usr/share/f')}; true >> var/lib/f; echo guest > etc/machine-id`,
      );
      for (const name of ['etc/f', 'usr/share/f', 'var/lib/f']) await guest.update(name, text(base3));
      await guest.update('etc/machine-id', 'another\n');
      expect(await guest.read('etc/f')).toBe(both);
      expect(await guest.read('usr/share/f')).toBe(text(guest15));
      expect(await guest.read('var/lib/f')).toBe(text());
      expect(await guest.read('etc/machine-id')).toBe('guest\n');
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.events('usr/share/f')).toContain('kept');
    },
  ),
);

mountTest('two guests of one base: each keeps its own, both get the update', () =>
  withLayers(async ({ base, dir }) => {
    writeFiles(base, { f: text(), g: text() });
    const watch = new BaseWatch(base);
    const layers = ['one', 'two'].map((name) => {
      const own = { base, overlay: `${dir}/${name}.overlay`, mnt: `${dir}/${name}` };
      fs.mkdirSync(own.overlay);
      fs.mkdirSync(own.mnt);
      return own;
    });
    const [first, second] = layers as [(typeof layers)[0], (typeof layers)[0]];
    await withMount(first, (one) =>
      withMount(second, async (two) => {
        const guests = [guestOf(one, watch, dir), guestOf(two, watch, dir)] as const;
        await guests[0].mount.sh(edit('f'));
        await guests[1].mount.sh("sed -i 's/^line 3$/two/' f");
        await guests[0].update('f', text(base3), 'replace, same mtime');
        await guests[0].update('g', text(base3), 'in place');
        await caughtUp(two.dir);
        expect(await guests[0].read('f')).toBe(both);
        expect(await guests[1].read('f')).toBe(text({ 3: 'two' }));
        for (const guest of guests) expect(await guest.read('g')).toBe(text(base3));
        expect(await guests[0].conflictList()).toEqual([]);
        expect(await guests[1].conflictList()).toEqual(['f text']);
      }),
    );
    watch.check();
  }),
);

mountTest('what is about to change is left alone until it has settled', () =>
  withGuest({ files: { ...trials, g: text() }, options: ['--settle', '1'] }, async (guest) => {
    await ripen(`${guest.base}/g`);
    await guest.mount.sh(`${edit(Object.keys(trials).join(' '))}; ${edit('g')}`);
    /** What somebody reads who comes before the base has settled; null if they came too late for that. */
    const readInTime = async (name: string, content: string, kind: UpdateKind) => {
      await guest.update(name, content, kind);
      // Opening does not wait for the base to settle.
      const seen = await guest.read(name);
      return Date.now() < fs.statSync(`${guest.base}/${name}`).ctimeMs + 1000 ? seen : null;
    };
    let tried = 0;
    for (const name of Object.keys(trials)) {
      const first = await readInTime(name, text({ 3: 'not yet' }), 'replace');
      const second = first === null ? null : await readInTime(name, text(base3), 'in place');
      if (second === null) continue;
      expect([first, second]).toEqual([text(guest15), text(guest15)]);
      expect(await waitUntil(async () => (await guest.read(name)) === both)).toBe(true);
      expect(await guest.events(name)).toEqual(['copy-up', 'pending', 'merged']);
      tried += 1;
      break;
    }
    expect(tried).toBe(1);
    // Somebody has the base's file open for writing, long after its last change.
    const agent = startAgent();
    const fd = await agent.call<number>('openSync', `${guest.base}/g`, 'r+');
    await guest.changeBase(() => agent.call('writeSync', fd, 'BASE', 0));
    await sleep(1200);
    expect(await guest.read('g')).toBe(text(guest15));
    await agent.stop();
    expect(await waitUntil(async () => (await guest.read('g')).startsWith('BASE'))).toBe(true);
  }),
);

mountTest('updates while nothing is mounted, and after kill -9, are found at the next access', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { merged: text(), dropped: text(), conflict: text(), gone: text() });
    const first = await startMount({ ...layers, mountPoint: layers.mnt });
    await first.sh(`${edit('merged')}; true >> dropped; ${edit('conflict')}; rm gone`);
    await first.kill();
    writeFiles(layers.base, { merged: text(base3), dropped: text(base3), conflict: text({ 15: 'BASE' }) });
    writeFiles(layers.base, { gone: text(base3) });
    const watch = new BaseWatch(layers.base);
    await withMount(layers, async (mount) => {
      const guest = guestOf(mount, watch, layers.dir);
      expect(await guest.read('merged')).toBe(both);
      expect(await guest.read('dropped')).toBe(text(base3));
      expect(await guest.read('conflict')).toBe(text(guest15));
      expect(await guest.exists('gone')).toBe(false);
      await guest.mount.write('gone', text(guest15));
      // Perhaps the daemon died before it knew what the whiteout hides: then a person is asked.
      const known = (await guest.read('gone')) === both;
      const expected = ['conflict text', ...(known ? [] : ['gone no-ancestor'])];
      expect(await guest.conflictList()).toEqual(expected);
    });
    // And once more, cleanly: nothing changes any more.
    await withMount(layers, async (mount) => {
      const guest = guestOf(mount, watch, layers.dir);
      expect(await guest.read('merged')).toBe(both);
      expect((await guest.conflicts())[0]).toMatchObject({ path: 'conflict', rev: 1 });
    });
    watch.check();
  }),
);

/** A program that waits for a line on its standard input. */
function startHeld(command: readonly string[]): { letGo: () => Promise<void> } {
  const dir = fs.mkdtempSync('/dev/shm/kasane-held-');
  const fifo = `${dir}/fifo`;
  const done = runOk('sh', ['-c', 'mkfifo "$0"; exec "$@" <> "$0"', fifo, ...command]);
  return {
    letGo: async () => {
      await runOk('sh', ['-c', 'echo > "$0"', fifo]);
      await done;
      fs.rmSync(dir, { recursive: true });
    },
  };
}
