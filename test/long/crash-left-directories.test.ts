// kill -9 of the daemon at each step by which directories go that the base has removed, and come back by an undo: each
// is there or is not, and the history says of each once that it went.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { crashAt, expectSound } from '../lib/crash.ts';
import { kasane, type Layers, mainFile, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';
import { writeFiles } from '../lib/versioning.ts';

const carried = [
  'merge-kept',
  'merge-intent',
  'commit-before-rename',
  'commit-after-rename',
  'merge-recorded',
];
// Of the directory above: the third drop of three.
const points = [...carried, ...carried.map((point) => `${point}:3`)];

const there = ({ overlay }: Layers, dir: string) =>
  ['', '/a', '/a/b', '/a/b/f']
    .map((name) => `${dir}${name}`)
    .filter((name) => fs.existsSync(`${overlay}/${name}`));

mountTest(
  'cut off at any step they go at the next start or access, once, with all that lies in them',
  () =>
    withLayers(async (layers) => {
      const dirs = points.map((_, i) => `d${i}`);
      for (const dir of dirs) writeFiles(layers.base, { [`${dir}/a/b/f`]: 'text\n', other: '' });
      await withMount(layers, async ({ sh }) => {
        for (const dir of dirs) await sh(`: >> ${dir}/a/b/f`);
      });
      for (const [i, point] of points.entries()) {
        const dir = `d${i}`;
        fs.rmSync(`${layers.base}/${dir}`, { recursive: true });
        await crashAt(layers, point, `until ! stat ${dir}; do sleep 0.05; done`);
        const left = there(layers, dir);
        // Never a directory that is gone from above what it holds.
        expect(left, point).toEqual([dir, `${dir}/a`, `${dir}/a/b`, `${dir}/a/b/f`].slice(0, left.length));
      }
      await withMount(layers, async ({ dir: mnt, sh }) => {
        for (const [i, point] of points.entries()) {
          await sh(`stat d${i} || :`);
          expect(await waitUntil(() => there(layers, `d${i}`).length === 0), point).toBe(true);
          const { stdout } = await kasane(['log', '--json', `${mnt}/d${i}`]);
          const dropped = (JSON.parse(stdout) as { kind: string; path: string }[])
            .filter(({ kind }) => kind === 'dropped')
            .map(({ path }) => path);
          expect(dropped.sort(), point).toEqual(['', '/a', '/a/b', '/a/b/f'].map((name) => `d${i}${name}`));
        }
      });
      for (const [i, point] of ['ruling-intent', 'commit-after-rename'].entries()) {
        await crashAt(layers, point, `node "${mainFile}" undo d${i}`);
        await withMount(layers, async ({ dir: mnt }) => {
          const done = i > 0;
          expect(there(layers, `d${i}`), point).toEqual(done ? [`d${i}`] : []);
          const again = await kasane(['undo', `${mnt}/d${i}`]);
          expect(again.code, point).toBe(done ? 4 : 0);
          await kasane(['reconcile', mnt]);
          expect(there(layers, `d${i}`), point).toEqual([`d${i}`]);
        });
      }
      await expectSound(layers.overlay, layers.base);
    }),
  { timeout: 180_000 },
);
