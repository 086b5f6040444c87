// Where origins lie: in an attribute, or in a record that belongs to its object as an attribute would.
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  newOriginStore,
  type OriginStore,
  openRecords,
  readOriginBytes,
  recordName,
  releasing,
  tidyRecords,
  unlinkReleasing,
  writeOriginBytes,
} from '../../src/branch/origin-store.ts';
import { E } from '../../src/lib/errno.ts';
import { newStat } from '../../src/lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, O_DIRECTORY, O_RDONLY } from '../../src/sys/constants.ts';
import { close, openat } from '../../src/sys/file.ts';
import { linkat, renameat2, symlinkat } from '../../src/sys/names.ts';
import { statx } from '../../src/sys/stat.ts';
import { getxattr } from '../../src/sys/xattr.ts';

let dir: string;
let fd: number;
let store: OriginStore;

/** Nobody may put user.* attributes on symlinks, root as little. */
const ATTR = 'user.kasane.origin';

beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-test-'));
  fd = openat(-100, dir, O_RDONLY | O_DIRECTORY);
});

afterAll(() => {
  close(fd);
  fs.rmSync(dir, { recursive: true, force: true });
});

beforeEach(() => {
  for (const name of fs.readdirSync(dir)) fs.rmSync(path.join(dir, name), { recursive: true });
  fs.mkdirSync(path.join(dir, 'origins'));
  store = newOriginStore(ATTR);
  expect(openRecords(store, dir)).toBe(0);
});

const names = () => fs.readdirSync(path.join(dir, 'origins'));

/** Reproducible. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function nameOf(name: string): string {
  const stat = newStat();
  expect(statx(fd, name, AT_SYMLINK_NOFOLLOW, stat)).toBe(0);
  return recordName(stat);
}

test('any bytes come back, whatever NULs are in them', () => {
  const next = random(1);
  symlinkat('x', fd, 'link');
  for (let i = 0; i < 300; i++) {
    const bytes = Buffer.from(
      Array.from({ length: 1 + Math.floor(next() * 700) }, () => (next() < 0.2 ? 0 : next() * 256)),
    );
    if (next() < 0.2) bytes.fill(next() < 0.5 ? 0 : 7);
    expect(writeOriginBytes(store, fd, 'link', bytes)).toBe(0);
    expect(readOriginBytes(store, fd, 'link')).toEqual(bytes);
  }
  for (const length of [1, 253, 254, 255, 508, 509]) {
    const bytes = Buffer.alloc(length, 1);
    writeOriginBytes(store, fd, 'link', bytes);
    expect(readOriginBytes(store, fd, 'link')).toEqual(bytes);
  }
  expect(names()).toEqual([nameOf('link')]);
});

test('an origin of the usual length lies in the inode of its record', () => {
  symlinkat('x', fd, 'link');
  writeOriginBytes(store, fd, 'link', Buffer.alloc(56, 3));
  expect(fs.lstatSync(path.join(dir, 'origins', nameOf('link'))).size).toBeLessThan(60);
});

describe('a record', () => {
  const bytes = Buffer.from([1, 0, 2]);

  test('goes with its object through renames and links, and ends with the last name', () => {
    symlinkat('x', fd, 'a');
    writeOriginBytes(store, fd, 'a', bytes);
    renameat2(fd, 'a', fd, 'b', 0);
    linkat(fd, 'b', fd, 'c', 0);
    expect(readOriginBytes(store, fd, 'b')).toEqual(bytes);
    expect(readOriginBytes(store, fd, 'c')).toEqual(bytes);
    expect(unlinkReleasing(store, fd, 'b', 0)).toBe(0);
    expect(readOriginBytes(store, fd, 'c')).toEqual(bytes);
    symlinkat('y', fd, 'd');
    expect(releasing(store, fd, 'c', () => renameat2(fd, 'd', fd, 'c', 0))).toBe(0);
    expect(readOriginBytes(store, fd, 'c')).toBe(-E.ENODATA);
    expect(names()).toEqual([]);
  });

  test('stays where the change fails', () => {
    symlinkat('x', fd, 'a');
    writeOriginBytes(store, fd, 'a', bytes);
    expect(releasing(store, fd, 'a', () => -E.EIO)).toBe(-E.EIO);
    expect(readOriginBytes(store, fd, 'a')).toEqual(bytes);
  });

  test('counts as a change of its object: the ctime moves', () => {
    symlinkat('x', fd, 'a');
    const stat = newStat();
    const ctime = () => {
      statx(fd, 'a', AT_SYMLINK_NOFOLLOW, stat);
      return stat.ctimeSec * 1e9 + stat.ctimeNsec;
    };
    const before = ctime();
    // The kernel's clock for times ticks some hundred times a second.
    const until = performance.now() + 1000;
    do writeOriginBytes(store, fd, 'a', bytes);
    while (ctime() === before && performance.now() < until);
    expect(ctime()).not.toBe(before);
  });

  test('whose object is gone is tidied, and no other', () => {
    for (const name of ['a', 'b']) {
      symlinkat('x', fd, name);
      writeOriginBytes(store, fd, name, bytes);
    }
    const kept = nameOf('a');
    fs.rmSync(path.join(dir, 'b'));
    expect(tidyRecords(store, new Set([kept]))).toBe(1);
    expect(names()).toEqual([kept]);
  });

  test('is found by who opens the state anew, and looked for by nobody while there is none', () => {
    const other = newOriginStore(ATTR);
    openRecords(other, dir);
    expect(other.used[0]).toBe(0);
    symlinkat('x', fd, 'a');
    writeOriginBytes(store, fd, 'a', bytes);
    const third = newOriginStore(ATTR);
    openRecords(third, dir);
    expect(third.used[0]).toBe(1);
    expect(readOriginBytes(third, fd, 'a')).toEqual(bytes);
  });

  test('takes the place of an attribute that there is no room for', () => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, '');
    expect(writeOriginBytes(store, fd, 'f', bytes)).toBe(0);
    expect(names()).toEqual([]);
    // More than the value of an attribute may be.
    const large = Buffer.alloc(3000, 5);
    const full = newOriginStore(`user.${'x'.repeat(260)}`);
    openRecords(full, dir);
    expect(writeOriginBytes(full, fd, 'f', large)).toBe(0);
    expect(readOriginBytes(full, fd, 'f')).toEqual(large);
    expect(getxattr(fd, 'f', ATTR)).toEqual(bytes);
  });
});
