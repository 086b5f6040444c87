// Directories that the overlay has only for what was touched in them, and that the base removes: such a one goes with
// the base's once nothing of the guest's is in it; what the guest has changed or filled stays.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { renameWith } from '../lib/calls.ts';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';
import { type Guest, withGuest, writeFiles } from '../lib/versioning.ts';

/** Met by name until it has gone, from the overlay, too. */
const goesWhenMet = ({ exists, overlay }: Guest, name: string) =>
  waitUntil(async () => !(await exists(name)) && !fs.existsSync(`${overlay}/${name}`));

const remove = ({ base, changeBase }: Guest, ...names: string[]) =>
  changeBase(() => {
    for (const name of names) fs.rmSync(`${base}/${name}`, { recursive: true });
  });

mountTest('one goes when it is met, after all that lies in it, and its history says so', () =>
  withGuest({ files: { 'd/e/f': 'text\n', 'd/g/h': 'text\n', other: '' } }, async (guest) => {
    await guest.mount.sh(': >> d/e/f; touch d/g/new; rm d/g/new; : >> other');
    expect(fs.readdirSync(`${guest.overlay}/d`)).toEqual(['e', 'g']);
    await remove(guest, 'd');
    expect(await goesWhenMet(guest, 'd')).toBe(true);
    expect(await guest.mount.sh('ls')).toBe('other\n');
    for (const name of ['d', 'd/e', 'd/g']) expect(await guest.events(name)).toContain('dropped');
    expect(await guest.events('d/e/f')).toEqual(['copy-up', 'dropped']);
  }),
);

const report = async ({ kasane, mnt }: Guest, ...more: string[]) => {
  const { stdout } = await kasane(['reconcile', '--json', ...more, mnt]);
  return JSON.parse(stdout) as { dropped: number; kept: number };
};

mountTest('what the guest has changed, filled or removed something in stays, and says so once', () =>
  withGuest(
    {
      files: {
        'filled/sub/f': '',
        'filled/idle/f': '',
        'mode/f': '',
        'less/f': '',
        'less/g': '',
        'moved/sub/f': '',
        other: '',
      },
      options: ['--coherence', 'notify'],
    },
    async (guest) => {
      const { mount, exists, events, overlay } = guest;
      await mount.sh(`touch filled/sub/own filled/idle/own; rm filled/idle/own; chmod 711 mode; rm less/f
        mkdir own; mv moved new; touch new/sub/own; rm new/sub/own; touch new/own; rm new/own`);
      await remove(guest, 'filled', 'mode', 'less', 'moved');
      // What goes when it is met may have gone between the listing and the stat.
      await mount.sh('stat filled filled/* mode less new new/* own > /dev/null 2>&1 || :');
      expect(await report(guest)).toMatchObject({ kept: 4 });
      expect(await mount.sh('find * | sort | tr "\\n" " "')).toBe(
        'filled filled/sub filled/sub/own less mode new other own ',
      );
      await mount.sh('stat filled mode less > /dev/null');
      for (const name of ['filled', 'mode', 'less']) {
        expect((await events(name)).filter((kind) => kind === 'kept').length, name).toBe(
          name === 'filled' ? 2 : 1,
        );
      }
      expect(await events('filled/idle')).toContain('dropped');
      // It was the guest's when the base's went: what the guest takes out of it is no reason for it to go by itself.
      await mount.sh('rm filled/sub/own; rmdir filled/sub; touch filled/again; stat filled; rm filled/again');
      await mount.sh('stat filled > /dev/null');
      expect(await exists('filled')).toBe(true);
      expect(await report(guest)).toMatchObject({ dropped: 1, kept: 2 });
      expect(await exists('filled')).toBe(false);
      await mount.sh('rmdir mode less');
      expect(fs.readdirSync(overlay).sort()).toEqual(['.kasane', 'moved', 'new', 'own']);
      expect(await guest.kasane(['check', mount.dir])).toMatchObject({
        code: 0,
        stdout: expect.stringContaining(' 0 warnings'),
      });
    },
  ),
);

mountTest('what the base has again was never gone, and an undo brings back what went and keeps it', () =>
  withGuest(
    { files: { 'd/sub/f': 'text\n', 'e/f': '', other: '' }, options: ['--coherence', 'check'] },
    async (guest) => {
      const { mount, exists, changeBase, base, overlay, kasane, at } = guest;
      await mount.sh(
        'touch d/sub/own e/own; rm d/sub/own; setfattr -n user.x -v 1 d/sub; setfattr -x user.x d/sub',
      );
      await remove(guest, 'd', 'e');
      expect(await report(guest, '--dry-run')).toMatchObject({ dropped: 2, kept: 1 });
      // Through the mount it would be met, and go.
      expect(fs.existsSync(`${overlay}/d/sub`)).toBe(true);
      expect(await goesWhenMet(guest, 'd')).toBe(true);
      await mount.sh('stat e > /dev/null');
      await changeBase(() => writeFiles(base, { 'e/back': '' }));
      expect(await mount.sh('ls e')).toBe('back\nown\n');
      expect(await report(guest)).toMatchObject({ dropped: 0, kept: 0 });
      expect(await kasane(['undo', at('d/sub')])).toMatchObject({ code: 2 });
      for (const name of ['d', 'd/sub']) expect(await kasane(['undo', at(name)])).toMatchObject({ code: 0 });
      expect(await report(guest)).toMatchObject({ dropped: 0, kept: 0 });
      expect(await mount.sh('stat d > /dev/null; ls d')).toBe('sub\n');
      // Named by a person it follows the base again.
      await kasane(['reconcile', at('d/sub')]);
      expect(await exists('d/sub')).toBe(false);
      await changeBase(() => writeFiles(base, { 'd/new': '' }));
      expect(await mount.sh('ls d')).toBe('new\n');
      // What was undone stays until the base has been seen to have it again.
      expect(await waitUntil(async () => (await guest.events('d')).includes('pin-lifted'))).toBe(true);
      await remove(guest, 'd');
      expect(await goesWhenMet(guest, 'd')).toBe(true);
    },
  ),
);

mountTest('those of a new tree go at the mount, before anybody asks', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { 'd/e/f': 'text\n', 'keep/f': '' });
    await withMount(layers, ({ sh }) =>
      sh(': >> d/e/f; touch d/own keep/own; rm d/own').then(() => undefined),
    );
    fs.renameSync(layers.base, `${layers.dir}/old`);
    writeFiles(layers.base, { 'keep/f': '' });
    await withMount(layers, async () => {
      expect(await waitUntil(() => !fs.existsSync(`${layers.overlay}/d`))).toBe(true);
      expect(fs.existsSync(`${layers.overlay}/keep/own`)).toBe(true);
    });
  }),
);

for (const coherence of ['notify', 'check'] as const) {
  mountTest(`with ${coherence} one is in no listing any more, though nobody has met it by its name`, () =>
    withGuest(
      {
        files: { 'd/e/f': 'text\n', 'd/g/h': '', 'in/d/f': '', 'kept/f': '', other: '' },
        options: ['--coherence', coherence],
      },
      async (guest) => {
        const { mount, overlay } = guest;
        await mount.sh(
          'true >> d/e/f; touch in/d/own kept/own own; mkdir mine; rm in/d/own own; ls . d in d/e',
        );
        await remove(guest, 'd/e', 'in/d', 'kept');
        expect(await mount.sh('ls -R d in')).toBe('d:\ng\n\nd/g:\nh\n\nin:\n');
        await remove(guest, 'd');
        expect(await mount.sh('ls')).toBe('in\nkept\nmine\nother\n');
        expect(fs.readdirSync(overlay).sort()).toEqual(['.kasane', 'in', 'kept', 'mine']);
        expect(await mount.sh('ls; ls kept')).toBe('in\nkept\nmine\nother\nown\n');
      },
    ),
  );
}

mountTest('one that changes places with something else leaves neither record nor origin where it was', () =>
  withGuest(
    { files: { 'a/f': '', 'b/f': '', 'c/f': '', 'd/f': '', file: 'base\n', 'dir/f': '' } },
    async (guest) => {
      const { mount, at, kasane, mnt } = guest;
      await mount.sh('touch a/own b/own c/own d/own; echo guest > ownfile; mkdir owndir');
      await remove(guest, 'a', 'b', 'c', 'd');
      expect(await report(guest)).toMatchObject({ kept: 4 });
      for (const [kept, other] of [
        ['a', 'file'],
        ['b', 'ownfile'],
        ['c', 'dir'],
        ['d', 'owndir'],
      ] as const) {
        expect(await renameWith(at(kept), at(other), 'exchange')).toBe('done');
        expect(await mount.sh(`ls ${other}`)).toBe('own\n');
      }
      expect(await mount.sh('cat a b; ls c d')).toBe('base\nguest\nc:\nf\n\nd:\n');
      const status = JSON.parse((await kasane(['status', '--json', mnt])).stdout) as {
        counts: { kept: number };
      };
      expect(status.counts.kept).toBe(0);
      expect(await report(guest)).toMatchObject({ kept: 0, dropped: 0 });
      // Nothing is known of a directory there: what the base puts there is added by both.
      await guest.changeBase(() => writeFiles(guest.base, { b: 'base, too\n' }));
      expect(await guest.read('b')).toBe('guest\n');
      expect(await guest.conflictList()).toEqual(['b added']);
      expect((await kasane(['check', mnt])).stdout).toContain(' 0 warnings');
    },
  ),
);
