import { describe, expect, test } from 'vitest';
import { HiddenNames, hiddenFile, parseHiddenFile } from '../../src/union/hidden-name-table.ts';

const key = { identity: '00ff', layer: 0, ino: 12, btimeSec: 5, btimeNsec: 7 };
const [a, b] = ['0123456789abcdef', 'fedcba9876543210'] as const;

describe('names of the base that the guest has hidden', () => {
  test('the name in links/ says all that one is known by, and is none of a copy', () => {
    for (const one of [key, { ...key, identity: '', layer: 3, btimeSec: -1, btimeNsec: 0, ino: 2 ** 47 }])
      expect(parseHiddenFile(hiddenFile(one, a))).toEqual({ key: one, hash: a });
    for (const other of ['', 'x', '00ff-0-12-5.7+2', '00ff-0-12-5.7~', `00ff-0-12-5.7~${a}0`])
      expect(parseHiddenFile(other)).toBe(null);
  });

  test('one that got its number later, or has it in another layer or tree, is another file', () => {
    const names = new HiddenNames();
    expect(names.isEmpty).toBe(true);
    const file = names.add(key, a, 'd/a');
    expect(names.add(key, b, 'd/b')).toBe(file);
    const find = (more: Partial<typeof key>) => {
      const { identity, layer, ino, ...birth } = { ...key, ...more };
      return names.find(identity, layer, ino, birth);
    };
    expect(find({})).toBe(file);
    for (const other of [{ btimeNsec: 8 }, { btimeSec: 6 }, { layer: 1 }, { identity: '00fe' }, { ino: 13 }])
      expect(find(other)).toBe(undefined);
    const second = names.add({ ...key, btimeNsec: 8 }, 'f'.repeat(16), 'c');
    expect([find({}), find({ btimeNsec: 8 })]).toEqual([file, second]);
    expect([names.at(a), names.at(b)]).toEqual([file, file]);
    names.delete(file, a);
    names.delete(file, b);
    expect([names.at(a), names.at(b)]).toEqual([undefined, undefined]);
    // That it has none is not the same as that nothing is known.
    expect(find({})).toBe(file);
    expect(file.names.size).toBe(0);
  });
});
