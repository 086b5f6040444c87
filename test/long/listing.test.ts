// Listings of huge directories: who only lists them does not pay for attributes that nobody asked for, and who looks
// at the names asks by directory all the same.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import { type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';

const COUNT = 110_000;
/** So many names are told with attributes, whoever asks. */
const AT_FIRST = 100_000;

interface Work {
  lookUps: number;
  nodes: number;
}

async function workOf(mount: Mount): Promise<Work> {
  const verbs = connectVerbs(runtimePaths(mount.dir).socket, { timeoutMs: 60_000 });
  const { opcodes, gauges } = await verbs.metrics();
  const lookUps = opcodes.find(({ opcode }) => opcode === 'LOOKUP')?.count ?? 0;
  return { lookUps, nodes: gauges.find(({ name }) => name === 'nodes')?.value ?? Number.NaN };
}

/** Lists with getdents alone, or looks at each name as it comes, or at all when it has read them all. */
const listing = `
import os, sys
names, bad = 0, 0
def look(entry):
    stat = entry.stat(follow_symlinks=False)
    return stat.st_ino != entry.inode() or stat.st_size != len(entry.name)
with os.scandir(sys.argv[1]) as entries:
    if sys.argv[2] == "afterwards": entries = list(entries)
    for entry in entries:
        names += 1
        if sys.argv[2] != "names": bad += look(entry)
print(names, bad)
`;

mountTest(
  'of a huge directory no more is looked up than the client looks at, and not each name by a request of its own',
  () =>
    withLayers(async ({ base, overlay, mnt }) => {
      for (const dir of ['listed', 'looked-at', 'afterwards']) {
        fs.mkdirSync(`${base}/${dir}`);
        for (let i = 0; i < COUNT; i++) fs.symlinkSync(`name-${i}`, `${base}/${dir}/name-${i}`);
      }
      await withMount({ base, overlay, mnt, options: ['--coherence', 'notify'] }, async (mount) => {
        const list = async (dir: string, how: string): Promise<Work> => {
          const before = await workOf(mount);
          expect(await mount.sh('python3 -c "$1" "$2" "$3"', [listing, dir, how])).toBe(`${COUNT} 0\n`);
          const after = await workOf(mount);
          return { lookUps: after.lookUps - before.lookUps, nodes: after.nodes - before.nodes };
        };
        const names = await list('listed', 'names');
        expect(names.lookUps).toBeLessThan(100);
        expect(names.nodes).toBeLessThan(AT_FIRST + 100);
        expect((await list('looked-at', 'as they come')).lookUps).toBeLessThan(1000);
        const { lookUps } = await list('afterwards', 'afterwards');
        expect(lookUps).toBeGreaterThan(COUNT - AT_FIRST - 100);
        expect(lookUps).toBeLessThan(COUNT - AT_FIRST + 100);
      });
    }, 'memory'),
  { timeout: 240_000 },
);
