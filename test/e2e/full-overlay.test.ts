// A disk that is full: the overlay can be mounted, so that its guest makes room, and nothing is lost by it.
import * as fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { imageNeeds, makeLoopImage } from '../lib/images.ts';
import { kasane, type Layers, type Mount, say, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest, type Needs } from '../lib/needs.ts';
import { runOk, waitUntil } from '../lib/run.ts';
import { text, updateFile, writeFiles } from '../lib/versioning.ts';

interface Disk {
  needs: Needs;
  make: (dir: string) => Promise<string>;
  /** Leaves no room for anything. Says what it has made. */
  fill: (mount: Mount) => Promise<unknown>;
}

async function makeTmpfs(dir: string, options: string): Promise<string> {
  fs.mkdirSync(`${dir}/tmpfs`);
  await runOk('mount', ['-t', 'tmpfs', '-o', options, 'kasane-test', `${dir}/tmpfs`]);
  return `${dir}/tmpfs`;
}

const takeBlocks = (mount: Mount) =>
  mount.sh(`set +e; for size in 64k 4k 512; do dd if=/dev/zero of=fill.$size bs=$size status=none; done 2> /dev/null
  for i in $(seq 200); do echo > fill.$i; done 2> /dev/null; true`);

const disks: Record<string, Disk> = {
  'a tmpfs': {
    needs: { root: true },
    make: (dir) => makeTmpfs(dir, 'size=4m'),
    fill: takeBlocks,
  },
  'an ext4': {
    needs: imageNeeds('ext4'),
    make: async (dir) => (await makeLoopImage(dir, { fs: 'ext4', sizeMiB: 24 })).dir,
    fill: takeBlocks,
  },
  'a tmpfs without inodes': {
    needs: { root: true },
    make: (dir) => makeTmpfs(dir, 'size=16m,nr_inodes=300'),
    fill: (mount) => mount.sh('set +e; for i in $(seq 400); do echo > fill.$i; done 2> /dev/null; true'),
  },
};

/** Layers whose overlay lies on a small disk. */
const withDisk = (disk: Disk, body: (layers: Layers) => Promise<void>) =>
  withLayers(async (layers) => {
    const small = await disk.make(layers.dir);
    try {
      const overlay = `${small}/overlay`;
      fs.mkdirSync(overlay);
      writeFiles(layers.base, { a: text(), b: text(), c: text() });
      await ripen(layers.base);
      await body({ ...layers, overlay });
    } finally {
      await takeDown(small);
    }
  });

const edit = (mount: Mount, name: string) => mount.write(name, text({ 15: 'guest' }));
const sound = async (overlay: string) =>
  expect(await say(0, 'check', overlay)).toMatch(/: no damage, 0 warnings\n$/);

for (const [name, disk] of Object.entries(disks)) {
  mountTest(
    `${name} that is full is mounted again and again, however the mount before ended, until its guest makes room`,
    () =>
      withDisk(disk, async (layers) => {
        const { overlay } = layers;
        let mount = await startMount({ ...layers, mountPoint: layers.mnt });
        await edit(mount, 'a');
        await mount.sh('rm c');
        // Killed, taken down, and looked at without a mount, while there is no room.
        for (const end of ['kill', 'umount', 'kill'] as const) {
          await disk.fill(mount);
          await expect(mount.sh('mkdir -p new/dir; echo more > new/dir/file')).rejects.toThrow(
            'No space left',
          );
          if (end === 'kill') await mount.kill();
          else expect(await mount.umount()).toBe(0);
          await sound(overlay);
          mount = await startMount({ ...layers, mountPoint: layers.mnt });
          expect(await mount.read('a')).toBe(text({ 15: 'guest' }));
        }
        await disk.fill(mount);
        await mount.sh('rm -r fill.*; rm -rf new');
        await edit(mount, 'b');
        for (const file of ['a', 'b'])
          await updateFile(`${layers.base}/${file}`, text({ 3: 'base' }), 'replace');
        expect(await say(0, 'reconcile', mount.dir)).toContain('2 merged');
        expect(await mount.read('a')).toBe(text({ 3: 'base', 15: 'guest' }));
        await mount.umount();
        expect(fs.readdirSync(overlay).sort()).toEqual(['.kasane', 'a', 'b', 'c']);
        const log = JSON.parse(await say(0, 'log', '--json', `${overlay}/a`));
        expect(log.map((one: { kind: string }) => one.kind)).toEqual(['copy-up', 'merged']);
        await sound(overlay);
      }),
    { ...disk.needs, timeout: 240_000 },
  );
}

mountTest(
  'what there is no room to merge stays pending, and is merged once there is; reconcile says so and ends with 4',
  () =>
    withDisk(disks['a tmpfs'] as Disk, (layers) =>
      withMount(layers, async (mount) => {
        await edit(mount, 'a');
        // Its ancestor is kept in the background.
        await waitUntil(() => fs.readdirSync(`${layers.overlay}/.kasane/ancestors`).length > 0);
        await takeBlocks(mount);
        await updateFile(`${layers.base}/a`, text({ 3: 'base' }), 'replace');
        const { code, stdout } = await kasane(['reconcile', mount.dir]);
        expect([code, stdout]).toEqual([
          4,
          'pending\ta\tno space is left in the overlay\n1 looked at, 1 pending\n',
        ]);
        const counts = async () => JSON.parse(await say(0, 'status', '--json', mount.dir)).counts;
        expect(await counts()).toMatchObject({ stale: 1, pending: 1 });
        expect(await mount.read('a')).toBe(text({ 15: 'guest' }));
        // Longer than the index waits before it tries again to be written: it can be read all the same.
        for (const end = Date.now() + 25_000; Date.now() < end; await sleep(1000))
          expect(await kasane(['reconcile', mount.dir])).toMatchObject({ code: 4 });
        expect(await counts()).toMatchObject({ stale: 1, pending: 1 });
        expect(mount.log()).not.toContain('not listed');
        await mount.sh('rm fill.*');
        expect(await say(0, 'reconcile', mount.dir)).toContain('1 merged');
        expect(await counts()).toMatchObject({ stale: 0, pending: 0 });
        expect(await mount.read('a')).toBe(text({ 3: 'base', 15: 'guest' }));
      }),
    ),
  { root: true, timeout: 240_000 },
);

mountTest(
  'without a reserve it is looked at, and mounted read-only; the refusal says what helps, and nothing is moved aside',
  () =>
    withDisk(disks['a tmpfs'] as Disk, async (layers) => {
      const { overlay, mnt } = layers;
      await withMount(layers, async (mount) => {
        await edit(mount, 'a');
        await takeBlocks(mount);
        await mount.kill();
      });
      fs.rmSync(`${overlay}/.kasane/reserve`, { recursive: true });
      await runOk('sh', [
        '-c',
        'dd if=/dev/zero of="$1"/more bs=4k status=none; true',
        'sh',
        `${overlay}/..`,
      ]);
      const before = fs.readdirSync(`${overlay}/.kasane`).length;
      const refused = await kasane(['mount', '--base', layers.base, '--overlay', overlay, mnt]);
      expect(refused.code).toBe(4);
      expect(refused.stderr).toMatch(/ENOSPC.*: make room in its file system, or mount it with -o ro\n$/);
      expect(await say(0, 'check', overlay)).toContain(': no damage, 0 warnings');
      await withMount({ ...layers, options: ['-o', 'ro'] }, async (mount) =>
        expect(await mount.read('a')).toBe(text({ 15: 'guest' })),
      );
      expect(fs.readdirSync(`${overlay}/.kasane`).length).toBeLessThanOrEqual(before + 1);
      fs.rmSync(`${overlay}/../more`);
      await withMount(layers, (mount) => mount.sh('rm fill.*'));
      await sound(overlay);
    }),
  { root: true, timeout: 240_000 },
);
