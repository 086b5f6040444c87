// What a start makes of a state directory that a crash, a disk or a person has left in disorder: the guest's
// files are the truth, and everything else is built anew from them, and said.
import * as fs from 'node:fs';
import { Level } from 'level';
import { expect } from 'vitest';
import { FormatFile, readFormat } from '../../src/versions/format.ts';
import { expectSound } from '../lib/crash.ts';
import {
  kasane,
  type Layers,
  type Mount,
  repository,
  startMount,
  withLayers,
  withMount,
} from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { withBaseUntouched } from '../lib/tree.ts';
import { text, updateFile, writeFiles } from '../lib/versioning.ts';

const state = (layers: Layers) => `${layers.overlay}/.kasane`;

/** Each file has a content of its own: equal ones would share an ancestor. */
const of = (name: string, changes: Record<number, string> = {}) => text({ 1: name, ...changes });
const edited = (name: string) => of(name, { 3: 'guest' });

/**
 * A guest has edited `merge` and `clash`, removed `gone` and made `own`; then the base gets updates: `merge` can
 * be merged, `clash` cannot. `crash`: the daemon was killed in the end.
 */
async function used(layers: Layers, crash: boolean): Promise<void> {
  const names = ['merge', 'clash', 'gone', 'still'];
  writeFiles(layers.base, Object.fromEntries(names.map((name) => [name, of(name)])));
  const mount = await startMount({ ...layers, mountPoint: layers.mnt });
  await mount.sh(`sed -i '3s/.*/guest/' merge clash still; rm gone; echo own > own; sync`);
  if (crash) await mount.kill();
  else expect(await mount.umount()).toBe(0);
  await updateFile(`${layers.base}/merge`, of('merge', { 15: 'update' }), 'replace');
  await updateFile(`${layers.base}/clash`, of('clash', { 3: 'base' }), 'replace');
}

/** All that the guest did is there, and the update of the base reaches it; the id of the conflict. */
async function expectAlive(mount: Mount): Promise<number> {
  expect(await mount.sh('ls')).toBe('clash\nmerge\nown\nstill\n');
  expect(await mount.read('merge')).toBe(of('merge', { 3: 'guest', 15: 'update' }));
  expect(await mount.read('clash')).toBe(edited('clash'));
  expect(await mount.read('still')).toBe(edited('still'));
  expect(await mount.read('own')).toBe('own\n');
  const { stdout } = await mount.kasane(['conflicts', '--json', mount.dir]);
  const found = JSON.parse(stdout) as { id: number; path: string; kind: string }[];
  expect(found.map(({ path, kind }) => `${path} ${kind}`)).toEqual(['clash text']);
  return found[0]?.id as number;
}

/** Mounts after something has happened to the state directory, and expects all of it to go on. */
async function recovers(
  layers: Layers,
  said: RegExp | null,
  more: (mount: Mount) => Promise<void> = async () => {},
): Promise<void> {
  await withBaseUntouched(layers.base, () =>
    withMount(layers, async (mount) => {
      if (said === null) expect(mount.log()).not.toMatch(/warn|error/);
      else expect(mount.log()).toMatch(said);
      await expectAlive(mount);
      await more(mount);
      expect(await mount.umount()).toBe(0);
    }),
  );
  await expectSound(layers.overlay, layers.base);
}

mountTest('after kill -9 nothing has to be said, and everything is known', () =>
  withLayers(async (layers) => {
    await used(layers, true);
    await recovers(layers, null);
  }),
);

mountTest('an index that was deleted is rebuilt from the origins, which is said, and no id comes back', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    let id = 0;
    await withMount(layers, async (mount) => {
      id = await expectAlive(mount);
    });
    fs.rmSync(`${state(layers)}/index`, { recursive: true });
    await withMount(layers, async (mount) => {
      expect(mount.log()).toMatch(/the index was missing and has been rebuilt from 4 origins/);
      expect(await expectAlive(mount)).toBeGreaterThan(id);
      const { stdout } = await mount.kasane(['status', mount.dir]);
      expect(stdout).toMatch(/the index was missing/);
    });
    await recovers(layers, null);
  }),
);

mountTest('a state directory that was deleted altogether is made anew from the origins, which is said', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    fs.rmSync(state(layers), { recursive: true });
    await withMount(layers, async (mount) => {
      expect(mount.log()).toMatch(/rebuilt from 4 origins/);
      expect(await mount.read('still')).toBe(edited('still'));
      // The ancestors are gone: both have changed, and nobody knows what there was.
      expect(await mount.read('merge')).toBe(edited('merge'));
      const { stdout } = await mount.kasane(['conflicts', '--json', mount.dir]);
      const found = JSON.parse(stdout) as { path: string; kind: string }[];
      expect(found.map(({ path, kind }) => `${path} ${kind}`)).toEqual(['merge no-ancestor']);
    });
  }),
);

for (const [what, spoil] of [
  ['torn', (file: string) => fs.truncateSync(file, fs.statSync(file).size - 3)],
  ['empty', (file: string) => fs.truncateSync(file, 0)],
  ['full of zeros', (file: string) => fs.writeFileSync(file, Buffer.alloc(4096))],
  ['gone', (file: string) => fs.rmSync(file)],
] as const) {
  mountTest(`a journal that is ${what} after a crash is no loss: the origins tell the same`, () =>
    withLayers(async (layers) => {
      await used(layers, true);
      spoil(`${state(layers)}/journal`);
      await recovers(layers, /the journal is damaged or gone: looking through the origins/);
    }),
  );
}

mountTest(
  'after a crash of the machine the origins are looked through, whatever is left of the journal',
  () =>
    withLayers(async (layers) => {
      await used(layers, true);
      new FormatFile(state(layers), readFormat(state(layers)).format, true).write({ bootId: 'another boot' });
      fs.rmSync(`${state(layers)}/journal`);
      await recovers(layers, /the machine went down with the mount: looking through the origins/);
    }),
);

mountTest('a damaged record of the index keeps nothing else from going on, and check names it', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    const db = new Level<string, string>(`${state(layers)}/index`);
    await db.open();
    const record = await db.get('pstill');
    expect(record).toMatch(/^[0-9a-f]{8}/);
    await db.put('pstill', `${record.slice(0, -9)}x${record.slice(-8)}`);
    await db.close();
    const check = await kasane(['check', layers.overlay]);
    expect(check.stdout).toMatch(/^damage\tindex-record\tstill\t/m);
    expect(check.code).toBe(4);
    await withMount(layers, async (mount) => {
      // Before anything is looked at: a look writes the record anew.
      expect((await mount.kasane(['check', mount.dir])).code).toBe(4);
      await expectAlive(mount);
    });
  }),
);

/** As if a newer Kasane had been here; what its format file says. */
function writeNewerFormat(layers: Layers): string {
  const file = `${state(layers)}/format`;
  const newer = fs.readFileSync(file, 'utf8').replace('"version": 1', '"version": 2');
  fs.writeFileSync(file, newer);
  return newer;
}

mountTest('a format that a newer Kasane has written is refused with 4, and nothing is touched', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    const file = `${state(layers)}/format`;
    const newer = writeNewerFormat(layers);
    const names = fs.readdirSync(state(layers)).sort();
    const args = ['mount', '--base', layers.base, '--overlay', layers.overlay, layers.mnt];
    for (const more of [[], ['--foreground']]) {
      const refused = await kasane([...args.slice(0, 1), ...more, ...args.slice(1)]);
      expect(refused.code).toBe(4);
      expect(refused.stderr).toMatch(/written by a newer Kasane \(format 2\)/);
    }
    expect((await kasane(['check', layers.overlay])).code).toBe(4);
    expect(fs.readFileSync(file, 'utf8')).toBe(newer);
    expect(fs.readdirSync(state(layers)).sort()).toEqual(names);
  }),
);

// process.exit would end that thread in the midst of a call of koffi's, which aborts the process.
mountTest('a mount that is refused before its serving thread has loaded ends as it should', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    writeNewerFormat(layers);
    const env = { NODE_OPTIONS: `--import ${repository}/test/lib/ever-loading.mjs` };
    const log = `${layers.dir}/log`;
    const args = ['--log', log, '--base', layers.base, '--overlay', layers.overlay, layers.mnt];
    for (const more of [[], ['--foreground']]) {
      const { code, signal, stderr } = await kasane(['mount', ...more, ...args], { env });
      expect({ code, signal }).toEqual({ code: 4, signal: null });
      expect(stderr).toMatch(/^kasane: mount: [^\n]+\n$/);
      expect(fs.readFileSync(log, 'utf8')).not.toMatch(/FATAL/);
    }
  }),
);

mountTest('a format file that is damaged is made anew, which is said, and ids go on far beyond', () =>
  withLayers(async (layers) => {
    await used(layers, false);
    let id = 0;
    await withMount(layers, async (mount) => {
      id = await expectAlive(mount);
      await mount.sh(`sed -i '3s/.*/other/' still`);
    });
    fs.writeFileSync(`${state(layers)}/format`, '{"version": 1, "created"');
    await updateFile(`${layers.base}/still`, of('still', { 3: 'base' }), 'replace');
    await withMount(layers, async (mount) => {
      expect(mount.log()).toMatch(/the format file was damaged and has been written anew/);
      expect(await mount.read('still')).toBe(of('still', { 3: 'other' }));
      const { stdout } = await mount.kasane(['conflicts', '--json', mount.dir]);
      const found = JSON.parse(stdout) as { id: number; path: string }[];
      expect(found.map(({ path }) => path)).toEqual(['clash', 'still']);
      expect(found[0]?.id).toBe(id);
      expect(found[1]?.id).toBeGreaterThan(1_000_000);
    });
  }),
);

mountTest('an index that another overlay has written is put aside, which is said, and not believed', () =>
  withLayers((other) =>
    withLayers(async (layers) => {
      await used(layers, false);
      await used(other, false);
      fs.rmSync(`${state(layers)}/index`, { recursive: true });
      fs.cpSync(`${state(other)}/index`, `${state(layers)}/index`, { recursive: true });
      await recovers(layers, /the index is of another overlay, or an old copy/, async (mount) => {
        expect(mount.log()).toMatch(/rebuilt from 4 origins/);
        const aside = fs.readdirSync(state(layers)).filter((name) => name.startsWith('index.damaged-'));
        expect(aside.length).toBe(1);
      });
    }),
  ),
);
