// What is gone each time diff comes to read it, as files are that somebody removes and makes anew all the while.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { failBeneath, threadsOf } from '../lib/inject.ts';
import { daemonOf, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';

mountTest(
  'diff names a file that does not stay long enough to be read, as a difference, and tells of all else',
  () =>
    withLayers(async (layers) => {
      fs.mkdirSync(`${layers.base}/d`);
      for (const name of ['d/f', 'g']) fs.writeFileSync(`${layers.base}/${name}`, 'base\n');
      await withMount(layers, async (mount) => {
        await mount.sh('echo guest >> d/f; echo guest >> g');
        const { main } = await threadsOf(daemonOf(mount.dir) as number);
        const tracer = await failBeneath(main, 'openat', `${layers.overlay}/d`, 'ENOENT');
        try {
          const told = await mount.kasane(['diff', mount.dir]);
          expect(told).toMatchObject({ code: 1, stderr: '' });
          expect(told.stdout).toContain('# d/f\n# it keeps changing\n');
          expect(told.stdout).toContain('+++ overlay/g');
          const alone = await mount.kasane(['diff', '--json', `${mount.dir}/d/f`]);
          expect([alone.code, JSON.parse(alone.stdout)]).toMatchObject([
            1,
            [{ path: 'd/f', changing: true }],
          ]);
        } finally {
          await tracer.stop();
        }
        expect((await mount.kasane(['diff', `${mount.dir}/d`])).stdout).toContain('+++ overlay/d/f');
      });
    }),
  { commands: ['strace'] },
);
