// Room kept for a start on a full disk: versions/reserve.ts. What a full disk makes of it is in e2e/full-overlay.test.ts.
import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { Reserve } from '../../src/versions/reserve.ts';
import { withTemp } from '../lib/temp.ts';

const MIB = 1024 * 1024;
const sizes = (dir: string) =>
  fs.existsSync(`${dir}/reserve`)
    ? fs.readdirSync(`${dir}/reserve`).map((name) => fs.statSync(`${dir}/reserve/${name}`).size)
    : [];

test('it is made of several files where there is plenty of room, once', () =>
  withTemp('disk', async (dir) => {
    const reserve = new Reserve(dir);
    reserve.keep(false);
    expect(sizes(dir)).toEqual([]);
    reserve.keep(true);
    expect(sizes(dir)).toEqual(Array(32).fill(MIB / 32));
    const blocks = () => fs.statSync(`${dir}/reserve/1`).blocks;
    expect(blocks() * 512).toBeGreaterThanOrEqual(MIB / 32);
    // With so much room nobody needs it.
    reserve.releaseIfLow();
    reserve.emptyIfLow();
    reserve.keep(true);
    expect(sizes(dir)).toEqual(Array(32).fill(MIB / 32));
  }));

test('what was given up is taken back, and what was emptied is filled', () =>
  withTemp('disk', async (dir) => {
    const reserve = new Reserve(dir);
    expect(reserve.release()).toBe(false);
    reserve.keep(false);
    expect(sizes(dir)).toEqual([]);
    reserve.keep(true);
    expect(reserve.release()).toBe(true);
    expect(sizes(dir)).toEqual([]);
    reserve.keep(false);
    expect(sizes(dir)).toEqual(Array(32).fill(MIB / 32));
    fs.truncateSync(`${dir}/reserve/3`, 0);
    new Reserve(dir).keep(false);
    expect(sizes(dir)).toEqual(Array(32).fill(MIB / 32));
  }));
