// What a change of the base must not do: detach what is mounted inside the union, be lost with the kernel's events,
// or leave a client waiting when the daemon dies. And the whole base may be another one from one moment to the next.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { type Layers, notifyBy, watchers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, waitUntil } from '../lib/run.ts';

/** Above the kernel's limit of events that wait. */
const MANY = Number(fs.readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8')) + 1000;

/** More events than the kernel keeps, while the daemon does not read them. */
function overflow(pid: number, dir: string): void {
  process.kill(pid, 'SIGSTOP');
  // Equal events one behind the other are one: so two in turn.
  for (let i = 0; i < MANY; i++) fs.utimesSync(`${dir}/${i % 2 === 0 ? 'odd' : 'even'}`, i, i);
}

for (const watcher of watchers) {
  mountTest(
    `what is mounted in the union stays when the base changes, and while its events wait (${watcher})`,
    () => withLayers((layers) => changeBeneathMounts(layers, notifyBy(watcher))),
  );
}

async function changeBeneathMounts(layers: Layers, options: string[]): Promise<void> {
  const { base, mnt } = layers;
  fs.mkdirSync(`${base}/dir/deep`, { recursive: true });
  fs.mkdirSync(`${base}/proc`);
  for (const name of ['file', 'other', 'odd', 'even', 'dir/x']) fs.writeFileSync(`${base}/${name}`, 'one\n');
  await withMount({ ...layers, options }, async (mount) => {
    const agent = startAgent();
    const read = (name: string) => agent.call<string>('readFileSync', `${mnt}/${name}`, 'utf8');
    await runOk('mount', ['-t', 'tmpfs', 'kasane-test', `${mnt}/dir`]);
    fs.writeFileSync(`${layers.dir}/bound`, 'bound\n');
    await runOk('mount', ['--bind', `${layers.dir}/bound`, `${mnt}/file`]);
    await runOk('mount', ['-t', 'proc', 'kasane-test', `${mnt}/proc`]);
    try {
      fs.writeFileSync(`${mnt}/dir/inside`, 'inside\n');
      const kept = async () => {
        expect(await read('dir/inside')).toBe('inside\n');
        expect(await read('proc/self/comm')).toBe('node\n');
        expect(await agent.call('readdirSync', `${mnt}/dir`)).toEqual(['inside']);
        expect(await read('file')).toBe('bound\n');
      };
      await dpkgReplace(`${base}/file`, 'two\n');
      for (const name of ['dir', 'proc']) fs.chmodSync(`${base}/${name}`, 0o711);
      fs.writeFileSync(`${base}/dir/new`, 'new\n');
      await dpkgReplace(`${base}/other`, 'three\n');
      expect(await waitUntil(async () => (await read('other')) === 'three\n')).toBe(true);
      await kept();
      overflow(mount.pid, base);
      await dpkgReplace(`${base}/other`, 'four\n');
      fs.writeFileSync(`${base}/late`, 'late\n');
      process.kill(mount.pid, 'SIGCONT');
      expect(await waitUntil(async () => (await read('other')) === 'four\n')).toBe(true);
      expect(await waitUntil(() => agent.call<boolean>('existsSync', `${mnt}/late`))).toBe(true);
      await kept();
    } finally {
      await agent.stop();
      for (const name of ['proc', 'file', 'dir']) await runOk('umount', ['-l', `${mnt}/${name}`]);
    }
  });
}

mountTest('another tree in the base’s place shows, also to who asks nothing of the daemon', () =>
  withLayers(async (layers) => {
    const { base, mnt, dir } = layers;
    const fill = (root: string, word: string) => {
      fs.mkdirSync(`${root}/dir/deep`, { recursive: true });
      for (const name of ['a', 'dir/deep/b', word]) fs.writeFileSync(`${root}/${name}`, `${word}\n`);
    };
    fill(base, 'old');
    fill(`${dir}/next`, 'new');
    const second = { overlay: `${dir}/overlay2`, mnt: `${dir}/mnt2` };
    for (const one of Object.values(second)) fs.mkdirSync(one);
    await withMount({ ...layers, options: notifyBy('inotify') }, () =>
      withMount({ base, ...second, options: notifyBy('fanotify') }, async () => {
        const agent = startAgent();
        const see = async (at: string) => [
          await agent.call<string>('readFileSync', `${at}/dir/deep/b`, 'utf8'),
          ...(await agent.call<string[]>('readdirSync', at)).sort(),
          await agent.call<boolean>('existsSync', `${at}/old`),
          await agent.call<boolean>('existsSync', `${at}/new`),
        ];
        const seeBoth = async () => [await see(mnt), await see(second.mnt)];
        const old = ['old\n', 'a', 'dir', 'old', true, false];
        expect(await seeBoth()).toEqual([old, old]);
        fs.renameSync(base, `${dir}/before`);
        fs.renameSync(`${dir}/next`, base);
        const now = ['new\n', 'a', 'dir', 'new', false, true];
        let seen: unknown[] = [];
        const right = async () => {
          seen = await seeBoth();
          return JSON.stringify(seen) === JSON.stringify([now, now]);
        };
        await waitUntil(right);
        expect(seen).toEqual([now, now]);
        // And it is heard of what happens there.
        fs.writeFileSync(`${base}/dir/deep/b`, 'newer\n');
        await waitUntil(async () => {
          seen = (await seeBoth()).map(([first]) => first);
          return seen.every((one) => one === 'newer\n');
        });
        expect(seen).toEqual(['newer\n', 'newer\n']);
        await agent.stop();
      }),
    );
  }),
);

mountTest('a base named by a link follows it, but not into what the mount writes to', () =>
  withLayers(async ({ dir, overlay, mnt }) => {
    for (const name of ['one', 'two']) {
      fs.mkdirSync(`${dir}/${name}/tree`, { recursive: true });
      fs.writeFileSync(`${dir}/${name}/tree/f`, `${name}\n`);
    }
    const lead = (to: string) => {
      fs.symlinkSync(to, `${dir}/new`);
      fs.renameSync(`${dir}/new`, `${dir}/current`);
    };
    lead('one');
    await withMount({ base: `${dir}/current/tree`, overlay, mnt }, async (mount) => {
      const shows = (what: string) => waitUntil(async () => (await mount.read('f')) === what, 5000);
      expect(await mount.read('f')).toBe('one\n');
      lead('two');
      expect(await shows('two\n')).toBe(true);
      for (const [to, tree] of [
        [overlay, `${overlay}/tree`],
        [mnt, `${mnt}/tree`],
        [`${mnt}/.kasane`, `${mnt}/.kasane/tree`],
      ] as const) {
        lead(to);
        const refused = `/current/tree: leads to ${tree}, which is no base`;
        expect(await waitUntil(() => mount.log().includes(refused), 5000), to).toBe(true);
        expect(await mount.read('f')).toBe('two\n');
      }
      lead('current');
      lead('one');
      expect(await shows('one\n')).toBe(true);
      expect((await mount.kasane(['status', mnt])).stdout).toContain(`\nbase ${dir}/current/tree\n`);
    });
  }),
);

mountTest('a daemon that is killed amidst changes of its base leaves no client waiting', () =>
  withLayers(async (layers) => {
    const { base, mnt } = layers;
    const names = Array.from({ length: 50 }, (_, i) => `f${i}`);
    for (const name of names) fs.writeFileSync(`${base}/${name}`, 'one\n');
    await withMount({ ...layers, options: notifyBy('fanotify') }, async (mount) => {
      const agents = [startAgent(), startAgent()];
      const paths = names.map((name) => `${mnt}/${name}`);
      const storms = agents.map((agent) => agent.call('statStormLoose', [...paths, `${mnt}/none`], 1000));
      const end = performance.now() + 500;
      for (let i = 0; performance.now() < end; i++) {
        await dpkgReplace(`${base}/${names[i % names.length]}`, `${i}\n`);
      }
      process.kill(mount.pid, 'SIGKILL');
      await Promise.all(storms);
      // Not ETIMEDOUT: it was answered. A name that nobody has asked for, which the kernel cannot know.
      for (const agent of agents) {
        await expect(agent.call('statSync', `${mnt}/unknown`)).rejects.toMatchObject({ code: 'ENOTCONN' });
        await agent.stop();
      }
    });
    const left = await runOk('sh', ['-c', 'ps -eo args | grep -c "[r]ead -r bye .* echo 1" || true']);
    expect(left.trim()).toMatch(/^\d+$/);
  }),
);
