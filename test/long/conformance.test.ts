// The rules of conformance.ts that are about much of something, on a mount: in a directory made there and in one
// of the base, which is the same afterwards.
import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { conformance, populate } from '../conformance/conformance.ts';
import { type Mount, startMount } from '../lib/kasane.ts';
import { missing, testNeeding } from '../lib/needs.ts';
import { makeTemp } from '../lib/temp.ts';
import { hashTree } from '../lib/tree.ts';

const needs = { root: true, fuse: true };

describe('much, on a mount', () => {
  let dir: string;
  let mount: Mount;
  let before: string;

  beforeAll(async () => {
    if (missing(needs) !== null) return;
    dir = (await makeTemp('disk')).dir;
    for (const name of ['base', 'overlay', 'mnt', 'base/born']) fs.mkdirSync(`${dir}/${name}`);
    await populate(`${dir}/base/born`, 'long');
    before = await hashTree(`${dir}/base`);
    const layers = { base: `${dir}/base`, overlay: `${dir}/overlay`, mountPoint: `${dir}/mnt` };
    mount = await startMount({ ...layers, options: ['--volatile'] });
    await mount.sh('mkdir new');
    await populate(`${dir}/mnt/new`, 'long');
  }, 600_000);

  conformance('a new directory', () => `${dir}/mnt/new`, needs, 'long');
  conformance('a directory of the base', () => `${dir}/mnt/born`, needs, 'long');

  testNeeding(needs, 'the base is as it was', async () => {
    expect(await hashTree(`${dir}/base`)).toBe(before);
  });

  afterAll(() => mount?.umount());
});
