// The first command in a fresh clone, as somebody types it: no `npm ci` before. Needs the registry (or npm's
// cache) that this machine's npm is set to.
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { repository } from '../lib/kasane.ts';
import { mountTest, testNeeding } from '../lib/needs.ts';
import { type RunOptions, run, runOk, sh } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';

/** What git has and would have, and no more. */
function withClone(body: (clone: string, dir: string) => Promise<void>): Promise<void> {
  return withTemp('disk', async (dir) => {
    const clone = path.join(dir, 'clone');
    await fs.mkdir(clone);
    const files = 'cd "$1" && git ls-files -z --cached --others --exclude-standard';
    await sh(`${files} | xargs -0 sh -c 'cp -P --parents "$@" "$0"' "$2"`, [repository, clone]);
    await body(clone, dir);
  });
}

/** Without what the `npm` that runs this test has put there. */
function npmOptions(clone: string, env: Record<string, string> = {}): RunOptions {
  const cleared = Object.keys(process.env).filter(
    (name) => name.startsWith('npm_') && name !== 'npm_config_registry',
  );
  return {
    cwd: clone,
    timeout: 300_000,
    env: { ...Object.fromEntries(cleared.map((name) => [name, ''])), ...env },
  };
}

mountTest(
  'npm start installs, builds and runs, also with NODE_ENV=production and -s',
  () =>
    withClone(async (clone, dir) => {
      const options = npmOptions(clone, { NODE_ENV: 'production', TMPDIR: dir });
      expect(await runOk('npm', ['-s', 'start'], options)).toContain('taken down');
      const again = await run('npm', ['start'], options);
      expect(`${again.code} ${again.stderr}`).not.toContain('installing');
    }),
  { timeout: 600_000 },
);

testNeeding(
  { root: true },
  'npm install -g of a fresh clone gives a working kasane',
  () =>
    withClone(async (clone, dir) => {
      const prefix = path.join(dir, 'global');
      await runOk(
        'npm',
        ['install', '-g', '--prefix', prefix, '.'],
        npmOptions(clone, { NODE_ENV: 'production' }),
      );
      const { version } = JSON.parse(await fs.readFile(path.join(clone, 'package.json'), 'utf8')) as {
        version: string;
      };
      expect((await runOk(path.join(prefix, 'bin', 'kasane'), ['--version'])).trim()).toBe(version);
    }),
  600_000,
);

testNeeding({}, 'npm ci alone builds, and what is missing afterwards is installed', () =>
  withClone(async (clone) => {
    await runOk('npm', ['ci'], npmOptions(clone));
    expect((await fs.stat(path.join(clone, 'dist', 'main.js'))).mode & 0o111).toBe(0o111);
    await fs.rm(path.join(clone, 'node_modules', 'commander'), { recursive: true });
    await runOk('npm', ['run', 'prestart'], npmOptions(clone));
    await fs.access(path.join(clone, 'node_modules', 'commander'));
  }),
);

test('an older Node gets one clear line', async () => {
  const fake =
    "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.4' } })";
  const args = ['--import', `data:text/javascript,${fake}`, path.join(repository, '.ci', 'setup.mjs')];
  const { code, stdout, stderr } = await run(process.execPath, args);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(/^kasane needs Node >= 20\.19, and this is v[\d.]+: [^\n]+\n$/);
});
