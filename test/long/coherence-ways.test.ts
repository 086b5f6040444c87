// By whatever way a base is changed, and whoever looks: another mount of its file system, a container, a mount that is
// replaced; readers that have mapped a file, or that live in the union as their root.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { tracked } from '../lib/cleanup.ts';
import { caughtUp, type Layers, notifyBy, watchers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, sh, waitUntil } from '../lib/run.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

function replace(file: string, content: string): void {
  fs.writeFileSync(`${file}.new`, content);
  fs.renameSync(`${file}.new`, file);
}

/** A mount with an agent that has seen all of it. */
function withAgent(
  layers: Layers & { options?: string[] },
  body: (agent: Agent) => Promise<void>,
): Promise<void> {
  return withMount(layers, async () => {
    const agent = startAgent();
    await agent.call('lookAt', layers.mnt);
    await body(agent).finally(() => agent.stop());
  });
}

for (const watcher of watchers) {
  const options = notifyBy(watcher);
  mountTest(
    `a change by another mount of the base’s file system, and from inside a container, shows (${watcher})`,
    () => withLayers((layers) => changeByOtherWays({ ...layers, options })),
  );
  mountTest(
    `another file system that is mounted in the base’s place shows within a second, to who has seen the old one (${watcher})`,
    () => withLayers((layers) => mountInPlace({ ...layers, options })),
  );
}

async function changeByOtherWays(layers: Layers & { options: string[] }): Promise<void> {
  const { base, mnt, dir } = layers;
  fs.mkdirSync(`${base}/d`);
  for (const name of ['f', 'g', 'gone']) fs.writeFileSync(`${base}/d/${name}`, 'one\n');
  fs.mkdirSync(`${dir}/other`);
  await runOk('mount', ['--bind', base, `${dir}/other`]);
  const release = tracked(async () => void (await run('umount', ['-l', `${dir}/other`])));
  await withAgent(layers, async (agent) => {
    const read = (name: string) => agent.call('readFileSync', `${mnt}/d/${name}`, 'utf8');
    fs.writeFileSync(`${dir}/other/d/f`, 'two, in place\n');
    replace(`${dir}/other/d/g`, 'two, by rename\n');
    await caughtUp(mnt);
    expect([await read('f'), await read('g')]).toEqual(['two, in place\n', 'two, by rename\n']);
    const inside =
      'mount --bind "$1" /mnt; cd /mnt/d; echo three > f; echo three > .g; mv .g g; rm gone; echo > new';
    await runOk('unshare', ['--mount', 'sh', '-ec', inside, 'sh', base]);
    await caughtUp(mnt);
    expect([await read('f'), await read('g')]).toEqual(['three\n', 'three\n']);
    expect(await agent.call('readdirSync', `${mnt}/d`)).toEqual(expect.arrayContaining(['f', 'g', 'new']));
    expect(await agent.call('existsSync', `${mnt}/d/gone`)).toBe(false);
  });
  await release();
}

async function mountInPlace(layers: Layers & { options: string[] }): Promise<void> {
  const { base, mnt } = layers;
  const fill = async (word: string) => {
    await runOk('mount', ['-t', 'tmpfs', 'kasane-test', base]);
    fs.mkdirSync(`${base}/dir`);
    for (const name of ['f', `dir/${word}`]) fs.writeFileSync(`${base}/${name}`, `${word}\n`);
  };
  await fill('old');
  const release = tracked(async () => void (await run('umount', ['-l', base])));
  await withAgent(layers, async (agent) => {
    await runOk('umount', ['-l', base]);
    await fill('new');
    let seen: unknown;
    const see = async () => {
      seen = [
        await agent.call('readFileSync', `${mnt}/f`, 'utf8'),
        await agent.call('readdirSync', `${mnt}/dir`),
        await agent.call('existsSync', `${mnt}/dir/old`),
      ];
      return JSON.stringify(seen) === JSON.stringify(['new\n', ['new'], false]);
    };
    await waitUntil(see);
    expect(seen).toEqual(['new\n', ['new'], false]);
    fs.writeFileSync(`${base}/f`, 'newer\n');
    await caughtUp(mnt);
    expect(await agent.call('readFileSync', `${mnt}/f`, 'utf8')).toBe('newer\n');
  });
  await release();
}

const PAGE = 4096;
/** A small file is read by way of us, a large one past us. */
const sizes = { small: 4 * PAGE, large: 64 * PAGE };

mountTest(
  'who has mapped a file sees it edited in place, and of one that is replaced the bytes that were there',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      for (const [name, size] of Object.entries(sizes)) {
        for (const how of ['edited', 'replaced'])
          fs.writeFileSync(`${base}/${name}, ${how}`, 'a'.repeat(size));
      }
      await withAgent(layers, async (agent) => {
        for (const [name, size] of Object.entries(sizes)) {
          const [edited, replaced] = [`${name}, edited`, `${name}, replaced`];
          const open = (file: string) => agent.call<number>('openSync', `${mnt}/${file}`, 'r');
          const maps: Record<string, number> = {};
          for (const kind of ['shared', 'private']) {
            for (const file of [edited, replaced]) {
              maps[`${file}, ${kind}`] = await agent.call<number>('map', await open(file), size, kind);
            }
          }
          const see = async (map: string) =>
            new Set((await agent.call<Buffer>('peek', maps[map] as number, 0, size)).toString('latin1'));
          for (const map of Object.keys(maps)) expect(await see(map), map).toEqual(new Set('a'));
          const fd = fs.openSync(`${base}/${edited}`, 'r+');
          fs.writeSync(fd, 'b'.repeat(size), 0);
          fs.closeSync(fd);
          replace(`${base}/${replaced}`, 'b'.repeat(size / 2));
          await caughtUp(mnt);
          for (const kind of ['shared', 'private']) {
            expect(await see(`${edited}, ${kind}`), `${edited}, ${kind}`).toEqual(new Set('b'));
            expect(await see(`${replaced}, ${kind}`), `${replaced}, ${kind}`).toEqual(new Set('a'));
          }
          // Who maps it now has the new one.
          const fresh = await agent.call<number>('map', await open(replaced), size / 2, 'private');
          const bytes = await agent.call<Buffer>('peek', fresh, 0, size / 2);
          expect(new Set(bytes.toString('latin1'))).toEqual(new Set('b'));
        }
      });
    }),
);

/** A program with what it is linked with, at the same paths beneath a root. */
async function install(root: string, program: string): Promise<void> {
  const libraries = (await sh('ldd "$1" | grep -o "/[^ ]*"', [program])).trim().split('\n');
  for (const file of [program, ...libraries]) {
    fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    fs.copyFileSync(fs.realpathSync(file), path.join(root, file));
  }
}

mountTest(
  'a chroot in the union with its /proc goes on while its base changes, and when events are lost',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      const limit = Number(fs.readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'));
      for (const program of ['/bin/dash', '/bin/cat']) await install(base, program);
      for (const name of ['proc', 'etc', 'noise']) fs.mkdirSync(`${base}/${name}`);
      for (const name of ['etc/f', 'noise/odd', 'noise/even']) fs.writeFileSync(`${base}/${name}`, 'one\n');
      await withMount(layers, async (mount) => {
        await runOk('mount', ['-t', 'proc', 'kasane-test', `${mnt}/proc`]);
        const release = tracked(async () => void (await run('umount', ['-l', `${mnt}/proc`])));
        const look =
          '/bin/cat /proc/self/comm /etc/f; [ -e /etc/late ] && echo late; [ -e /proc/1/stat ] && echo proc';
        const inside = () => sh('chroot "$1" /bin/dash -c "$2" || true', [mnt, look]);
        expect(await inside()).toBe('cat\none\nproc\n');
        replace(`${base}/etc/f`, 'two\n');
        replace(`${base}/bin/cat`, fs.readFileSync('/bin/cat', 'latin1'));
        fs.rmSync(`${base}/bin/cat`);
        await install(base, '/bin/cat');
        fs.chmodSync(`${base}/proc`, 0o511);
        await caughtUp(mnt);
        expect(await inside()).toBe('cat\ntwo\nproc\n');
        process.kill(mount.pid, 'SIGSTOP');
        // Equal events one behind the other are one.
        for (let i = 0; i < limit + 1000; i++)
          fs.utimesSync(`${base}/noise/${i % 2 === 0 ? 'odd' : 'even'}`, i, i);
        replace(`${base}/etc/f`, 'three\n');
        fs.writeFileSync(`${base}/etc/late`, '');
        process.kill(mount.pid, 'SIGCONT');
        await caughtUp(mnt);
        expect(await inside()).toBe('cat\nthree\nlate\nproc\n');
        await release();
      });
    }),
);

mountTest(
  'where the limit of watches is met the rest is asked for each time, and status says so',
  () =>
    withLayers(async (layers) => {
      const { base } = layers;
      const names = Array.from({ length: 20 }, (_, i) => `d${i}`);
      for (const name of names) {
        fs.mkdirSync(`${base}/${name}`);
        fs.writeFileSync(`${base}/${name}/f`, 'one\n');
      }
      await giveToUser(layers);
      await withUsersMount(
        layers,
        'namespace',
        async (mount) => {
          await mount.sh('echo 6 > /proc/sys/user/max_inotify_watches');
          const look = 'cat "$1/.kasane/control.last"; ls -lR "$1"; cat "$1"/d*/f';
          expect((await mount.sh(look)).match(/^one$/gm)).toHaveLength(names.length);
          for (const [i, name] of names.entries()) {
            if (i % 2 === 0) replace(`${base}/${name}/f`, 'another\n');
            else fs.writeFileSync(`${base}/${name}/f`, 'another\n');
            fs.writeFileSync(`${base}/${name}/new`, '');
          }
          const now = await mount.sh(look);
          expect(now.match(/^another$/gm)).toHaveLength(names.length);
          expect(now.match(/ new$/gm)).toHaveLength(names.length);
          const status = await mount.sh(`${process.execPath} "$2" status --json "$1"`);
          expect(JSON.parse(status)).toMatchObject({ coherence: 'notify', watches: expect.any(Number) });
          expect(JSON.parse(status).watches).toBeLessThanOrEqual(6);
          const notes = JSON.parse(status).notes.join('\n');
          expect(notes).toContain('not all of the base could be watched');
          expect(notes).toContain('fanotify cannot be had: only root may');
          expect(JSON.parse(status)).toMatchObject({ watcher: 'inotify' });
        },
        notifyBy('fanotify'),
      );
    }),
  usersNeed,
);
