// kill -9 of the daemon at each step of the publication order (native-notes/copy-up.md): after a new mount the
// union is wholly as before or wholly as after the guest's operation, which can be done anew.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { crashAt, differences, expectSound } from '../lib/crash.ts';
import { type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';

interface Case {
  what: string;
  /** What the guest has done before, in a session of its own. */
  before?: string;
  act: string;
  /** What the union is at each fail point. */
  old?: readonly string[];
  new?: readonly string[];
  /** For what is not a single operation: the state at that point, by another script than `act`. */
  between?: readonly [point: string, script: string][];
}

const around = (step: string) => ({
  old: [`${step}-before-journal`, `${step}-before-rename`],
  new: [`${step}-after-rename`],
});

const cases: Case[] = [
  {
    what: 'a copy-up for a write',
    act: 'echo guest >> f',
    old: ['copy-up-temp', 'copy-up-data', 'copy-up-synced', 'copy-up-before-journal', 'copy-up-before-rename'],
    between: [['copy-up-after-rename', ':']],
  },
  { what: 'a copy-up for a chmod', act: 'chmod 600 big', between: [['copy-up-after-rename', ':']] },
  {
    what: 'a copy-up for a truncating open',
    act: 'echo guest > f',
    old: ['copy-up-temp', 'copy-up-data', 'copy-up-synced', 'copy-up-before-journal', 'copy-up-before-rename'],
    between: [['copy-up-after-rename', ': > f']],
  },
  {
    what: 'a copy-up of a symlink',
    act: 'chown -h 1:1 link',
    old: ['special-before-journal', 'special-before-rename'],
    between: [['special-after-rename', ':']],
  },
  {
    what: 'a copy-up of a directory',
    act: 'chmod 700 deep/down/here',
    old: ['directory-before-rename:3'],
    between: [
      ['directory-after-rename:2', ':'],
      ['directory-after-rename:3', ':'],
    ],
  },
  { what: 'a whiteout', act: 'rm f', ...around('whiteout') },
  { what: 'a whiteout over a copy', before: 'echo guest >> f', act: 'rm f', ...around('whiteout') },
  {
    what: 'a whiteout in place of a directory',
    before: 'rm empty/only && touch empty',
    act: 'rmdir empty',
    ...around('whiteout'),
  },
  { what: 'a removal of what is the guest’s own', before: 'echo guest > own', act: 'rm own', ...around('remove') },
  { what: 'a new file over a whiteout', before: 'rm f', act: 'mkfifo f', ...around('create') },
  { what: 'a directory over a whiteout', before: 'rm f', act: 'mkdir f', ...around('create') },
  { what: 'a link over a whiteout', before: 'rm f; echo guest > own', act: 'ln own f', ...around('link') },
  { what: 'a rename of a base file to a new name', before: 'chmod 600 f', act: 'mv f moved', ...around('rename') },
  { what: 'a rename over a base file', before: 'echo guest > own', act: 'mv own f', ...around('rename') },
  { what: 'a rename of one base file over another', before: 'chmod 600 f', act: 'mv f big', ...around('rename') },
  {
    what: 'a rename over a whiteout',
    before: 'rm f; echo guest > own',
    act: 'mv own f',
    ...around('rename'),
  },
  { what: 'a rename of a directory of the base', act: 'mv deep moved', ...around('rename') },
  {
    what: 'a rename of a directory over a whiteout',
    before: 'rm f; mkdir own; echo guest > own/file',
    act: 'mv own f',
    ...around('rename'),
  },
  {
    what: 'a rename of a directory of the base over another, emptied one',
    before: 'rm empty/only',
    act: 'mv -T deep empty',
    ...around('rename'),
  },
  {
    what: 'a rename of a directory of the base back to its place',
    before: 'mv deep moved; echo guest >> moved/down/one',
    act: 'mv moved deep',
    ...around('rename'),
  },
  {
    what: 'an exchange',
    before: 'echo guest > own; chmod 600 f',
    act: 'mv --exchange own f 2>/dev/null || python3 -c \'import ctypes; ctypes.CDLL(None).renameat2(-100, b"own", -100, b"f", 2)\'',
    ...around('exchange'),
  },
];

async function makeBase(base: string): Promise<void> {
  await sh(
    `cd "$1"; printf 'base\\n%.0s' {1..40} > f; chmod 640 f; setfattr -n user.note -v 1 f
     head -c 300000 /dev/zero | tr '\\0' x > big; ln -s f link; mkdir empty; echo x > empty/only
     mkdir -p deep/down/here; echo one > deep/down/one; echo two > deep/down/here/two`,
    [base],
  );
}

/** What the union looks like after scripts, by running them in a plain copy of the base. */
async function modelOf(layers: Layers, scripts: readonly string[]): Promise<Tree> {
  const model = `${layers.dir}/model`;
  fs.rmSync(model, { recursive: true, force: true });
  await runOk('cp', ['-a', layers.base, model]);
  for (const script of scripts) await sh(script, [], { cwd: model });
  return readTree(model);
}

async function crash(one: Case, point: string, expected: string): Promise<void> {
  await withLayers(async (layers) => {
    await makeBase(layers.base);
    const before = one.before ?? ':';
    await withBaseUntouched(layers.base, async () => {
      if (one.before !== undefined) await withMount(layers, async (mount) => void (await mount.sh(before)));
      await crashAt(layers, point, one.act);
      const after = await modelOf(layers, [before, expected]);
      await withMount(layers, async (mount) => {
        expect(differences(after, await readTree(layers.mnt))).toEqual([]);
        expect(await mount.umount()).toBe(0);
      });
      await expectSound(layers.overlay, layers.base);
      if (expected === one.act) return;
      const anew = await modelOf(layers, [before, expected, one.act]);
      await withMount(layers, async (mount) => {
        await mount.sh(one.act);
        expect(differences(anew, await readTree(layers.mnt))).toEqual([]);
      });
      await expectSound(layers.overlay, layers.base);
    });
  });
}

for (const one of cases) {
  const points = [
    ...(one.old ?? []).map((point) => [point, ':', 'is wholly undone'] as const),
    ...(one.between ?? []).map(([point, script]) => [point, script, 'is there as far as it had come'] as const),
    ...(one.new ?? []).map((point) => [point, one.act, 'is wholly there'] as const),
  ];
  for (const [point, expected, result] of points) {
    mountTest(`${one.what}, cut off at ${point}, ${result}`, () => crash(one, point, expected));
  }
}
