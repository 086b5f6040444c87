// How far the copy of a large file has come, as status tells it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { Copies } from '../../src/union/copies.ts';
import { copyData } from '../../src/union/job-runner.ts';
import { makeTemp } from '../lib/temp.ts';

test('a copy is told of from its beginning to its end, with what has been reached', async () => {
  const { dir } = await makeTemp('memory');
  const size = 3 * 1024 * 1024;
  // Two pieces, and a hole between them.
  const from = fs.openSync(path.join(dir, 'from'), 'w+');
  for (const at of [0, size - 4096]) fs.writeSync(from, Buffer.alloc(4096, 'x'), 0, 4096, at);
  const to = fs.openSync(path.join(dir, 'to'), 'w+');
  const copies = new Copies();
  const told: unknown[] = [];
  const look = () => told.push(copies.all.map((one) => ({ ...one })));
  let changes = copies.changes;
  const copied = copies.during('d/big', size, (reached) => {
    look();
    return copyData(from, to, size, (done) => {
      reached(done);
      expect(copies.changes).toBeGreaterThan(changes);
      changes = copies.changes;
      look();
    });
  });
  expect(await copied).toBe(0);
  expect(told).toEqual([0, 4096, size].map((done) => [{ path: 'd/big', done, size }]));
  expect(copies.all).toEqual([]);
  expect(fs.readFileSync(path.join(dir, 'to')).equals(fs.readFileSync(path.join(dir, 'from')))).toBe(true);
  for (const fd of [from, to]) fs.closeSync(fd);
});
