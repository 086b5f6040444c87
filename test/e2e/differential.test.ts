// Random operations on a union and on a plain copy of its base: the same results, the same tree, an untouched
// base; and random changes of the base beneath guests against a model. The long runs are in test/long.

import * as fs from 'node:fs/promises';
import { expect } from 'vitest';
import { differential } from '../differential/differential.ts';
import { caughtUp, kasane, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, sleep, waitUntil } from '../lib/run.ts';
import { modelRuns } from '../model/model.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

for (const [seed, where, hardLinks, clients] of [
  [1, 'disk', false, 1],
  [2, 'memory', true, 2],
  [3, 'disk', false, 2],
] as const) {
  const base = hardLinks ? 'a base with hard links' : 'a base without hard links';
  mountTest(
    `random operations come to the same on a union and on a plain tree (seed ${seed}, ${where}, ${base}, clients: ${clients})`,
    async () => {
      const { ok, failed } = await differential(seed, {
        runs: 1,
        operations: 1800,
        pieces: 3,
        where,
        hardLinks,
        clients,
      });
      expect(ok).toBeGreaterThan(failed);
    },
    { commands, timeout: 240_000 },
  );
}

mountTest(
  'random changes of guests and base come to what the rules of versioning say',
  async () => {
    const { steps } = await modelRuns(4, 1, 40, 'memory');
    expect(steps).toBeGreaterThan(25);
  },
  { timeout: 240_000 },
);

/** The index has everything, and whoever wanted a look has had one. */
const settle = () => sleep(1500);

mountTest('a directory that the guest puts in the place of a file of the base is no change of the base', () =>
  withLayers(async (layers) => {
    await sh('cd "$1"; echo base > f; echo base > g; mkdir d; echo base > d/x; echo base > d/y', [
      layers.base,
    ]);
    await withMount(layers, async (mount) => {
      await mount.sh('rm f; mkdir f; echo guest > f/z; rm g; mv d g; rm g/x; ls -l . f g');
      await settle();
      expect(await mount.sh('ls -l f g > /dev/null; ls f g')).toBe('f:\nz\n\ng:\ny\n');
      await settle();
      expect(await mount.sh('ls; cat f/z g/y')).toBe('f\ng\nguest\nbase\n');
      expect(await kasane(['conflicts', layers.mnt])).toMatchObject({ code: 0, stdout: '' });
      // When the base really moves, the guest's stays, and the conflict says so.
      await fs.writeFile(`${layers.base}/f`, 'update\n');
      await caughtUp(mount.dir);
      await mount.sh('ls f');
      const conflicts = async () => (await kasane(['conflicts', layers.mnt])).stdout;
      await waitUntil(async () => (await conflicts()) !== '');
      expect(await mount.sh('cat f/z')).toBe('guest\n');
      expect(await conflicts()).toMatch(/\ttype\tf\n/);
    });
  }),
);

mountTest('what was read under a name says nothing of the file that a renamed directory brings there', () =>
  withLayers(async (layers) => {
    await sh('cd "$1"; mkdir a d; echo one > a/f; echo two > d/f; chmod 600 a/f', [layers.base]);
    await withMount(layers, async (mount) => {
      await mount.sh('cat a/f; mv a b; mv d a; chmod 777 a/f; echo guest >> a/f; cat a/f');
      await settle();
      await mount.sh('cat a/f');
      await settle();
      expect(await mount.sh('cat a/f; stat -c %a a/f')).toBe('two\nguest\n777\n');
      expect((await kasane(['log', layers.mnt])).stdout).not.toContain('merged');
      expect(await kasane(['conflicts', layers.mnt])).toMatchObject({ code: 0, stdout: '' });
    });
  }),
);
