// File systems in a file, mounted by a loop device: for what a directory cannot show (no space, no xattrs,
// power loss, another file system). Root and loop devices only: ask `imageNeeds` first.
import * as fs from 'node:fs/promises';
import { tracked } from './cleanup.ts';
import { takeDown } from './mounts.ts';
import type { Needs } from './needs.ts';
import { runOk, sh } from './run.ts';

export type ImageType = 'ext4' | 'xfs' | 'btrfs' | 'erofs' | 'squashfs';

const readOnlyTypes: readonly ImageType[] = ['erofs', 'squashfs'];

export function imageNeeds(type: ImageType): Needs {
  const maker = type === 'squashfs' ? 'mksquashfs' : `mkfs.${type}`;
  return { root: true, loop: true, commands: [maker], filesystems: [type] };
}

export interface Image {
  type: ImageType;
  file: string;
  /** Where it is mounted. */
  dir: string;
  mount: (options?: string) => Promise<void>;
  umount: () => Promise<void>;
}

/**
 * Makes DIR/NAME.img, mounted on DIR/NAME. `sizeMiB` defaults to the least that all three take (xfs wants
 * 300); erofs and squashfs are read-only and take their content from the directory `from`.
 */
export async function makeLoopImage(
  dir: string,
  spec: {
    fs: ImageType;
    name?: string;
    sizeMiB?: number;
    from?: string;
    options?: string;
    /** For mkfs.erofs or mksquashfs. */
    mkfs?: readonly string[];
  },
): Promise<Image> {
  const name = spec.name ?? spec.fs;
  const file = `${dir}/${name}.img`;
  const mountPoint = `${dir}/${name}`;
  await fs.mkdir(mountPoint, { recursive: true });
  if (spec.fs === 'erofs' || spec.fs === 'squashfs') {
    const { from, mkfs = [] } = spec;
    if (from === undefined) throw new Error('a read-only image needs a directory to be made from');
    const [maker, args] =
      spec.fs === 'erofs'
        ? ['mkfs.erofs', ['--quiet', ...mkfs, file, from]]
        : ['mksquashfs', [from, file, '-quiet', '-no-progress', '-noappend', ...mkfs]];
    await runOk(maker, args, { timeout: 60_000 });
  } else {
    await sh('truncate -s "$2"M "$1"', [file, String(spec.sizeMiB ?? 320)]);
    const quiet = { ext4: ['-q', '-F'], xfs: ['-q', '-f'], btrfs: ['-q', '-f'] }[spec.fs];
    await runOk(`mkfs.${spec.fs}`, [...quiet, file], { timeout: 60_000 });
  }
  return mountImage(file, mountPoint, spec.fs, spec.options);
}

/** Mounts an image that is there already, such as a copy taken while another was in use. */
export async function mountImage(
  file: string,
  mountPoint: string,
  type: ImageType,
  options?: string,
): Promise<Image> {
  await fs.mkdir(mountPoint, { recursive: true });
  const umount = async () => {
    await takeDown(mountPoint);
  };
  const mount = async (more?: string) => {
    const wanted = ['loop', ...(readOnlyTypes.includes(type) ? ['ro'] : []), ...(more ? [more] : [])].join(
      ',',
    );
    await runOk('mount', ['-t', type, '-o', wanted, file, mountPoint], { timeout: 60_000 });
    tracked(umount);
  };
  await mount(options);
  return { type, file, dir: mountPoint, mount, umount };
}
