import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeOrigins, encodeOrigins, type Origin, pathHash } from '../../src/versions/origin.ts';
import { sampleOrigin } from '../lib/store.ts';

const hex = (digits: number) =>
  fc.uint8Array({ minLength: digits / 2, maxLength: digits / 2 }).map((b) => Buffer.from(b).toString('hex'));
const u32 = fc.integer({ min: 0, max: 0xffffffff });

const origin: fc.Arbitrary<Origin> = fc.record({
  path: hex(16),
  mode: fc.integer({ min: 0, max: 0xffff }),
  uid: u32,
  gid: u32,
  ino: fc.maxSafeNat(),
  content: fc.oneof(fc.constant(''), hex(32)),
  fingerprint: fc.oneof(fc.constant(''), hex(32)),
  xattrs: fc.oneof(fc.constant(''), hex(16)),
  taken: u32,
  torn: fc.boolean(),
  pin: fc.oneof(
    fc.constant(null),
    fc.record({ fingerprint: hex(32), content: fc.oneof(fc.constant(''), hex(32)) }),
  ),
});

describe('the origin attribute', () => {
  test('comes back as it was, several on one object', () => {
    fc.assert(
      fc.property(fc.array(origin, { maxLength: 5 }), (list) => {
        expect(decodeOrigins(encodeOrigins(list))).toEqual(list);
      }),
    );
  });

  test('takes 56 bytes for a file of root, and at most 90 for any without a pin', () => {
    expect(encodeOrigins([sampleOrigin('etc/passwd', { ino: 2 ** 28 - 1 })]).length).toBe(56);
    const most: Partial<Origin> = { uid: 0xffffffff, gid: 0xffffffff, ino: Number.MAX_SAFE_INTEGER };
    const full = sampleOrigin('a', { ...most, xattrs: '0123456789abcdef', torn: true });
    expect(encodeOrigins([full]).length).toBeLessThanOrEqual(90);
  });

  test('with one wrong byte is damaged, wherever it is', () => {
    const whole = encodeOrigins([sampleOrigin('a'), sampleOrigin('b', { torn: true })]);
    for (let at = 0; at < whole.length; at++) {
      for (let flip = 1; flip < 256; flip++) {
        const bad = Buffer.from(whole);
        bad[at] = (bad[at] as number) ^ flip;
        expect(decodeOrigins(bad)).toBe(null);
      }
    }
  });

  test('never throws on other bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => decodeOrigins(bytes)).not.toThrow();
      }),
    );
    fc.assert(
      fc.property(fc.array(origin, { minLength: 1, maxLength: 3 }), fc.nat(), (list, cut) => {
        const bytes = encodeOrigins(list);
        expect(decodeOrigins(bytes.subarray(0, cut % bytes.length))).toBe(null);
      }),
    );
  });

  test('of a newer version is not read', () => {
    const newer = encodeOrigins([sampleOrigin('a')]);
    newer[0] = 2;
    expect(decodeOrigins(newer)).toBe(null);
  });

  test('tells paths apart by their bytes', () => {
    expect(pathHash('etc/passwd')).toMatch(/^[0-9a-f]{16}$/);
    expect(pathHash('etc/\xe9')).not.toBe(pathHash('etc/\xc3\xa9'));
  });
});
