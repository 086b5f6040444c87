// Files that are too large to be hashed while a client waits for their copy-up.
import { expect } from 'vitest';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';

mountTest('a file of 260 MiB that the guest has not changed follows the base, with the guest’s mode', () =>
  withLayers(async (layers) => {
    await sh('truncate -s 260M "$1/big"; printf first | dd of="$1/big" conv=notrunc status=none', [
      layers.base,
    ]);
    await withMount(layers, async (mount) => {
      await mount.sh('chmod 640 big');
      await sh(
        `cp --sparse=always "$1/big" "$1/new"; printf later | dd of="$1/new" conv=notrunc status=none
         mv "$1/new" "$1/big"`,
        [layers.base],
      );
      expect(await mount.kasane(['reconcile', mount.dir], { timeout: 120_000 })).toMatchObject({ code: 0 });
      expect(await mount.sh('head -c 5 big; stat -c " %a" big')).toBe('later 640\n');
      expect(await mount.kasane(['conflicts', mount.dir])).toMatchObject({ code: 0, stdout: '' });
    });
  }),
);
