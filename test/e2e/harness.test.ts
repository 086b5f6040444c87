// The harness on a real mount of Kasane: what the other files of this folder build upon.
import * as fs from 'node:fs/promises';
import { expect } from 'vitest';
import { dpkgReplace } from '../lib/base-update.ts';
import {
  caughtUp,
  daemonOf,
  kasane,
  startMount,
  stopBackground,
  withLayers,
  withMount,
} from '../lib/kasane.ts';
import { mountAt } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { isAlive, waitUntil } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

mountTest('a mount shows the base, keeps writes in the overlay, and ends with 0 when unmounted', () =>
  withLayers(async (layers) => {
    await fs.writeFile(`${layers.base}/f`, 'base\n');
    await withBaseUntouched(layers.base, () =>
      withMount(layers, async (mount) => {
        expect(await mount.read('f')).toBe('base\n');
        await mount.write('f', 'guest\n');
        await mount.write('new', 'guest\n');
        expect(await mount.sh('cat f new')).toBe('guest\nguest\n');
        expect(await fs.readFile(`${layers.overlay}/f`, 'utf8')).toBe('guest\n');
        expect(await mount.umount()).toBe(0);
        expect(mountAt(layers.mnt)).toBe(null);
        expect(isAlive(mount.pid)).toBe(false);
      }),
    );
  }),
);

mountTest('a file that no guest touched follows an update of the base', () =>
  withLayers(async (layers) => {
    await fs.writeFile(`${layers.base}/f`, 'one\n');
    await withMount(layers, async (mount) => {
      expect(await mount.read('f')).toBe('one\n');
      await dpkgReplace(`${layers.base}/f`, 'two\n', { keepMtime: true });
      await caughtUp(mount.dir);
      expect(await mount.read('f')).toBe('two\n');
    });
  }),
);

mountTest('a mount that is refused says why', () =>
  withLayers(async (layers) => {
    const start = startMount({ base: `${layers.dir}/none`, overlay: layers.overlay, mountPoint: layers.mnt });
    await expect(start).rejects.toThrow(/ended with 2: .*none/);
  }),
);

mountTest('a mount in the background returns when it serves, and is found by its command line', () =>
  withLayers(async (layers) => {
    await fs.writeFile(`${layers.base}/f`, 'base\n');
    const args = ['mount', '--base', layers.base, '--overlay', layers.overlay, layers.mnt];
    expect(await kasane(args)).toMatchObject({ code: 0, timedOut: false });
    try {
      expect(mountAt(layers.mnt)).not.toBe(null);
      const pid = daemonOf(layers.mnt) as number;
      expect(isAlive(pid)).toBe(true);
      expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0 });
      expect(await waitUntil(() => !isAlive(pid))).toBe(true);
    } finally {
      await stopBackground(layers.mnt);
    }
  }),
);

mountTest('a killed daemon leaves nothing behind, and what was written is there after a new mount', () =>
  withLayers(async (layers) => {
    await fs.writeFile(`${layers.base}/f`, 'base\n');
    const first = await startMount({ ...layers, mountPoint: layers.mnt });
    await first.write('f', 'guest\n');
    await first.kill();
    expect(mountAt(layers.mnt)).toBe(null);
    await withMount(layers, async (mount) => {
      expect(await mount.read('f')).toBe('guest\n');
    });
  }),
);
