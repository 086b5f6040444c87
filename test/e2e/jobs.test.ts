// What may wait for a disk is a job beside the serving thread: everybody else is answered meanwhile, those who
// want the same wait for the same job, and who is killed while waiting is gone at once.
import { expect } from 'vitest';
import type { Agent } from '../lib/agent.ts';
import { copyUpInStorm, MIB, withBigFile } from '../lib/big-file.ts';
import { holdUp, threadsOf } from '../lib/inject.ts';
import { daemonOf, kasane } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { isAlive, runOk, waitUntil } from '../lib/run.ts';

/** Above what is hashed, and more than any disk syncs within some hundred replies. */
const big = { agents: 2, sizeMiB: 320 };

mountTest(
  'a client is answered while another one’s copy-up is under way, and while its fsync is',
  () => withBigFile(big, copyUpInStorm),
  { timeout: 240_000 },
);

mountTest(
  'of two copy-ups of one file that race one is made, and both callers see it',
  () =>
    withBigFile(big, async ({ mountDir, agents, overlay }) => {
      const [one, two] = agents as [Agent, Agent];
      const fds = await Promise.all(
        agents.map((agent) => agent.call<number>('openSync', `${mountDir}/big`, 'r+')),
      );
      await one.call('writeSync', fds[0], 'one', 0);
      await two.call('writeSync', fds[1], 'two', 3);
      for (const [i, agent] of agents.entries()) {
        await agent.call('fsyncSync', fds[i]);
        expect((await agent.call<{ ino: number }>('fstatSync', fds[i])).ino).toBe(
          (await one.call<{ ino: number }>('lstatSync', `${mountDir}/big`)).ino,
        );
      }
      expect(await runOk('head', ['-c', '8', `${mountDir}/big`])).toBe('onetwobb');
      expect(await runOk('head', ['-c', '8', `${overlay}/big`])).toBe('onetwobb');
      const log = JSON.parse((await kasane(['log', '--json', `${mountDir}/big`])).stdout) as {
        kind: string;
      }[];
      expect(log.map((event) => event.kind)).toEqual(['copy-up']);
    }),
  { timeout: 240_000 },
);

mountTest(
  'who is killed while it waits for a copy-up is gone before that is done, and the next one gets it',
  () =>
    withBigFile(big, async ({ mountDir, agents, base, overlay, copying }) => {
      const [victim, next] = agents as [Agent, Agent];
      const held = await holdUp((await threadsOf(daemonOf(mountDir) as number)).pool, 'copy_file_range', 100);
      const waiting = victim.call('openSync', `${mountDir}/big`, 'r+').catch((error: Error) => error);
      expect(await waitUntil(copying)).toBe(true);
      process.kill(victim.pid, 'SIGKILL');
      expect(await waitUntil(() => !isAlive(victim.pid))).toBe(true);
      expect(copying()).toBe(true);
      await held.stop();
      await waiting;
      const fd = await next.call<number>('openSync', `${mountDir}/big`, 'r+');
      await next.call('closeSync', fd);
      await runOk('cmp', [`${base}/big`, `${overlay}/big`]);
    }),
  { commands: ['strace'], timeout: 240_000 },
);

mountTest(
  'a rename over a file whose copy-up is under way comes after it, and who has the file open keeps it',
  () =>
    withBigFile(big, async ({ mountDir, agents, copying }) => {
      const [writer, other] = agents as [Agent, Agent];
      const opened = writer.call<number>('openSync', `${mountDir}/big`, 'r+');
      expect(await waitUntil(copying)).toBe(true);
      await other.call('renameSync', `${mountDir}/small`, `${mountDir}/big`);
      const fd = await opened;
      expect((await writer.call<{ size: number }>('fstatSync', fd)).size).toBe(big.sizeMiB * MIB);
      expect(await runOk('cat', [`${mountDir}/big`])).toBe('small\n');
    }),
  { timeout: 240_000 },
);
