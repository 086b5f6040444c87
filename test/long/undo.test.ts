// What is rarely taken back, or put in place: names of one file, files of before 1970, directories for which a file is
// taken, and objects that are no files.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { type Layers, say, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, waitUntil } from '../lib/run.ts';
import { text, updateFile, withGuest, writeFiles } from '../lib/versioning.ts';

for (const order of ['a b', 'b a']) {
  mountTest(
    `names of one file that are dropped together are brought back one by one as files of their own: ${order}`,
    () =>
      withLayers(async (layers) => {
        writeFiles(layers.base, { a: text() });
        fs.linkSync(`${layers.base}/a`, `${layers.base}/b`);
        await withMount(layers, async (mount) => {
          await mount.sh('true >> a; true >> b');
          await updateFile(`${layers.base}/a`, text({ 3: 'BASE 3' }), 'in place');
          await say(0, 'reconcile', mount.dir);
          const numbers = async () =>
            (await mount.sh('cat a b > /dev/null; stat -c %i a b')).trim().split('\n');
          expect(new Set(await numbers()).size).toBe(1);
          const [first = '', second = ''] = order.split(' ');
          await say(0, 'undo', `${mount.dir}/${first}`);
          expect(await mount.read(first)).toBe(text());
          expect(await mount.read(second)).toBe(text({ 3: 'BASE 3' }));
          expect(new Set(await numbers()).size).toBe(2);
          await say(0, 'undo', `${mount.dir}/${second}`);
          expect(await mount.read(second)).toBe(text());
          expect(new Set(await numbers()).size).toBe(2);
        });
        await withMount(layers, async (mount) => {
          expect(new Set((await mount.sh('stat -c %i a b')).trim().split('\n')).size).toBe(2);
        });
      }),
  );
}

mountTest('a file that was changed before 1970 is brought back with its time', () =>
  withGuest({ files: { f: text() } }, async (guest) => {
    await guest.mount.sh("sed -i 's/^line 15$/guest/' f; touch -d @-1.5 f");
    await guest.update('f', text({ 3: 'BASE 3' }));
    expect(await guest.read('f')).toBe(text({ 3: 'BASE 3', 15: 'guest' }));
    await say(0, 'undo', guest.at('f'));
    expect(await guest.read('f')).toBe(text({ 15: 'guest' }));
    expect(await guest.mount.sh('TZ=UTC stat -c %y f')).toBe('1969-12-31 23:59:58.500000000 +0000\n');
  }),
);

mountTest('of what is no file nobody has a lease, so it is not opened for one', () =>
  withLayers(async (layers) => {
    await runOk('mkfifo', ['-m', '644', `${layers.base}/p`]);
    await withMount(layers, async (mount) => {
      await ripen(`${layers.base}/p`);
      await mount.sh('chmod 600 p; touch started');
      // Whoever opened it for reading, beside the mount, would let this one go on.
      const { overlay } = layers;
      const waits = spawn('sh', ['-c', `echo > "${overlay}/open"; echo > "${overlay}/p"`]);
      try {
        expect(await waitUntil(() => fs.existsSync(`${overlay}/open`))).toBe(true);
        fs.chmodSync(`${layers.base}/p`, 0o640);
        await say(0, 'reconcile', mount.dir);
        fs.rmSync(`${layers.base}/p`);
        await runOk('mkfifo', ['-m', '444', `${layers.base}/p`]);
        await say(0, 'reconcile', mount.dir);
        expect([waits.exitCode, waits.signalCode]).toEqual([null, null]);
      } finally {
        waits.kill();
      }
    });
  }),
);

describe('a daemon that dies between two steps', () => {
  /** The guest's own directory, where the base has a file by now: conflict 1. */
  async function dying(layers: Layers, fail: string, work: (mnt: string) => Promise<unknown>): Promise<void> {
    writeFiles(layers.base, { 'd/x': text() });
    fs.writeFileSync(`${layers.dir}/mine`, 'mine\n');
    const { base, overlay, mnt } = layers;
    const mount = await startMount({ base, overlay, mountPoint: mnt, env: { KASANE_FAIL: fail } });
    try {
      await mount.sh('rm -r d; mkdir d; echo precious > d/own');
      fs.rmSync(`${base}/d`, { recursive: true });
      fs.writeFileSync(`${base}/d`, 'a file now\n');
      // Else the daemon may die at that point in a look of its own accord.
      await ripen(`${base}/d`);
      await say(1, 'reconcile', mnt);
      await work(mnt);
    } finally {
      await mount.kill();
    }
  }

  const give = (code: number, { mnt, dir }: Layers) =>
    say(code, 'resolve', mnt, '1', '--file', `${dir}/mine`);

  mountTest(
    'of a resolution for a file in the place of a directory: it was not, and the directory is there',
    () =>
      withLayers(async (layers) => {
        await dying(layers, 'commit-after-rename', () => give(3, layers));
        await withMount(layers, async (mount) => {
          expect(await mount.read('d/own')).toBe('precious\n');
          expect(await say(1, 'conflicts', mount.dir)).toBe('1\ttype\td\n');
          await give(0, layers);
          expect(await mount.read('d')).toBe('mine\n');
        });
        expect(await say(0, 'check', layers.overlay)).toMatch(/: no damage, 0 warnings\n$/);
      }),
  );

  mountTest(
    'of such a resolution, where the name is taken by then: it is said where the directory lies',
    () =>
      withLayers(async (layers) => {
        await dying(layers, 'commit-after-rename', () => give(3, layers));
        fs.writeFileSync(`${layers.overlay}/d`, 'another\n');
        await withMount(layers, async (mount) => {
          expect(await mount.read('d')).toBe('another\n');
          const [, where = ''] =
            /warn .* d: the directory that made way .* lies in (.*)$/m.exec(mount.log()) ?? [];
          expect(fs.readFileSync(`${where}/own`, 'latin1')).toBe('precious\n');
        });
      }),
  );

  mountTest('of the drop of one name of a file: the number stays with the other, and no two show it', () =>
    withLayers(async (layers) => {
      writeFiles(layers.base, { a: text() });
      const { base, overlay, mnt } = layers;
      const env = { KASANE_FAIL: 'commit-after-rename' };
      const mount = await startMount({ base, overlay, mountPoint: mnt, env });
      let number = '';
      try {
        await ripen(`${base}/a`);
        number = await mount.sh('true >> a; ln a own; stat -c %i own');
        await updateFile(`${base}/a`, text({ 3: 'BASE 3' }), 'in place');
        await say(3, 'reconcile', mnt);
      } finally {
        await mount.kill();
      }
      await withMount(layers, async (again) => {
        expect(await again.read('a')).toBe(text({ 3: 'BASE 3' }));
        expect(await again.read('own')).toBe(text());
        expect(await again.sh('stat -c %i own')).toBe(number);
        expect(await again.sh('stat -c %i a')).not.toBe(number);
      });
    }),
  );

  mountTest('of the undo of such a resolution: it is done', () =>
    withLayers(async (layers) => {
      await dying(layers, 'commit-after-rename:3', async (mnt) => {
        await give(0, layers);
        await say(3, 'undo', `${mnt}/d`);
      });
      await withMount(layers, async (mount) => {
        expect(await mount.read('d/own')).toBe('precious\n');
        expect(await say(1, 'conflicts', mount.dir)).toBe('1\ttype\td\n');
        expect(await say(0, 'log', `${mount.dir}/d`)).toContain('undone');
      });
      expect(await say(0, 'check', layers.overlay)).toMatch(/: no damage, 0 warnings\n$/);
    }),
  );
});
