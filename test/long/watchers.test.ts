// What tells a mount of changes of its base may change while it is used, and no change is missed by that: past so many
// watches fanotify takes over from inotify, and inotify from fanotify where the base comes to lie where that cannot be
// had.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { tracked } from '../lib/cleanup.ts';
import { caughtUp, type Mount, notifyBy, withLayers, withMount } from '../lib/kasane.ts';
import { lookAt } from '../lib/look.mjs';
import { mountTest } from '../lib/needs.ts';
import { descriptorsOf, unlessGone } from '../lib/proc.ts';
import { run, runOk, sh, waitUntil } from '../lib/run.ts';

const DIRS = 140;
const MANY = 120;
const probes = ['f', 'g', 'linked', 'new'];

function replace(file: string, content: string): void {
  fs.writeFileSync(`${file}.new`, content);
  fs.renameSync(`${file}.new`, file);
}

async function statusOf(mount: Mount): Promise<Record<string, string>> {
  const text = await mount.sh('cat .kasane/status');
  return Object.fromEntries(
    text.split('\n').map((line) => [line.split(' ')[0], line.slice(line.indexOf(' ') + 1)]),
  );
}

mountTest('past so many watches fanotify takes over, and no change is missed meanwhile', () =>
  withLayers(async (layers) => {
    const { base, mnt } = layers;
    const names = Array.from({ length: DIRS }, (_, i) => `d${i}`);
    for (const name of names) {
      fs.mkdirSync(`${base}/${name}`);
      for (const file of ['f', 'g']) fs.writeFileSync(`${base}/${name}/${file}`, 'one\n');
    }
    fs.mkdirSync(`${base}/elsewhere`);
    fs.linkSync(`${base}/d0/f`, `${base}/elsewhere/linked`);
    fs.linkSync(`${base}/d0/f`, `${base}/d0/linked`);
    const options = ['--coherence', 'notify', '--watch', `auto=${MANY}`];
    await withMount({ ...layers, options }, async (mount) => {
      const agent = startAgent();
      // First without a listing or an open, by which much is learnt anew.
      const expectAll = async () => {
        await caughtUp(mnt);
        const sizes = names.map((name) => agent.call<{ size: number }>('statSync', `${mnt}/${name}/f`));
        expect((await Promise.all(sizes)).map(({ size }) => size)).toEqual(
          names.map((name) => fs.statSync(`${base}/${name}/f`).size),
        );
        for (const name of names) {
          const seen = await agent.call('lookAt', `${mnt}/${name}`, probes);
          expect(seen).toEqual(lookAt(`${base}/${name}`, probes));
        }
      };
      let changes = 0;
      const change = (which: readonly string[]) => {
        changes += 1;
        for (const name of which) {
          fs.writeFileSync(`${base}/${name}/f`, 'x'.repeat(changes));
          replace(`${base}/${name}/g`, 'x'.repeat(changes));
          if (changes % 2 === 1) fs.writeFileSync(`${base}/${name}/new`, 'new\n');
          else fs.rmSync(`${base}/${name}/new`, { force: true });
        }
      };
      // Open, so that the kernel keeps them whatever it has to forget.
      const visit = async (name: string) => {
        for (const one of ['', '/f', '/g']) await agent.call('openSync', `${mnt}/${name}${one}`, 'r');
        // What is listed may be gone, where the base changes meanwhile.
        await agent.call('lookAt', `${mnt}/${name}`, probes).catch((error: { code?: string }) => {
          if (error.code !== 'ENOENT') throw error;
        });
        // By reading it the kernel has come to doubt the time of access, and asks once more.
        await agent.call('statSync', `${mnt}/${name}/f`);
      };
      await agent.call('openSync', `${mnt}/d0/linked`, 'r');
      for (const name of names.slice(0, MANY - 10)) await visit(name);
      expect((await statusOf(mount)).watcher).toBe('inotify');
      const rest = Promise.all(names.slice(MANY - 10).map(visit));
      // Of the others the kernel knows, until after it, what it has learnt before.
      const some = names.filter((_, i) => i % 2 === 0);
      const isOver = () => {
        change(some);
        return !descriptorsOf(mount.pid).includes('anon_inode:inotify');
      };
      expect(await waitUntil(isOver)).toBe(true);
      await rest;
      change(names);
      await expectAll();
      change(names);
      fs.appendFileSync(`${base}/elsewhere/linked`, 'by another name\n');
      await expectAll();
      expect(await statusOf(mount)).toMatchObject({
        watcher: 'fanotify',
        watcher_reason: `past ${MANY} watches`,
        option_watch: `auto=${MANY}`,
      });
      expect(Number((await statusOf(mount)).watches)).toBeGreaterThanOrEqual(DIRS);
      expect(await mount.sh('cat .kasane/events')).not.toContain('base-lost');
      await agent.stop();
    });
  }),
);

mountTest(
  'a base of several file systems is watched by a mark on each, and by inotify again where one cannot have it',
  () =>
    withLayers(async (layers) => {
      const { mnt, dir } = layers;
      const [top, below] = [`${dir}/top`, layers.base];
      const shift = (...args: string[]) => runOk('mount', [...args, top]);
      fs.mkdirSync(top);
      await shift('-t', 'tmpfs', 'kasane-test');
      const release = tracked(async () => {
        while ((await run('umount', ['-l', top])).code === 0);
      });
      const fill = (root: string, name: string) => {
        fs.mkdirSync(`${root}/d/${name}`, { recursive: true });
        fs.writeFileSync(`${root}/d/${name}/f`, 'one\n');
      };
      fill(top, 'top');
      fill(below, 'below');
      await withMount({ ...layers, base: [top, below], options: notifyBy('fanotify') }, async (mount) => {
        const agent = startAgent();
        const read = (name: string) =>
          agent.call('readFileSync', `${mnt}/d/${name}/f`, 'utf8').catch((error) => error.code);
        const comes = async (names: readonly string[], expected: string) => {
          let seen: unknown;
          await waitUntil(async () => {
            seen = await Promise.all(names.map(read));
            return (seen as unknown[]).every((one) => one === expected);
          });
          expect(seen).toEqual(names.map(() => expected));
        };
        /** Both layers tell of what happens in them. */
        const isHeard = async (name: string, words: readonly string[]) => {
          for (const word of words) {
            replace(`${top}/d/${name}/f`, word);
            fs.writeFileSync(`${below}/d/below/f`, word);
            await comes([name, 'below'], word);
          }
        };
        await isHeard('top', ['two', 'three']);
        expect(await statusOf(mount)).toMatchObject({ watcher: 'fanotify', watcher_reason: 'asked for' });
        await shift('-t', 'tmpfs', 'kasane-test');
        fill(top, 'other');
        await comes(['other'], 'one\n');
        await isHeard('other', ['four', 'five']);
        expect(await statusOf(mount)).toMatchObject({ watcher: 'fanotify' });
        fs.mkdirSync(`${dir}/lower/d`, { recursive: true });
        fill(`${dir}/lower`, 'stacked');
        for (const name of ['upper', 'work']) fs.mkdirSync(`${dir}/${name}`);
        const parts = `lowerdir=${dir}/lower,upperdir=${dir}/upper,workdir=${dir}/work`;
        await shift('-t', 'overlay', '-o', parts, 'kasane-test');
        await comes(['stacked'], 'one\n');
        await isHeard('stacked', ['six', 'seven']);
        const status = await statusOf(mount);
        expect(status.watcher).toBe('inotify');
        expect(status.watcher_reason).toContain('lies on overlayfs');
        expect(status.note).toContain('inotify watches again');
        expect(descriptorsOf(mount.pid)).not.toContain('anon_inode:[fanotify]');
        await agent.stop();
      });
      await release();
    }),
  { filesystems: ['overlay'] },
);

mountTest(
  'what happens in the overlay is not listened to, until a directory of it is moved into the base',
  () =>
    withLayers(async (layers) => {
      const { base, overlay, mnt } = layers;
      await withMount({ ...layers, options: notifyBy('fanotify') }, async (mount) => {
        const agent = startAgent();
        await mount.sh('mkdir own; echo one > own/f; cat own/f');
        const marks = fs.readdirSync(`/proc/${mount.pid}/fdinfo`).map((fd) => {
          const file = `/proc/${mount.pid}/fdinfo/${fd}`;
          return unlessGone(() => fs.readFileSync(file, 'latin1'), '');
        });
        expect(marks.join('')).toContain(`fanotify ino:${fs.statSync(`${overlay}/own`).ino.toString(16)} `);
        fs.renameSync(`${overlay}/own`, `${base}/moved`);
        // Open, so that the kernel keeps them whatever it has to forget.
        for (const name of ['moved', 'moved/f']) await agent.call('openSync', `${mnt}/${name}`, 'r');
        expect(await agent.call('statSync', `${mnt}/moved/f`)).toMatchObject({ size: 4 });
        fs.writeFileSync(`${base}/moved/f`, 'another\n');
        await caughtUp(mnt);
        expect(await agent.call('statSync', `${mnt}/moved/f`)).toMatchObject({ size: 8 });
        await agent.stop();
      });
    }),
);

const GROUPS = '/proc/sys/fs/fanotify/max_user_groups';

/** As if all the groups of fanotify that root may have were taken. */
async function withoutGroups<T>(body: () => Promise<T>): Promise<T> {
  const limit = fs.readFileSync(GROUPS, 'latin1');
  const restore = tracked(async () => fs.writeFileSync(GROUPS, limit));
  fs.writeFileSync(GROUPS, '0');
  try {
    return await body();
  } finally {
    await restore();
  }
}

for (const [when, watch, reason] of [
  ['at the start', 'fanotify', 'fanotify cannot be had'],
  ['when it is to take over', 'auto=2', 'fanotify cannot take over'],
] as const) {
  mountTest(`where fanotify’s limit is met ${when} inotify watches, says so, and misses nothing`, () =>
    withLayers(async (layers) => {
      const names = Array.from({ length: 9 }, (_, i) => `d${i}`);
      for (const name of names) {
        fs.mkdirSync(`${layers.base}/${name}`);
        fs.writeFileSync(`${layers.base}/${name}/f`, 'one\n');
      }
      const options = ['--coherence', 'notify', '--watch', watch];
      await withoutGroups(() =>
        withMount({ ...layers, options }, async (mount) => {
          const look = () => mount.sh('cat .kasane/control.last; ls -lR; cat d*/f');
          expect((await look()).match(/^one$/gm)).toHaveLength(names.length);
          for (const name of names) replace(`${layers.base}/${name}/f`, 'another\n');
          expect((await look()).match(/^another$/gm)).toHaveLength(names.length);
          const said = `${reason}: fs.fanotify.max_user_groups is met`;
          const { watcher, watcher_reason } = await statusOf(mount);
          expect([watcher, watcher_reason]).toEqual(['inotify', said]);
          expect(await mount.sh('cat .kasane/status')).toContain(`note ${said}\n`);
        }),
      );
    }),
  );
}

mountTest('new attributes of a directory that was listed and never visited show where fanotify watches', () =>
  withLayers(async (layers) => {
    fs.mkdirSync(`${layers.base}/above/beneath`, { recursive: true });
    await withMount({ ...layers, options: notifyBy('fanotify') }, async (mount) => {
      const told = 'cat .kasane/control.last; stat -c "%a %u %Y" above/beneath';
      await mount.sh('ls -l above');
      await sh('cd "$1"; chmod 700 beneath; chown 12 beneath; touch -d @1000000000 beneath', [
        `${layers.base}/above`,
      ]);
      expect(await mount.sh(told)).toBe('700 12 1000000000\n');
      await sh('cd "$1"; chmod 711 beneath', [`${layers.base}/above`]);
      expect(await mount.sh(told)).toBe('711 12 1000000000\n');
    });
  }),
);
