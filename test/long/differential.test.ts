// 200,000 random operations and more on unions and on plain copies of their bases (see test/differential), by two
// clients at once, with remounts and deaths of the daemon. The mix of all is printed at the end. KASANE_SEED takes
// other seeds than these, which are the same in each run.
import { afterAll, expect } from 'vitest';
import { differential } from '../differential/differential.ts';
import { newTotal, summary, sumUp } from '../differential/operations.ts';
import { mountTest } from '../lib/needs.ts';
import type { Where } from '../lib/temp.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

const variants: { seed: number; where: Where; options?: string[]; hardLinks?: boolean }[] = [
  { seed: 101, where: 'disk' },
  { seed: 102, where: 'memory', options: ['--volatile'] },
  { seed: 103, where: 'disk', options: ['--redirect-dir', 'off', '--metacopy', 'off'] },
  { seed: 104, where: 'memory', hardLinks: true },
  { seed: 105, where: 'disk', hardLinks: true },
];

const all = newTotal();

for (const [i, { seed, ...more }] of variants.entries()) {
  const what = [more.where, ...(more.options ?? []), ...(more.hardLinks ? ['hard links'] : [])].join(' ');
  mountTest(
    `40,000 random operations of two clients come to the same on unions and on plain trees (${i}: ${what})`,
    async () => {
      const total = await differential(seed, {
        runs: 2,
        operations: 20_000,
        pieces: 4,
        timeout: 200_000,
        ...more,
      });
      sumUp(all, total);
      expect(total.ok).toBeGreaterThan(total.failed);
    },
    { commands, timeout: 600_000 },
  );
}

for (const seed of [111, 112]) {
  mountTest(
    'whenever the daemon dies, each operation has happened or has not, and nothing else is lost',
    async () => {
      const total = await differential(seed, {
        runs: 1,
        operations: 4000,
        pieces: 24,
        where: seed % 2 === 0 ? 'memory' : 'disk',
        crashes: true,
      });
      sumUp(all, total);
      expect(total.cuts).toBeGreaterThan(5);
    },
    { commands, timeout: 600_000 },
  );
}

afterAll(() => {
  if (all.ok + all.failed > 0) console.log(`differential, all together: ${summary(all)}`);
});
