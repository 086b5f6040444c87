// What `npm start` shows is a test of its own: it checks each of its promises. Here: it ends well and in time,
// and leaves nothing mounted, also when it is stopped half way.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { repository } from '../lib/kasane.ts';
import { mounts } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, waitUntil } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';

const demo = path.join(repository, 'dist', 'cli', 'demo.js');

mountTest('keeps all its promises and leaves nothing behind', () =>
  withTemp('disk', async (dir) => {
    const { code, stdout, stderr } = await run(process.execPath, [demo], {
      timeout: 100_000,
      env: { TMPDIR: dir },
    });
    expect(`${code} ${stderr}`, stdout).toBe('0 ');
    expect(mounts().filter((entry) => entry.mountPoint.startsWith(dir))).toEqual([]);
    expect(fs.readdirSync(dir)).toEqual([]);
  }),
);

mountTest('with --keep it stays up, and the commands that it prints take it down', () =>
  withTemp('disk', async (dir) => {
    const options = { timeout: 100_000, env: { TMPDIR: dir }, cwd: repository };
    const shown = await runOk(process.execPath, [demo, '--keep'], options);
    expect(mounts().filter((entry) => entry.mountPoint.startsWith(dir)).length).toBe(2);
    const commands = shown
      .split('\n')
      .map((line) => /(node \S+ umount \S+|rm -r \S+)$/.exec(line)?.[1] ?? '');
    await runOk('sh', ['-ec', commands.join('\n')], { cwd: repository });
    expect(mounts().filter((entry) => entry.mountPoint.startsWith(dir))).toEqual([]);
    expect(fs.readdirSync(dir)).toEqual([]);
  }),
);

mountTest('stopped half way it takes everything down', () =>
  withTemp('disk', async (dir) => {
    const child = spawn(process.execPath, [demo], { env: { ...process.env, TMPDIR: dir }, stdio: 'ignore' });
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    const mounted = () => mounts().some((entry) => entry.mountPoint.startsWith(dir));
    expect(await waitUntil(() => mounted() || child.exitCode !== null)).toBe(true);
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(mounted()).toBe(false);
    expect(fs.readdirSync(dir)).toEqual([]);
  }),
);
