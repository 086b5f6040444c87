// What a long walk costs the daemon, and that it gives it back when the kernel forgets what it has seen.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

const FOLDERS = 400;
const FILES_EACH = 500;

const residentMiB = (mount: Mount) =>
  Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${mount.pid}/status`, 'utf8'))?.[1]) / 1024;

async function gauge(mount: Mount, name: string): Promise<number> {
  const text = await mount.sh('cat .kasane/metrics');
  return Number(new RegExp(`^kasane_${name} (\\d+)$`, 'm').exec(text)?.[1]);
}

mountTest(
  'a walk of 200,000 files leaves the daemon under 250 MiB, and forgetting them gives the memory back',
  () =>
    withLayers(async (layers) => {
      const script = `
        cd "$1"
        for d in $(seq ${FOLDERS}); do mkdir "d$d"; (cd "d$d"; seq -f f%g ${FILES_EACH} | xargs touch); done
      `;
      await sh(script, [layers.base], { timeout: 300_000 });
      await withBaseUntouched(layers.base, () =>
        withMount(layers, async (mount) => {
          await mount.sh('cat d1/f1; ls -l d1 > /dev/null');
          const before = residentMiB(mount);
          const found = await mount.sh('find . -type f -size -1 -printf "x\\n" | wc -l', [], {
            timeout: 600_000,
          });
          expect(Number(found)).toBe(FOLDERS * FILES_EACH);
          const walked = residentMiB(mount);
          const nodes = await gauge(mount, 'nodes');
          console.log(
            `memory: ${before.toFixed(0)} MiB, after the walk ${walked.toFixed(0)} MiB with ${nodes} nodes`,
          );
          expect(nodes).toBeGreaterThan(FOLDERS);
          expect(walked).toBeLessThan(250);
          // Metrics is an object that the kernel remembers, too, but no node of the union.
          await sh('sync; echo 3 > /proc/sys/vm/drop_caches');
          expect(await waitUntil(async () => (await gauge(mount, 'nodes')) === 1, 60_000, 1000)).toBe(true);
          const settled = await waitUntil(() => residentMiB(mount) <= before + 30, 60_000, 1000);
          console.log(`memory: after drop_caches ${residentMiB(mount).toFixed(0)} MiB`);
          expect(settled, `${residentMiB(mount)} MiB after ${before}`).toBe(true);
        }),
      );
    }, 'memory'),
  { timeout: 900_000 },
);

const ROUNDS = 24;
/** By then it has made all that it makes once. */
const WARM = 16;

mountTest(
  'a guest that walks, reads, makes and removes, again and again, leaves neither memory nor descriptors behind',
  () =>
    withLayers(async (layers) => {
      await sh(
        'cd "$1"; mkdir d{1..30}; for d in d*; do for i in $(seq 40); do echo $i > $d/f$i; done; done',
        [layers.base],
      );
      await withMount(layers, async (mount) => {
        const descriptors = () => fs.readdirSync(`/proc/${mount.pid}/fd`).length;
        const seen: { resident: number; open: number }[] = [];
        for (let round = 0; round < ROUNDS; round++) {
          await mount.sh(`
            cat d*/f* > /dev/null; ls -lR > /dev/null
            mkdir tmp; seq -f tmp/f%g 1000 | xargs touch; rm -r tmp; echo more >> d1/f1
          `);
          await sh('echo 2 > /proc/sys/vm/drop_caches');
          expect(await waitUntil(async () => (await gauge(mount, 'nodes')) < 10, 60_000, 200)).toBe(true);
          seen.push({ resident: residentMiB(mount), open: descriptors() });
        }
        console.log(
          `memory: ${seen.map(({ resident, open }) => `${resident.toFixed(0)} MiB, ${open}`).join('; ')}`,
        );
        const [warm, last] = [seen[WARM], seen[ROUNDS - 1]] as [(typeof seen)[0], (typeof seen)[0]];
        expect(last.resident).toBeLessThan(warm.resident + 15);
        expect(last.open).toBeLessThan(warm.open + 10);
        expect(await gauge(mount, 'directory_fds')).toBeLessThan(10);
      });
    }, 'memory'),
  { timeout: 300_000 },
);
