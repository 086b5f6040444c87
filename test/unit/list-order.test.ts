// Entries of a listing are in the order of their offsets, however many there are.
import { describe, expect, test } from 'vitest';
import { indexAfter, type ListEntry, nameOffset, sortEntries } from '../../src/union/list-order.ts';

function entriesOf(count: number): ListEntry[] {
  const names = Array.from({ length: count }, (_, i) => `name-${i}`);
  return names.map((name, ino) => ({ name, ino, type: 8, offset: nameOffset(name) }));
}

function byOffset(a: ListEntry, b: ListEntry): number {
  return a.offset - b.offset || (a.name < b.name ? -1 : 1);
}

describe('the order of a listing', () => {
  test.each([0, 1, 9_999, 10_000, 50_000])('%d entries are sorted by their offsets', (count) => {
    const entries = entriesOf(count);
    expect(sortEntries([...entries])).toEqual([...entries].sort(byOffset));
  });

  test('where offsets are equal, or as high as they can be, names decide', () => {
    const entries = entriesOf(20_000);
    const highest = 2 ** 52 + 2;
    for (const [i, entry] of entries.entries()) {
      if (i % 3 === 0) entry.offset = 1000 + (i % 7);
      if (i % 1000 === 1) entry.offset = highest;
    }
    const sorted = sortEntries([...entries]);
    expect(sorted).toEqual([...entries].sort(byOffset));
    expect(indexAfter(sorted, highest)).toBe(sorted.length);
    expect(sorted[indexAfter(sorted, highest - 1)]?.offset).toBe(highest);
  });
});
