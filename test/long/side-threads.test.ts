// The daemon's helpers may die, or not be there at all: the mount stays as coherent as it says it is, status says once
// what has become of it, and no client waits for ever.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { type Layers, type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';

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
async function changeAndSee({ base, mnt }: Layers, agent: Agent, turn: number): Promise<string[]> {
  const stale: string[] = [];
  for (const name of names) fs.chmodSync(`${base}/${name}`, 0o400 + (turn % 64));
  for (const name of names) {
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
