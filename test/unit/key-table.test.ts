// Numbers for keys: what a map of their words says, whatever is added and removed.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeyTable } from '../../src/union/key-table.ts';

/** Of different lengths; in a larger array, as an event holds them. */
const keyOf = (n: number): [Uint32Array, number, number] => {
  const words = Uint32Array.of(7, n % 3, 8, 1, n, n >>> 3, ...(n % 2 === 0 ? [] : [n]));
  return [words, 1, words.length - 1];
};

test('each key has a number of its own, as long as it is not removed, and a removed one has none', () => {
  const step = fc.record({ key: fc.nat(400), removes: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 2000, size: 'max' }), (steps) => {
      const table = new KeyTable();
      const model = new Map<number, number>();
      for (const { key, removes } of steps) {
        const known = model.get(key);
        expect(table.find(...keyOf(key))).toBe(known ?? -1);
        if (removes && known !== undefined) {
          table.remove(known);
          model.delete(key);
        } else {
          const number = table.add(...keyOf(key));
          if (known === undefined) expect([...model.values()]).not.toContain(number);
          else expect(number).toBe(known);
          model.set(key, number);
        }
        expect(table.size).toBe(model.size);
      }
      for (const [key, number] of model) expect(table.find(...keyOf(key))).toBe(number);
    }),
    { numRuns: 30 },
  );
});

test('what is removed twice, or never was there, takes nothing else along', () => {
  const table = new KeyTable();
  const numbers = [1, 2, 3].map((n) => table.add(...keyOf(n)));
  for (let again = 0; again < 3; again++) table.remove(numbers[1] as number);
  expect(table.size).toBe(2);
  const fresh = [4, 5, 6].map((n) => table.add(...keyOf(n)));
  expect(new Set([numbers[0], numbers[2], ...fresh]).size).toBe(5);
  expect([1, 3].map((n) => table.find(...keyOf(n)))).toEqual([numbers[0], numbers[2]]);
});

test('a number that is forgotten is nobody’s until it is free, also when the table grows', () => {
  const table = new KeyTable();
  const number = table.add(...keyOf(1));
  expect([table.forget(number), table.forget(number)]).toEqual([true, false]);
  table.remove(number);
  const others = Array.from({ length: 1000 }, (_, n) => table.add(...keyOf(n + 2)));
  expect(others).not.toContain(number);
  expect(table.find(...keyOf(1))).toBe(-1);
  table.free(number);
  expect(table.size).toBe(1000);
  expect(table.add(...keyOf(5000))).toBe(number);
});

test('a hundred thousand keys have as many numbers, the lowest', () => {
  const table = new KeyTable();
  const numbers = new Set(Array.from({ length: 100_000 }, (_, n) => table.add(...keyOf(n))));
  expect([numbers.size, table.size, Math.max(...[...numbers].slice(-10))]).toEqual([
    100_000, 100_000, 99_999,
  ]);
});
