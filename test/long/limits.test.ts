// Files, attributes and file systems at their limits: what is too large for a copy is refused and stays whole, and
// what is only large on paper is copied as small as it is.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { imageNeeds, makeLoopImage } from '../lib/images.ts';
import { kasane, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

mountTest(
  'a file of 1 TiB that is almost all hole is copied up with its holes',
  () =>
    withLayers(async ({ base, overlay, mnt }) => {
      const places = [0, 300, 1023].map((gib) => gib * 2 ** 30);
      await sh('truncate -s 1T "$1"/f', [base]);
      for (const at of places)
        await sh('printf %s "$2" | dd of="$1"/f bs=1 seek="$2" conv=notrunc status=none', [base, `${at}`]);
      // Else it is looked at once more, whole, and who opens it waits for that as long as a test lets it.
      await ripen(`${base}/f`);
      await withMount({ base, overlay, mnt }, async (mount) => {
        await mount.sh('printf end >> f');
        expect(await mount.sh('stat -c %s f')).toBe(`${2 ** 40 + 3}\n`);
        for (const at of places) {
          const read = 'dd if=f skip="$1" count="$2" iflag=skip_bytes,count_bytes status=none';
          expect(await mount.sh(read, [`${at}`, `${`${at}`.length}`])).toBe(`${at}`);
        }
        expect(Number(await sh('du -k "$1"/f | cut -f 1', [overlay]))).toBeLessThan(1024);
      });
    }),
  { timeout: 120_000 },
);

mountTest(
  'a look that takes longer than an open waits for shows the guest its own bytes, and does not outlive the mount',
  () =>
    withLayers(async ({ base, overlay, mnt }) => {
      await sh('truncate -s 1T "$1"/f', [base]);
      await ripen(`${base}/f`);
      const env = { KASANE_LOOK_LIMIT_MS: '100' };
      await withMount({ base, overlay, mnt, env }, async (mount) => {
        await mount.sh('printf guest | dd of=f bs=1 conv=notrunc status=none');
        await sh('printf base | dd of="$1"/f bs=1 seek=1G conv=notrunc status=none', [base]);
        // Both sides are to be read whole, which takes many minutes: the kasane umount below would give up before.
        expect(await mount.sh('head -c 5 f')).toBe('guest');
        expect(await kasane(['status', '--json', mnt])).toMatchObject({ code: 0 });
        expect(await kasane(['umount', mnt])).toMatchObject({ code: 0, stderr: '' });
        expect(mount.log()).not.toContain('error');
      });
    }),
  { timeout: 120_000 },
);

const copyRange = `
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
while os.copy_file_range(source, target, 2 ** 30): pass
`;

for (const type of ['xfs', 'btrfs'] as const) {
  mountTest(
    `on ${type} a copy-up, and a guest's copy_file_range, share the blocks that are there`,
    () =>
      withLayers(async ({ dir, mnt }) => {
        const image = await makeLoopImage(dir, { fs: type });
        const layers = { base: `${image.dir}/base`, overlay: `${image.dir}/overlay`, mnt };
        await sh('mkdir "$1" "$2"; head -c 64M /dev/urandom > "$1"/f', [layers.base, layers.overlay]);
        const used = async () =>
          Number(await sh('sync -f "$1"; df -k --output=used "$1" | tail -1', [image.dir]));
        await withBaseUntouched(layers.base, () =>
          withMount(layers, async (mount) => {
            const before = await used();
            await mount.sh('echo more >> f; python3 -c "$1" f copied; cmp f copied', [copyRange]);
            expect((await used()) - before).toBeLessThan(32 * 1024);
          }),
        );
      }),
    { ...imageNeeds(type), commands: ['python3', `mkfs.${type}`] },
  );
}

/** 64 attributes of 60 KiB: more than ext4 takes, and no more than the kernel passes on. */
const attributes = (action: string) => `
import os, sys
for i in range(64):
    name, value = 'user.large%d' % i, bytes([i]) * 60 * 1024
    ${action}
`;

mountTest(
  '64 attributes of 60 KiB are copied up where the file system takes them',
  () =>
    withLayers(async ({ dir, mnt }) => {
      const image = await makeLoopImage(dir, { fs: 'xfs' });
      const layers = { base: `${image.dir}/base`, overlay: `${image.dir}/overlay`, mnt };
      await sh('mkdir "$1" "$2"; echo base > "$1"/f', [layers.base, layers.overlay]);
      await sh('python3 -c "$1" "$2"/f', [attributes('os.setxattr(sys.argv[1], name, value)'), layers.base]);
      const same = attributes('assert os.getxattr(sys.argv[1], name) == value');
      await withBaseUntouched(layers.base, () =>
        withMount(layers, async (mount) => {
          await sh('python3 -c "$1" "$2"/f', [same, mount.dir]);
          await mount.sh('echo more >> f');
          await sh('python3 -c "$1" "$2"/f', [same, mount.dir]);
          await sh('python3 -c "$1" "$2"/f', [same, layers.overlay]);
        }),
      );
    }),
  { ...imageNeeds('xfs'), commands: ['python3', 'mkfs.xfs'] },
);

mountTest(
  'a full overlay refuses copies and writes, loses nothing, and takes them again when there is space',
  () =>
    withLayers(async ({ base, dir, mnt }) => {
      const image = await makeLoopImage(dir, { fs: 'ext4', sizeMiB: 24 });
      await sh(
        'head -c 8M /dev/urandom > "$1"/large; echo base > "$1"/small; mkdir "$1"/d; echo x > "$1"/d/x',
        [base],
      );
      const overlay = `${image.dir}/overlay`;
      fs.mkdirSync(overlay);
      await withBaseUntouched(base, () =>
        withMount({ base, overlay, mnt }, async (mount) => {
          await mount.sh('sha256sum large > "$1"/sum; echo mine > mine; echo guest >> small', [dir]);
          const full = mount.sh('cat /dev/zero > filler');
          await expect(full).rejects.toThrow('No space left on device');
          await expect(mount.sh('echo more >> large')).rejects.toThrow('No space left on device');
          await expect(mount.sh('chmod 600 large; echo more >> large')).rejects.toThrow(
            'No space left on device',
          );
          await mount.sh('sha256sum -c "$1"/sum', [dir]);
          expect(await mount.read('small')).toBe('base\nguest\n');
          expect(await mount.read('mine')).toBe('mine\n');
          // What needs no block, or gives some back, is done.
          await mount.sh(
            'rm filler; rm d/x; echo more >> large; echo x > d/y; cmp -n 8388608 large "$1"/large',
            [base],
          );
          expect(await mount.sh('tail -c 5 large; ls d')).toBe('more\ny\n');
        }),
      );
      expect(await kasane(['check', overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  imageNeeds('ext4'),
);

mountTest(
  'a quota of the overlay’s file system binds the guest, who loses nothing by it',
  () =>
    withLayers(async ({ base, dir, mnt }) => {
      const image = await makeLoopImage(dir, { fs: 'btrfs' });
      const overlay = `${image.dir}/overlay`;
      await sh(
        `btrfs subvolume create "$3"; btrfs quota enable "$2"; btrfs qgroup limit 6m "$3"
        head -c 8M /dev/urandom > "$1"/large; echo base > "$1"/small`,
        [base, image.dir, overlay],
      );
      await withBaseUntouched(base, () =>
        withMount({ base, overlay, mnt }, async (mount) => {
          await mount.sh('sha256sum large > "$1"/sum; echo mine > mine; echo more >> small', [dir]);
          await expect(mount.sh('cat /dev/zero > filler; sync filler')).rejects.toThrow(
            'Disk quota exceeded',
          );
          await expect(mount.sh('echo more >> large')).rejects.toThrow('Disk quota exceeded');
          expect(await mount.sh('cat mine small; sha256sum -c "$1"/sum', [dir])).toContain(
            'mine\nbase\nmore\n',
          );
          await sh('rm "$1"/filler; btrfs qgroup limit 64m "$2"; btrfs filesystem sync "$2"', [
            mount.dir,
            overlay,
          ]);
          await mount.sh('echo more >> large; cmp -n 8388608 large "$1"/large', [base]);
        }),
      );
      expect(await kasane(['check', overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  imageNeeds('btrfs'),
);

const manyNames = `
import os, sys
for i in range(300): os.setxattr(sys.argv[1], "trusted.%03d" % i + "n" * 240, b"v")
`;

mountTest(
  'a file with more names of attributes than can be listed (64 KiB) is not copied up, and stays whole',
  () =>
    withLayers(async ({ base, overlay, mnt }) => {
      fs.writeFileSync(`${base}/f`, 'text');
      await sh('python3 -c "$2" "$1"/f', [base, manyNames]);
      await withMount({ base, overlay, mnt }, async (mount) => {
        for (const change of ['echo more >> f', 'chmod 600 f', 'chown 5 f', 'mv f g']) {
          expect(await mount.sh(`! { ${change}; } 2>&1`)).toContain('Argument list too long');
        }
        expect(await mount.sh('cat f; ls')).toBe('textf\n');
        expect(fs.readdirSync(overlay)).toEqual(['.kasane']);
        await mount.sh('rm f');
      });
    }, 'memory'),
);
