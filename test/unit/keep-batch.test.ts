// Contents that are to be put away travel together: each comes out as it went in, with its hash.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { eachKept, KeepBatch } from '../../src/daemon/keep-batch.ts';

test('what goes into a batch comes out of it, in order, and the next one is empty', () => {
  const contents = fc.array(fc.uint8Array({ maxLength: 40_000 }), { maxLength: 12 });
  fc.assert(
    fc.property(contents, contents, (first, second) => {
      const batch = new KeepBatch();
      for (const all of [first, second]) {
        expect(batch.isEmpty).toBe(true);
        for (const [i, bytes] of all.entries()) batch.add(bytes, String(i));
        const kept = [...eachKept(structuredClone(batch.take()))];
        expect(kept.map(([hash]) => hash)).toEqual(all.map((_, i) => String(i)));
        expect(kept.every(([, bytes], i) => Buffer.compare(bytes, all[i] as Uint8Array) === 0)).toBe(true);
      }
    }),
  );
});

test('a batch is full before it is large', () => {
  const batch = new KeepBatch();
  while (!batch.isFull) batch.add(new Uint8Array(1000), 'x');
  expect(batch.take().bytes.length).toBeLessThan(1024 * 1024);
});
