// The rules of conformance without the machine's privileges: what holds on a plain directory for such a user holds on
// such a user's mount, in each state of an object.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { copyUpAll, failing, notByFuse, populate } from '../conformance/conformance.ts';
import { withLayers } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { hashTree } from '../lib/tree.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

/** What takes root to make is left out, and the rule then fails on a plain directory, too. */
const needsRights = (error: Error) =>
  expect(error.message).toMatch(/EPERM|EACCES|EINVAL|ENOENT|not permitted|: -13/);

for (const standing of ['user', 'users'] as const) {
  mountTest(
    `the rules hold for ${standing === 'user' ? 'an ordinary user' : 'root of a user namespace with many users'}`,
    () =>
      withLayers(async (layers) => {
        const { base, mnt, dir } = layers;
        fs.mkdirSync(`${dir}/plain`);
        fs.chmodSync(dir, 0o755);
        for (const name of [`${base}/born`, `${base}/copied`]) fs.mkdirSync(name);
        if (standing === 'user') {
          await giveToUser(layers);
          await sh('chown 65534:65534 "$1/plain"', [dir]);
        } else fs.mkdirSync(`${dir}/run`);
        await withUsersMount(layers, standing, async (mount) => {
          for (const name of ['plain', 'base/born', 'base/copied'])
            await populate(`${dir}/${name}`, 'short', mount.enter).catch(needsRights);
          await mount.sh('mkdir "$1/new"');
          await populate(`${mnt}/new`, 'short', mount.enter).catch(needsRights);
          const before = await hashTree(base);
          await copyUpAll(`${mnt}/copied`, mount.enter).catch(needsRights);
          const plain = await failing(`${dir}/plain`, mount.enter);
          const wrong: Record<string, string> = {};
          for (const state of ['new', 'born', 'copied']) {
            for (const [rule, why] of await failing(`${mnt}/${state}`, mount.enter)) {
              if (!plain.has(rule) && !(rule in notByFuse))
                wrong[`${state}: ${rule}`] = why.split('\n')[0] ?? '';
            }
          }
          // What takes root on any directory is a part, and not the most.
          expect(plain.size).toBeLessThan(25);
          expect(wrong).toEqual({});
          expect(await hashTree(base)).toBe(before);
        });
      }),
    { ...usersNeed, timeout: 300_000 },
  );
}
