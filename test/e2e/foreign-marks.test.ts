// What fuse-overlayfs and aufs leave in an upper directory: a file that says opaque, and attributes of their own.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

mountTest('a directory with the mark of fuse-overlayfs is opaque, and the mark is no name', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    for (const dir of ['d', 'e']) {
      fs.mkdirSync(path.join(base, dir));
      fs.writeFileSync(path.join(base, dir, 'hidden'), 'base\n');
    }
    fs.mkdirSync(path.join(overlay, 'd'));
    fs.writeFileSync(path.join(overlay, 'd', '.wh..wh..opq'), '');
    fs.writeFileSync(path.join(overlay, 'd', 'own'), 'overlay\n');
    await withBaseUntouched(base, () =>
      withMount({ base, overlay, mnt }, async (mount) => {
        expect(await mount.sh('ls -A d')).toBe('own\n');
        await expect(mount.sh('cat d/hidden')).rejects.toThrow('No such file');
        await expect(mount.sh('cat d/.wh..wh..opq')).rejects.toThrow('No such file');
        // A guest cannot hide the base's names by making one.
        await expect(mount.sh('touch e/.wh..wh..opq')).rejects.toThrow('not permitted');
        await expect(mount.sh('touch e/x; mv e/x e/.wh..wh..opq')).rejects.toThrow('not permitted');
        expect(await mount.sh('ls -A e')).toBe('hidden\nx\n');
        await mount.sh('rm d/own; rmdir d; ! test -e d; mkdir d; test -z "$(ls -A d)"');
      }),
    );
  }),
);

mountTest(
  "a branch's own attributes are neither shown nor copied, and a guest's escaped ones are",
  () =>
    withLayers(async ({ base, overlay, mnt }) => {
      fs.writeFileSync(path.join(base, 'f'), 'base\n');
      const attributes = [
        'user.fuseoverlayfs.origin',
        'trusted.overlay.origin',
        'trusted.overlay.overlay.of-guest',
      ];
      for (const name of [...attributes, 'user.plain'])
        await sh('setfattr -n "$1" -v x "$2"/f', [name, base]);
      await withBaseUntouched(base, () =>
        withMount({ base, overlay, mnt }, async (mount) => {
          const shown = () => mount.sh('getfattr -m - f | grep -v "^#" | sort | xargs');
          expect(await shown()).toBe('trusted.overlay.of-guest user.plain\n');
          await mount.sh('echo more >> f');
          expect(await shown()).toBe('trusted.overlay.of-guest user.plain\n');
          await expect(mount.sh('setfattr -n user.fuseoverlayfs.x -v 1 f')).rejects.toThrow('not permitted');
        }),
      );
    }),
  { commands: ['setfattr', 'getfattr'] },
);
