// Who is killed while a job changes a file for it is gone only once that is over: what others write to the file after
// its end is not written over by what is left of it. Who waits for a copy-up is gone at once, and may be forgotten.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { type HeldCall, holdUp, type ThreadGroup, threadsOf, untilHeld } from '../lib/inject.ts';
import { daemonOf, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';

/** Calls that are jobs and change a file, and the threads that make them. */
const changes: readonly [call: HeldCall, group: ThreadGroup, change: string][] = [
  ['copy_file_range', 'pool', 'os.copy_file_range(source, to, 4096, 0, 0)'],
  ['fallocate', 'pool', 'ctypes.CDLL(None).fallocate(to, 3, ctypes.c_long(0), ctypes.c_long(4096))'],
  ['ftruncate', 'main', 'os.ftruncate(to, 1)'],
];

mountTest(
  'what is written once a killed process is gone stays as it was written',
  () =>
    withLayers(async (layers) => {
      await withMount(layers, async (mount) => {
        const daemon = daemonOf(mount.dir) as number;
        const threads = await threadsOf(daemon);
        for (const [call, group, change] of changes) {
          const to = `${mount.dir}/${call}`;
          await sh('cd "$1"; head -c 8192 /dev/zero | tee from > "$2"; truncate -s 200M "$2"', [
            mount.dir,
            to,
          ]);
          const held = await holdUp(threads[group], call, 100);
          const script = `import ctypes, os, sys; os.chdir(sys.argv[1])
source = os.open('from', os.O_RDONLY); to = os.open('${call}', os.O_RDWR); ${change}`;
          const victim = spawn('python3', ['-c', script, mount.dir], {
            stdio: ['ignore', 'inherit', 'inherit'],
          });
          const gone = () => victim.exitCode !== null || victim.signalCode !== null;
          expect(await untilHeld(daemon, threads[group], call)).toBe(true);
          victim.kill('SIGKILL');
          // As long as the job is held up it is to be waited for; should it be gone already, this is after its end.
          const early = await waitUntil(gone, 500);
          if (early) fs.writeFileSync(to, 'written since');
          await held.stop();
          expect(await waitUntil(gone)).toBe(true);
          if (!early) fs.writeFileSync(to, 'written since');
        }
      });
      // All jobs are over by now.
      for (const [call] of changes)
        expect(`${call}: ${fs.readFileSync(`${layers.overlay}/${call}`, 'latin1')}`).toBe(
          `${call}: written since`,
        );
    }),
  { commands: ['strace', 'python3'] },
);

const O_PATH = 0o10000000;

mountTest(
  'of who is killed while it waits the kernel forgets the file: the copy is found under each of its names all the same',
  () =>
    withLayers(async (layers) => {
      const { base, overlay } = layers;
      fs.writeFileSync(`${base}/one`, Buffer.alloc(1 << 20, 'b'));
      fs.linkSync(`${base}/one`, `${base}/two`);
      await withMount(layers, async (mount) => {
        const victim = startAgent();
        // Both names are one file by this, for as long as the victim lives.
        for (const name of ['one', 'two']) await victim.call('openSync', `${mount.dir}/${name}`, O_PATH);
        const held = await holdUp((await threadsOf(mount.pid)).pool, 'fsync', 100);
        const opened = victim.call('openSync', `${mount.dir}/one`, 'r+').catch((error: Error) => error);
        expect(await waitUntil(() => fs.readdirSync(`${overlay}/.kasane/work`).length > 0)).toBe(true);
        process.kill(victim.pid, 'SIGKILL');
        await opened;
        fs.writeFileSync('/proc/sys/vm/drop_caches', '2');
        await mount.sh('test ! -e none');
        await held.stop();
        expect(await waitUntil(() => fs.existsSync(`${overlay}/one`))).toBe(true);
        const [one, two] = (await mount.sh('stat -c %i:%s one two')).trim().split('\n');
        expect(two).toBe(one);
        await mount.sh('printf new | dd of=two conv=notrunc status=none');
        expect(await mount.sh('head -c 5 one')).toBe('newbb');
        await victim.stop();
      });
    }),
  { commands: ['strace'] },
);
