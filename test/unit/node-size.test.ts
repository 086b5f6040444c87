// What the kernel knows lies in memory a hundred thousand times: no field of a node may come to lie apart unseen. And
// code that is compiled for what it has met has to be compiled again when that comes to lie otherwise.
import * as v8 from 'node:v8';
import * as vm from 'node:vm';
import { expect, test } from 'vitest';
import { newStat, S_IFREG } from '../../src/lib/stat.ts';
import { NodeTable, newDirState } from '../../src/union/table.ts';

const MANY = 100_000;
/** Its fields, and its part of the two tables that it is in. */
const BYTES = 298;

function heapUsed(): number {
  v8.setFlagsFromString('--expose-gc');
  (vm.runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

test('a node whose numbers are small keeps them in itself, whatever stat they were read into', () => {
  let next = 2;
  const table = new NodeTable(
    () => next++,
    (_, { ino }) => ino,
  );
  const stat = newStat();
  // As after the first large one: what is read from it from now on is boxed.
  for (const number of ['ino', 'btimeSec', 'size'] as const) stat[number] = 2 ** 40;
  const before = heapUsed();
  for (let i = 1; i <= MANY; i++) {
    stat.ino = i;
    stat.btimeSec = 1_700_000_000 + i;
    table.show(table.createUnnamed(S_IFREG), 0, stat);
  }
  const each = (heapUsed() - before) / MANY;
  expect(table.size).toBe(MANY + 1);
  expect(each).toBeLessThan(BYTES);
});

/** Whether V8 has both laid out alike. */
function sameLayout(one: object, other: object): boolean {
  v8.setFlagsFromString('--allow-natives-syntax');
  return (vm.runInThisContext('(one, other) => %HaveSameMap(one, other)') as typeof sameLayout)(one, other);
}

test('the first large number in a directory leaves the layout of all directories as it was', () => {
  const untouched = newDirState();
  const used = newDirState();
  const stat = newStat();
  for (const number of ['ino', 'ctimeSec'] as const) stat[number] = 2 ** 40;
  used.overlayIno = stat.ino;
  used.whiteoutsIn = used.overlayIno;
  used.ctimeSec = stat.ctimeSec;
  used.lookedInto = 2 ** 40;
  expect(sameLayout(untouched, used)).toBe(true);
});
