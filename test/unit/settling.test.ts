// How long a base has to be quiet before it is merged.
import { expect, test } from 'vitest';
import { Settling } from '../../src/union/settling.ts';

test('each merge within the hour doubles the time; those ahead of a clock that was set back count for nothing', () => {
  const settling = new Settling(2000);
  const now = Date.now();
  const hour = 3_600_000;
  expect(settling.needed([])).toBe(2000);
  expect(settling.needed([now - 1000, now - hour / 2])).toBe(8000);
  expect(settling.needed([now - 2 * hour])).toBe(2000);
  expect(settling.needed(Array.from({ length: 16 }, (_, i) => now - i))).toBe(hour);
  expect(settling.needed(Array.from({ length: 16 }, (_, i) => now + hour + i))).toBe(2000);
});
