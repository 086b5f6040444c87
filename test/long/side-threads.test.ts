// The daemon's helpers may die, or not be there at all: the mount stays as coherent as it says it is, status says once
// what has become of it, and no client waits for ever.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { failFirst, holdUp, threadsOf } from '../lib/inject.ts';
import { type Layers, type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { unlessGone } from '../lib/proc.ts';
import { isAlive, waitUntil } from '../lib/run.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

const notify = ['--coherence', 'notify'];
/** Where there is no announcer, who would make the kernel look anew, too. */
const alone = [...notify, '-o', 'ro'];
const names = ['f', 'd/f', 'd/e/f'];

/** A mount of a base with some files that an agent has read, so that the kernel keeps them. */
function withReader(
  point: string,
  options: readonly string[],
  body: (reader: { layers: Layers; mount: Mount; agent: Agent }) => Promise<void>,
): Promise<void> {
  return withLayers(async (layers) => {
    fs.mkdirSync(`${layers.base}/d/e`, { recursive: true });
    for (const name of names) fs.writeFileSync(`${layers.base}/${name}`, `${name}\n`);
    // What is mounted read-only has to be an overlay already.
    if (options === alone) await withMount(layers, async () => {});
    await withMount({ ...layers, options, env: { KASANE_FAIL: point } }, async (mount) => {
      const agent = startAgent();
      await body({ layers, mount, agent }).finally(() => agent.stop());
    });
  });
}

/** One event for each file; those that do not come to show it long before the kernel's own time is over. */
async function changeAndSee(
  { base, mnt }: Layers,
  agent: Agent,
  turn: number,
  list = names,
): Promise<string[]> {
  const stale: string[] = [];
  for (const name of list) fs.chmodSync(`${base}/${name}`, 0o400 + (turn % 64));
  for (const name of list) {
    const mode = async () => (await agent.call<{ mode: number }>('statSync', `${mnt}/${name}`)).mode & 0o777;
    if (!(await waitUntil(async () => (await mode()) === 0o400 + (turn % 64))))
      stale.push(`${name}, turn ${turn}`);
  }
  return stale;
}

async function statusOf(mount: Mount): Promise<{ coherence: string; notes: string[] }> {
  const { stdout } = await mount.kasane(['status', '--json', mount.dir]);
  return JSON.parse(stdout) as { coherence: string; notes: string[] };
}

mountTest(
  'a notifier that dies is followed by another one, or when several did by `check`: what the kernel keeps is never old',
  () =>
    withReader('notify:2:throw', alone, async ({ layers, mount, agent }) => {
      const deaths = () => mount.log().split('the notifier has ended').length - 1;
      let turn = 1;
      const until = async (isSo: () => boolean) => {
        while (!isSo()) expect(await changeAndSee(layers, agent, turn++)).toEqual([]);
      };
      await until(() => deaths() === 2);
      expect(await statusOf(mount)).toMatchObject({ coherence: 'notify', notes: [] });
      await until(() => mount.log().includes('coherence is check'));
      const end = turn + 3;
      await until(() => turn === end);
      expect(await statusOf(mount)).toMatchObject({
        coherence: 'check',
        notes: [expect.stringContaining('coherence is check: what tells the kernel of changes')],
      });
    }),
);

mountTest(
  'a notification that is refused for want of memory is written once there is some',
  () =>
    withReader('', alone, async ({ layers, mount, agent }) => {
      // What has changed lately the kernel is told of again and again.
      const [fresh, ...others] = names;
      for (const turn of [1, 2]) expect(await changeAndSee(layers, agent, turn, others)).toEqual([]);
      for (const _ of [1, 2]) await agent.call('statSync', `${layers.mnt}/${fresh}`);
      const tracer = await failFirst((await threadsOf(mount.pid)).pool, 'write', 'ENOMEM', 2);
      expect(await changeAndSee(layers, agent, 3, [fresh as string])).toEqual([]);
      await tracer.stop();
      expect(await statusOf(mount)).toMatchObject({ coherence: 'notify', notes: [] });
    }),
  { commands: ['strace'] },
);

mountTest('a mistake over an event of the base leaves nothing old: all is looked at anew', () =>
  withReader('base-event:1:throw', alone, async ({ layers, mount, agent }) => {
    for (const name of [...names, ...names]) await agent.call('statSync', `${layers.mnt}/${name}`);
    expect(await changeAndSee(layers, agent, 1)).toEqual([]);
    expect(mount.log()).toContain('an event of the base: Error: fail point base-event');
    expect((await statusOf(mount)).coherence).toBe('notify');
  }),
);

mountTest(
  'an announcer that dies is followed by another one, which tells what the first had still to tell',
  () =>
    withReader('announce:2:throw', notify, async ({ layers, mount, agent }) => {
      const inotify = await agent.call<number>('hear', -1, `${layers.mnt}/d`, 'd');
      for (const what of ['one', 'two', 'three']) {
        fs.writeFileSync(`${layers.base}/d/${what}`, '');
        const all: string[] = [];
        const heard = async () => {
          all.push(...(await agent.call<string[]>('heard', inotify)));
          return all.includes(`CREATE d/${what}`);
        };
        expect(await waitUntil(heard), `${what}: ${all}`).toBe(true);
      }
      expect(mount.log()).toContain('announcer: Error: fail point announce');
      expect((await statusOf(mount)).notes).toEqual([]);
    }),
);

/** Whether a thread waits in the kernel where no signal reaches it. */
function hasStuckThread(pid: number): boolean {
  return fs.readdirSync(`/proc/${pid}/task`).some((tid) => {
    const stat = unlessGone(() => fs.readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1'), ') X');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] === 'D';
  });
}

mountTest(
  'a daemon that is killed while its announcer waits for a lock of a guest’s leaves nobody waiting, and nothing undone',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      fs.mkdirSync(`${base}/d`);
      fs.writeFileSync(`${base}/d/f`, 'f\n');
      const [guest, other] = [startAgent(), startAgent()];
      await withMount({ ...layers, options: notify }, async ({ pid }) => {
        await guest.call('writeFileSync', `${mnt}/d/mine`, 'mine\n');
        await other.call('hear', -1, `${mnt}/d`, 'd');
        const fd = await guest.call<number>('openSync', `${mnt}/d`, 'r');
        const tracer = await holdUp((await threadsOf(pid)).pool, 'fsync', 60);
        // The kernel locks the directory for as long as this takes.
        const synced = guest.call('fsyncSync', fd).catch((error: { code: string }) => error.code);
        fs.writeFileSync(`${base}/d/new`, '');
        expect(await waitUntil(() => hasStuckThread(pid))).toBe(true);
        process.kill(pid, 'SIGKILL');
        expect(['ENOTCONN', 'ECONNABORTED']).toContain(await synced);
        await expect(other.call('statSync', `${mnt}/d/unknown`)).rejects.toMatchObject({ code: 'ENOTCONN' });
        // Until now a thread has been held up as by a disk that does not answer.
        await tracer.stop();
        expect(await waitUntil(() => !isAlive(pid))).toBe(true);
      });
      await withMount({ ...layers, options: notify }, async ({ sh }) => {
        expect(await sh('cat d/mine d/f; ls d')).toBe('mine\nf\nf\nmine\nnew\n');
      });
      for (const agent of [guest, other]) await agent.stop();
    }),
  { commands: ['strace'] },
);

mountTest(
  'a mistake on the main thread ends the daemon at once, though nobody asks it for anything, and it is mounted anew',
  () =>
    withReader('message-base-stirs:1:throw', alone, async ({ layers, mount, agent }) => {
      expect(await agent.call('readFileSync', `${layers.mnt}/f`, 'utf8')).toBe('f\n');
      fs.chmodSync(`${layers.base}/f`, 0o600);
      expect(await waitUntil(() => !isAlive(mount.pid))).toBe(true);
      expect(mount.log()).toContain('dies of a mistake of its own: Error: fail point message-base-stirs');
      const gone = { code: 'ENOTCONN' };
      await expect(agent.call('readFileSync', `${layers.mnt}/f`, 'utf8')).rejects.toMatchObject(gone);
      await mount.umount();
      await withMount(layers, async ({ sh }) => expect(await sh('stat -c %a f')).toBe('600\n'));
    }),
);

const missing: Record<string, [before: string, note: string]> = {
  'no inotify instance': ['echo 0 > /proc/sys/user/max_inotify_instances', 'nothing can be watched (EMFILE)'],
  'nobody to abort the connection': ['mount -t tmpfs none /sys/fs/fuse', 'mount fusectl'],
};

for (const [what, [before, note]] of Object.entries(missing)) {
  mountTest(
    `with ${what} every access asks the base, which status says once`,
    () =>
      withLayers(async (layers) => {
        const { base } = layers;
        for (const name of ['f', 'gone']) fs.writeFileSync(`${base}/${name}`, 'one\n');
        await giveToUser(layers);
        await withUsersMount(
          layers,
          'namespace',
          async (mount) => {
            const look = 'cd "$1"; cat f; ls; test -e new && echo there || echo none';
            expect(await mount.sh(look)).toBe('one\nf\ngone\nnone\n');
            fs.writeFileSync(`${base}/.f`, 'another\n');
            fs.renameSync(`${base}/.f`, `${base}/f`);
            fs.renameSync(`${base}/gone`, `${base}/new`);
            expect(await mount.sh(look)).toBe('another\nf\nnew\nthere\n');
            const { coherence, bound, notes } = JSON.parse(
              await mount.sh(`${process.execPath} "$2" status --json "$1"`),
            );
            expect([coherence, bound]).toEqual(['check', 0]);
            expect(notes.filter((one: string) => one.includes('coherence'))).toEqual([
              expect.stringContaining(note),
            ]);
          },
          [],
          before,
        );
      }),
    usersNeed,
  );
}
