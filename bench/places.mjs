// The file systems on which everything lies: tmpfs, or an image of ext4, xfs or btrfs on a loop device. Where
// there are no loop devices, ext4 comes by fuse2fs; where neither, a plain directory, and the report says so.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { run, runNow, unmount } from './stage.mjs';

export const fileSystems = ['tmpfs', 'ext4', 'xfs', 'btrfs'];

const IMAGE_GIB = 12;

const mkfs = {
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', '-N', '1500000'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
};

async function attachLoop(stage, image) {
  for (const direct of [['--direct-io=on'], []]) {
    const { status, stdout } = spawnSync('losetup', ['--find', '--show', ...direct, image], {
      encoding: 'utf8',
    });
    if (status === 0) {
      const device = stdout.trim();
      stage.undo.push(() => runNow('losetup', '--detach', device));
      return device;
    }
  }
  return null;
}

async function onImage(bench, type, dir) {
  const { stage } = bench;
  const image = `${dir}.img`;
  fs.writeFileSync(image, '');
  fs.truncateSync(image, IMAGE_GIB * 2 ** 30);
  await run(stage, [...mkfs[type], image]);
  const device = await attachLoop(stage, image);
  stage.undo.push(() => unmount(dir));
  if (device !== null) {
    await run(stage, ['mount', '-t', type, device, dir]);
    return { dir, name: `${type} (loop image)`, remount: ['mount', '-o', 'remount', dir] };
  }
  if (type !== 'ext4') throw new Error('no loop device can be had');
  await run(stage, ['fuse2fs', '-o', 'rw,allow_other,suid,dev', image, dir], { daemon: true });
  return { dir, name: 'ext4 (fuse2fs, for there is no loop device)' };
}

/** Made when first asked for. */
export async function placeOn(bench, type) {
  const known = bench.places.get(type);
  if (known) return known;
  const dir = path.join(bench.stage.dir, type);
  fs.mkdirSync(dir);
  let place;
  if (type === 'tmpfs') {
    bench.stage.undo.push(() => unmount(dir));
    await run(bench.stage, ['mount', '-t', 'tmpfs', '-o', 'mode=755,nr_inodes=0,size=80%', 'tmpfs', dir]);
    place = { dir, name: 'tmpfs' };
  } else {
    try {
      place = await onImage(bench, type, dir);
    } catch (error) {
      if (bench.stage.ended) throw error;
      place = { dir, name: `${bench.whereType} (a plain directory: ${type}: ${error.message})` };
      bench.notes.add(
        `${type} cannot be had (${error.message}): those rows are on ${bench.whereType} instead`,
      );
    }
  }
  fs.chmodSync(place.dir, 0o755);
  place.shared = path.join(place.dir, 'shared');
  fs.mkdirSync(place.shared);
  bench.places.set(type, place);
  return place;
}

/** What several cells need, made once for each file system: `make(folder)` fills it. */
export async function sharedOn(place, name, make) {
  const folder = path.join(place.shared, name);
  if (!fs.existsSync(`${folder}.done`)) {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(folder);
    await make(folder);
    fs.writeFileSync(`${folder}.done`, '');
  }
  return folder;
}
