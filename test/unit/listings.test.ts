// Which listings are kept for who reads on: by directory, few, and not for long.
import { expect, test, vi } from 'vitest';
import { Listings } from '../../src/frontend/listings.ts';
import type { Node } from '../../src/union/node.ts';

const nodes = Array.from({ length: 20 }, (_, id) => ({ id }) as Node);
const at = (i: number) => nodes[i] as Node;

test('who reads on does so in the listing that was begun last, until it has been read to its end', () => {
  const ended: Node[] = [];
  const listings = new Listings((node) => ended.push(node));
  const [first, second] = [[], []];
  listings.begin(at(0), first, true);
  listings.begin(at(0), second, false);
  expect(listings.of(at(0))?.entries).toBe(second);
  expect(listings.of(at(0))?.kept).toBe(false);
  expect(listings.of(at(1))).toBe(undefined);
  listings.end(at(0));
  listings.end(at(0));
  expect(listings.of(at(0))).toBe(undefined);
  expect(ended).toEqual([at(0)]);
});

test('of many the one that was begun first goes', () => {
  const ended: Node[] = [];
  const listings = new Listings((node) => ended.push(node));
  for (const node of nodes) listings.begin(node, [], true);
  expect(listings.size).toBe(16);
  expect(ended).toEqual(nodes.slice(0, 4));
});

test('one in which nobody reads on for ten seconds goes', () => {
  const now = vi.spyOn(performance, 'now');
  try {
    const listings = new Listings(() => {});
    now.mockReturnValue(1000);
    listings.begin(at(0), [], true);
    listings.begin(at(1), [], true);
    now.mockReturnValue(6000);
    listings.of(at(1));
    now.mockReturnValue(11_001);
    listings.dropAbandoned();
    expect([at(0), at(1)].map((node) => listings.of(node) !== undefined)).toEqual([false, true]);
  } finally {
    now.mockRestore();
  }
});
