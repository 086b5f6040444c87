// The benchmark measures, reports and clears up: one tiny row, no figure is looked at.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { repository } from '../lib/kasane.ts';
import { mountsBeneath } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { run, waitUntil } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';

const main = path.join(repository, 'bench', 'main.mjs');
const tiny = ['--quick', '--rounds', '1', '--only', 'create+unlink', '--peers'];
const two = [...tiny, 'kasane-check,dir'];

interface Summary {
  median: number;
  n: number;
}

interface Result {
  format: number;
  machine: Record<string, unknown>;
  absent: { peer: string; why: string; rows: string[] }[];
  noiseGaps: { row: string; why: string }[];
  peers: Record<string, { version: string }>;
  rows: {
    key: string;
    peers: Record<string, { wall: Summary; daemon: Summary; requests: number | null }>;
    ratios: Record<string, { wall: Summary }>;
    goals: { text: string; met: boolean | null }[];
    failed: Record<string, string>;
  }[];
}

mountTest('a row is measured and reported as table, JSON and a page without anything from outside', () =>
  withTemp('disk', async (dir) => {
    const [json, html] = [`${dir}/result.json`, `${dir}/result.html`];
    const args = [
      main,
      ...tiny,
      'kasane-check,kasane-export,dir',
      '--where',
      dir,
      '--json',
      json,
      '--html',
      html,
    ];
    const { code, stdout, stderr } = await run(process.execPath, args, { timeout: 100_000 });
    expect(code, `${stdout}${stderr}`).toBe(0);
    expect(stdout).toMatch(/create\+unlink, per pair +\S+ [µm]?s/);
    const result = JSON.parse(fs.readFileSync(json, 'utf8')) as Result;
    expect(result.format).toBe(1);
    expect(Object.keys(result.machine)).toEqual(expect.arrayContaining(['commit', 'kernel', 'cpu', 'load']));
    expect(Object.keys(result.peers)).toEqual(['kasane-check', 'kasane-export', 'dir']);
    const left = { peer: 'kasane-export', why: 'it tells what --export costs', rows: ['create+unlink'] };
    expect(result.absent).toEqual([left]);
    expect(result.noiseGaps.map(({ row }) => row)).toEqual(['create+unlink']);
    expect(stdout).toMatch(/^no part in create\+unlink: kasane-export: it tells what --export costs$/m);
    expect(stdout).toMatch(/^noise not measured: create\+unlink: kasane-again is not among the peers$/m);
    const [row, ...more] = result.rows;
    expect([row?.key, more]).toEqual(['create', []]);
    expect(row?.failed).toEqual({});
    expect(row?.peers.dir?.wall.median).toBeGreaterThan(0);
    expect(row?.peers['kasane-check']?.daemon.median).toBeGreaterThan(0);
    expect(row?.ratios.dir?.wall.n).toBe(1);
    // Its peer took no part.
    expect(row?.goals.map(({ met }) => met)).toEqual([null]);
    const page = fs.readFileSync(html, 'utf8');
    expect(page).toMatch(/^<!doctype html>[\s\S]*create\+unlink[\s\S]*<\/html>\n$/);
    expect(page).toMatch(/<li>no part in create\+unlink: kasane-export: /);
    expect(page).not.toMatch(/<script|<link|<img|src=|href=|url\(|@import|https?:/);
    expect(fs.readdirSync(dir).sort()).toEqual(['result.html', 'result.json']);
  }),
);

mountTest('interrupted, even twice, it leaves nothing behind', () =>
  withTemp('disk', async (dir) => {
    const child = spawn(process.execPath, [main, ...two, '--rounds', '99', '--where', dir], {
      stdio: 'ignore',
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const measuring = () => mountsBeneath(dir).some((mount) => mount.type === 'fuse.kasane');
    expect(await waitUntil(measuring, 30_000)).toBe(true);
    child.kill('SIGTERM');
    child.kill('SIGTERM');
    expect(await ended).toBe(143);
    expect(mountsBeneath(dir)).toEqual([]);
    expect(fs.readdirSync(dir)).toEqual([]);
  }),
);

for (const [what, args, said] of [
  ['an unknown option', ['--qick'], /^bench: Unknown option '--qick': see --help\n$/],
  ['a row that is not there', ['--only', 'nonsense'], /^bench: --only nonsense: no such row: see --list\n$/],
  [
    'a peer that is not there',
    ['--peers', 'dir,zfs'],
    /^bench: --peers zfs: unknown; known are kasane, .*\n$/,
  ],
  ['a file system that is not there', ['--on', 'zfs'], /^bench: --on zfs: one of tmpfs, ext4, xfs, btrfs\n$/],
  [
    'a file that cannot be written, before anything is measured,',
    ['--json', '/nowhere/x.json'],
    /^bench: --json \/nowhere\/x\.json: cannot be written: there is no directory \/nowhere\n$/,
  ],
  [
    'a page in the place of a directory',
    ['--html', '/proc'],
    /^bench: --html \/proc: cannot be written: it is a directory\n$/,
  ],
  [
    'a result that is not there',
    ['--from', '/nowhere'],
    /^bench: --from \/nowhere: cannot be read: no such file; name a file that --json wrote\n$/,
  ],
  [
    'text in the place of a result',
    ['--from', '/etc/passwd'],
    /^bench: --from \/etc\/passwd: is no JSON; name a file that --json wrote\n$/,
  ],
  [
    'another JSON file in the place of a result',
    ['--from', path.join(repository, 'package.json')],
    /^bench: --from .*package\.json: is no result of the bench; name a file that --json wrote\n$/,
  ],
  [
    'growth of a row',
    ['--growth', '--only', 'lstat'],
    /^bench: --growth has rows of its own: leave --only out\n$/,
  ],
] as const) {
  test(`${what} is one line and exit code 2`, async () => {
    const { code, stdout, stderr } = await run(process.execPath, [main, ...args]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(said);
  });
}
