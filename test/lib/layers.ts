// Bases of three layers, which lie in base/a, base/b and base/c, topmost first; the kernel's overlayfs over the same; and
// an overlay that lies on such a one.
import * as fs from 'node:fs';
import { type Layers, type Mount, withLayers, withMount } from './kasane.ts';
import { takeDown } from './mounts.ts';
import { runOk, sh } from './run.ts';

const names = ['a', 'b', 'c'] as const;
export const layersOf = ({ base }: Layers) => names.map((name) => `${base}/${name}`);

/** The tree that kernel overlayfs shows, with the overlay as its upper directory or without one. */
export async function inOverlayfs<T>(
  layers: Layers,
  upper: boolean,
  body: (dir: string) => Promise<T>,
): Promise<T> {
  const { overlay, dir, mnt } = layers;
  await sh('mkdir -p "$1/work"', [dir]);
  const above = upper ? `,upperdir=${overlay},workdir=${dir}/work` : '';
  const options = `lowerdir=${layersOf(layers).join(':')}${above},redirect_dir=on,metacopy=on`;
  await runOk('mount', ['-t', 'overlay', '-o', options, 'none', mnt]);
  try {
    return await body(mnt);
  } finally {
    await takeDown(mnt);
  }
}

/** A shell function `over LOWER UPPER MOUNTPOINT SCRIPT`: what a guest of overlayfs leaves in UPPER; needs work/UPPER. */
export const overlayfsOver = (options: string) => `over() {
    mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=work/$2,redirect_dir=on,${options}" none "$3"
    (cd "$3"; eval "$4"); umount "$3"
  }`;

export function withUnion<T>(
  layers: Layers,
  body: (mount: Mount) => Promise<T>,
  more: readonly string[] = [],
): Promise<T> {
  return withMount({ ...layers, base: layersOf(layers), options: ['-o', 'suid,dev', ...more] }, body);
}

/**
 * An overlay on an overlayfs of its own, as in a container: whiteouts are files there. `tmpfs`: options of one that the
 * upper directory lies on.
 */
export function withLayersOnOverlayfs(body: (layers: Layers) => Promise<void>, tmpfs = ''): Promise<void> {
  return withLayers(async ({ base, overlay, dir, mnt }) => {
    if (tmpfs !== '') await runOk('mount', ['-t', 'tmpfs', '-o', tmpfs, 'none', overlay]);
    const container = `${dir}/container`;
    const [below, upper, work] = [`${dir}/below`, `${overlay}/upper`, `${overlay}/work`];
    for (const name of [below, upper, work, container]) fs.mkdirSync(name);
    const options = `lowerdir=${below},upperdir=${upper},workdir=${work}`;
    await runOk('mount', ['-t', 'overlay', '-o', options, 'none', container]);
    fs.mkdirSync(`${container}/overlay`);
    await body({ base, overlay: `${container}/overlay`, dir: container, mnt });
  });
}
