// The link counts of directories that overlay and base make up together: true, whatever a guest or the base does.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { exchangeCommand } from '../lib/calls.ts';
import {
  caughtUp,
  type Layers,
  type Mount,
  notifyBy,
  startMount,
  withLayers,
  withMount,
} from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { withBaseUntouched, wrongLinks } from '../lib/tree.ts';

/** Not on file systems that do not count the directories in one, as btrfs. */
function counted(body: (layers: Layers) => Promise<void>, where: 'disk' | 'memory' = 'disk'): Promise<void> {
  return withLayers(async (layers) => {
    const { base, overlay } = layers;
    await sh(
      `mkdir -p d/a/x d/a/y d/b/x d/c d/e d/full/sub away/a/x away/b put/d kept/a kept/b hide/a hide/b
      echo base > d/f; echo base > d/full/f; echo base > hide/f`,
      [],
      { cwd: base },
    );
    const counts = [base, overlay].every((dir) => fs.statSync(dir).nlink > 1);
    if (counts) await body(layers);
    else console.log(`${base} does not count the directories in one: nothing to compare`);
  }, where);
}

async function expectTrue(dir: string, when: string): Promise<void> {
  // With -noleaf: find(1) may skip directories where a count is too low.
  const lines = await sh("find . -noleaf -type d -exec stat -c '%h %n' {} +", [], { cwd: dir });
  const directories = [...lines.matchAll(/^(\d+) \.\/?(.*)$/gm)];
  expect(
    wrongLinks(directories.map(([, nlink, path]) => ({ nlink: Number(nlink), path: path as string }))),
    when,
  ).toEqual([]);
}

/** What a guest does, one after the other. */
const acts = {
  nothing: ':',
  'a new file': 'echo new > d/new; echo new > new',
  'copied up': 'chmod 700 d/a d/b/x kept/a; touch d/full/f',
  made: 'mkdir d/made d/made/in d/b/made madetop; mkdir d/e/in',
  'removed, of the base': 'rmdir d/c d/a/x; rmdir kept/b',
  'removed, copied up': 'rmdir kept/a; rm -r d/full',
  'removed, made': 'rmdir d/made/in madetop',
  'a file in the place of one': 'echo file > d/c; rmdir d/a/y; ln -s f d/a/y',
  'made again, which hides': 'mkdir d/full; mkdir d/full/other; rm d/c; mkdir d/c',
  'renamed out': 'mv d/b out; mkdir out/in; rmdir out/x; mv d/c away/c',
  'renamed over one of the base':
    'mv -T d/made away/b; mv -T d/e/in put/d; rmdir away/a/x; mv -T put/d away/a',
  exchanged: [
    exchangeCommand('d/a', 'd/f'),
    exchangeCommand('out', 'hide/b'),
    exchangeCommand('hide/a', 'hide/f'),
  ].join('\n'),
  'back where it was': 'mv hide/b d/b; mv away/c d/c',
  'the root': 'mkdir top; rm -r kept; mv away top/away',
};

mountTest('they are true whatever a guest does, after a remount, and after the death of the daemon', () =>
  counted((layers) =>
    withBaseUntouched(layers.base, async () => {
      const { mnt, ...rest } = layers;
      const mount = await startMount({ ...rest, mountPoint: mnt });
      for (const [name, act] of Object.entries(acts)) {
        await mount.sh(act);
        await expectTrue(mnt, name);
      }
      await mount.kill();
      await withMount(layers, async ({ sh: inside }) => {
        await expectTrue(mnt, 'the daemon died');
        await inside('mkdir -p d/b/again/in; rm -r hide');
        await expectTrue(mnt, 'after that');
      });
      await withMount(layers, () => expectTrue(mnt, 'remounted'));
    }),
  ),
);

/** What happens to the base while guests use it. */
const updates = {
  'directories come': 'mkdir -p d/new/in d/a/new hide/new put/new/in',
  'the first one of its own': 'mkdir d/b/x/first',
  'directories go': 'rmdir d/e d/a/y; rm -r away/b',
  'where the guest has one': 'mkdir d/own; rm -r hide/a; rmdir kept/b',
  'others in their place': 'rm -r d/full; echo file > d/full; rm d/f; mkdir d/f',
  'one for another': 'rmdir kept/a; mkdir kept/other; mv put/new put/newer',
};

async function follow(layers: Layers, mount: Mount): Promise<void> {
  const { mnt } = layers;
  // A copy of each, a whiteout, and a directory of the guest's own.
  await mount.sh(
    'for d in d d/a d/b/x hide put kept away kept/b; do echo own > $d/o; done; rmdir hide/b; mkdir d/own hide/own',
  );
  await expectTrue(mnt, 'at first');
  for (const [name, update] of Object.entries(updates)) {
    await sh(update, [], { cwd: layers.base });
    await caughtUp(mnt);
    await expectTrue(mnt, name);
  }
  // It goes when it is met, for nothing of the guest's is in it.
  await mount.sh('touch put/d/o; rm put/d/o');
  await sh('rmdir put/d', [], { cwd: layers.base });
  await caughtUp(mnt);
  const gone = async () => (await mount.sh('stat put/d || echo gone')) === 'gone\n';
  expect(await waitUntil(gone)).toBe(true);
  await expectTrue(mnt, 'one that the guest had touched goes');
}

for (const [mode, ...options] of [
  ['check', '--coherence', 'check'],
  ['notify by inotify', ...notifyBy('inotify')],
  ['notify by fanotify', ...notifyBy('fanotify')],
] as const) {
  mountTest(`they follow the base: ${mode}`, () =>
    counted((layers) => withMount({ ...layers, options }, (mount) => follow(layers, mount)), 'memory'),
  );
}

mountTest('they are true once the base has had a directory above elsewhere for a while', () =>
  counted(async (layers) => {
    const { base, mnt } = layers;
    await sh('mkdir -p up/dir/gone up/dir/stays', [], { cwd: base });
    await withMount({ ...layers, options: ['--coherence', 'check'] }, async (mount) => {
      await mount.sh('touch up/dir/gone/own');
      await expectTrue(mnt, 'at first');
      await sh('mv up elsewhere', [], { cwd: base });
      await expectTrue(mnt, 'elsewhere');
      // Nothing of the base is hidden by that, so no whiteout is left.
      await mount.sh('rm -r up/dir/gone');
      await sh('mv elsewhere up', [], { cwd: base });
      await expectTrue(mnt, 'back');
    });
  }, 'memory'),
);
