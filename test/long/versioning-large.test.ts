// Files that are too large to be hashed while a client waits for their copy-up, or to be copied in one piece.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';

mountTest('a file of 260 MiB that the guest has not changed follows the base, with the guest’s mode', () =>
  withLayers(async (layers) => {
    await sh('truncate -s 260M "$1/big"; printf first | dd of="$1/big" conv=notrunc status=none', [
      layers.base,
    ]);
    await withMount(layers, async (mount) => {
      await mount.sh('chmod 640 big');
      await sh(
        `cp --sparse=always "$1/big" "$1/new"; printf later | dd of="$1/new" conv=notrunc status=none
         mv "$1/new" "$1/big"`,
        [layers.base],
      );
      expect(await mount.kasane(['reconcile', mount.dir], { timeout: 120_000 })).toMatchObject({ code: 0 });
      expect(await mount.sh('head -c 5 big; stat -c " %a" big')).toBe('later 640\n');
      expect(await mount.kasane(['conflicts', mount.dir])).toMatchObject({ code: 0, stdout: '' });
    });
  }),
);

/** `script` writes to the file, and makes another one once it is well under way. */
async function whileWritten(
  { dir }: Layers,
  script: string,
  file: string,
  body: () => Promise<unknown>,
): Promise<void> {
  const began = `${dir}/began`;
  const writes = spawn(process.execPath, ['-e', script, file, began]);
  try {
    expect(await waitUntil(() => fs.existsSync(began))).toBe(true);
    await body();
  } finally {
    writes.kill('SIGKILL');
    await new Promise((resolve) => writes.on('exit', resolve));
  }
}

// Here and there, without a pause, until it is ended.
const writer = `
  const fs = require('node:fs');
  const fd = fs.openSync(process.argv[1], 'r+');
  for (let i = 0; ; i += 1) {
    fs.writeSync(fd, String(i).padStart(16), (i * 37 * 4096) % (8 << 20));
    if (i === 1000) fs.writeFileSync(process.argv[2], '');
  }`;

mountTest('a file that is written to in the base all the while it is copied follows what comes of it', () =>
  withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/big`, Buffer.alloc(8 << 20));
    await withMount(layers, async (mount) => {
      await whileWritten(layers, writer, `${layers.base}/big`, () => mount.sh('true >> big'));
      expect(await mount.kasane(['reconcile', mount.dir], { timeout: 120_000 })).toMatchObject({ code: 0 });
      expect(await mount.sh('cmp big "$1"/big && echo same', [layers.base])).toBe('same\n');
    });
  }),
);

// At the end, without a pause, until it is ended.
const appender = `
  const fs = require('node:fs');
  const fd = fs.openSync(process.argv[1], 'a');
  for (let i = 0; ; i += 1) {
    fs.writeSync(fd, 'line');
    if (i === 1000) fs.writeFileSync(process.argv[2], '');
  }`;

mountTest('diff tells of all else, too, while a large file is being written', () =>
  withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/text`, 'base\n');
    await withMount(layers, async (mount) => {
      await mount.sh('truncate -s 16M log; echo guest >> text');
      await whileWritten(layers, appender, `${mount.dir}/log`, async () => {
        const { code, stdout, stderr } = await mount.kasane(['diff', mount.dir], { timeout: 60_000 });
        expect([code, stderr]).toEqual([1, '']);
        expect(stdout).toContain('\n+guest\n');
        expect(stdout).toContain('log');
      });
    });
  }),
);
