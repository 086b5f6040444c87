// A copy-up of 2 GiB, and its fsync, keep nobody else from being answered, and status tells of one that is under way.
import { expect } from 'vitest';
import type { Agent } from '../lib/agent.ts';
import { copyUpInStorm, MIB, withBigFile } from '../lib/big-file.ts';
import { holdUp, threadsOf } from '../lib/inject.ts';
import { daemonOf } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, waitUntil } from '../lib/run.ts';

mountTest(
  'a client is answered while another one copies up, writes to and syncs a file of 2 GiB',
  () => withBigFile({ agents: 2, sizeMiB: 2048 }, copyUpInStorm),
  { timeout: 600_000 },
);

mountTest(
  'a copy-up that is under way stands in status, until it is done',
  () =>
    withBigFile({ agents: 1, sizeMiB: 96 }, async ({ mountDir, agents: [writer] }) => {
      const now = async () => JSON.parse(await runOk('cat', [`${mountDir}/.kasane/status.json`])).copying;
      expect(await now()).toEqual([]);
      // A disk that does not answer.
      const { pool } = await threadsOf(daemonOf(mountDir) as number);
      const tracer = await holdUp(pool, 'copy_file_range', 120);
      const opened = (writer as Agent).call<number>('openSync', `${mountDir}/big`, 'r+');
      expect(await waitUntil(async () => (await now()).length > 0, 60_000)).toBe(true);
      expect(await now()).toEqual([{ path: 'big', done: 0, size: 96 * MIB }]);
      await tracer.stop();
      await opened;
      expect(await now()).toEqual([]);
    }),
  { commands: ['strace'], timeout: 120_000 },
);
