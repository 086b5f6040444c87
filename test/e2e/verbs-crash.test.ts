// The daemon dies while a person decides: what had come under its name is recorded at the next start, what had
// not has never been, and nothing is lost.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { type Layers, say, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { text, updateFile, writeFiles } from '../lib/versioning.ts';

const guestText = text({ 10: 'guest' });
const baseText = text({ 10: 'base' });

const kinds = async (path: string): Promise<string[]> =>
  JSON.parse(await say(0, 'log', '--json', path)).map((one: { kind: string }) => one.kind);

/** Does `before` and then `args` on a mount whose daemon dies at a point; `path` in the arguments is the mount's. */
async function dying(
  layers: Layers,
  fail: string,
  args: (mnt: string) => string[],
  before: (mnt: string) => Promise<unknown> = async () => {},
): Promise<void> {
  const { base, overlay, mnt } = layers;
  const mount = await startMount({ base, overlay, mountPoint: mnt, env: { KASANE_FAIL: fail } });
  try {
    // Else the daemon may die at that point in a look of its own accord.
    await ripen(`${base}/etc/a`);
    await mount.write('etc/a', guestText);
    await updateFile(`${base}/etc/a`, baseText, 'replace');
    await say(1, 'reconcile', mnt);
    await before(mnt);
    await say(3, ...args(mnt));
  } finally {
    await mount.kill();
  }
}

const onLayers = (body: (layers: Layers) => Promise<void>) =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { 'etc/a': text() });
    await body(layers);
  });

describe('a daemon that dies in a resolution', () => {
  mountTest('before the last step: the conflict is as it was', () =>
    onLayers(async (layers) => {
      await dying(layers, 'commit-before-rename', (mnt) => ['resolve', `${mnt}/etc/a`, '--take', 'base']);
      await withMount(layers, async (mount) => {
        expect(await mount.read('etc/a')).toBe(guestText);
        expect(await say(1, 'conflicts', mount.dir)).toBe('1\ttext\tetc/a\n');
        expect(await kinds(`${mount.dir}/etc/a`)).toEqual(['copy-up', 'conflict']);
        await say(0, 'resolve', mount.dir, '1@1', '--take', 'base');
        expect(await mount.read('etc/a')).toBe(baseText);
      });
    }),
  );

  for (const [take, content] of [
    ['base', baseText],
    ['overlay', guestText],
  ] as const) {
    mountTest(`after it (${take}): it is recorded, and can be undone`, () =>
      onLayers(async (layers) => {
        await dying(layers, 'commit-after-rename', (mnt) => ['resolve', `${mnt}/etc/a`, '--take', take]);
        await withMount(layers, async (mount) => {
          expect(await mount.read('etc/a')).toBe(content);
          await say(0, 'conflicts', mount.dir);
          expect(await kinds(`${mount.dir}/etc/a`)).toEqual(['copy-up', 'conflict', 'resolved']);
          await say(0, 'undo', `${mount.dir}/etc/a`);
          expect(await mount.read('etc/a')).toBe(guestText);
          expect(await say(1, 'conflicts', mount.dir)).toBe('1\ttext\tetc/a\n');
        });
      }),
    );
  }

  mountTest('after a file was given', () =>
    onLayers(async (layers) => {
      fs.writeFileSync(`${layers.dir}/mine`, 'mine\n');
      await dying(layers, 'commit-after-rename', (mnt) => [
        'resolve',
        `${mnt}/etc/a`,
        '--file',
        `${layers.dir}/mine`,
      ]);
      await withMount(layers, async (mount) => {
        expect(await mount.read('etc/a')).toBe('mine\n');
        expect(await kinds(`${mount.dir}/etc/a`)).toEqual(['copy-up', 'conflict', 'resolved']);
      });
    }),
  );
});

describe('a daemon that dies in an undo', () => {
  const resolved = (mnt: string) => say(0, 'resolve', `${mnt}/etc/a`, '--take', 'base');

  mountTest('after the last step: the conflict is open again', () =>
    onLayers(async (layers) => {
      await dying(layers, 'commit-after-rename:2', (mnt) => ['undo', `${mnt}/etc/a`], resolved);
      await withMount(layers, async (mount) => {
        expect(await mount.read('etc/a')).toBe(guestText);
        expect(await say(1, 'conflicts', mount.dir)).toBe('1\ttext\tetc/a\n');
        const events = await kinds(`${mount.dir}/etc/a`);
        expect(events).toEqual(['copy-up', 'conflict', 'resolved', 'undone']);
      });
    }),
  );

  mountTest('before it: it was not', () =>
    onLayers(async (layers) => {
      await dying(layers, 'commit-before-rename:2', (mnt) => ['undo', `${mnt}/etc/a`], resolved);
      await withMount(layers, async (mount) => {
        expect(await mount.read('etc/a')).toBe(baseText);
        await say(0, 'undo', `${mount.dir}/etc/a`);
        expect(await mount.read('etc/a')).toBe(guestText);
      });
    }),
  );
});
