// kill -9 of the daemon at each step of a merge, a drop, a resolution and an undo: the guest's file is wholly
// the old or wholly the new one, what happened is in the history once, and no version is lost. Each case has a
// directory of its own; one daemon after another dies over the same overlay.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { dpkgReplace } from '../lib/base-update.ts';
import { crashAt, expectSound } from '../lib/crash.ts';
import { kasane, type Layers, type Mount, mainFile, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';
import { hashTree } from '../lib/tree.ts';

const lines = (first: string, last: string) =>
  `${[first, 'two', 'three', 'four', 'five', 'six', 'seven', last].join('\n')}\n`;

const texts = {
  base: lines('one', 'eight'),
  guest: lines('GUEST', 'eight'),
  update: lines('one', 'UPDATE'),
  merged: lines('GUEST', 'UPDATE'),
  other: lines('OTHER', 'eight'),
};

interface Kind {
  what: string;
  /** What the guest does to its file `f`, and what the base gets then. */
  guest: string;
  update: string;
  /** In a session that ends well, before the crash. */
  before: string;
  /** In the session that dies; MAIN is the program. */
  act: string;
  /** The overlay's own file, null for none, before and after. */
  old: string | null;
  new: string | null;
  /** The event that tells of it, and what an undo brings back (null: it is not undone here). */
  event: string;
  undone: string | null;
  points: { old: readonly string[]; new: readonly string[] };
}

const env = { KASANE_MAIN: mainFile };
const main = 'node "$KASANE_MAIN"';
const edit = 'sed -i s/one/GUEST/ f';
const carried = {
  old: ['merge-kept', 'merge-intent', 'commit-before-rename'],
  new: ['commit-after-rename', 'merge-recorded', 'merge-durable'],
};
const ruled = {
  old: ['ruling-kept', 'ruling-intent', 'commit-before-rename'],
  new: ['commit-after-rename', 'ruling-recorded', 'ruling-durable'],
};

const kinds: Kind[] = [
  {
    what: 'a merge',
    guest: edit,
    update: texts.update,
    before: ':',
    act: 'cat f',
    old: texts.guest,
    new: texts.merged,
    event: 'merged',
    undone: texts.guest,
    points: { ...carried, old: [...carried.old, 'merge-built'] },
  },
  {
    what: 'a drop',
    guest: ': >> f',
    update: texts.update,
    before: ':',
    act: 'cat f',
    old: texts.base,
    new: null,
    event: 'dropped',
    undone: texts.base,
    points: carried,
  },
  {
    what: 'a resolution that takes the base’s',
    guest: edit,
    update: texts.other,
    before: 'cat f',
    act: `${main} resolve f --take base`,
    old: texts.guest,
    new: null,
    event: 'resolved',
    undone: texts.guest,
    points: ruled,
  },
  {
    what: 'a resolution by a file',
    guest: edit,
    update: texts.other,
    before: 'cat f',
    act: `printf decided > own; ${main} resolve f --file own`,
    old: texts.guest,
    new: 'decided',
    event: 'resolved',
    undone: texts.guest,
    points: { old: ['ruling-intent'], new: ['commit-after-rename'] },
  },
  {
    what: 'an undo of a merge',
    guest: edit,
    update: texts.update,
    before: 'cat f',
    act: `${main} undo f`,
    old: texts.merged,
    new: texts.guest,
    event: 'undone',
    undone: null,
    points: ruled,
  },
];

interface Crash {
  name: string;
  dir: string;
  point: string;
  kind: Kind;
  done: boolean;
}

const crashes: Crash[] = kinds.flatMap((kind, at) =>
  (['old', 'new'] as const).flatMap((when) =>
    kind.points[when].map((point) => ({
      name: `${kind.what}, cut off at ${point}, is wholly ${when === 'new' ? 'there' : 'undone'}`,
      dir: `${when}${at}-${point}`,
      point,
      kind,
      done: when === 'new',
    })),
  ),
);

/** The overlay's own file; null: none. */
function raw(layers: Layers, one: Crash): string | null {
  const file = `${layers.overlay}/${one.dir}/f`;
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : null;
}

/** A merge whose intent is durable, and has not come true: the next start takes it up by itself. */
function isTakenUp({ point, kind }: Crash): boolean {
  return kind.act === 'cat f' && (point === 'merge-intent' || point === 'commit-before-rename');
}

type Report = Map<string, Record<string, unknown>>;

async function dieOften(layers: Layers, some: readonly Crash[]): Promise<Report> {
  const report: Report = new Map();
  for (const { dir } of some) {
    fs.mkdirSync(`${layers.base}/${dir}`);
    fs.writeFileSync(`${layers.base}/${dir}/f`, texts.base);
  }
  const each = async (mount: Mount, script: (one: Crash) => string) => {
    for (const one of some) await mount.sh(`cd ${one.dir}; ${script(one)}`, [], { env });
  };
  await withMount(layers, (mount) => each(mount, (one) => one.kind.guest));
  for (const one of some) await dpkgReplace(`${layers.base}/${one.dir}/f`, one.kind.update);
  const before = await hashTree(layers.base);
  await withMount(layers, (mount) => each(mount, (one) => one.kind.before));
  for (const one of some) {
    await crashAt(layers, one.point, `cd ${one.dir}; ${one.kind.act}`);
    report.set(one.dir, { raw: raw(layers, one) });
    if (isTakenUp(one)) {
      // Not in the session that is to die for another one.
      await withMount(layers, async () => void (await waitUntil(() => raw(layers, one) === one.kind.new)));
    }
  }
  await withMount(layers, async (mount) => {
    expect(fs.readdirSync(`${layers.overlay}/.kasane/work`)).toEqual([]);
    for (const one of some) await finish(layers, mount, one, report);
    expect(await mount.umount()).toBe(0);
  });
  await expectSound(layers.overlay, layers.base);
  expect(await hashTree(layers.base)).toBe(before);
  return report;
}

/** What was cut off is done again; then what the history has of it, and what an undo brings back. */
async function finish(layers: Layers, mount: Mount, one: Crash, report: Report): Promise<void> {
  const { kind, dir, done } = one;
  const file = `${mount.dir}/${dir}/f`;
  const again = done
    ? ''
    : await mount.sh(`cd ${dir}; ${kind.act}`, [], { env }).catch((e: Error) => e.message);
  const log = JSON.parse((await kasane(['log', '--json', file])).stdout) as { kind: string }[];
  const facts = report.get(dir) as Record<string, unknown>;
  facts.again = done || kind.act === 'cat f' ? '' : again.replace(/.*\n/, '');
  facts.after = raw(layers, one);
  facts.events = log.filter((event) => event.kind === kind.event).length;
  if (kind.undone === null) return;
  const undo = await kasane(['undo', file]);
  facts.undo = undo.code === 0 ? raw(layers, one) : undo.stderr;
}

let outcome: Promise<Report> | null = null;

/** Two overlays, for two processors. */
function all(): Promise<Report> {
  outcome ??= Promise.all(
    [0, 1].map((half) =>
      withLayers((layers) =>
        dieOften(
          layers,
          crashes.filter((_, i) => i % 2 === half),
        ),
      ),
    ),
  ).then((reports) => new Map(reports.flatMap((report) => [...report])));
  return outcome;
}

for (const { name, dir, kind, done } of crashes) {
  mountTest(
    name,
    async () => {
      expect((await all()).get(dir)).toEqual({
        raw: done ? kind.new : kind.old,
        again: expect.not.stringMatching(/^kasane/),
        after: kind.new,
        events: 1,
        ...(kind.undone === null ? {} : { undo: kind.undone }),
      });
    },
    { timeout: 400_000 },
  );
}

mountTest(
  'a set that was cut off between its members is finished at the next start, before anybody asks',
  () =>
    withLayers(async (layers) => {
      const members = ['etc/passwd', 'etc/shadow', 'etc/group'];
      const copies = () => members.filter((name) => fs.existsSync(`${layers.overlay}/${name}`));
      fs.mkdirSync(`${layers.base}/etc`);
      for (const name of members) fs.writeFileSync(`${layers.base}/${name}`, `root of ${name}\n`);
      await withMount(layers, async (mount) => void (await mount.sh(': >> etc/passwd')));
      expect(copies()).toEqual(members);
      for (const name of members) await dpkgReplace(`${layers.base}/${name}`, `new root of ${name}\n`);
      await crashAt(layers, 'commit-between', 'cat etc/passwd');
      expect(copies().length).toBe(2);
      await withMount(layers, async (mount) => {
        expect(await waitUntil(() => copies().length === 0)).toBe(true);
        for (const name of members) expect(await mount.read(name)).toBe(`new root of ${name}\n`);
      });
      await expectSound(layers.overlay, layers.base);
    }),
);

mountTest('a death after a look that found nothing to be done leaves no record of what it was before', () =>
  withLayers(async (layers) => {
    const { base, mnt } = layers;
    for (const name of ['f', 'other']) fs.writeFileSync(`${base}/${name}`, texts.base);
    const kept = async () => {
      const { stdout } = await kasane(['status', '--json', mnt]);
      return (JSON.parse(stdout) as { counts: { kept: number } }).counts.kept;
    };
    await withMount(layers, async (mount) => {
      await mount.sh(edit);
      fs.rmSync(`${base}/f`);
      await mount.kasane(['reconcile', mnt]);
      expect(await kept()).toBe(1);
    });
    fs.writeFileSync(`${base}/f`, texts.base);
    // The origin has been written by then, and the record has not.
    await crashAt(layers, 'message-committed', 'cat f');
    await withMount(layers, async (mount) => {
      expect(await kept()).toBe(0);
      expect(await mount.read('f')).toBe(texts.guest);
    });
  }),
);
