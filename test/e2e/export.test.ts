// File handles of a mount with --export: what an NFS client holds for days. A handle gives the object that it was
// taken of, whatever became of caches, names, daemon and base; or ESTALE once that is gone; never another object.
// Each scene has a directory of its own on one mount; at the end all their handles are opened while the kernel
// knows the inodes, when it has forgotten them, after a restart, and after kill -9.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { renameWith } from '../lib/calls.ts';
import {
  appendByHandle,
  type ExportedGuest,
  type Handles,
  openHandles,
  takeHandles,
  withExport,
} from '../lib/handles.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

const GONE = 'ESTALE';

/** What lies in each scene's directory; each file has its own content. */
const files = {
  file: 'base file\n',
  other: 'base other\n',
  third: 'base third\n',
  'dir/sub/file': 'deep file\n',
  'dir/sub/second': 'deep second\n',
  'dir/top': 'top\n',
  empty: null,
  conf: text(),
  conf2: text(),
};

/** A directory of the union that one test has for itself. */
interface Scene {
  guest: ExportedGuest;
  dir: string;
  at: (name: string) => string;
  sh: (script: string) => Promise<string>;
  inBase: (script: string) => Promise<void>;
  /** Handles of these names, which are then expected to open what they are given here, or said to be later. */
  take: (...names: string[]) => Promise<Handles>;
}

interface Expectation {
  handles: Handles;
  expected: Record<string, string>;
}

interface Act {
  name: string;
  play: (scene: Scene) => Promise<Expectation>;
}

const acts: Act[] = [];

/** One test. */
function act(name: string, play: Act['play']): void {
  acts.push({ name, play });
}

function sceneOf(guest: ExportedGuest, dir: string): Scene {
  const base = `${guest.base}/${dir}`;
  return {
    guest,
    dir,
    at: (name) => guest.at(`${dir}/${name}`),
    sh: (script) => sh(script, [], { cwd: guest.at(dir) }),
    inBase: (script) => guest.changeBase(() => sh(script, [], { cwd: base })),
    take: async (...names) => {
      const handles = await takeHandles(guest.at(dir), names);
      return Object.fromEntries(names.map((name, i) => [name, handles[i] as string]));
    },
  };
}

/** What each test found at each time, by its number; or what it threw. */
type Outcome = (Error | { expected: Expectation['expected']; found: Record<string, unknown> })[];

async function playAll(): Promise<Outcome> {
  const all = acts.flatMap((_, i) =>
    Object.entries(files).map(([name, content]) => [`s${i}/${name}`, content]),
  );
  const outcome: Outcome = [];
  const handles: (Handles | null)[] = [];
  await withExport(
    { files: Object.fromEntries(all), options: ['--export=nfs4', '-o', 'dev'] },
    async (guest) => {
      for (const [i, { play }] of acts.entries()) {
        try {
          const result = await play(sceneOf(guest, `s${i}`));
          outcome.push({ expected: result.expected, found: {} });
          handles.push(result.handles);
        } catch (error) {
          outcome.push(error as Error);
          handles.push(null);
        }
      }
      const look = async (when: string) => {
        for (const [i, result] of outcome.entries()) {
          if (!(result instanceof Error)) result.found[when] = await guest.openAll(handles[i] as Handles);
        }
      };
      await look('at once');
      await guest.forget();
      await look('forgotten by the kernel');
      await guest.restart();
      await look('after a restart');
      await guest.crash();
      await look('after kill -9');
    },
  );
  return outcome;
}

act('a handle of each kind of object opens it', async ({ take, sh: run, inBase }) => {
  await inBase('ln -s file link; mkfifo fifo');
  await run(`echo own > own; mkdir -p made/deep; echo in > made/deep/in; ln -s own ownlink; mknod device c 1 3
    echo more >> dir/top; ln own ownname; chmod 700 dir/sub`);
  const expected = {
    file: 'base file\n',
    dir: 'sub top',
    'dir/sub': 'file second',
    'dir/sub/file': 'deep file\n',
    'dir/top': 'top\nmore\n',
    link: 'type 12',
    fifo: 'type 1',
    empty: '',
    own: 'own\n',
    ownname: 'own\n',
    made: 'deep',
    'made/deep': 'in',
    'made/deep/in': 'in\n',
    ownlink: 'type 12',
    device: 'type 2',
  };
  return { handles: await take(...Object.keys(expected)), expected };
});

const renamed = {
  file: 'base file\n',
  dir: 'own top',
  'dir/sub': 'new second',
  'dir/sub/file': 'deep file\n',
  own: 'mine',
  'own/mine': 'mine\n',
  other: 'base other\n',
};

const renames = async ({ take, sh: run }: Scene): Promise<Handles> => {
  await run('mkdir own; echo mine > own/mine');
  const handles = await take(...Object.keys(renamed));
  await run('mv file moved; mv dir/sub sub; mv dir renamed; mv own renamed/own; mv sub/file sub/new');
  return handles;
};

act('a handle follows renames of its object, and of directories above it', async (scene) => ({
  handles: await renames(scene),
  expected: renamed,
}));

act('a handle follows renames back again', async (scene) => {
  const handles = await renames(scene);
  await scene.sh(
    `mv sub renamed/sub; mv renamed dir; mv dir/sub/new dir/sub/file; mv dir/own own; mv moved file`,
  );
  return { handles, expected: { ...renamed, dir: 'sub top', 'dir/sub': 'file second' } };
});

act('a handle follows what changes places with another', async ({ take, sh: run, at }) => {
  await run('mkdir own; echo mine > own/mine');
  const handles = await take('file', 'other', 'dir', 'own', 'own/mine', 'dir/top');
  for (const [a, b] of [['file', 'other'] as const, ['dir', 'own'] as const, ['own/top', 'third'] as const])
    expect(await renameWith(at(a), at(b), 'exchange')).toBe('done');
  expect(await run('cat third file')).toBe('top\nbase other\n');
  const expected = {
    file: 'base file\n',
    other: 'base other\n',
    dir: 'sub top',
    own: 'mine',
    'own/mine': 'mine\n',
    'dir/top': 'top\n',
  };
  return { handles, expected };
});

act('a handle follows a copy-up, and what is written through it', async ({ guest, take, sh: run }) => {
  const handles = await take('file', 'dir/sub', 'dir/sub/file', 'other');
  // By the kernel's inode, by the handle when all is forgotten, and by the name.
  expect(await appendByHandle(guest.mnt, handles.file as string, 'written\n')).toBe(undefined);
  await guest.forget();
  expect(await appendByHandle(guest.mnt, handles['dir/sub/file'] as string, 'written\n')).toBe(undefined);
  await run('echo by name >> other');
  const expected = {
    file: 'base file\nwritten\n',
    'dir/sub': 'file second',
    'dir/sub/file': 'deep file\nwritten\n',
    other: 'base other\nby name\n',
  };
  return { handles, expected };
});

const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });

act('a handle follows a merge, of a copy and of what a tool has put in its place', async (scene) => {
  const { guest, dir, take, sh: run } = scene;
  const [conf] = await takeHandles(guest.at(dir), ['conf']);
  await run(`sed 's/^line ${GUEST_LINE}$/guest/' conf > tmp; cat tmp > conf; mv tmp conf2`);
  const handles = { ...(await take('conf2')), conf: conf as string };
  for (const name of ['conf', 'conf2']) {
    await guest.update(`${dir}/${name}`, text({ [BASE_LINE]: 'base' }));
    expect(await guest.read(`${dir}/${name}`)).toBe(merged);
    await guest.forget();
  }
  return { handles, expected: { conf: merged, conf2: merged } };
});

act('a handle follows a merge of what is open, once it is closed', async ({ guest, dir, take, sh: run }) => {
  await run(`sed -i 's/^line ${GUEST_LINE}$/guest/' conf`);
  const handles = await take('conf');
  const agent = startAgent();
  const fd = await agent.call<number>('openSync', guest.at(`${dir}/conf`), 'r');
  await guest.update(`${dir}/conf`, text({ [BASE_LINE]: 'base' }));
  expect(await guest.read(`${dir}/conf`)).toBe(merged);
  expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe(text({ [GUEST_LINE]: 'guest' }));
  await agent.stop();
  return { handles, expected: { conf: merged } };
});

act(
  'a handle follows a copy that is dropped, for it equals the base',
  async ({ guest, dir, take, sh: run }) => {
    await run(`sed -i 's/^line ${GUEST_LINE}$/guest/' conf`);
    const handles = await take('conf');
    const both = text({ [GUEST_LINE]: 'guest' });
    await guest.update(`${dir}/conf`, both);
    expect(await guest.read(`${dir}/conf`)).toBe(both);
    expect(guest.raw(`${dir}/conf`)).toBe(null);
    return { handles, expected: { conf: both } };
  },
);

act('a handle follows the replacement of a base file, also one that is in use', async (scene) => {
  const { guest, dir, take } = scene;
  const handles = await take('file', 'other', 'third', 'dir/sub/file', 'dir/top');
  const agent = startAgent();
  const fd = await agent.call<number>('openSync', scene.at('third'), 'r');
  await guest.forget();
  for (const name of Object.keys(handles)) await guest.update(`${dir}/${name}`, `new ${name}\n`);
  expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe('base third\n');
  expect(await guest.read(`${dir}/third`)).toBe('new third\n');
  await agent.stop();
  await guest.update(`${dir}/dir/top`, 'newer\n');
  const expected = Object.fromEntries(Object.keys(handles).map((name) => [name, `new ${name}\n`]));
  return { handles, expected: { ...expected, 'dir/top': 'newer\n' } };
});

/** Two handles of one name: that of a file that was replaced while it was open, and that of what replaced it. */
async function twoHandles({ guest, dir, at, take }: Scene): Promise<{ old: string; fresh: string }> {
  const old = (await take('file')).file as string;
  const agent = startAgent();
  await agent.call<number>('openSync', at('file'), 'r');
  await guest.update(`${dir}/file`, 'second\n');
  const fresh = (await take('file')).file as string;
  expect(fresh).not.toBe(old);
  await agent.stop();
  return { old, fresh };
}

act('handles of a file that was replaced in use, and of what replaced it, go on as one', async (scene) => {
  const { guest, sh: run } = scene;
  const handles = await twoHandles(scene);
  expect(await guest.openAll(handles)).toEqual({ old: 'second\n', fresh: 'second\n' });
  expect(await appendByHandle(guest.mnt, handles.old, 'by the old\n')).toBe(undefined);
  expect(await appendByHandle(guest.mnt, handles.fresh, 'by the new\n')).toBe(undefined);
  const all = 'second\nby the old\nby the new\n';
  expect(await guest.openAll(handles)).toEqual({ old: all, fresh: all });
  await run('mv file dir/moved; echo another > file');
  return { handles, expected: { old: all, fresh: all } };
});

act('both are stale when it is removed', async (scene) => {
  const handles = await twoHandles(scene);
  await scene.guest.openAll(handles);
  await scene.sh('mv file moved; rm moved; echo another > moved; echo another > file');
  return { handles, expected: { old: GONE, fresh: GONE } };
});

act('a handle of what was removed is stale for good, whatever comes under its name', async (scene) => {
  const { guest, take, sh: run } = scene;
  await run('mkdir own; echo own > own/file; echo a > a; echo b > b; echo c > c');
  const names = ['file', 'other', 'third', 'dir/top', 'empty', 'own', 'own/file', 'a', 'b'];
  const handles = await take(...names);
  await guest.forget();
  // Removed and made anew; renamed over, by the overlay's own and by the base's; a directory and one like it.
  await run(`rm file; echo another > file; mv c other; mv dir/sub/file third; rm dir/top; mkdir dir/top
    rmdir empty; mkdir empty; rm own/file; rmdir own; mkdir own; echo another > own/file
    rm a; ln b a; rm b; echo another > b`);
  const fresh = await take(...names.filter((name) => name !== 'a'));
  expect(Object.values(fresh).filter((handle) => Object.values(handles).includes(handle))).toEqual([]);
  // b goes on under its other name.
  return { handles, expected: { ...Object.fromEntries(names.map((name) => [name, GONE])), b: 'b\n' } };
});

act(
  'what the base removed is stale, also what it has of another kind there now',
  async ({ take, inBase }) => {
    const handles = await take('file', 'dir/sub', 'dir/sub/file', 'dir/top', 'other');
    await inBase('rm -r file dir/sub; mkdir file; rm dir/top');
    const stale = { file: GONE, 'dir/sub': GONE, 'dir/sub/file': GONE, 'dir/top': GONE };
    return { handles, expected: { ...stale, other: 'base other\n' } };
  },
);

act(
  'what the base adds where the guest has seen nothing is another object',
  async ({ take, inBase, sh: run }) => {
    const handles = await take('file', 'dir/sub', 'dir/sub/file', 'dir/top', 'other');
    await inBase('rm -r file dir/sub dir/top');
    await run('! ls file dir/sub/file dir/top 2>/dev/null');
    await inBase('echo n > file; mkdir dir/sub; echo n > dir/sub/file; echo n > dir/top');
    const stale = { file: GONE, 'dir/sub': GONE, 'dir/sub/file': GONE, 'dir/top': GONE };
    return { handles, expected: { ...stale, other: 'base other\n' } };
  },
);

act('a file with several names is found by each handle as long as it has a name', async (scene) => {
  const { guest, dir, inBase, sh: run } = scene;
  await inBase('ln file dir/second; ln file dir/sub/third');
  await run('echo own > own; ln own dir/own; echo two > two; ln two dir/two');
  const taken: Handles = {};
  // The names of a base file get different handles when they are not known at the same time.
  for (const name of ['file', 'dir/second', 'dir/sub/third', 'own', 'two']) {
    Object.assign(taken, await scene.take(name));
    await guest.forget();
  }
  const [again] = await takeHandles(guest.at(dir), ['dir/own']);
  expect(again).toBe(taken.own);
  await run('rm own; echo another > own; rm dir/second; echo another > dir/second; rm two dir/two');
  const base = 'base file\n';
  const expected = { file: base, 'dir/second': GONE, 'dir/sub/third': base, own: 'own\n', two: GONE };
  return { handles: taken, expected };
});

act('the names of a base file that was copied up under one of them go on as one file', async (scene) => {
  const { guest, inBase, sh: run } = scene;
  await inBase('ln file dir/second');
  const handles: Handles = {};
  for (const name of ['file', 'dir/second']) {
    Object.assign(handles, await scene.take(name));
    await guest.forget();
  }
  await run('echo more >> dir/second; mv file moved; echo another > file');
  const all = 'base file\nmore\n';
  return { handles, expected: { file: all, 'dir/second': all } };
});

let outcome: Promise<Outcome> | null = null;
const allPlayed = () => {
  outcome ??= playAll();
  return outcome;
};

for (const [i, { name }] of acts.entries()) {
  mountTest(
    name,
    async () => {
      const result = (await allPlayed())[i];
      if (result === undefined || result instanceof Error) throw result;
      const { expected, found } = result;
      const times = Object.keys(found);
      expect(times.length).toBe(4);
      expect(found).toEqual(Object.fromEntries(times.map((time) => [time, expected])));
    },
    { timeout: 400_000 },
  );
}

mountTest(
  'inode numbers, sizes and link counts by handle are those by name, and all is forgotten meanwhile',
  () =>
    withExport({ files }, async (guest) => {
      await sh('echo own > own; ln own dir/own; echo more >> dir/top', [], { cwd: guest.mnt });
      const names = ['', 'file', 'dir', 'dir/sub', 'dir/sub/file', 'dir/top', 'own', 'empty'];
      const handles = await takeHandles(guest.mnt, names);
      const byName = names.map((name) => {
        const { ino, size, nlink, mode } = fs.lstatSync(guest.at(name));
        return { ino, mode, size, nlink };
      });
      await guest.forget();
      const nodes = async () => /^kasane_nodes (\d+)$/m.exec(await guest.read('.kasane/metrics'))?.[1];
      // Somebody else on the machine may look into the mount meanwhile (updatedb, a monitor).
      const forgotten = async () => {
        await guest.forget();
        return (await nodes()) === '1';
      };
      expect(await waitUntil(forgotten, 30_000, 200)).toBe(true);
      expect(await openHandles(guest.mnt, handles, { contents: false })).toEqual(byName);
      await guest.restart();
      expect(await openHandles(guest.mnt, [...handles].reverse(), { contents: false })).toEqual(
        byName.reverse(),
      );
    }),
);
