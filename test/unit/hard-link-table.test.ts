import { describe, expect, test } from 'vitest';
import { type HardLink, HardLinks, linkFile, parseLinkFile } from '../../src/union/hard-link-table.ts';

const key = { identity: '00ff', layer: 0, ino: 12, btimeSec: 5, btimeNsec: 7 };
const link = (more: Partial<HardLink> = {}): HardLink => ({
  ...key,
  file: '',
  copyIno: 100,
  shown: 1,
  nlink: 2,
  taken: new Set(),
  untaken: 1,
  lost: false,
  ...more,
});

describe('files of the base that have been copied up', () => {
  test('the name in links/ says all that they are known by', () => {
    for (const one of [key, { ...key, layer: 3, btimeSec: -1, btimeNsec: 0, ino: 2 ** 47 }])
      expect(parseLinkFile(linkFile(one, 9))).toEqual({ ...one, nlink: 9 });
    for (const other of ['', 'x', '00ff-0-12-5.7', '00ff-0-12-5.7+2+', 'zz-0-12-5.7+2'])
      expect(parseLinkFile(other)).toBe(null);
  });

  test('one that got its number later, or has it in another layer or tree, is another file', () => {
    const links = new HardLinks();
    const first = link();
    links.add(first);
    const find = (more: Partial<typeof key>) => {
      const { identity, layer, ino, ...birth } = { ...key, ...more };
      return links.find(identity, layer, ino, birth);
    };
    expect(find({})).toBe(first);
    for (const other of [{ btimeNsec: 8 }, { btimeSec: 6 }, { layer: 1 }, { identity: '00fe' }, { ino: 13 }])
      expect(find(other)).toBe(undefined);
    const second = link({ btimeNsec: 8, copyIno: 101 });
    links.add(second);
    expect(find({ btimeNsec: 8 })).toBe(second);
    links.delete(first);
    expect([find({}), find({ btimeNsec: 8 }), links.of(100), links.of(101)]).toEqual([
      undefined,
      second,
      undefined,
      second,
    ]);
    links.move(second, 102);
    expect([links.of(101), links.of(102), links.size]).toEqual([undefined, second, 1]);
    links.delete(second);
    expect([links.size, links.hasNumber(12)]).toEqual([0, false]);
  });
});
