// 200,000 random operations on unions and on plain copies of their bases (see test/lib/differential.ts), with a
// remount after every 2,500.
import { expect } from 'vitest';
import { differential } from '../lib/differential.ts';
import { mountTest } from '../lib/needs.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

for (const { seed, where, options } of [
  { seed: 101, where: 'disk', options: [] },
  { seed: 102, where: 'memory', options: ['--volatile'] },
  { seed: 103, where: 'disk', options: ['--redirect-dir', 'off', '--metacopy', 'off'] },
  { seed: 104, where: 'memory', options: [] },
  // Another one in each run.
  { seed: Date.now() % 1_000_000_000, where: 'disk', options: [] },
] as const) {
  mountTest(
    `40,000 random operations come to the same on a union and on a plain tree (${where} ${options.join(' ')})`,
    async () => {
      const spec = { runs: 8, operations: 5000, pieces: 2, where, options, timeout: 200_000 };
      const { ok, failed } = await differential(seed, spec);
      expect(ok).toBeGreaterThan(failed);
    },
    { commands, timeout: 600_000 },
  );
}
