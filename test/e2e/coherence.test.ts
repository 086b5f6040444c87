// Changes of the base show through while the kernel keeps names, attributes, pages and listings (--coherence
// notify): every kind of change in every state of an object, in two guests that agree. Waiting has an end: a change
// that is missed would show only when the kernel's own time is over.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { version } from '../lib/base-storm.mjs';
import { caughtUp, type Layers, notifyBy, withLayers, withMount } from '../lib/kasane.ts';
import { lookAt } from '../lib/look.mjs';
import { mountTest } from '../lib/needs.ts';
import { sh, sleep, waitUntil } from '../lib/run.ts';

/** Each in a directory of its own with f, g, link -> one, and sub/deep/x. */
const changes: Record<string, (dir: string) => void> = {
  'an edit in place': (dir) => fs.writeFileSync(`${dir}/f`, 'two\n'),
  'an edit in place that keeps size and mtime': (dir) => {
    const { atime, mtime } = fs.statSync(`${dir}/f`);
    fs.writeFileSync(`${dir}/f`, 'eno\n');
    fs.utimesSync(`${dir}/f`, atime, mtime);
  },
  growth: (dir) => fs.appendFileSync(`${dir}/f`, 'more\n'.repeat(3000)),
  'a truncation': (dir) => fs.truncateSync(`${dir}/f`, 1),
  'a replacement by rename': (dir) => replace(`${dir}/f`, 'a longer one\n'),
  'a shorter one by rename': (dir) => replace(`${dir}/f`, 'x'),
  'a removal': (dir) => fs.rmSync(`${dir}/f`),
  'a new name': (dir) => fs.writeFileSync(`${dir}/new`, 'new\n'),
  'a new directory': (dir) => fs.cpSync(`${dir}/sub`, `${dir}/new`, { recursive: true }),
  'a removed directory': (dir) => fs.rmSync(`${dir}/sub`, { recursive: true }),
  'another type': (dir) => {
    fs.rmSync(`${dir}/f`);
    fs.mkdirSync(`${dir}/f`);
  },
  'a renamed file': (dir) => fs.renameSync(`${dir}/f`, `${dir}/new`),
  'a deep tree under another name': (dir) => fs.renameSync(`${dir}/sub`, `${dir}/new`),
  'another deep tree under the name': (dir) => {
    fs.mkdirSync(`${dir}/.next/deep`, { recursive: true });
    fs.writeFileSync(`${dir}/.next/deep/x`, 'another x\n');
    fs.writeFileSync(`${dir}/.next/deep/new`, 'more\n');
    fs.renameSync(`${dir}/sub`, `${dir}/old`);
    fs.renameSync(`${dir}/.next`, `${dir}/sub`);
  },
  'a change deep beneath': (dir) => fs.writeFileSync(`${dir}/sub/deep/new`, 'deep\n'),
  chmod: (dir) => fs.chmodSync(`${dir}/f`, 0o600),
  'chmod of a directory': (dir) => fs.chmodSync(`${dir}/sub`, 0o700),
  chown: (dir) => fs.chownSync(`${dir}/f`, 12, 34),
  utimes: (dir) => fs.utimesSync(`${dir}/f`, 1, 2),
  'another link': (dir) => fs.linkSync(`${dir}/f`, `${dir}/new`),
  'a write by another name, which nobody has looked at': (dir) =>
    fs.writeFileSync(`${dir}.elsewhere/h`, 'hhhh\n'),
  'a link less': (dir) => fs.rmSync(`${dir}.elsewhere/h`),
  'another symlink': (dir) => {
    fs.symlinkSync('two', `${dir}/.link`);
    fs.renameSync(`${dir}/.link`, `${dir}/link`);
  },
};

const probes = ['f', 'g', 'link', 'new', 'sub', 'old', 'deep', 'x'];
const text = (word: string) => ['one', 'two', 'three', 'four', 'five', 'six', 'seven', word].join('\n');

function replace(file: string, content: string): void {
  fs.writeFileSync(`${file}.new`, content);
  fs.renameSync(`${file}.new`, file);
}

const long = version('a much longer one'.repeat(20));
/** The kernel reads it past us. */
const large = version('x'.repeat(1000));

const states = ['never seen', 'known', 'open'];

function fill(dir: string): void {
  fs.mkdirSync(`${dir}/sub/deep`, { recursive: true });
  fs.mkdirSync(`${dir}.elsewhere`);
  fs.writeFileSync(`${dir}/f`, 'one\n');
  fs.writeFileSync(`${dir}/g`, text('eight'));
  fs.writeFileSync(`${dir}/h`, 'h\n');
  fs.linkSync(`${dir}/h`, `${dir}.elsewhere/h`);
  fs.writeFileSync(`${dir}/sub/deep/x`, 'x\n');
  fs.symlinkSync('one', `${dir}/link`);
}

interface Guest {
  mnt: string;
  agent: Agent;
}

/** Two guests of one base that is filled before they start; each hears of its changes in another way. */
async function withGuests(
  body: (layers: Layers, guests: readonly Guest[]) => Promise<void>,
  prepare: (base: string) => void,
): Promise<void> {
  await withLayers(async (layers) => {
    prepare(layers.base);
    const second = { overlay: `${layers.dir}/overlay2`, mnt: `${layers.dir}/mnt2` };
    for (const dir of Object.values(second)) fs.mkdirSync(dir);
    await withMount({ ...layers, options: notifyBy('inotify') }, () =>
      withMount({ base: layers.base, ...second, options: notifyBy('fanotify') }, async () => {
        const guests = [layers.mnt, second.mnt].map((mnt) => ({ mnt, agent: startAgent() }));
        await body(layers, guests).finally(() => Promise.all(guests.map(({ agent }) => agent.stop())));
      }),
    );
  });
}

/** Asked for until it is so, at the latest until a time that is far below what the kernel keeps things for. */
async function comesTo(
  what: string,
  ask: () => Promise<unknown>,
  expected: () => unknown,
): Promise<string[]> {
  let seen: unknown;
  const right = async () => {
    seen = await ask().catch((error: Error) => error.message);
    return JSON.stringify(seen) === JSON.stringify(expected());
  };
  return (await waitUntil(right))
    ? []
    : [`${what}: ${JSON.stringify(seen)}, not ${JSON.stringify(expected())}`];
}

mountTest('every kind of change shows, whether the kernel knew the object, nobody did, or it is open', () =>
  withGuests(
    async ({ base }, guests) => {
      const opened: number[] = [];
      for (const { mnt, agent } of guests) {
        for (const what of Object.keys(changes)) {
          for (const state of ['known', 'open'])
            await agent.call('lookAt', `${mnt}/${state}, ${what}`, probes);
          const fd = await agent.call<number>('openSync', `${mnt}/open, ${what}/f`, 'r');
          await agent.call('readWhole', fd);
          opened.push(fd);
        }
      }
      const problems: string[] = [];
      for (const [what, change] of Object.entries(changes)) {
        for (const state of states) change(path.join(base, `${state}, ${what}`));
        for (const name of states.map((state) => `${state}, ${what}`)) {
          for (const { mnt, agent } of guests) {
            const ask = () => agent.call('lookAt', `${mnt}/${name}`, probes);
            problems.push(...(await comesTo(name, ask, () => lookAt(`${base}/${name}`, probes))));
          }
        }
      }
      expect(problems).toEqual([]);
      for (const [i, fd] of opened.entries()) {
        await guests[i < opened.length / 2 ? 0 : 1]?.agent.call('closeSync', fd);
      }
    },
    (base) => {
      for (const what of Object.keys(changes)) for (const state of states) fill(`${base}/${state}, ${what}`);
    },
  ),
);

mountTest(
  'a file that is replaced again and again is one of its versions to whoever opens it, with its size',
  () =>
    withGuests(
      async ({ base }, guests) => {
        const changer = startAgent();
        // They take their time to start.
        for (const one of [changer, ...guests.map(({ agent }) => agent)]) await one.call('existsSync', base);
        let replaced = 0;
        for (let round = 0; round < 20 && replaced <= 10; round++) {
          const replacing = changer.call<number>(
            'replaceStorm',
            `${base}/f`,
            [version('x'), long, large],
            1500,
          );
          const reading = guests.map(({ agent, mnt }) =>
            agent.call<{ versions: number; problems: string[] }>('readVersions', `${mnt}/f`, 1500),
          );
          const reports = await Promise.all(reading);
          expect(reports.flatMap(({ problems }) => problems)).toEqual([]);
          for (const { versions } of reports) expect(versions).toBeGreaterThan(0);
          replaced += await replacing;
        }
        expect(replaced).toBeGreaterThan(10);
        await changer.stop();
      },
      (base) => fs.writeFileSync(`${base}/f`, long),
    ),
);

mountTest(
  'who has opened a small file, and not read it yet, reads what the base has written to it since',
  () =>
    withLayers(async (layers) => {
      fs.writeFileSync(`${layers.base}/f`, 'before\n');
      await withMount(layers, async ({ dir }) => {
        const guest = startAgent();
        const fd = await guest.call<number>('openSync', `${dir}/f`, 'r');
        fs.writeFileSync(`${layers.base}/f`, 'after, and longer\n');
        await caughtUp(dir);
        expect((await guest.call<Buffer>('readWhole', fd)).toString()).toBe('after, and longer\n');
        await guest.stop();
      });
    }),
);

mountTest('a file that is replaced is there at any time, though others look at its next version, too', () =>
  withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/f`, long);
    await withMount({ ...layers, options: ['--coherence', 'check'] }, async ({ dir }) => {
      const [changer, reader, onlooker] = [startAgent(), startAgent(), startAgent()];
      const agents = [changer, reader, onlooker];
      for (const one of agents) await one.call('existsSync', dir);
      const replacing = changer.call('replaceStorm', `${layers.base}/f`, [version('x'), long, large], 1500);
      const looking = onlooker.call('lookAgain', [`${dir}/f.next`, `${dir}/f`], 1500);
      const { problems } = await reader.call<{ problems: string[] }>('readVersions', `${dir}/f`, 1500);
      await Promise.all([replacing, looking]);
      expect(problems).toEqual([]);
      for (const one of agents) await one.stop();
    });
  }),
);

mountTest('a directory in which a guest changes a file for the first time shows the same to all, soon', () =>
  withLayers(async (layers) => {
    fs.mkdirSync(`${layers.base}/above/dir`, { recursive: true });
    fs.writeFileSync(`${layers.base}/above/dir/f`, 'one\n');
    await withMount(layers, async ({ dir }) => {
      const [guest, other] = [startAgent(), startAgent()];
      const names = ['above/dir', 'above'];
      const shown = () =>
        Promise.all(names.map((name) => other.call<fs.Stats>('statSync', `${dir}/${name}`)));
      const before = await shown();
      await guest.call('chmodSync', `${dir}/above/dir/f`, 0o600);
      // The kernel is told to ask again for what it keeps.
      const haveComeUp = async () => {
        const own = names.map((name) => fs.statSync(`${layers.overlay}/${name}`).ctimeMs);
        return (await shown()).every(({ ctimeMs }, i) => ctimeMs === own[i]);
      };
      expect(await waitUntil(haveComeUp)).toBe(true);
      const lasting = (stats: fs.Stats[]) => stats.map(({ ino, mode, mtimeMs }) => [ino, mode, mtimeMs]);
      expect(lasting(await shown())).toEqual(lasting(before));
      await guest.stop();
      await other.stop();
    });
  }),
);

mountTest('a copy is merged when the base moves, and what was removed or replaced stays so', () =>
  withGuests(
    async ({ base }, [first, second]) => {
      const { agent, mnt } = first as Guest;
      await agent.call('appendFileSync', `${mnt}/copied/g`, '\nthe guest’s own\n');
      await agent.call('rmSync', `${mnt}/removed/f`);
      await agent.call('rmSync', `${mnt}/opaque/sub`, { recursive: true });
      await agent.call('mkdirSync', `${mnt}/opaque/sub`);
      await agent.call('writeFileSync', `${mnt}/opaque/sub/mine`, 'mine\n');
      await agent.call('lookAt', mnt, probes);
      // A base that is younger than a copy by less than a second is looked at once more.
      await sleep(1100);
      replace(`${base}/copied/g`, `zero\n${text('eight')}`);
      replace(`${base}/removed/f`, 'two\n');
      for (const dir of ['removed', 'opaque', 'opaque/sub']) fs.writeFileSync(`${base}/${dir}/new`, 'new\n');
      const merged = `zero\n${text('eight')}\nthe guest’s own\n`;
      const read = (file: string) => agent.call('readFileSync', `${mnt}/${file}`, 'utf8');
      const list = async (dir: string) => (await agent.call<string[]>('readdirSync', `${mnt}/${dir}`)).sort();
      const size = async () => (await agent.call<{ size: number }>('statSync', `${mnt}/copied/g`)).size;
      expect([
        ...(await comesTo(
          'the merged bytes',
          () => read('copied/g'),
          () => merged,
        )),
        ...(await comesTo('their size', size, () => Buffer.byteLength(merged))),
        ...(await comesTo(
          'a listing',
          () => list('removed'),
          () => ['g', 'h', 'link', 'new', 'sub'],
        )),
        ...(await comesTo(
          'a listing',
          () => list('opaque'),
          () => ['f', 'g', 'h', 'link', 'new', 'sub'],
        )),
        ...(await comesTo(
          'an opaque one',
          () => list('opaque/sub'),
          () => ['mine'],
        )),
      ]).toEqual([]);
      expect(await agent.call('existsSync', `${mnt}/removed/f`)).toBe(false);
      const other = () => (second as Guest).agent.call('readFileSync', `${second?.mnt}/removed/f`, 'utf8');
      expect(await comesTo('the other guest', other, () => 'two\n')).toEqual([]);
    },
    (base) => {
      for (const name of ['copied', 'removed', 'opaque']) fill(`${base}/${name}`);
    },
  ),
);

mountTest(
  'who opens a file to append to it, or to make it, appends to the one that the base has made meanwhile',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      await withMount({ ...layers, options: ['--coherence', 'ttl=60'] }, async (mount) => {
        await mount.sh('test ! -e f');
        fs.writeFileSync(`${base}/f`, 'base\n');
        fs.appendFileSync(`${mnt}/f`, 'guest\n');
        expect(fs.readFileSync(`${mnt}/f`, 'latin1')).toBe('base\nguest\n');
        await mount.sh('test ! -e g');
        fs.writeFileSync(`${base}/g`, 'base\n');
        expect(() => fs.writeFileSync(`${mnt}/g`, '', { flag: 'wx' })).toThrow('EEXIST');
      });
    }),
);

mountTest('a directory lists what the overlay has, whatever becomes of what the base has of it', async () => {
  for (const options of [notifyBy('inotify'), notifyBy('fanotify'), ['--coherence', 'check']]) {
    await withLayers(async (layers) => {
      const { base, dir, mnt } = layers;
      fs.mkdirSync(`${base}/sub`);
      for (const name of ['f', 'sub/f']) fs.writeFileSync(`${base}/${name}`, 'base\n');
      await withMount({ ...layers, options }, async (mount) => {
        await mount.sh('echo own > own; echo own > sub/own');
        const inside = startAgent({ cwd: `${mnt}/sub` });
        const outside = startAgent();
        const list = async () => [
          await inside.call<string[]>('readdirSync', '.'),
          await outside.call<string[]>('readdirSync', mnt),
        ];
        expect((await list()).map((names) => names.sort())).toEqual([
          ['f', 'own'],
          ['f', 'own', 'sub'],
        ]);
        const comesTo = (wanted: boolean) =>
          waitUntil(async () => {
            const names = await list();
            for (const some of names) expect(some).toContain('own');
            return names.every((some) => some.includes('f') === wanted);
          });
        // Another tree for a moment, which is removed.
        let over = false;
        const exchange = sh(
          'cd "$1"; mv base away; mkdir base; sleep 0.3; rmdir base; sleep 0.3; mv away base',
          [dir],
        ).finally(() => (over = true));
        while (!over) for (const names of await list()) expect(names).toContain('own');
        await exchange;
        expect(await comesTo(true)).toBe(true);
        fs.rmSync(base, { recursive: true });
        expect(await comesTo(false)).toBe(true);
        for (const agent of [inside, outside]) await agent.stop();
      });
    });
  }
});
