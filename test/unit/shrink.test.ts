// When memory is given back: after much was learned, and after much was forgotten; never for little.
import { expect, test } from 'vitest';
import { Shrinker } from '../../src/daemon/shrink.ts';

test('it is due when ten thousand nodes have come since the last time, or since there were fewest', () => {
  const shrinker = new Shrinker();
  expect([9_999, 10_000].map((nodes) => shrinker.isDue(nodes))).toEqual([false, true]);
  shrinker.shrink(30_000);
  expect([30_000, 39_999, 40_000].map((nodes) => shrinker.isDue(nodes))).toEqual([false, false, true]);
  shrinker.look(20_000);
  expect([29_999, 30_000].map((nodes) => shrinker.isDue(nodes))).toEqual([false, true]);
});
