// 200,000 random operations on unions and on plain copies of their bases (see test/lib/differential.ts), with a
// remount after every 2,500.
import { expect } from 'vitest';
import { differential } from '../lib/differential.ts';
import { mountTest } from '../lib/needs.ts';
import type { Where } from '../lib/temp.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

const variants: { seed: number; where: Where; options?: string[]; hardLinks?: boolean }[] = [
  { seed: 101, where: 'disk' },
  { seed: 102, where: 'memory', options: ['--volatile'] },
  { seed: 103, where: 'disk', options: ['--redirect-dir', 'off', '--metacopy', 'off'] },
  { seed: 104, where: 'memory', hardLinks: true },
  // Another one in each run; it is printed.
  { seed: Date.now() % 1_000_000_000, where: 'disk', hardLinks: true },
];

for (const [i, { seed, ...more }] of variants.entries()) {
  const what = [more.where, ...(more.options ?? []), ...(more.hardLinks ? ['hard links'] : [])].join(' ');
  mountTest(
    `40,000 random operations come to the same on unions and on plain trees (${i}: ${what})`,
    async () => {
      const { ok, failed } = await differential(seed, {
        runs: 8,
        operations: 5000,
        pieces: 2,
        timeout: 200_000,
        ...more,
      });
      expect(ok).toBeGreaterThan(failed);
    },
    { commands, timeout: 600_000 },
  );
}
