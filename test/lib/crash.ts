// What has to hold after a crash, wherever it came: the union is as before or as after what was under way, the
// overlay is sound, and nothing is left in work/.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { kasane, type Layers, type Mount, mainFile, startMount } from './kasane.ts';
import { unlessGone } from './proc.ts';
import { waitUntil } from './run.ts';
import { diffTrees, readTree, type Tree } from './tree.ts';

/** Mounts with a fail point (KASANE_FAIL), runs a script in it, and waits for the daemon's death. */
export async function crashAt(
  layers: Layers,
  point: string,
  script: string,
  options: readonly string[] = [],
): Promise<void> {
  const mount = await startMount({
    ...layers,
    mountPoint: layers.mnt,
    options,
    env: { KASANE_FAIL: point },
  });
  try {
    // Whatever the script says: its connection ends in the midst of it.
    await mount.sh(script, [], { env: { KASANE_MAIN: mainFile } }).catch(() => '');
    const died = await waitUntil(() => hasEnded(mount));
    if (!died) throw new Error(`the daemon did not come to ${point}\n${mount.log()}`);
    expect(await mount.ended).toBe(null);
  } finally {
    await mount.kill();
  }
}

/** Whether the process is gone, or only waits to be reaped. */
function hasEnded(mount: Mount): boolean {
  const read = () => fs.readFileSync(`/proc/${mount.pid}/status`, 'latin1');
  return unlessGone(() => /^State:\tZ/m.test(read()), true);
}

/** Differences of content, type, mode, owner and attributes; times of directories move in copies of a tree. */
export function differences(left: Tree, right: Tree): string[] {
  return diffTrees(left, right, { ignore: ['.kasane'], mtime: false, nlink: false });
}

/**
 * Of an overlay that nobody has mounted: nothing in work/, each object under a name of the base has its origin,
 * and `kasane check` finds no damage.
 */
export async function expectSound(overlay: string, base: string): Promise<void> {
  expect(fs.readdirSync(`${overlay}/.kasane/work`)).toEqual([]);
  expect(await withoutOrigin(overlay, base)).toEqual([]);
  const check = await kasane(['check', overlay]);
  expect(check.stdout + check.stderr).toMatch(/: no damage, 0 warnings\n$/);
  expect(check.code).toBe(0);
}

/** Whiteouts of the overlay that hide nothing; not for those beneath a directory that was renamed. */
export async function strayWhiteouts(overlay: string, base: string): Promise<string[]> {
  const known = await readTree(base, { contents: false });
  const entries = [...(await readTree(overlay, { contents: false })).values()];
  return entries.filter(({ path, rdev }) => rdev === 0 && !known.has(path)).map(({ path }) => path);
}

/** Objects of the overlay, directories aside, that lie at a name of the base and have no origin. */
async function withoutOrigin(overlay: string, base: string): Promise<string[]> {
  const known = await readTree(base, { contents: false });
  const found: string[] = [];
  for (const entry of (await readTree(overlay, { contents: false })).values()) {
    if (entry.type === 'dir' || entry.path.startsWith('.kasane/') || !known.has(entry.path)) continue;
    if (!entry.xattrs.some((line) => line.startsWith('trusted.kasane.origin='))) found.push(entry.path);
  }
  return found;
}
