// Random changes by two guests and by the base beneath them, with deaths of the daemons, held against a model of the
// union: see test/model.
import { expect } from 'vitest';
import { mountTest } from '../lib/needs.ts';
import { modelRuns } from '../model/model.ts';

for (const [seed, where] of [
  [201, 'memory'],
  [Date.now() % 1_000_000, 'disk'],
] as const) {
  mountTest(
    `guests see what the rules of versioning say, whatever they and the base do (${where})`,
    async () => {
      const { steps, rows } = await modelRuns(seed, 2, 200, where);
      expect(steps).toBeGreaterThan(200);
      expect(rows.size).toBeGreaterThan(15);
    },
    { timeout: 600_000 },
  );
}
