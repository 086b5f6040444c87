// The rules of conformance.ts on a mount: in a directory made there, in one that the base has, and in one that
// has been copied up with all that it holds. The base is the same afterwards.
import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { tracked } from '../lib/cleanup.ts';
import { conformance, copyUpAll, populate } from '../lib/conformance.ts';
import { type Mount, startMount } from '../lib/kasane.ts';
import { missing, testNeeding } from '../lib/needs.ts';
import { hashTree } from '../lib/tree.ts';

const needs = { root: true, fuse: true };

describe('on a mount', () => {
  let dir: string;
  let mount: Mount;
  let before: string;

  beforeAll(async () => {
    if (missing(needs) !== null) return;
    dir = fs.mkdtempSync('/var/tmp/kasane-test-');
    tracked(() => fs.promises.rm(dir, { recursive: true, force: true }));
    fs.chmodSync(dir, 0o755);
    for (const name of ['base', 'overlay', 'mnt', 'base/born', 'base/copied']) fs.mkdirSync(`${dir}/${name}`);
    await populate(`${dir}/base/born`);
    await populate(`${dir}/base/copied`);
    before = await hashTree(`${dir}/base`);
    const options = ['-o', 'suid,dev'];
    const layers = { base: `${dir}/base`, overlay: `${dir}/overlay`, mountPoint: `${dir}/mnt` };
    mount = await startMount({ ...layers, options });
    await mount.sh('mkdir new');
    await populate(`${dir}/mnt/new`);
    await copyUpAll(`${dir}/mnt/copied`);
  });

  conformance('a new directory', () => `${dir}/mnt/new`, needs);
  conformance('a directory of the base', () => `${dir}/mnt/born`, needs);
  conformance('a directory that was copied up', () => `${dir}/mnt/copied`, needs);

  testNeeding(needs, 'the base is as it was, and the log has no error', async () => {
    expect(await hashTree(`${dir}/base`)).toBe(before);
    expect(mount.log()).not.toMatch(/\berror\b/i);
  });

  afterAll(() => mount?.umount());
});
