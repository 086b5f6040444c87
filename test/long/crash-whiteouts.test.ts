// kill -9 of the daemon between a rename and the whiteout that follows it: where whiteouts are files, no single call
// does both.
import { expect } from 'vitest';
import { crashAt, expectSound } from '../lib/crash.ts';
import { withMount } from '../lib/kasane.ts';
import { withLayersOnOverlayfs } from '../lib/layers.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';

mountTest(
  'a whiteout that is to follow what was renamed does so after a death between the two',
  () =>
    withLayersOnOverlayfs(async (layers) => {
      await sh('cd "$1"; for n in 1 2; do echo $n > a$n; done; mkdir d; echo f > d/f', [layers.base]);
      await withMount(layers, (mount) => mount.sh('echo edited > a1; echo own > own; touch d/g'));
      for (const move of ['a1 new', 'a2 own', 'd moved'])
        await crashAt(layers, 'rename-between', `mv -T ${move}`);
      await withMount(layers, async (mount) => {
        expect(await mount.sh('ls; cat new own moved/f')).toBe('moved\nnew\nown\nedited\n2\nf\n');
        await mount.sh('echo again > a2');
      });
      await expectSound(layers.overlay, layers.base);
    }),
  { filesystems: ['overlay'] },
);
