// What the kernel may take the size of a file to be, when it is opened and when it is asked for.
import { expect, test } from 'vitest';
import { S_IFDIR, S_IFREG } from '../../src/lib/stat.ts';
import { KernelView } from '../../src/union/kernel-view.ts';
import type { Node } from '../../src/union/node.ts';
import { NodeTable } from '../../src/union/table.ts';

interface Known {
  view: KernelView;
  node: Node;
  /** Writes all that is to be told. */
  write: () => void;
  hasMore: () => boolean;
}

/** What the kernel knows. */
function known(type = S_IFREG): Known {
  const view = new KernelView('watched', 3600);
  const table = new NodeTable(
    () => 2,
    (_, stat) => stat.ino,
  );
  let written = 0;
  view.written = () => written;
  const write = () => {
    written = view.take()?.number ?? written;
  };
  return { view, node: table.createUnnamed(type), write, hasMore: () => view.take() !== null };
}

/** It is opened with a size that the kernel may not have, and is told of before that is answered. */
function expectTakenBack({ view, node, hasMore }: Known, size: number): void {
  expect(view.mayBelieveOther(node, size)).toBe(true);
  expect(view.mustTell(node)).toBe(true);
  expect(hasMore()).toBe(true);
}

test('what the kernel was told is taken back when it is opened with another size', () => {
  const one = known();
  const { view, node, hasMore } = one;
  view.attributesTold(node, 10);
  expect(view.mayBelieveOther(node, 10)).toBe(false);
  expect(hasMore()).toBe(false);
  expectTakenBack(one, 11);
});

test('so is what it may have been told since the last time, while answers of before that may come', () => {
  const one = known();
  const { view, node, write, hasMore } = one;
  view.attributesTold(node, 10);
  view.changed(node, true);
  write();
  expect(view.mustTell(node)).toBe(false);
  // Nothing since: there is nothing to take back.
  expect(view.mayBelieveOther(node, 30)).toBe(true);
  expect(hasMore()).toBe(false);
  view.attributesTold(node, 20);
  expect(view.mayBelieveOther(node, 20)).toBe(true);
  expect(hasMore()).toBe(false);
  expectTakenBack(one, 30);
});

test('of two answers it may have dropped the second', () => {
  const one = known();
  const { view, node, write } = one;
  view.changed(node, true);
  write();
  view.attributesTold(node, 20);
  view.attributesTold(node, 30);
  expectTakenBack(one, 30);
});

test('what is told when all requests of before have been read is sure', () => {
  const { view, node, write, hasMore } = known();
  view.changed(node, true);
  write();
  view.attributesTold(node, 20);
  view.drained();
  view.attributesTold(node, 30);
  expect(view.mayBelieveOther(node, 30)).toBe(false);
  expect(hasMore()).toBe(false);
});

test('of a file of the base the kernel keeps no answer that tells another size than the one before; but the next', () => {
  const { view, node } = known();
  node.layer = 0;
  expect(view.attributesTold(node, 10)).toBe(true);
  expect(view.attributesTold(node, 10)).toBe(true);
  view.changed(node, true);
  expect(view.attributesTold(node, 11)).toBe(false);
  expect(view.attributesTold(node, 11)).toBe(true);
});

test('nor of one of the overlay that the daemon has changed; what a guest has written is kept', () => {
  const { view, node } = known();
  node.layer = -1;
  expect(view.attributesTold(node, 10)).toBe(true);
  expect(view.attributesTold(node, 20)).toBe(true);
  view.changed(node, true);
  expect(view.attributesTold(node, 30)).toBe(false);
  expect(view.attributesTold(node, 30)).toBe(true);
});

test('a directory grows with its names', () => {
  const { view, node } = known(S_IFDIR);
  view.changed(node, true);
  expect(view.attributesTold(node, 10)).toBe(true);
  expect(view.attributesTold(node, 20)).toBe(true);
});
