// What is told of changes of the base while it is used (--coherence notify).
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';

function replace(file: string, content: string): void {
  fs.writeFileSync(`${file}.new`, content);
  fs.renameSync(`${file}.new`, file);
}

mountTest('events list each settled change of the base beneath what is in use, with its epoch', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    fs.mkdirSync(`${base}/etc`);
    for (const name of ['edited', 'replaced', 'removed', 'moved', 'unused', 'passing']) {
      fs.writeFileSync(`${base}/etc/${name}`, `${name}\n`);
    }
    const options = ['--coherence', 'notify', '--settle', '0.2'];
    await withMount({ base, overlay, mnt, options }, async ({ sh }) => {
      await sh('cat etc/edited etc/replaced etc/removed etc/moved etc/passing');
      const before = Number(await sh("sed -n 's/^epoch //p' .kasane/status"));
      fs.rmSync(`${base}/etc/passing`);
      for (let i = 0; i < 100; i++) fs.appendFileSync(`${base}/etc/edited`, 'more\n');
      replace(`${base}/etc/replaced`, 'another\n');
      fs.rmSync(`${base}/etc/removed`);
      fs.renameSync(`${base}/etc/moved`, `${base}/etc/new name`);
      fs.appendFileSync(`${base}/etc/unused`, 'more\n');
      fs.writeFileSync(`${base}/etc/passing`, 'again\n');
      const list = async () =>
        (await sh('cat .kasane/events'))
          .split('\n')
          .filter((line) => line.includes(' base-'))
          .map((line) => line.split(' ').toSpliced(2, 1))
          .map(([, epoch, ...rest]) => `${Number(epoch) > before} ${rest.join(' ')}`)
          .sort();
      let seen: string[] = [];
      const expected = [
        'true base-added etc/new name',
        'true base-changed etc/edited',
        'true base-removed etc/moved',
        'true base-removed etc/removed',
        'true base-replaced etc/passing',
        'true base-replaced etc/replaced',
      ];
      await waitUntil(async () => {
        seen = await list();
        return seen.length >= expected.length;
      });
      expect(seen).toEqual(expected);
    });
  }),
);
