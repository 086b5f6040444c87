// kill -9 of the daemon at each step of the publication order (native-notes/copy-up.md): after a new mount the
// union is wholly as before or wholly as after the guest's operation, which can be done anew. Each case has a
// directory of its own; one daemon after another dies over the same overlay, and each start recovers from that.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { crashAt, differences, expectSound, strayWhiteouts } from '../lib/crash.ts';
import { kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { readTree, withBaseUntouched } from '../lib/tree.ts';

interface Case {
  what: string;
  /** What the guest has done before, in a session that ended well. */
  before?: string;
  act: string;
  /** Fail points at which nothing has happened yet. */
  old?: readonly string[];
  /** Fail points at which all has happened. */
  new?: readonly string[];
  /** Of several operations some have happened: those of the script. */
  between?: readonly [point: string, script: string][];
}

const around = (step: string) => ({ old: [`${step}-before-rename`], new: [`${step}-after-rename`] });

const exchange =
  'python3 -c \'import ctypes; ctypes.CDLL(None).renameat2(-100, b"own", -100, b"f", 2)\' || mv --exchange own f';

const cases: Case[] = [
  {
    what: 'a copy-up for a write',
    act: 'echo guest >> f',
    old: [
      'copy-up-temp',
      'copy-up-data',
      'copy-up-synced',
      'copy-up-before-journal',
      'copy-up-before-rename',
    ],
    between: [['copy-up-after-rename', ':']],
  },
  {
    what: 'a copy-up for a truncating open',
    act: 'echo guest > f',
    old: ['copy-up-temp', 'copy-up-synced', 'copy-up-before-rename'],
    between: [['copy-up-after-rename', ': > f']],
  },
  {
    what: 'a chmod of a base file',
    act: 'chmod 600 f',
    old: ['copy-metadata-before-rename'],
    new: ['copy-metadata-after-rename'],
  },
  {
    what: 'the first write to a copy of metadata alone',
    before: 'chmod 600 f',
    act: 'echo guest >> f',
    old: ['complete-data', 'complete-synced', 'complete-before-rename', 'complete-between'],
    between: [['complete-after-rename', ':']],
  },
  {
    what: 'a truncating open of a copy of metadata alone',
    before: 'chmod 600 f',
    act: 'echo guest > f',
    old: ['complete-between'],
    between: [['complete-after-rename', ': > f']],
  },
  {
    what: 'a copy-up of a file with two names',
    act: 'echo guest >> hard',
    old: ['copy-up-before-rename'],
    between: [['copy-up-after-rename', ':']],
  },
  {
    what: 'the other name of a file that was copied up',
    before: 'echo guest >> hard',
    act: 'echo more >> hard2',
    old: ['hard-link-before-rename'],
    between: [['hard-link-after-rename', ':']],
  },
  {
    what: 'a copy-up of a symlink',
    act: 'chown -h 1:1 link',
    old: ['special-before-rename'],
    between: [['special-after-rename', ':']],
  },
  {
    what: 'a copy-up of a directory',
    act: 'chmod 700 deep/down/here',
    old: ['directory-before-rename:4'],
    between: [
      ['directory-after-rename:2', ':'],
      ['directory-after-rename:4', ':'],
    ],
  },
  {
    what: 'a whiteout',
    act: 'rm f',
    ...around('whiteout'),
    old: ['whiteout-before-journal', 'whiteout-before-rename'],
  },
  { what: 'a whiteout over a copy', before: 'echo guest >> f', act: 'rm f', ...around('whiteout') },
  {
    what: 'a whiteout over a directory',
    before: 'rm empty/only; chmod 700 empty',
    act: 'rmdir empty',
    ...around('whiteout'),
  },
  { what: 'a removal', before: 'echo guest > own', act: 'rm own', ...around('remove') },
  { what: 'a node over a whiteout', before: 'rm f', act: 'mkfifo f', ...around('create') },
  { what: 'a directory over a whiteout', before: 'rm f', act: 'mkdir f', ...around('create') },
  { what: 'a link over a whiteout', before: 'rm f; echo guest > own', act: 'ln own f', ...around('link') },
  {
    what: 'a rename of a base file',
    before: 'chmod 600 f',
    act: 'mv f moved',
    ...around('rename'),
    old: ['rename-before-journal', 'rename-before-rename'],
  },
  { what: 'a rename over a base file', before: 'echo guest > own', act: 'mv own f', ...around('rename') },
  {
    what: 'a rename of one base file over another',
    before: 'chmod 600 f',
    act: 'mv f big',
    ...around('rename'),
  },
  {
    what: 'a rename over a whiteout',
    before: 'rm f; echo guest > own',
    act: 'mv own f',
    ...around('rename'),
  },
  { what: 'a rename of a base directory', act: 'mv deep moved', ...around('rename') },
  {
    what: 'a rename of a directory over a whiteout',
    before: 'rm f; mkdir own; echo guest > own/file',
    act: 'mv own f',
    ...around('rename'),
    new: ['rename-swapped', 'rename-after-rename'],
  },
  {
    what: 'a rename of a base directory over one that was emptied',
    before: 'rm empty/only',
    act: 'mv -T deep empty',
    ...around('rename'),
  },
  {
    what: 'a rename of a base directory back to its place',
    before: 'mv deep moved; echo guest >> moved/down/one',
    act: 'mv moved deep',
    ...around('rename'),
  },
  { what: 'an exchange', before: 'echo guest > own; chmod 600 f', act: exchange, ...around('exchange') },
];

interface Crash {
  name: string;
  /** Directory of the union that is its own. */
  dir: string;
  point: string;
  before: string;
  act: string;
  /** What has happened of `act`. */
  done: string;
}

function crashesOf(one: Case, at: number): Crash[] {
  const points = [
    ...(one.old ?? []).map((point) => [point, ':', 'undone'] as const),
    ...(one.between ?? []).map(([point, script]) => [point, script, 'there as far as it had come'] as const),
    ...(one.new ?? []).map((point) => [point, one.act, 'there'] as const),
  ];
  return points.map(([point, done, result], i) => ({
    name: `${one.what}, cut off at ${point}, is wholly ${result}`,
    dir: `c${at}-${i}`,
    point,
    before: one.before ?? ':',
    act: one.act,
    done,
  }));
}

const crashes = cases.flatMap(crashesOf);

async function makeBase(base: string, some: readonly Crash[]): Promise<void> {
  for (const { dir } of some) {
    await sh(
      `mkdir "$1"; cd "$1"; printf 'base\\n%.0s' {1..40} > f; chmod 640 f; setfattr -n user.note -v 1 f
       head -c 300000 /dev/zero | tr '\\0' x > big; ln -s f link; echo hard > hard; ln hard hard2; mkdir empty; echo x > empty/only
       mkdir -p deep/down/here; echo one > deep/down/one; echo two > deep/down/here/two`,
      [`${base}/${dir}`],
    );
  }
}

/** Runs a script of each crash in its directory beneath `root`. */
async function each(root: string, some: readonly Crash[], script: (one: Crash) => string): Promise<void> {
  for (const one of some) await sh(script(one), [], { cwd: `${root}/${one.dir}` });
}

/** Differences between the union and a plain copy of the base in which the scripts have run, by directory. */
async function compare(model: string, mnt: string, found: Map<string, string[]>): Promise<void> {
  for (const line of differences(await readTree(model), await readTree(mnt))) {
    const dir = line.split(/[/:]/)[0] as string;
    found.set(dir, [...(found.get(dir) ?? []), line]);
  }
}

/** Lets one daemon after another die; what is wrong afterwards, by directory, '' for the overlay as a whole. */
async function dieOften(layers: Layers, some: readonly Crash[]): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const note = (dir: string, work: Promise<void>) =>
    work.catch((error: Error) => void found.set(dir, [...(found.get(dir) ?? []), error.message]));
  await makeBase(layers.base, some);
  const model = `${layers.dir}/model`;
  await runOk('cp', ['-a', layers.base, model]);
  await withBaseUntouched(layers.base, async () => {
    await withMount(layers, (mount) => each(mount.dir, some, (one) => one.before));
    for (const one of some) await note(one.dir, crashAt(layers, one.point, `cd ${one.dir}; ${one.act}`));
    await each(model, some, (one) => `${one.before}; ${one.done}`);
    const undone = some.filter((one) => one.done !== one.act);
    await withMount(layers, async (mount) => {
      expect(fs.readdirSync(`${layers.overlay}/.kasane/work`)).toEqual([]);
      await compare(model, mount.dir, found);
      await each(mount.dir, undone, (one) => one.act);
      await each(model, undone, (one) => one.act);
      await compare(model, mount.dir, found);
      expect(await mount.umount()).toBe(0);
    });
    await note('', expectSound(layers.overlay, layers.base));
    for (const path of await strayWhiteouts(layers.overlay, layers.base)) {
      await note(path.split('/')[0] as string, Promise.reject(new Error(`a stray whiteout: ${path}`)));
    }
  });
  return found;
}

let outcome: Promise<Map<string, string[]>> | null = null;

/** Two overlays, for two processors. */
function all(): Promise<Map<string, string[]>> {
  outcome ??= Promise.all(
    [0, 1].map((half) =>
      withLayers((layers) =>
        dieOften(
          layers,
          crashes.filter((_, i) => i % 2 === half),
        ),
      ),
    ),
  ).then(([one, two]) => {
    const sound = [...(one?.get('') ?? []), ...(two?.get('') ?? [])];
    return new Map([...(one ?? []), ...(two ?? []), ['', sound]]);
  });
  return outcome;
}

for (const one of crashes) {
  mountTest(one.name, async () => expect((await all()).get(one.dir) ?? []).toEqual([]), { timeout: 400_000 });
}

mountTest(
  'after all these deaths check finds nothing, every copy and whiteout has its origin, and work/ is empty',
  async () => expect((await all()).get('')).toEqual([]),
  { timeout: 400_000 },
);

mountTest('a file whose content was about to come up has its times again', () =>
  withLayers(async (layers) => {
    await sh('for f in written emptied; do seq 500 > $f; done', [], { cwd: layers.base });
    await withBaseUntouched(layers.base, async () => {
      const before =
        "chmod 600 *; touch -ac -d '2001-02-03 04:05:06.7' *; touch -mc -d '1965-04-03 02:01:00.9' *";
      await withMount(layers, (mount) => mount.sh(before));
      const attributes = (name: string) =>
        sh('getfattr -m- --absolute-names "$1" | grep kasane.times || :', [`${layers.overlay}/${name}`]);
      for (const [name, point, act] of [
        ['written', 'complete-data', 'echo guest >> written'],
        ['emptied', 'complete-between', ': > emptied'],
      ] as const) {
        await crashAt(layers, point, act);
        await withMount(layers, async (mount) => {
          const shown = await mount.sh(`stat -c '%x %y %s' ${name}; seq 500 | cmp - ${name}`);
          expect(shown).toBe(
            '2001-02-03 04:05:06.700000000 +0000 1965-04-03 02:01:00.900000000 +0000 1892\n',
          );
          expect(await attributes(name)).toBe('');
          await mount.sh(act);
          expect(await attributes(name)).toBe('');
        });
      }
    });
  }),
);

mountTest('a start that dies before it has finished what another death had left leaves it to the next', () =>
  withLayers(async (layers) => {
    await sh('echo base > f; echo base > g; mkdir own', [], { cwd: layers.base });
    await withBaseUntouched(layers.base, async () => {
      await withMount(layers, (mount) => mount.sh('rmdir own; rm g; mkdir g; echo guest > g/file'));
      for (const [point, act] of [
        ['rename-after-rename', 'mv f moved'],
        ['rename-swapped', 'mv g own'],
      ] as const) {
        await crashAt(layers, point, act);
        const args = ['mount', '--base', layers.base, '--overlay', layers.overlay, layers.mnt];
        const start = await kasane(args, { env: { KASANE_FAIL: 'recovery' } });
        expect(start.code).not.toBe(0);
      }
      await withMount(layers, async (mount) => {
        expect(await mount.sh('ls; cat moved own/file')).toBe('moved\nown\nbase\nguest\n');
      });
      await expectSound(layers.overlay, layers.base);
      expect(await strayWhiteouts(layers.overlay, layers.base)).toEqual([]);
    });
  }),
);
