// Which ancestors are needed is told by the origins of all objects, wherever they lie.
import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { writeOriginBytes } from '../../src/branch/origin-store.ts';
import { openOverlay } from '../../src/branch/overlay.ts';
import { neededAncestors } from '../../src/daemon/recovery.ts';
import { AT_FDCWD, O_DIRECTORY, O_RDONLY } from '../../src/sys/constants.ts';
import { close, openat } from '../../src/sys/file.ts';
import { encodeOrigins } from '../../src/versions/origin.ts';
import { openStore } from '../../src/versions/store.ts';
import { hash, keepLog, sampleOrigin } from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

test('those of what was put aside, and of copies that only names of the base lead to, are needed, too; where an origin cannot be read, all may be', () =>
  withTemp('disk', async (dir) => {
    const overlay = openOverlay(dir, 'user.');
    const stateDir = `${dir}/.kasane`;
    const store = await openStore({ stateDir, log: keepLog() });
    fs.mkdirSync(`${stateDir}/displaced/7/sub`, { recursive: true });
    const places = ['f', '.kasane/links/copy', '.kasane/displaced/7/sub/f'];
    for (const [at, place] of places.entries()) {
      fs.writeFileSync(`${dir}/${place}`, '');
      const origins = encodeOrigins([sampleOrigin(place, { content: hash(100 + at) })]);
      expect(writeOriginBytes(overlay.origins, AT_FDCWD, `${dir}/${place}`, origins)).toBe(0);
    }
    const open = (name: string) => openat(AT_FDCWD, `${stateDir}/${name}`, O_RDONLY | O_DIRECTORY);
    const [linksFd, displacedFd] = [open('links'), open('displaced')];
    const needed = await neededAncestors(store, { overlay, linksFd, displacedFd });
    expect([...(needed ?? [])].filter((one) => one !== '').sort()).toEqual([hash(100), hash(101), hash(102)]);
    // One that cannot be read may name any.
    expect(writeOriginBytes(overlay.origins, AT_FDCWD, `${dir}/f`, Buffer.from('damaged'))).toBe(0);
    expect(await neededAncestors(store, { overlay, linksFd, displacedFd })).toBeNull();
    for (const fd of [linksFd, displacedFd, overlay.rootFd]) close(fd);
    await store.close();
  }));
