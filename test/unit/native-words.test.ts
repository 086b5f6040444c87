// What libfuse 2 is told of objects, in its 32-bit words.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  newStatfsWords,
  newStatWords,
  putStat,
  putStatfs,
  ShortInodes,
} from '../../src/fuse/native/words.ts';
import { newStat } from '../../src/lib/stat.ts';
import { newStatfs } from '../../src/sys/file.ts';

const double = (words: Uint32Array, at: number) =>
  (words[at] as number) + (words[at + 1] as number) * 2 ** 32;

describe('inode numbers in 32 bits', () => {
  const ino = fc.oneof(
    fc.nat(1000),
    fc.integer({ min: 2 ** 28 - 3, max: 2 ** 28 + 3 }),
    fc.integer({ min: 0, max: 2 ** 48 - 1 }),
  );
  const branch = fc.oneof(fc.nat(2), fc.integer({ min: 12, max: 20 }));
  const shown = fc.tuple(branch, ino).map(([b, i]) => b * 2 ** 48 + i);

  test('two objects never show the same, and one always shows the same', () => {
    fc.assert(
      fc.property(fc.array(shown, { maxLength: 200 }), (inos) => {
        const short = new ShortInodes();
        const seen = new Map<number, number>();
        for (const one of [...inos, ...inos]) {
          const given = short.of(one);
          expect(given >= 0 && given < 2 ** 32 && Number.isInteger(given)).toBe(true);
          expect(seen.get(given) ?? one).toBe(one);
          seen.set(given, one);
        }
        expect(seen.size).toBe(new Set(inos).size);
      }),
    );
  });

  test('the usual ones are the same after a restart, whatever was asked for first', () => {
    const [a, b] = [new ShortInodes(), new ShortInodes()];
    b.of(2 ** 40);
    for (const one of [12, 2 ** 48 + 12, 2 * 2 ** 48 + 2 ** 28 - 1]) expect(a.of(one)).toBe(b.of(one));
  });
});

test('times are whole milliseconds, and none lies before 1970', () => {
  const words = newStatWords();
  const stat = {
    ...newStat(),
    atimeSec: -5,
    mtimeSec: 2 ** 33,
    mtimeNsec: 999_999_999,
    ctimeSec: 1,
    size: 2 ** 40,
  };
  expect(putStat(words, stat, 7)).toBe(0);
  expect([12, 14, 16, 3].map((at) => double(words, at))).toEqual([0, 2 ** 33 * 1000 + 999, 1000, 2 ** 40]);
});

test('a file system of more than 2^32 blocks keeps its size', () => {
  const words = newStatfsWords();
  putStatfs(words, {
    ...newStatfs(),
    bsize: 4096,
    frsize: 4096,
    blocks: 2 ** 34,
    bfree: 2 ** 33,
    bavail: 2 ** 33,
  });
  expect((words[1] as number) * (words[2] as number)).toBe(2 ** 46);
  expect((words[1] as number) * (words[4] as number)).toBe(2 ** 45);
});
