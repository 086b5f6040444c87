// Some ten thousand changes of a base in a random mixture, with two guests that look all the while, one told of them by
// inotify and one by fanotify: none is missed, both agree after each pause, and no file that is replaced by rename is
// ever seen torn.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { version } from '../lib/base-storm.mjs';
import { notifyBy, withLayers, withMount } from '../lib/kasane.ts';
import { lookAt } from '../lib/look.mjs';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';

const ROUNDS = 20;
const CHANGES = 4000;
const probes = ['a', 'b', 'c', 'd', 'e', 'f', 'deep', 'er'];

mountTest(
  'of more than ten thousand changes in a random mixture two guests miss none',
  () =>
    withLayers(async ({ base, overlay, mnt, dir }) => {
      fs.mkdirSync(`${base}/tree`);
      fs.writeFileSync(`${base}/replaced`, version('first'));
      const second = { overlay: `${dir}/overlay2`, mnt: `${dir}/mnt2` };
      for (const one of Object.values(second)) fs.mkdirSync(one);
      await withMount({ base, overlay, mnt, options: notifyBy('inotify') }, () =>
        withMount({ base, ...second, options: notifyBy('fanotify') }, async () => {
          const changer = startAgent({ timeout: 300_000 });
          const guests = [mnt, second.mnt].map((at) => ({ at, looker: startAgent(), reader: startAgent() }));
          let made = 0;
          for (let round = 0; round < ROUNDS; round++) {
            const looking = guests.flatMap(({ at, looker, reader }) => [
              looker.call('lookStorm', `${at}/tree`, probes, 400),
              reader.call<{ problems: string[] }>('readVersions', `${at}/replaced`, 400),
            ]);
            made += await changer.call<number>('changeStorm', base, round, CHANGES);
            const reports = await Promise.all(looking);
            for (const report of reports) {
              expect((report as { problems?: string[] } | null)?.problems ?? []).toEqual([]);
            }
            for (const { at, looker } of guests) {
              let seen: unknown;
              await waitUntil(async () => {
                seen = await looker.call('lookAt', at, probes).catch((error: Error) => error.message);
                return JSON.stringify(seen) === JSON.stringify(lookAt(base, probes));
              });
              expect(seen, `round ${round}`).toEqual(lookAt(base, probes));
            }
          }
          expect(made).toBeGreaterThan(10_000);
          const agents = [changer, ...guests.flatMap(({ looker, reader }) => [looker, reader])];
          await Promise.all(agents.map((agent) => agent.stop()));
        }),
      );
    }),
  { timeout: 600_000 },
);
