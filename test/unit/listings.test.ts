// Which listings are kept for who reads on: by directory, few, and not for long; and of which the kernel keeps something.
import { expect, test, vi } from 'vitest';
import { Listings } from '../../src/frontend/listings.ts';
import type { ListEntry } from '../../src/union/list-order.ts';
import type { Node } from '../../src/union/node.ts';

const nodes = Array.from({ length: 300 }, (_, id) => ({ id, toldIn: id }) as Node);
const at = (i: number) => nodes[i] as Node;
const names = (count: number) => new Array<ListEntry>(count);

function listings() {
  const ended: Node[] = [];
  return { ended, listings: new Listings((node) => ended.push(node)) };
}

test('who reads on does so in the listing that was begun last, until it has been read to its end', () => {
  const { ended, listings: all } = listings();
  const [first, second] = [names(0), names(0)];
  expect(all.begin(at(7), first, true)).toMatchObject({ kept: true, told: 7, last: null });
  all.begin(at(7), second, false);
  expect(ended).toEqual([at(7)]);
  expect(all.of(at(7))?.entries).toBe(second);
  expect(all.of(at(7))?.kept).toBe(false);
  expect(all.of(at(1))).toBe(undefined);
  all.end(at(7));
  all.end(at(7));
  expect(all.of(at(7))).toBe(undefined);
  expect(ended).toEqual([at(7), at(7)]);
});

test('the last entry of one that the kernel may not keep has an offset that no other has', () => {
  const { listings: all } = listings();
  const offsets = [1, 2, 3].map((i) => all.begin(at(i), names(1), false).last as number);
  expect(new Set(offsets).size).toBe(3);
  for (const offset of offsets) expect(offset > 2 ** 52 + 2 && Number.isSafeInteger(offset)).toBe(true);
});

test('of many the one that was used longest ago goes', () => {
  const { ended, listings: all } = listings();
  for (const node of nodes.slice(0, 256)) all.begin(node, names(1), true);
  all.of(at(0));
  all.begin(at(256), names(1), true);
  expect(ended).toEqual([at(1)]);
  expect(all.size).toBe(256);
});

test('of many names, too, but for those in use now', () => {
  const now = vi.spyOn(performance, 'now');
  try {
    const { ended, listings: all } = listings();
    now.mockReturnValue(1000);
    for (let i = 0; i < 3; i++) all.begin(at(i), names(40_000), true);
    expect(ended).toEqual([]);
    now.mockReturnValue(4000);
    all.of(at(0));
    all.begin(at(3), names(1_000_000), true);
    expect(ended).toEqual([at(1), at(2)]);
    all.begin(at(4), names(1), true);
    expect(all.of(at(3))?.entries.length).toBe(1_000_000);
  } finally {
    now.mockRestore();
  }
});

test('after one that was neither kept nor finished the next ends where that would have ended', () => {
  const { listings: all } = listings();
  const { last } = all.begin(at(5), names(1), false);
  expect(all.begin(at(5), names(2), true)).toMatchObject({ kept: false, last });
  all.end(at(5));
  expect(all.begin(at(5), names(2), true)).toMatchObject({ kept: true, last: null, wasKept: false });
  expect(all.begin(at(5), names(2), true)).toMatchObject({ wasKept: true });
});

test('one in which nobody reads on for a minute goes', () => {
  const now = vi.spyOn(performance, 'now');
  try {
    const { ended, listings: all } = listings();
    now.mockReturnValue(1000);
    all.begin(at(0), names(1), true);
    all.begin(at(1), names(1), true);
    now.mockReturnValue(50_000);
    all.of(at(0));
    now.mockReturnValue(61_001);
    all.dropAbandoned();
    expect(ended).toEqual([at(1)]);
  } finally {
    now.mockRestore();
  }
});
