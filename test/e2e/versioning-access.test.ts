// What an access sees while the base moves: one version or the other, whole; what is gone stays gone; and who only
// looks waits for nothing.
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { forgetAll } from '../lib/handles.ts';
import { mountTest } from '../lib/needs.ts';
import { sleep, waitUntil } from '../lib/run.ts';
import { text, withGuest } from '../lib/versioning.ts';

/** See readVersions in agent-child.mjs. */
function version(size: number): string {
  const rest = randomBytes(size / 2).toString('hex');
  const hash = createHash('md5').update(rest).digest('hex');
  let length = size + hash.length + 3;
  while (`${length} ${hash}\n${rest}`.length !== length) length = `${length} ${hash}\n${rest}`.length;
  return `${length} ${hash}\n${rest}`;
}

/** Replaces files one after another, as dpkg does, until the time is over; how often. */
async function replaceAll(files: readonly string[], milliseconds: number): Promise<number> {
  const end = performance.now() + milliseconds;
  let count = 0;
  while (performance.now() < end) {
    for (const file of files) {
      // Of the larger ones the kernel reads the bytes past us.
      fs.writeFileSync(`${file}.new`, version(1000 + Math.floor(Math.random() * 120) * 1000));
      fs.renameSync(`${file}.new`, file);
      count += 1;
    }
    // A little longer or shorter each time, so that the steps of the readers are met at every point.
    await sleep(count % 7);
  }
  return count;
}

interface ReadReport {
  count: number;
  versions: number;
  problems: string[];
}

mountTest('a file that the base replaces again and again is never seen torn, nor with the other’s size', () =>
  withGuest(
    { files: { 'd/plain': version(5000), 'd/mode': version(5000), 'd/copy': version(5000) } },
    async (guest) => {
      // One follows, one has the guest's mode, one is an untouched copy that is dropped.
      await guest.mount.sh('chmod 600 d/mode; true >> d/copy');
      const names = ['d/plain', 'd/plain', 'd/mode', 'd/copy'];
      const agents = names.map(() => startAgent());
      await Promise.all(agents.map((agent) => agent.call('existsSync', guest.mnt)));
      const milliseconds = 4000;
      let replaced = 0;
      let versions = 0;
      // How many that are in that time is the machine's affair; too few of them would show nothing.
      for (let round = 0; round < 15 && (replaced <= 50 || versions <= 10); round++) {
        const reading = agents.map((agent, i) =>
          agent.call<ReadReport>('readVersions', guest.at(names[i] as string), milliseconds),
        );
        await guest.changeBase(async () => {
          const files = [...new Set(names)].map((name) => `${guest.base}/${name}`);
          replaced += await replaceAll(files, milliseconds - 300);
        });
        const reports = await Promise.all(reading);
        expect(reports.flatMap((report) => report.problems)).toEqual([]);
        for (const report of reports) expect(report.versions).toBeGreaterThan(0);
        versions += reports[0]?.versions ?? 0;
      }
      expect(replaced).toBeGreaterThan(50);
      expect(versions).toBeGreaterThan(10);
      await Promise.all(agents.map((agent) => agent.stop()));
      for (const name of new Set(names)) {
        const last = fs.readFileSync(`${guest.base}/${name}`, 'utf8');
        expect(await waitUntil(async () => (await guest.read(name)) === last)).toBe(true);
      }
      expect(await guest.conflictList()).toEqual([]);
    },
  ),
);

mountTest('what the base removes is gone at once, and what it puts there instead is what is seen', () =>
  withGuest(
    { files: { 'd/keep': '', 'd/sub/x': 'x\n' }, options: ['--coherence', 'check'] },
    async (guest) => {
      const watcher = startAgent();
      const storms: Promise<unknown>[] = [];
      const paths = ['f', 'sub', 'sub/x', 'keep'].map((name) => guest.at(`d/${name}`));
      const agent = startAgent();
      const kind = async (name: string) => {
        try {
          const { mode, size } = await agent.call<{ mode: number; size: number }>(
            'lstatSync',
            guest.at(name),
          );
          return `${(mode & 0o170000) === 0o040000 ? 'dir' : 'file'} ${(mode & 0o170000) === 0o040000 ? '' : size}`.trim();
        } catch (error) {
          return (error as { code: string }).code;
        }
      };
      const names = () => agent.call<string[]>('readdirSync', guest.at('d'));
      await guest.changeBase(async () => {
        for (let i = 0; i < 60; i++) {
          // Somebody else keeps all of it in the kernel's caches.
          if (i % 20 === 0) storms.push(watcher.call('statStormLoose', paths, 300));
          const file = `${guest.base}/d/f`;
          fs.writeFileSync(file, 'x'.repeat(i + 1));
          expect(await kind('d/f')).toBe(`file ${i + 1}`);
          fs.rmSync(file);
          expect(await kind('d/f')).toBe('ENOENT');
          expect(await names()).not.toContain('f');
          fs.mkdirSync(file);
          expect(await kind('d/f')).toBe('dir');
          fs.rmdirSync(file);
          expect(await kind('d/f')).toBe('ENOENT');
          fs.renameSync(`${guest.base}/d/sub`, `${guest.base}/d/other`);
          expect(await kind('d/sub/x')).toBe('ENOENT');
          expect(await names()).toEqual(['keep', 'other'].sort());
          fs.renameSync(`${guest.base}/d/other`, `${guest.base}/d/sub`);
          expect(await kind('d/sub/x')).toBe('file 2');
        }
      });
      await Promise.all(storms);
      await watcher.stop();
      await agent.stop();
    },
  ),
);

mountTest('a look without an open answers at once and starts the merge; an open waits for it', () =>
  withGuest({ files: { looked: text(), opened: text(), listed: text() } }, async (guest) => {
    await guest.mount.sh("for f in looked opened listed; do sed -i 's/^line 15$/guest/' $f; done");
    const merged = text({ 3: 'a longer line of the base', 15: 'guest' });
    for (const name of ['looked', 'opened', 'listed']) {
      await guest.update(name, text({ 3: 'a longer line of the base' }));
    }
    // stat tells of what is there; before long the merge is.
    const size = async () => Number(await guest.mount.sh('stat -c %s looked'));
    expect([text({ 15: 'guest' }).length, merged.length]).toContain(await size());
    expect(await waitUntil(async () => (await size()) === merged.length)).toBe(true);
    expect(guest.raw('looked')).toBe(merged);
    expect(await guest.read('opened')).toBe(merged);
    // Names alone are no access.
    await guest.mount.sh('ls > /dev/null');
    expect(guest.raw('listed')).toBe(text({ 15: 'guest' }));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('an open that waited for a merge reads the merge, though others have the old file open', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    const holder = startAgent();
    let atOnce = 0;
    for (let i = 1; i <= 10; i++) {
      const previous = Array.from({ length: i - 1 }, (_, k) => [k + 1, `base ${k + 1}`]);
      await guest.mount.sh("sed -i 's/^line 15$/guest/' f");
      await holder.call('openSync', guest.at('f'), 'r');
      await guest.update('f', text(Object.fromEntries([...previous, [i, `base ${i}`]])));
      const merged = text(Object.fromEntries([...previous, [i, `base ${i}`], [15, 'guest']]));
      // Whose look-up comes just before the last step of the merge, and the open just after it, has what was there.
      if ((await guest.read('f')) === merged) atOnce += 1;
      else expect(await guest.read('f')).toBe(merged);
    }
    expect(atOnce).toBeGreaterThan(5);
    await holder.stop();
  }),
);

mountTest(
  'a file edited in place in the base shows its new bytes, to who opens it and to who has it open',
  () =>
    withGuest({ files: { f: text() } }, async (guest) => {
      const agent = startAgent();
      const fd = await agent.call<number>('openSync', guest.at('f'), 'r');
      await agent.call('readWhole', fd);
      for (let i = 1; i <= 20; i++) {
        await guest.update('f', text({ [i]: `base ${i}` }), i % 2 ? 'in place' : 'in place, same mtime');
        expect(await guest.read('f')).toBe(text({ [i]: `base ${i}` }));
      }
      expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe(text({ 20: 'base 20' }));
      await agent.stop();
    }),
);

mountTest('what is merged where the kernel remembers nothing leaves nothing behind in the node table', () =>
  withGuest({ files: { 'd/sub/text': text() } }, async (guest) => {
    await guest.mount.sh("sed -i '2s/.*/guest/' d/sub/text");
    await guest.changeBase(() => dpkgReplace(`${guest.base}/d/sub/text`, text({ 9: 'base' })));
    await forgetAll(guest.mnt);
    expect((await guest.mount.kasane(['reconcile', guest.mnt])).code).toBe(0);
    expect(fs.readFileSync(`${guest.overlay}/d/sub/text`, 'utf8')).toBe(text({ 2: 'guest', 9: 'base' }));
    const remembered = async () => {
      await forgetAll(guest.mnt);
      return /^kasane_nodes (\d+)$/m.exec(await guest.read('.kasane/metrics'))?.[1];
    };
    expect(await waitUntil(async () => (await remembered()) === '1', 30_000, 200)).toBe(true);
  }),
);

mountTest('a conflict about what the guest has just made anew is not closed by the removal before it', () =>
  withGuest(
    { files: Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`f${i}`, text()])) },
    async (guest) => {
      await guest.mount.sh('for f in f*; do echo guest >> $f; done');
      await guest.changeBase(() => {
        for (let i = 0; i < 60; i++) {
          fs.writeFileSync(`${guest.base}/new`, text({ 15: 'BASE 15' }));
          fs.renameSync(`${guest.base}/new`, `${guest.base}/f${i}`);
        }
      });
      fs.writeFileSync(`${guest.dir}/own`, text({ 15: 'guest' }));
      // The one who opens it comes when the look before may be at any point, and the index knows nothing of the removal.
      await guest.mount.sh('for f in f*; do rm $f; cat "$1" > $f; sleep 0.002; cat $f > /dev/null; done', [
        `${guest.dir}/own`,
      ]);
      // All notes are in the index by then.
      await sleep(2500);
      const open = new Set((await guest.conflicts()).map(({ path }) => path));
      expect(open.size).toBeGreaterThan(30);
      for (let i = 0; i < 60; i++) {
        // What was merged before the guest removed it is not in conflict with what it had seen.
        if (!open.has(`f${i}`)) expect(await guest.events(`f${i}`)).toContain('merged');
      }
    },
  ),
);
