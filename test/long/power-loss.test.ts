// Power loss: the overlay lies on ext4 in a file that is copied at many moments of a guest's work, in the midst
// of its steps and between them; and the file system is shut down without a flush. Mounted anew, with Kasane on
// it, each copy holds what the guest had synced, and of the rest nothing that is torn or empty for no reason.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { expectSound } from '../lib/crash.ts';
import { type Image, imageNeeds, makeLoopImage, mountImage } from '../lib/images.ts';
import { type Layers, type Mount, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { Expectations, pretendReboot, snapshot } from '../lib/power.ts';
import { runOk, sh, sleep } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

const BASE = `${Array.from({ length: 40 }, (_, i) => `line ${i + 1} of the base`).join('\n')}\n`;
const BIG = 'b'.repeat(1_500_000);
const GUEST = 'written by the guest\n';
/** Of what is not synced ext4 keeps the size without the data, if the power fails in between. */
const NULS = '\0'.repeat(GUEST.length);
const lines = (first: string, last: string) => `${first}\n2\n3\n4\n5\n6\n7\n${last}\n`;
const MERGED = lines('guest', 'update');

const bases: Record<string, string> = {
  ...Object.fromEntries(
    [
      'append',
      'append-sync',
      'chmod',
      'replace',
      'replace-sync',
      'gone',
      'trunc',
      'trunc-sync',
      'moving',
      'again',
    ]
      .concat(['deep/down/file', 'tree/one', 'linked'])
      .map((name) => [name, BASE]),
  ),
  big: BIG,
  merge: lines('1', '8'),
  untouched: BASE,
};

/** A process of the guest, with what its files may hold while it works. */
class Guest {
  readonly #agent: Agent;
  readonly #root: string;
  readonly expected: Expectations;

  constructor(agent: Agent, root: string) {
    this.#agent = agent;
    this.#root = root;
    this.expected = new Expectations(Object.entries(bases).map(([name, text]) => [name, new Set([text])]));
  }

  #at(name: string): string {
    return `${this.#root}/${name}`;
  }

  /** Opens, writes, syncs if asked to, closes. `states`: what the file may hold from now on. */
  async write(
    name: string,
    flags: string,
    text: string,
    sync: boolean,
    states: (string | null)[],
  ): Promise<void> {
    this.expected.may(name, ...states);
    const fd = await this.#agent.call<number>('openSync', this.#at(name), flags);
    await this.#agent.call('writeSync', fd, Buffer.from(text));
    if (sync) await this.#agent.call('fsyncSync', fd);
    if (sync) this.expected.must(name, states.at(-1) as string);
    await this.#agent.call('closeSync', fd);
  }

  /** One or more names change together; synced with their directory, which is the root's. */
  async change(
    call: string,
    args: unknown[],
    states: Record<string, string | null>,
    sync: boolean,
  ): Promise<void> {
    for (const [name, content] of Object.entries(states)) this.expected.may(name, content);
    await this.#agent.call(call, ...args.map((arg) => (typeof arg === 'string' ? this.#at(arg) : arg)));
    if (!sync) return;
    const fd = await this.#agent.call<number>('openSync', this.#root, 'r');
    await this.#agent.call('fsyncSync', fd);
    await this.#agent.call('closeSync', fd);
    for (const [name, content] of Object.entries(states)) this.expected.must(name, content);
  }

  /** Waits for the merge, which is durable when it is seen. */
  async readMerged(name: string): Promise<void> {
    this.expected.may(name, MERGED);
    expect(await this.#agent.call('readFileSync', this.#at(name), 'utf8')).toBe(MERGED);
    this.expected.must(name, MERGED);
  }
}

/** What the guest does. Files whose names say so are synced. */
const work: ((guest: Guest) => Promise<void>)[] = [
  (guest) => guest.readMerged('merge'),
  (guest) => guest.write('append', 'a', GUEST, false, [BASE + NULS, BASE + GUEST]),
  (guest) => guest.write('append-sync', 'a', GUEST, true, [BASE + NULS, BASE + GUEST]),
  (guest) => guest.change('chmodSync', ['chmod', 0o600], { chmod: BASE }, false),
  (guest) => guest.write('big', 'r+', GUEST, false, [GUEST + BIG.slice(GUEST.length)]),
  async (guest) => {
    await guest.write('replace.new', 'w', GUEST, false, [null, '', NULS, GUEST]);
    // Without a sync of the guest's own: never empty.
    await guest.change(
      'renameSync',
      ['replace.new', 'replace'],
      { replace: GUEST, 'replace.new': null },
      false,
    );
  },
  async (guest) => {
    await guest.write('replace-sync.new', 'w', GUEST, true, [null, '', NULS, GUEST]);
    const after = { 'replace-sync': GUEST, 'replace-sync.new': null };
    await guest.change('renameSync', ['replace-sync.new', 'replace-sync'], after, true);
  },
  (guest) => guest.change('unlinkSync', ['gone'], { gone: null }, true),
  (guest) => guest.write('trunc', 'w', GUEST, false, ['', NULS, GUEST]),
  (guest) => guest.write('trunc-sync', 'w', GUEST, true, ['', NULS, GUEST]),
  (guest) => guest.write('new', 'w', GUEST, false, [null, '', NULS, GUEST]),
  (guest) => guest.write('new-sync', 'w', GUEST, true, [null, '', NULS, GUEST]),
  (guest) => guest.write('deep/down/file', 'a', GUEST, true, [BASE + NULS, BASE + GUEST]),
  (guest) => guest.change('renameSync', ['moving', 'moved'], { moving: null, moved: BASE }, true),
  (guest) => guest.change('renameSync', ['tree', 'wood'], { 'tree/one': null, 'wood/one': BASE }, true),
  async (guest) => {
    await guest.change('unlinkSync', ['again'], { again: null }, false);
    await guest.write('again', 'w', GUEST, true, ['', NULS, GUEST]);
  },
  (guest) => guest.change('linkSync', ['linked', 'link'], { linked: BASE, link: BASE }, true),
];

/** Names that come and go with another one: absent at first. */
const later = ['replace.new', 'replace-sync.new', 'new', 'new-sync', 'moved', 'wood/one', 'link'];

interface Stage extends Layers {
  image: Image;
}

/** A base on the disk, an overlay on an image; `merge` is the guest's by then, and the base has an update. */
async function withStage(options: string, body: (stage: Stage) => Promise<void>): Promise<void> {
  await withLayers(async (outer) => {
    for (const [name, text] of Object.entries(bases)) {
      fs.mkdirSync(`${outer.base}/${name}`.replace(/\/[^/]*$/, ''), { recursive: true });
      fs.writeFileSync(`${outer.base}/${name}`, text);
    }
    const image = await makeLoopImage(outer.dir, { fs: 'ext4', sizeMiB: 64, options });
    const layers = { ...outer, overlay: `${image.dir}/overlay` };
    fs.mkdirSync(layers.overlay);
    await withMount(layers, async (mount) => void (await mount.sh('sed -i s/^1$/guest/ merge; sync')));
    await dpkgReplace(`${layers.base}/merge`, lines('1', 'update'));
    try {
      await body({ ...layers, image });
    } finally {
      await image.umount();
    }
  });
}

/** The same, and proves that the base stays as it is. */
function withUntouched(options: string, body: (stage: Stage) => Promise<void>): Promise<void> {
  return withStage(options, (stage) => withBaseUntouched(stage.base, () => body(stage)));
}

async function withGuest(mount: Mount, body: (guest: Guest) => Promise<void>): Promise<void> {
  const agent = startAgent({ timeout: 60_000 });
  try {
    const guest = new Guest(agent, mount.dir);
    guest.expected.must('merge', lines('guest', '8'));
    for (const name of later) guest.expected.must(name, null);
    await body(guest);
  } finally {
    await agent.stop();
  }
}

interface Moment {
  copy: string;
  what: string;
  expected: Expectations;
}

/** Mounts what a power loss has left, and Kasane on it. */
async function expectIntact(layers: Layers, moment: Moment): Promise<void> {
  const { copy, what, expected } = moment;
  const image = await mountImage(copy, `${layers.dir}/after`, 'ext4');
  const overlay = `${image.dir}/overlay`;
  try {
    // A merge that was told is on the disk itself; Kasane would make it again.
    expect(await expected.violations(overlay, ['merge']), `on the disk, ${what}`).toEqual([]);
    pretendReboot(`${overlay}/.kasane`);
    await withMount({ ...layers, overlay }, async (mount) => {
      expected.may('merge', MERGED);
      expect(await expected.violations(mount.dir), what).toEqual([]);
      expect(await mount.umount()).toBe(0);
    });
    await expectSound(overlay, layers.base);
  } finally {
    await image.umount();
    fs.rmSync(copy);
  }
}

/** Has the file system commit its journal, which takes along every name, and not the data of other files. */
async function commitNames(stage: Stage): Promise<void> {
  await sh('echo x >> "$1"; sync "$1"', [`${stage.image.dir}/sentinel`]);
}

/** The highest number of a node that a daemon gave out, by its trace. */
function lastNode(log: string): number {
  return Math.max(...[...log.matchAll(/^.*<- \d+ \w+ nodeid=(\d+)/gm)].map((found) => Number(found[1])));
}

mountTest(
  'what was synced is there after a power loss, at whatever moment, and nothing else is torn or empty',
  async () => {
    await withUntouched('commit=600,noauto_da_alloc', async (stage) => {
      const moments: Moment[] = [];
      const mount = await startMount({ ...stage, mountPoint: stage.mnt, options: ['--debug'] });
      try {
        await withGuest(mount, async (guest) => {
          const take = (what: string) => {
            const copy = `${stage.dir}/copy-${moments.length}.img`;
            moments.push({ copy, what, expected: guest.expected.copy() });
            return snapshot(mount.pid, stage.image.file, copy);
          };
          for (const [i, step] of work.entries()) {
            const done = step(guest);
            // Not for the sake of time, but to be somewhere within the step.
            await sleep((i * 7) % 13);
            await take(`in the midst of step ${i}`);
            await done;
            await take(`after step ${i}`);
            await commitNames(stage);
            await take(`after step ${i}, when all names were on the disk`);
          }
        });
      } finally {
        await mount.kill();
      }
      const before = lastNode(mount.log());
      expect(before).toBeGreaterThan(work.length);
      for (const moment of moments) await expectIntact(stage, moment);
      await stage.image.umount();
      await stage.image.mount();
      pretendReboot(`${stage.overlay}/.kasane`);
      await withMount({ ...stage, options: ['--debug'] }, async (again) => {
        await again.sh('ls -lR > /dev/null');
        const nodes = [...again.log().matchAll(/nodeid=(\d+)/g)].map((found) => Number(found[1]));
        expect(Math.min(...nodes.filter((node) => node > 1))).toBeGreaterThan(before);
      });
      process.stdout.write(`${moments.length} moments\n`);
    });
  },
  { ...imageNeeds('ext4'), timeout: 600_000 },
);

for (const [round, options] of ['commit=600', 'commit=1', 'commit=600,data=writeback'].entries()) {
  mountTest(
    `a file system that stops without a flush (${options}) leaves what was synced`,
    async () => {
      await withUntouched(options, async (stage) => {
        const mount = await startMount({ ...stage, mountPoint: stage.mnt });
        let expected = new Expectations();
        try {
          await withGuest(mount, async (guest) => {
            const all = (async () => {
              for (const step of work) await step(guest);
            })().catch(() => 'the disk is gone');
            await sleep(150 + round * 100);
            expected = guest.expected.copy();
            await runOk('xfs_io', ['-x', '-c', 'shutdown', stage.image.dir]);
            await all;
            // What was begun, and may have reached the disk, before that was gone.
            expected.alsoMay(guest.expected);
          });
        } finally {
          await mount.kill();
        }
        await stage.image.umount();
        const copy = `${stage.dir}/copy.img`;
        fs.copyFileSync(stage.image.file, copy);
        await expectIntact(stage, { copy, what: 'after the shutdown', expected });
      });
    },
    { ...imageNeeds('ext4'), commands: ['mkfs.ext4', 'xfs_io'], timeout: 200_000 },
  );
}

mountTest(
  'a conflict’s id is not used again after a power loss',
  async () => {
    await withStage('commit=600', async (stage) => {
      const ids = async (mount: Mount) => {
        const { stdout } = await mount.kasane(['conflicts', '--json', mount.dir]);
        return (JSON.parse(stdout) as { id: number; path: string }[]).map(
          ({ id, path }) => [path, id] as const,
        );
      };
      const clash = async (mount: Mount, name: string) => {
        await mount.sh(`sed -i '1s/.*/guest/' ${name}`);
        await dpkgReplace(`${stage.base}/${name}`, BASE.replace('line 1 ', 'update '));
        await mount.read(name);
      };
      const copy = `${stage.dir}/copy.img`;
      const told = new Map<string, number>();
      const mount = await startMount({ ...stage, mountPoint: stage.mnt });
      try {
        for (const name of ['append', 'chmod']) await clash(mount, name);
        for (const [path, id] of await ids(mount)) told.set(path, id);
        await snapshot(mount.pid, stage.image.file, copy);
      } finally {
        await mount.kill();
      }
      expect([...told.keys()]).toEqual(['append', 'chmod']);
      const image = await mountImage(copy, `${stage.dir}/after`, 'ext4');
      const overlay = `${image.dir}/overlay`;
      pretendReboot(`${overlay}/.kasane`);
      await withMount({ ...stage, overlay }, async (again) => {
        await clash(again, 'trunc');
        const now = new Map(await ids(again));
        const last = Math.max(...told.values());
        expect(now.get('trunc')).toBeGreaterThan(last);
        for (const [path, id] of now) if (id <= last) expect(told.get(path)).toBe(id);
      });
      await image.umount();
    });
  },
  { ...imageNeeds('ext4'), timeout: 200_000 },
);
