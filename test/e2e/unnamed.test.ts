// Files without a name (O_TMPFILE), which may get one by linkat: as programs make what is to appear whole.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { call } from '../lib/calls.ts';
import { withExport } from '../lib/handles.ts';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';
import { type Guest, withGuest } from '../lib/versioning.ts';

interface Unnamed {
  /** Link counts: at first, and in the end. */
  before: number;
  nlink: number;
  mode: number;
  ino: number;
  content: string;
  /** For each name 'linked', or the errno. */
  results: string[];
  error?: string;
}

/** Makes one in a directory of the mount, writes 'text', gives it the names, and writes 'more'. */
function make(
  guest: Guest,
  dir: string,
  names: string[],
  more: Record<string, unknown> = {},
): Promise<Unnamed> {
  const paths = names.map((name) => guest.at(name));
  return call('unnamed', { dir: guest.at(dir), content: 'text\n', names: paths, ...more });
}

const files = { f: 'f\n', 'd/f': 'f\n', 'd/sub/g': 'g\n', gone: 'gone\n' };
const all = 'text\nmore\n';

mountTest('it has no name and no trace, also in a directory of the base, and is gone when it is closed', () =>
  withGuest({ files }, async (guest) => {
    for (const dir of ['', 'd', 'd/sub']) {
      const { before, nlink, content, mode } = await make(guest, dir, [], { mode: 0o640 });
      expect({ before, nlink, content, mode }).toEqual({ before: 0, nlink: 0, content: all, mode: 0o640 });
    }
    expect(await guest.mount.sh('find . | sort')).toBe('.\n./d\n./d/f\n./d/sub\n./d/sub/g\n./f\n./gone\n');
    expect(await guest.mount.sh('ls -A d/sub')).toBe('g\n');
    expect(fs.readdirSync(`${guest.overlay}/d/sub`)).toEqual([]);
    const inUse = async () =>
      Number(/^kasane_handles (\d+)$/m.exec(await guest.read('.kasane/metrics'))?.[1]);
    expect(await waitUntil(async () => (await inUse()) === 0)).toBe(true);
  }),
);

mountTest('linkat gives it its names, where nothing is, where something was removed, and nowhere else', () =>
  withGuest({ files }, async (guest) => {
    await guest.mount.sh('rm gone; mkdir own');
    const made = await make(guest, 'd', [
      'new',
      'gone',
      'd/sub/new',
      'own/new',
      'f',
      'd',
      'new',
      '.kasane',
      'no/way',
    ]);
    expect(made.results).toEqual([...Array(4).fill('linked'), ...Array(4).fill('EEXIST'), 'ENOENT']);
    expect(made).toMatchObject({ nlink: 4, content: all });
    expect(await guest.mount.sh('cat new gone d/sub/new own/new f d/f')).toBe(`${all.repeat(4)}f\nf\n`);
    expect(await guest.mount.sh('stat -c "%i %h" new gone d/sub/new own/new')).toBe(
      `${made.ino} 4\n`.repeat(4),
    );
    await guest.mount.sh('rm new gone; echo again >> own/new');
    expect(await guest.mount.sh('cat d/sub/new; stat -c %h own/new; ls')).toBe(`${all}again\n2\nd\nf\nown\n`);
    // What takes a name of the base is no mere addition: the base's next version meets it.
    await guest.mount.sh('rm d/f');
    await make(guest, '', ['d/f']);
    await guest.update('d/f', 'newer\n');
    await guest.mount.sh('cat d/f > /dev/null');
    await waitUntil(async () => (await guest.conflictList()).length > 0);
    expect(await guest.conflictList()).toEqual(['d/f text']);
    expect(await guest.read('d/f')).toBe(all);
  }),
);

mountTest('with O_EXCL it never gets one', () =>
  withGuest({ files }, async (guest) => {
    const { results, content } = await make(guest, 'd', ['new'], { exclusive: true });
    expect(results).toEqual(['ENOENT']);
    expect(content).toBe(all);
    expect(await guest.exists('new')).toBe(false);
  }),
);

mountTest('there is none in what is no directory, and none on a read-only mount', () =>
  withGuest({ files }, async (guest) => {
    expect(await make(guest, 'f', [])).toMatchObject({ error: 'ENOTDIR' });
    expect(await make(guest, 'nothing', [])).toMatchObject({ error: 'ENOENT' });
    await guest.mount.umount();
    await withMount({ ...guest.mount, mnt: guest.mnt, options: ['-o', 'ro'] }, async () => {
      expect(await make(guest, 'd', [])).toMatchObject({ error: 'EROFS' });
    });
  }),
);

mountTest('handles of its names work, and outlive a restart', () =>
  withExport({ files }, async (guest) => {
    const dir = `${guest.mnt}/d`;
    const names = [`${guest.mnt}/new`, `${dir}/sub/new`];
    await call('unnamed', { dir, content: 'text\n', names });
    await call('unnamed', { dir, content: 'gone\n', names: [] });
    const handles = await guest.take('new', 'd/sub/new');
    const expected = { 'new': all, 'd/sub/new': all };
    await guest.forget();
    expect(await guest.openAll(handles)).toEqual(expected);
    await guest.crash();
    expect(await guest.openAll(handles)).toEqual(expected);
    await sh('rm new; echo x > new', [], { cwd: guest.mnt });
    expect(await guest.openAll(handles)).toEqual(expected);
    await sh('rm d/sub/new; echo x > d/sub/new', [], { cwd: guest.mnt });
    expect(await guest.openAll(handles)).toEqual({ 'new': 'ESTALE', 'd/sub/new': 'ESTALE' });
  }),
);

const changeNameless = `
import os, sys
os.chdir(sys.argv[1])
fifo, link = os.open('fifo', os.O_RDWR), os.open('link', os.O_PATH | os.O_NOFOLLOW)
os.unlink('fifo'), os.unlink('link')
os.fchmod(fifo, 0o600)
os.chown('/proc/self/fd/%d' % link, 5, 6, follow_symlinks=True)
print(oct(os.fstat(fifo).st_mode), os.fstat(link).st_uid, os.fstat(link).st_gid)
`;

mountTest(
  'a FIFO and a symlink of the base that have been removed are changed through a descriptor, and nobody waits',
  () =>
    withLayers(async (layers) => {
      await sh('cd "$1"; mkfifo fifo; ln -s f link', [layers.base]);
      await withBaseUntouched(layers.base, () =>
        withMount(layers, async (mount) => {
          expect(await mount.sh('timeout -k 1 30 python3 -c "$1" .', [changeNameless])).toBe('0o10600 5 6\n');
          expect(fs.readdirSync(`${layers.overlay}/.kasane/work`)).toEqual([]);
        }),
      );
    }),
  { commands: ['python3'] },
);
