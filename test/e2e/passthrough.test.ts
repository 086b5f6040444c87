// Files that the kernel reads, writes and maps by itself: no such request reaches the daemon, and nobody can tell.
// What is open on a file of the base when it is copied up keeps its bytes, and is the same object in all else.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import { O_PATH } from '../../src/sys/constants.ts';
import { type Agent, startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { type Layers, type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { descriptorsOf } from '../lib/proc.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

/** Above what is kept by the kernel and not handed over. */
const SIZE = 256 * 1024;
const MODE = 0o777;

interface Stage extends Layers {
  mount: Mount;
  /** Path in the mount. */
  at: (name: string) => string;
  agent: () => Agent;
}

/** A base with `big`, of b's, and `small`; what writes to the base fails the test. */
function withStage(body: (stage: Stage) => Promise<void>, options: readonly string[] = []): Promise<void> {
  return withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/big`, Buffer.alloc(SIZE, 'b'));
    fs.writeFileSync(`${layers.base}/small`, 'small\n');
    const agents: Agent[] = [];
    const agent = () => {
      agents.push(startAgent());
      return agents.at(-1) as Agent;
    };
    const at = (name: string) => `${layers.mnt}/${name}`;
    await withBaseUntouched(layers.base, () =>
      withMount({ ...layers, options }, async (mount) => {
        try {
          await body({ ...layers, mount, at, agent });
        } finally {
          for (const one of agents) await one.stop();
        }
      }),
    );
  });
}

/** Requests of these opcodes that the daemon has answered so far. */
async function answered(mount: Mount, ...opcodes: string[]): Promise<number> {
  const verbs = connectVerbs(runtimePaths(mount.dir).socket, { timeoutMs: 60_000 });
  const rows = (await verbs.metrics()).opcodes.filter((row) => opcodes.includes(row.opcode));
  return rows.reduce((sum, row) => sum + row.count, 0);
}

type Stat = { ino: number; size: number; mode: number; nlink: number; mtimeMs: number };

async function text(agent: Agent, fd: number, length = 6): Promise<string> {
  const whole = await agent.call<Buffer>('readWhole', fd);
  return whole.subarray(0, length).toString();
}

mountTest('reading, writing and mapping reach the file beneath without a request', () =>
  withStage(async ({ mount, at, agent, overlay }) => {
    const guest = agent();
    const base = await guest.call<number>('openSync', at('big'), 'r');
    expect((await guest.call<Buffer>('readWhole', base)).length).toBe(SIZE);
    const own = await guest.call<number>('openSync', at('own'), 'wx+');
    await guest.call('writeSync', own, 'written');
    const map = await guest.call<number>('map', own, 7, 'shared, for writing');
    await guest.call('poke', map, 0, 'mapped');
    expect(await guest.call('syncMap', map)).toBe('done');
    expect(fs.readFileSync(`${overlay}/own`, 'latin1')).toBe('mappedn');
    const again = await guest.call<number>('openSync', at('own'), 'a');
    await guest.call('writeSync', again, '+');
    await guest.call('ftruncateSync', own, 4);
    await guest.call('writeSync', again, '+');
    expect(await text(guest, own, 9)).toBe('mapp+');
    expect((await guest.call<Stat>('fstatSync', base)).size).toBe(SIZE);
    expect(await answered(mount, 'READ', 'WRITE')).toBe(0);
  }),
);

mountTest('of a file that is open for writing each write shows at once, and nothing is asked for twice', () =>
  withStage(async ({ mount, at, agent }) => {
    const [writer, other] = [agent(), agent()];
    const fd = await writer.call<number>('openSync', at('own'), 'wx');
    let before = await other.call<Stat>('statSync', at('own'));
    for (let size = 1; size <= 20; size++) {
      await writer.call('writeSync', fd, 'x');
      const { size: shown, mtimeMs } = await other.call<Stat>('statSync', at('own'));
      expect(shown).toBe(size);
      expect(mtimeMs).toBeGreaterThanOrEqual(before.mtimeMs);
      before = await writer.call<Stat>('fstatSync', fd);
      expect([before.size, before.mtimeMs]).toEqual([size, mtimeMs]);
    }
    const asked = () => answered(mount, 'GETATTR', 'STATX', 'LOOKUP');
    const isKept = async () => {
      const first = await asked();
      await other.call('statSync', at('own'));
      await writer.call('fstatSync', fd);
      return (await asked()) === first;
    };
    // At first the kernel may be told of the directory.
    expect(await waitUntil(isKept)).toBe(true);
    await writer.call('writeSync', fd, 'yz');
    expect((await other.call<Stat>('statSync', at('own'))).size).toBe(22);
  }),
);

mountTest('a small file of the base comes with its first open: nobody asks for its bytes', () =>
  withLayers(async (layers) => {
    const sizes = [0, 1, 6, 4095, 4096, 4097, 64 * 1024];
    const content = (size: number) => Buffer.from(Array.from({ length: size }, (_, i) => 1 + (i % 251)));
    for (const size of sizes) fs.writeFileSync(`${layers.base}/${size}`, content(size));
    await withMount(layers, async (mount) => {
      const guest = startAgent();
      for (let i = 0; i < 3; i++) {
        for (const size of sizes) {
          const read = await guest.call<Buffer>('readFileSync', `${mount.dir}/${size}`);
          expect(read.equals(content(size)), `${size} bytes`).toBe(true);
        }
      }
      await guest.stop();
      expect(await answered(mount, 'OPEN')).toBeGreaterThanOrEqual(3 * sizes.length);
      expect(await answered(mount, 'READ')).toBe(0);
    });
  }),
);

for (const [how, change] of [
  ['is written to', (agent: Agent, file: string) => agent.call('openSync', file, 'r+')],
  ['is emptied by an open', (agent: Agent, file: string) => agent.call('openSync', file, 'w')],
  ['is cut by its name', (agent: Agent, file: string) => agent.call('truncateSync', file, 3)],
] as const) {
  mountTest(`who has a file of the base open and mapped keeps its bytes when it ${how}`, () =>
    withStage(async ({ at, agent }) => {
      const [reader, writer] = [agent(), agent()];
      const old = await reader.call<number>('openSync', at('big'), 'r');
      const map = await reader.call<number>('map', old, SIZE, 'shared');
      const { ino } = await reader.call<Stat>('fstatSync', old);
      const fd = await change(writer, at('big'));
      if (typeof fd === 'number') await writer.call('writeSync', fd, 'new', 0);
      const now = fs.readFileSync(at('big'), 'latin1');
      expect(now.slice(0, 3)).toBe(typeof fd === 'number' ? 'new' : 'bbb');
      expect(await text(reader, old)).toBe('bbbbbb');
      expect((await reader.call<Buffer>('peek', map, 0, 6)).toString()).toBe('bbbbbb');
      // It is the same object, with the size of what can be read there.
      expect(await reader.call<Stat>('fstatSync', old)).toMatchObject({ ino, size: SIZE });
      expect(fs.statSync(at('big'))).toMatchObject({ ino, size: now.length });
      const later = await reader.call<number>('openSync', at('big'), 'r');
      expect((await text(reader, later)).slice(0, 3)).toBe(now.slice(0, 3));
    }),
  );
}

mountTest('what is changed through a descriptor of before the copy-up changes the one object', () =>
  withStage(async ({ at, agent, overlay }) => {
    const guest = agent();
    const old = await guest.call<number>('openSync', at('big'), 'r');
    const { ino } = await guest.call<Stat>('fstatSync', old);
    // Before anybody writes, and after.
    for (const [mode, seconds, owner] of [
      [0o600, 1_000_000, 3],
      [0o640, 2_000_000, 4],
    ] as const) {
      await guest.call('fchmodSync', old, mode);
      await guest.call('fchownSync', old, owner, owner);
      await guest.call('futimesSync', old, seconds, seconds);
      for (const stat of [
        fs.statSync(at('big')),
        await guest.call<Stat>('fstatSync', old),
        fs.statSync(`${overlay}/big`),
      ]) {
        expect([stat.mode & MODE, stat.mtimeMs]).toEqual([mode, seconds * 1000]);
      }
      expect(fs.statSync(at('big'))).toMatchObject({ ino, uid: owner });
      expect(await text(guest, old)).toBe('bbbbbb');
      const writer = await guest.call<number>('openSync', at('big'), 'r+');
      await guest.call('writeSync', writer, 'new', 0);
      await guest.call('closeSync', writer);
    }
    fs.unlinkSync(at('big'));
    expect((await guest.call<Stat>('fstatSync', old)).nlink).toBe(0);
    expect(await text(guest, old)).toBe('bbbbbb');
  }),
);

mountTest('a file that changed in the base after it was copied up is read as the copy', () =>
  withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/big`, Buffer.alloc(SIZE, 'b'));
    await withMount({ ...layers, options: ['--settle', '3600', '--metacopy', 'off'] }, async (mount) => {
      const guest = startAgent();
      const old = await guest.call<number>('openSync', `${mount.dir}/big`, 'r');
      await guest.call('fchmodSync', old, 0o600);
      fs.writeFileSync(`${layers.base}/big`, Buffer.alloc(SIZE, 'c'));
      const now = await guest.call<number>('openSync', `${mount.dir}/big`, 'r');
      expect(await text(guest, now)).toBe('bbbbbb');
      await guest.stop();
    });
  }),
);

mountTest('set-id bits and capabilities go when somebody writes who may not keep them', () =>
  withStage(async ({ mount, at, agent }) => {
    const [owner, other] = [agent(), agent()];
    const file = await owner.call<number>('openSync', at('tool'), 'wx+');
    await owner.call('fchmodSync', file, 0o666);
    const mode = () => fs.statSync(at('tool')).mode & 0o7777;
    const before = await other.call<number>('openSync', at('tool'), 'r+');
    await owner.call('fchmodSync', file, 0o6777);
    // Opened when the file had these bits, and before.
    const after = await other.call<number>('openSync', at('tool'), 'r+');
    await owner.call('writeSync', file, 'root');
    expect(mode()).toBe(0o6777);
    await other.call('setIds', 1000, 1000);
    for (const fd of [before, after]) {
      await other.call('writeSync', fd, 'user', 0);
      expect(mode()).toBe(0o777);
      await owner.call('fchmodSync', file, 0o6777);
    }
    await mount.sh(
      'setcap cap_net_raw+ep tool; test -n "$(getcap tool)"; echo x >> tool; test -z "$(getcap tool)"',
    );
  }),
);

mountTest('who neither owns nor writes to it cannot take set-id bits off what somebody else writes to', () =>
  withStage(async ({ at, agent }) => {
    const [writer, other] = [agent(), agent()];
    await other.call('setIds', 1000, 1000);
    for (const name of ['big', 'made']) {
      const fd = await writer.call<number>('openSync', at(name), 'a');
      await writer.call('fchmodSync', fd, 0o6755);
      await expect(other.call('chownSync', at(name), -1, -1)).rejects.toThrow(/EPERM/);
      expect(fs.statSync(at(name)).mode & 0o7777).toBe(0o6755);
    }
  }),
);

mountTest('dd takes O_DIRECT off for the last piece, which is no whole block', () =>
  withStage(async ({ at, mount, dir }) => {
    fs.writeFileSync(`${dir}/input`, randomBytes(10_000));
    for (const name of ['new', 'big']) {
      await mount.sh(`dd if="$1" of=${name} bs=4096 oflag=direct status=none; cmp "$1" ${name}`, [
        `${dir}/input`,
      ]);
      expect(fs.statSync(at(name)).size).toBe(10_000);
    }
  }),
);

mountTest('locks are those of the object, across a copy-up under open files', () =>
  withStage(async ({ at, agent }) => {
    const [reader, writer, third] = [agent(), agent(), agent()];
    const old = await reader.call<number>('openSync', at('big'), 'r');
    expect(await reader.call('lock', old, 'posix', 'read', 0, 10)).toBe('done');
    expect(await reader.call('lock', old, 'ofd', 'read', 20, 10)).toBe('done');
    expect(await reader.call('flock', old, 'shared')).toBe('done');
    const fd = await writer.call<number>('openSync', at('big'), 'r+');
    await writer.call('writeSync', fd, 'new', 0);
    expect(await text(reader, old)).toBe('bbbbbb');
    for (const how of ['posix', 'ofd']) {
      expect(await writer.call('lock', fd, how, 'write', 5, 10)).toBe('EWOULDBLOCK');
      expect(await writer.call('lock', fd, how, 'write', 25, 10)).toBe('EWOULDBLOCK');
      expect(await writer.call('lock', fd, how, 'read', 0, 30)).toBe('done');
      expect(await writer.call('lock', fd, how, 'none', 0, 0)).toBe('done');
    }
    expect(await writer.call('flock', fd, 'shared')).toBe('done');
    expect(await writer.call('flock', fd, 'exclusive')).toBe('EWOULDBLOCK');
    const waits = [
      writer.call('flock', fd, 'exclusive', true),
      third
        .call<number>('openSync', at('big'), 'r+')
        .then((own) => third.call('lock', own, 'ofd, waiting', 'write', 0, 0)),
    ];
    await reader.call('closeSync', old);
    expect(await Promise.all(waits)).toEqual(['done', 'done']);
    await third.stop();
    expect(await writer.call('lock', fd, 'posix, waiting', 'write', 0, 0)).toBe('done');
  }),
);

mountTest('closing what was open for reading before the lock lets the lock stand', () =>
  withStage(async ({ at, agent }) => {
    const [one, two] = [agent(), agent()];
    const before = await one.call<number>('openSync', at('small'), 'r');
    const held = await one.call<number>('openSync', at('small'), 'r+');
    const other = await two.call<number>('openSync', at('small'), 'r+');
    expect(await one.call('lock', held, 'posix', 'write', 0, 10)).toBe('done');
    await one.call('closeSync', before);
    // As elsewhere it would not; but one that is opened while it stands ends it, and so does its own.
    expect(await two.call('lock', other, 'posix', 'write', 0, 10)).toBe('EWOULDBLOCK');
    await one.call('closeSync', await one.call<number>('openSync', at('small'), 'r'));
    expect(await two.call('lock', other, 'posix', 'write', 0, 10)).toBe('done');
    await two.call('closeSync', other);
    expect(await one.call('lock', held, 'posix', 'write', 0, 10)).toBe('done');
    await one.call('closeSync', held);
  }),
);

mountTest('two who wait for each other’s ranges do not wait for ever', () =>
  withStage(async ({ at, agent }) => {
    const [one, two] = [agent(), agent()];
    const a = await one.call<number>('openSync', at('small'), 'r+');
    const b = await two.call<number>('openSync', at('small'), 'r+');
    expect(await one.call('lock', a, 'posix', 'write', 0, 1)).toBe('done');
    expect(await two.call('lock', b, 'posix', 'write', 1, 1)).toBe('done');
    const first = one.call('lock', a, 'posix, waiting', 'write', 1, 1).then(async (result) => {
      await one.call('closeSync', a);
      return result;
    });
    const second = two.call('lock', b, 'posix, waiting', 'write', 0, 1).then(async (result) => {
      await two.call('closeSync', b);
      return result;
    });
    // Whichever came last is refused; the other has its range when that one closes.
    expect((await Promise.all([first, second])).sort()).toEqual(['EDEADLOCK', 'done']);
  }),
);

mountTest(
  'a map that outlives its descriptor still writes: its times are seen, and nothing is merged beneath it',
  () =>
    withLayers(async (layers) => {
      const lines = (word: string) => `${word}\n${'x\n'.repeat(20)}`;
      fs.writeFileSync(`${layers.base}/conf`, `${lines('one')}end\n`);
      await withMount(layers, async (mount) => {
        const guest = startAgent();
        const conf = `${mount.dir}/conf`;
        const fd = await guest.call<number>('openSync', conf, 'r+');
        const map = await guest.call<number>('map', fd, 3, 'shared, for writing');
        await guest.call('closeSync', fd);
        await guest.call('utimesSync', conf, 1_000_000, 1_000_000);
        await guest.call('poke', map, 0, 'two');
        expect(fs.statSync(conf).mtimeMs).toBeGreaterThan(1_000_000_000);
        await dpkgReplace(`${layers.base}/conf`, `${lines('one')}END\n`);
        expect(await mount.read('conf')).toBe(`${lines('two')}end\n`);
        await guest.call('poke', map, 0, 'TWO');
        expect(await guest.call('unmap', map)).toBe('done');
        const merged = () => fs.readFileSync(conf, 'latin1') === `${lines('TWO')}END\n`;
        expect(await waitUntil(merged)).toBe(true);
        await guest.stop();
      });
    }),
);

mountTest('for an NFS server files of the base go by way of the daemon, so that no handle is divided', () =>
  withStage(
    async ({ mount, at, agent }) => {
      const guest = agent();
      const old = await guest.call<number>('openSync', at('big'), 'r');
      await sh('printf new | dd of="$1" conv=notrunc status=none', [at('big')]);
      expect(await text(guest, old)).toBe('newbbb');
      expect(await answered(mount, 'READ')).toBeGreaterThan(0);
    },
    ['--export=nfs4'],
  ),
);

mountTest('what is closed and removed at once is still there for who knows it, and nothing stays open', () =>
  withStage(async ({ mount, at, agent, overlay }) => {
    const guest = agent();
    const names = Array.from({ length: 20 }, (_, i) => `own${i}`);
    const known: number[] = [];
    for (const name of names) {
      const fd = await guest.call<number>('openSync', at(name), 'wx');
      await guest.call('writeSync', fd, name);
      const path = await guest.call<number>('openSync', at(name), O_PATH);
      await guest.call('closeSync', fd);
      // Another one that is closed in between, or not.
      if (known.length % 2 === 0) fs.writeFileSync(at('own'), name);
      fs.rmSync(at(name));
      known.push(path);
    }
    fs.rmSync(at('own'));
    for (const [i, path] of known.entries()) {
      const name = names[i] as string;
      const { nlink, size } = await guest.call<Stat>('fstatSync', path);
      expect({ nlink, size }).toEqual({ nlink: 0, size: name.length });
      const again = await guest.call<number>('openSync', `/proc/self/fd/${path}`, 'r');
      expect(await text(guest, again, 9)).toBe(name);
      for (const fd of [again, path]) await guest.call('closeSync', fd);
    }
    fs.writeFileSync(at('own'), 'closed');
    const isOwn = (file: string) => file.startsWith(`${overlay}/own`);
    expect(await waitUntil(() => !descriptorsOf(mount.pid).some(isOwn))).toBe(true);
  }),
);

mountTest(
  'what the base has, and the guest removes, is still there for who knows it, and nothing stays open',
  () =>
    withLayers(async (layers) => {
      // Read when it goes, at once or by a job; and not read, for policy ignores it.
      const sizes = { small: 5, 'x.log': 6, big: 200 * 1024, empty: 0 };
      const names = Object.keys(sizes) as (keyof typeof sizes)[];
      const content = (name: keyof typeof sizes) => name.charAt(0).repeat(sizes[name]);
      for (const name of names) fs.writeFileSync(`${layers.base}/${name}`, content(name));
      await withBaseUntouched(layers.base, () =>
        withMount(layers, async (mount) => {
          const guest = startAgent();
          for (const name of names) {
            const path = await guest.call<number>('openSync', `${mount.dir}/${name}`, O_PATH);
            const { ino } = await guest.call<Stat>('fstatSync', path);
            fs.rmSync(`${mount.dir}/${name}`);
            fs.writeFileSync(`${mount.dir}/${name}`, 'another');
            const known = await guest.call<Stat>('fstatSync', path);
            expect([known.ino, known.nlink, known.size]).toEqual([ino, 0, sizes[name]]);
            const again = await guest.call<number>('openSync', `/proc/self/fd/${path}`, 'r');
            const bytes = await guest.call<Buffer>('readWhole', again);
            expect(bytes.toString(), name).toBe(content(name));
            for (const fd of [again, path]) await guest.call('closeSync', fd);
          }
          await guest.stop();
          const isOfBase = (file: string) => names.some((name) => file === `${layers.base}/${name}`);
          expect(await waitUntil(() => !descriptorsOf(mount.pid).some(isOfBase))).toBe(true);
        }),
      );
    }),
);
