// A file that grows while it is looked at is read as far as it went, and no further: its end may never come.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { hash128 } from '../../src/lib/hash.ts';
import { newStat, S_IFREG } from '../../src/lib/stat.ts';
import { type Found, fillContent } from '../../src/union/sides.ts';
import { makeTemp } from '../lib/temp.ts';

for (const size of [0, 4, 1024 * 1024 + 1]) {
  test(`of a file of ${size} bytes that has grown since, so many are read`, async () => {
    const { dir } = await makeTemp('memory');
    const file = path.join(dir, 'log');
    const then = Buffer.alloc(size, 'then');
    fs.writeFileSync(file, then);
    fs.appendFileSync(file, 'since');
    const stat = { ...newStat(), mode: S_IFREG | 0o644, size };
    const found: Found = { stat, xattrs: new Map(), target: null, content: null, bytes: null, copied: null };
    await fillContent(found, () => fs.openSync(file, 'r'), true, { asRead: true });
    expect(found.content).toBe(hash128(then));
    expect(found.bytes?.equals(then)).toBe(true);
  });
}
