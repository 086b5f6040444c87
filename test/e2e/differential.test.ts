// Random operations on a union and on a plain copy of its base: the same results, the same tree, an untouched
// base. The long run is in test/long.
import { expect } from 'vitest';
import { differential } from '../lib/differential.ts';
import { mountTest } from '../lib/needs.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

for (const [seed, where, hardLinks] of [
  [1, 'disk', false],
  [2, 'memory', true],
  [3, 'disk', true],
] as const) {
  const base = hardLinks ? 'a base with hard links' : 'a base without hard links';
  mountTest(
    `random operations come to the same on a union and on a plain tree (seed ${seed}, ${where}, ${base})`,
    async () => {
      const { ok, failed } = await differential(seed, {
        runs: 1,
        operations: 1500,
        pieces: 3,
        where,
        hardLinks,
      });
      expect(ok).toBeGreaterThan(failed);
    },
    { commands, timeout: 120_000 },
  );
}
