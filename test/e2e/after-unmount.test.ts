// An overlay is often removed, or looked at, as soon as umount(2) has returned, while the daemon still puts its
// books in order: no name may come into it or go from it then.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { kasane, say, stopBackground, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, sh, waitUntil } from '../lib/run.ts';

function namesIn(dir: string): string[] {
  return fs.readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort();
}

mountTest('after the unmount no name comes into the overlay or goes from it', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(base, `f${i}`), `text ${i}\n`);
    await withMount({ base, overlay, mnt }, async (mount) => {
      await mount.sh('for i in {0..9}; do echo more >> f$i; done; rm f1{0..4}; mkdir d; mv f15 d');
      // The ancestors of what was copied up are written in the background.
      const ancestors = () => namesIn(`${overlay}/.kasane/ancestors`).filter((name) => name.includes('/'));
      expect(await waitUntil(() => ancestors().length >= 10)).toBe(true);
      await mount.sh('rm f16; ln f17 g; mv f18 h');
      expect((await run('umount', [mnt])).code).toBe(0);
      const atOnce = namesIn(overlay);
      await mount.ended;
      expect(namesIn(overlay)).toEqual(atOnce);
    });
    const { code, stdout } = await kasane(['check', overlay]);
    expect(stdout).toContain('no damage');
    expect(code).toBe(0);
  }),
);

mountTest('what base and overlay lie on can be unmounted once kasane umount has returned', () =>
  withLayers(async ({ dir, mnt }) => {
    const below = path.join(dir, 'below');
    fs.mkdirSync(below);
    const [base, overlay] = [`${below}/base`, `${below}/overlay`];
    try {
      for (let i = 0; i < 6; i++) {
        await runOk('mount', ['-t', 'tmpfs', 'none', below]);
        for (const made of [base, overlay]) fs.mkdirSync(made);
        fs.writeFileSync(`${base}/f`, 'text\n');
        await say(0, 'mount', '--base', base, '--overlay', overlay, mnt);
        await sh('echo more >> "$1"/f', [mnt]);
        await say(0, 'umount', mnt);
        await runOk('umount', [below]);
      }
    } finally {
      await stopBackground(mnt);
      await takeDown(below);
    }
  }),
);

mountTest('an overlay that is removed at once does not keep the daemon from a clean end', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    fs.writeFileSync(path.join(base, 'f'), 'text\n');
    for (let i = 0; i < 3; i++) {
      fs.mkdirSync(overlay, { recursive: true });
      await withMount({ base, overlay, mnt }, async (mount) => {
        await mount.sh('echo more >> f; mkdir d; touch d/x; rm d/x');
        expect((await run('umount', [mnt])).code).toBe(0);
        fs.rmSync(overlay, { recursive: true });
        expect(await mount.ended).toBe(0);
        expect(fs.existsSync(overlay)).toBe(false);
      });
    }
  }),
);

mountTest('an overlay that is removed while it is mounted is told of by status, and once by the log', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    for (const name of ['f', 'g']) fs.writeFileSync(path.join(base, name), 'text\n');
    await withMount({ base, overlay, mnt }, async (mount) => {
      await mount.sh('cat f; echo more >> g');
      fs.rmSync(overlay, { recursive: true });
      const notes = async () =>
        JSON.parse((await kasane(['status', '--json', mnt])).stdout).notes as string[];
      const troubles = () => mount.log().match(/ (warn|error) .*/g) ?? [];
      for (let i = 0; i < 3; i++) {
        fs.writeFileSync(path.join(base, 'f'), `another ${i}\n`);
        expect((await notes()).filter((note) => note.includes('the overlay has been removed'))).toHaveLength(
          1,
        );
        // Of what fails first: the list of what the base does, or the folding of what guests have done.
        expect(await waitUntil(() => troubles().length > 0)).toBe(true);
      }
      await waitUntil(async () => (await mount.sh('cat f')) === 'another 2\n');
      expect(await mount.sh('cat f; echo x 2> /dev/null > new || echo refused')).toBe('another 2\nrefused\n');
      expect(troubles().sort()).toEqual([...new Set(troubles())].sort());
      await mount.umount();
    });
  }),
);
