// Random operations on a union and on a plain copy of its base: the same results, the same tree, an untouched
// base. The long run is in test/long.
import { expect } from 'vitest';
import { differential } from '../lib/differential.ts';
import { mountTest } from '../lib/needs.ts';

const commands = ['setfattr', 'getfattr', 'setfacl'];

for (const [seed, where] of [
  [1, 'disk'],
  [2, 'memory'],
  [3, 'disk'],
] as const) {
  mountTest(
    `random operations come to the same on a union and on a plain tree (seed ${seed}, ${where})`,
    async () => {
      const { ok, failed } = await differential(seed, { runs: 1, operations: 1500, pieces: 3, where });
      expect(ok).toBeGreaterThan(failed);
    },
    { commands, timeout: 120_000 },
  );
}
