// Random changes by two guests and by the base beneath them, with deaths of the daemons, held against a model of the
// union: see test/model.
import { expect } from 'vitest';
import { mountTest } from '../lib/needs.ts';
import { modelRuns } from '../model/model.ts';

mountTest(
  'guests see what the rules of versioning say, whatever they and the base do',
  async () => {
    const { steps, rows } = await modelRuns(601, 2, 200, 'disk');
    expect(steps).toBeGreaterThan(300);
    expect(rows.size).toBeGreaterThan(15);
  },
  { timeout: 600_000 },
);
