// What a user can get wrong, and what can go wrong beneath a mount: one clear line on standard error, the exit
// code that the documentation names, and nothing lost.
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { Level } from 'level';
import { describe, expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { caughtUp, kasane, type Layers, mainFile, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountAt, takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { isAlive, type RunResult, run, runOk, sh, sleep, waitUntil } from '../lib/run.ts';
import { hashTree, withBaseUntouched } from '../lib/tree.ts';

/** It ended with that code and said one line, which fits; nothing on standard output. */
function expectRefusal(result: RunResult, code: number, line: RegExp, what = ''): void {
  expect({ code: result.code, out: result.stdout, err: result.stderr }, what).toEqual({
    code,
    out: '',
    err: expect.stringMatching(/^kasane: [^\n]+\n$/),
  });
  expect(result.stderr, what).toMatch(line);
}

/** A base and an overlay with something in it, as a first mount left them. */
async function prepared(layers: Layers): Promise<void> {
  await fs.writeFile(`${layers.base}/a`, 'base\n');
  await fs.writeFile(`${layers.base}/b`, 'base\n');
  await fs.mkdir(`${layers.base}/sub`);
  await withMount(layers, (mount) => mount.sh('echo guest >> a; echo guest > new; mkdir made'));
}

const mountArgs = (layers: Layers, more: readonly string[] = []) => [
  'mount',
  '--base',
  layers.base,
  '--overlay',
  layers.overlay,
  ...more,
  layers.mnt,
];

/** The lock names who held it last; that may change. */
async function hashes(layers: Layers): Promise<string[]> {
  return [await hashTree(layers.base), await hashTree(layers.overlay, { ignore: ['.kasane/lock'] })];
}

/** Without a mount: state, sockets and registrations of other mounts do not matter. */
function refusals(layers: Layers): [string, string[], number, RegExp][] {
  const { base, overlay, mnt, dir } = layers;
  const mount = (b: string, o: string, m: string) => ['mount', '--base', b, '--overlay', o, m];
  return [
    ['base missing', mount(`${dir}/none`, overlay, mnt), 2, /none: base does not exist/],
    ['overlay missing', mount(base, `${dir}/none`, mnt), 2, /none: overlay does not exist/],
    ['mount point missing', mount(base, overlay, `${dir}/none`), 2, /none: mount point does not exist/],
    ['base no directory', mount(`${dir}/file`, overlay, mnt), 2, /file: base is not a directory/],
    ['overlay no directory', mount(base, `${dir}/file`, mnt), 2, /file: overlay is not a directory/],
    ['mount point no directory', mount(base, overlay, `${dir}/file`), 2, /file: mount point is not a dir/],
    ['the same directory', mount(base, base, mnt), 2, /base and overlay are the same directory/],
    ['the same by a symlink', mount(base, `${dir}/link`, mnt), 2, /base and overlay are the same directory/],
    ['overlay in the base', mount(base, `${base}/sub`, mnt), 2, /overlay lies in the base/],
    ['base in the overlay', mount(`${overlay}/made`, overlay, mnt), 2, /base lies in the overlay/],
    ['mount point in the base', mount(base, overlay, `${base}/sub`), 2, /mount point lies in the base/],
    ['mount point in the overlay', mount(base, overlay, `${overlay}/made`), 2, /lies in the overlay/],
    ['mount point above both', mount(base, overlay, dir), 2, /lies beneath the mount point/],
    ['no overlay', ['mount', '--base', base, mnt], 2, /no overlay: name it with --overlay/],
    ['no base', ['mount', '--overlay', overlay, mnt], 2, /no base: name it with --base/],
    ['an unknown option', [...mount(base, overlay, mnt), '--bogus'], 2, /unknown option '--bogus'/],
    ['an unknown -o', [...mount(base, overlay, mnt), '-o', 'bogus=1'], 2, /bogus: unknown option/],
    ['a wrong value', [...mount(base, overlay, mnt), '--settle', 'soon'], 2, /settle=soon: a number/],
    ['a log in no directory', [...mount(base, overlay, mnt), '--log', `${dir}/no/log`], 2, /log cannot be/],
    ['an unknown verb', ['frobnicate'], 2, /frobnicate: unknown verb/],
    ['no verb', [], 2, /no verb/],
    ['an unknown option of a verb', ['status', '--bogus'], 2, /unknown option '--bogus'/],
    ['a path on no mount', ['status', base], 3, /on no mount/],
    ['conflicts on no mount', ['conflicts', base], 3, /on no mount/],
    ['diff on no mount', ['diff', `${base}/a`], 3, /on no mount/],
    ['log on no mount', ['log', `${base}/a`], 3, /on no mount/],
    ['show on no mount', ['show', '--side', 'base', `${base}/a`], 3, /on no mount/],
    ['resolve on no mount', ['resolve', `${base}/a`, '--take', 'base'], 3, /on no mount/],
    ['undo on no mount', ['undo', `${base}/a`], 3, /on no mount/],
    ['reconcile on no mount', ['reconcile', base], 3, /on no mount/],
    ['umount of no mount', ['umount', mnt], 3, /not a Kasane mount/],
    ['a path that is not there', ['status', `${dir}/none`], 2, /no such file or directory/],
    [
      'merge-file of what is not there',
      ['merge-file', `${dir}/x`, `${dir}/y`, `${dir}/z`],
      2,
      /no such file/,
    ],
  ];
}

mountTest('what names the wrong paths, options or verbs is refused in one line, and nothing changes', () =>
  withLayers(async (layers) => {
    await prepared(layers);
    await fs.writeFile(`${layers.dir}/file`, '');
    await fs.symlink(layers.base, `${layers.dir}/link`);
    const before = await hashes(layers);
    const cases = refusals(layers);
    while (cases.length > 0) {
      const four = cases.splice(0, 4);
      const results = await Promise.all(four.map(([, args]) => kasane(args)));
      for (const [i, [what, , code, line]] of four.entries()) {
        expectRefusal(results[i] as RunResult, code, line, what);
      }
    }
    expect(mountAt(layers.mnt)).toBe(null);
    expect(await hashes(layers)).toEqual(before);
  }),
);

describe('an overlay that cannot be used', () => {
  mountTest('because another Kasane has it, which serves on', () =>
    withLayers(async (layers) => {
      await prepared(layers);
      await fs.mkdir(`${layers.dir}/other`);
      await withBaseUntouched(layers.base, () =>
        withMount(layers, async (mount) => {
          const other = { ...layers, mnt: `${layers.dir}/other` };
          expectRefusal(await kasane(mountArgs(other)), 4, /overlay is in use: mounted on .*mnt, pid \d+/);
          expectRefusal(await kasane(mountArgs(layers)), 4, /a Kasane serves here already/);
          // Where no registration tells, the overlay's lock does.
          const env = { KASANE_RUNTIME_DIR: `${layers.dir}/run` };
          expectRefusal(await kasane(mountArgs(other), { env }), 4, /overlay is in use \(pid \d+\)/);
          expect(await mount.read('a')).toBe('base\nguest\n');
        }),
      );
    }),
  );

  mountTest(
    'because it is upper or work directory of a kernel overlayfs',
    () =>
      withLayers(async (layers) => {
        await prepared(layers);
        const { base, overlay, dir } = layers;
        await sh('mkdir "$1/work" "$1/kernel"', [dir]);
        const options = `lowerdir=${base},upperdir=${overlay},workdir=${dir}/work`;
        await runOk('mount', ['-t', 'overlay', '-o', options, 'none', `${dir}/kernel`]);
        const work = { ...layers, overlay: `${dir}/work` };
        try {
          expectRefusal(await kasane(mountArgs(layers)), 4, /in use as the upperdir of a kernel overlayfs/);
          expectRefusal(await kasane(mountArgs(work)), 4, /in use as the workdir of a kernel overlayfs/);
        } finally {
          await takeDown(`${dir}/kernel`);
        }
        await withMount(layers, async (mount) => expect(await mount.read('a')).toBe('base\nguest\n'));
      }),
    { filesystems: ['overlay'] },
  );

  mountTest('because its file system has no extended attributes, or is read-only', () =>
    withLayers(async (layers) => {
      await fs.writeFile(`${layers.base}/a`, 'base\n');
      const { overlay } = layers;
      await runOk('mount', ['-t', 'ramfs', 'none', overlay]);
      expectRefusal(await kasane(mountArgs(layers)), 4, /refuses trusted\.\* extended attributes/);
      await takeDown(overlay);
      await runOk('mount', ['-t', 'tmpfs', '-o', 'ro', 'none', overlay]);
      expectRefusal(await kasane(mountArgs(layers)), 4, /lies on a read-only file system/);
      await takeDown(overlay);
      expect(await fs.readdir(overlay)).toEqual([]);
    }),
  );

  mountTest('because it lies in a mount of Kasane', () =>
    withLayers(async (layers) => {
      await fs.writeFile(`${layers.base}/a`, 'base\n');
      const { overlay, dir } = layers;
      await fs.mkdir(`${dir}/other`);
      await withMount(layers, async (mount) => {
        await mount.sh('mkdir inside');
        const nested = { ...layers, overlay: `${layers.mnt}/inside`, mnt: `${dir}/other` };
        expectRefusal(await kasane(mountArgs(nested)), 4, /overlay lies in a Kasane mount/);
      });
      expect(await fs.readdir(overlay)).toContain('inside');
    }),
  );

  mountTest('because a newer Kasane has written it', () =>
    withLayers(async (layers) => {
      await prepared(layers);
      await fs.writeFile(`${layers.overlay}/.kasane/format`, '{"version": 99}');
      const before = await hashes(layers);
      expectRefusal(await kasane(mountArgs(layers)), 4, /written by a newer Kasane \(format 99\)/);
      expectRefusal(await kasane(['check', layers.overlay]), 4, /newer Kasane \(format 99\)/);
      expect(await hashes(layers)).toEqual(before);
      expect(mountAt(layers.mnt)).toBe(null);
    }),
  );
});

describe('a mount point', () => {
  mountTest('held by a dead Kasane is detached, said, and mounted anew', () =>
    withLayers(async (layers) => {
      await prepared(layers);
      const first = await startMount({ ...layers, mountPoint: layers.mnt });
      await first.write('b', 'written\n');
      // All that is asked of the root the kernel knows from now on, and for a minute tells without the daemon.
      await runOk('stat', [layers.mnt]);
      process.kill(first.pid, 'SIGKILL');
      await first.ended;
      expect((await run('ls', [layers.mnt])).stderr).toMatch(/not connected|connection abort/i);
      try {
        expectRefusal(await kasane(['status', layers.mnt]), 3, /its daemon is dead: kasane umount/);
        const { code, stderr } = await kasane(mountArgs(layers));
        expect({ code, stderr }).toEqual({
          code: 0,
          stderr: expect.stringMatching(/^kasane: mount: \S+\/mnt: held by a dead Kasane: detached\n$/),
        });
        expect(await runOk('cat', [`${layers.mnt}/a`, `${layers.mnt}/b`])).toBe('base\nguest\nwritten\n');
        expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0, stderr: '' });
      } finally {
        await takeDown(layers.mnt);
        await first.kill();
      }
      expect(mountAt(layers.mnt)).toBe(null);
    }),
  );

  mountTest('of a dead Kasane is taken away by umount', () =>
    withLayers(async (layers) => {
      await prepared(layers);
      const mount = await startMount({ ...layers, mountPoint: layers.mnt });
      process.kill(mount.pid, 'SIGKILL');
      await mount.ended;
      const result = await kasane(['umount', layers.mnt]);
      expect(result).toMatchObject({ code: 0, stderr: '' });
      expect(result.stdout).toMatch(/its daemon was dead: detached/);
      expect(mountAt(layers.mnt)).toBe(null);
      expectRefusal(await kasane(['umount', layers.mnt]), 3, /not a Kasane mount/);
      await mount.kill();
    }),
  );

  mountTest('that somebody works in stays mounted, until nobody does', () =>
    withLayers(async (layers) => {
      await prepared(layers);
      await withMount(layers, async (mount) => {
        const user = startAgent();
        await user.call('openSync', `${layers.mnt}/new`, 'a');
        expectRefusal(await kasane(['umount', layers.mnt]), 4, /busy: somebody works in it/);
        expect(await mount.read('new')).toBe('guest\n');
        await user.stop();
        expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0, stderr: '' });
        expect(await mount.ended).toBe(0);
      });
    }),
  );
});

describe('a host', () => {
  /** A /dev of its own, in a mount namespace of its own, with /dev/fuse of that mode or without. */
  const inNamespace = (dir: string, device: 'none' | '600' | '666', command: readonly string[]) => {
    const script = `
      mkdir -p "$1/dev"; mount -t tmpfs none "$1/dev"
      cp -a /dev/null /dev/zero /dev/urandom /dev/random "$1/dev"
      if [ "$2" != none ]; then mknod -m "$2" "$1/dev/fuse" c 10 229; fi
      mount --bind "$1/dev" /dev
      shift 2; exec "$@"
    `;
    const args = ['--mount', '--propagation', 'private', 'bash', '-euc', script, 'bash', dir, device];
    return run('unshare', [...args, ...command]);
  };

  mountTest('without /dev/fuse is told so', () =>
    withLayers(async (layers) => {
      const command = [process.execPath, mainFile, ...mountArgs(layers)];
      const result = await inNamespace(layers.dir, 'none', command);
      expectRefusal(result, 3, /\/dev\/fuse is missing: load the fuse module/);
      expect(await fs.readdir(layers.overlay)).toEqual([]);
    }),
  );

  mountTest(
    'without fusermount3 does not let an ordinary user mount, and says why',
    () =>
      withLayers(async (layers) => {
        await sh('chown 65534:65534 "$1" "$2"', [layers.overlay, layers.mnt]);
        const asUser = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
        const poor = ['env', `PATH=${layers.dir}/none`, process.execPath, mainFile, ...mountArgs(layers)];
        const result = await inNamespace(layers.dir, '666', [...asUser, ...poor]);
        expectRefusal(result, 3, /not root, and fusermount3 is not installed/);
        const kept = await inNamespace(layers.dir, '600', [...asUser, ...poor]);
        expectRefusal(kept, 3, /cannot be opened \(EACCES\): its mode keeps you out: chmod 666/);
        expect(await fs.readdir(layers.overlay)).toEqual([]);
      }),
    { commands: ['setpriv', 'unshare'] },
  );
});

/** A conflict in the file `text` of a mount; its id. */
async function makeConflict(layers: Layers, name: string): Promise<number> {
  const lines = Array.from({ length: 9 }, (_, i) => `line ${i}`);
  const withFifth = (text: string) => `${lines.with(5, text).join('\n')}\n`;
  await dpkgReplace(`${layers.base}/${name}`, withFifth('of old'));
  await caughtUp(layers.mnt);
  await sh('cat "$1"; sed -i "s/of old/of the guest/" "$1"', [`${layers.mnt}/${name}`]);
  await dpkgReplace(`${layers.base}/${name}`, withFifth('of the base'));
  let id = 0;
  const there = await waitUntil(async () => {
    await runOk('cat', [`${layers.mnt}/${name}`]);
    const { stdout } = await kasane(['conflicts', '--json', layers.mnt]);
    const found = (JSON.parse(stdout) as { id: number; path: string }[]).find((one) => one.path === name);
    id = found?.id ?? 0;
    return found !== undefined;
  });
  expect(there).toBe(true);
  return id;
}

mountTest('a conflict that is unknown, closed or looked at too long ago, and a file that is missing', () =>
  withLayers(async (layers) => {
    await fs.writeFile(`${layers.base}/a`, 'base\n');
    await withMount(layers, async (mount) => {
      const id = await makeConflict(layers, 'text');
      const { mnt, dir } = layers;
      const resolve = (...args: string[]) => kasane(['resolve', ...args]);
      expectRefusal(await resolve(mnt, '4711', '--take', 'base'), 4, /conflict 4711: unknown/);
      expectRefusal(await resolve(mnt, `${id}@99`, '--take', 'base'), 4, /a side has moved since/);
      expectRefusal(await resolve(`${mnt}/text`, '--file', `${dir}/none`), 2, /none: no such file/);
      expectRefusal(await resolve(`${mnt}/text`, '--file', dir), 2, /is a directory|not a file/i);
      expectRefusal(await resolve(`${mnt}/text`, '--take', 'merged'), 4, /markers/);
      expectRefusal(await resolve(`${mnt}/text`, '--take', 'neither'), 2, /take/);
      expectRefusal(await resolve(`${mnt}/text`), 2, /--take|--file/);
      expectRefusal(await resolve(`${mnt}/a`, '--take', 'base'), 4, /no conflict|not in conflict/);
      expectRefusal(await resolve(mnt, 'seventeen', '--take', 'base'), 2, /seventeen/);
      expect(await mount.read('text')).toContain('of the guest');
      expect(await resolve(mnt, String(id), '--take', 'overlay')).toMatchObject({ code: 0, stderr: '' });
      expectRefusal(
        await resolve(mnt, String(id), '--take', 'base'),
        4,
        new RegExp(`conflict ${id}: .*resol`),
      );
      expectRefusal(await kasane(['undo', `${mnt}/none`]), 2, /no such file/);
      expectRefusal(await kasane(['undo', `${mnt}/a`]), 4, /nothing to undo/);
      expectRefusal(await kasane(['undo', mnt, '99999']), 4, /99999/);
      expect(await mount.read('text')).toContain('of the guest');
    });
  }),
);

describe('state that is lost or damaged', () => {
  /** What a guest and the user see of it all. */
  const look = async (layers: Layers) => ({
    text: await runOk('cat', [`${layers.mnt}/text`, `${layers.mnt}/mine`]),
    conflicts: (
      JSON.parse((await kasane(['conflicts', '--json', layers.mnt])).stdout) as { path: string }[]
    ).map((one) => one.path),
  });

  /** Two files that are copied up, one in conflict; then unmounted. */
  const withHistory = async (layers: Layers) => {
    await fs.writeFile(`${layers.base}/mine`, 'base\n');
    await withMount(layers, async (mount) => {
      await mount.sh('echo guest >> mine');
      await makeConflict(layers, 'text');
    });
  };

  const expected = { text: expect.stringContaining('of the guest'), conflicts: ['text'] };

  mountTest('an index that was removed is rebuilt, and said', () =>
    withLayers(async (layers) => {
      await withHistory(layers);
      await fs.rm(`${layers.overlay}/.kasane/index`, { recursive: true });
      const { code, stderr } = await kasane(mountArgs(layers, ['--settle', '0']));
      expect({ code, stderr }).toEqual({
        code: 0,
        stderr: expect.stringMatching(
          /^kasane: mount: the index was missing and has been rebuilt from 2 [^\n]*\n$/,
        ),
      });
      await waitUntil(async () => (await look(layers)).conflicts.length > 0);
      expect(await look(layers)).toEqual(expected);
      expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0 });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  );

  mountTest('a damaged record of the index is named by check, and the rest goes on', () =>
    withLayers(async (layers) => {
      await withHistory(layers);
      const index = new Level<Buffer, Buffer>(`${layers.overlay}/.kasane/index`, {
        keyEncoding: 'buffer',
        valueEncoding: 'buffer',
      });
      const key = Buffer.from('pmine');
      const record = await index.get(key);
      expect(record?.length).toBeGreaterThan(10);
      await index.put(key, Buffer.from(record as Buffer).fill(0x55, 5, 9));
      await index.close();
      const checked = await kasane(['check', layers.overlay]);
      expect(checked.code).toBe(4);
      expect(checked.stdout + checked.stderr).toMatch(/mine/);
      await withMount(layers, async (mount) => {
        expect(await look(layers)).toEqual(expected);
        await mount.sh('echo more >> mine; echo more > other');
        expect(await mount.read('mine')).toBe('base\nguest\nmore\n');
      });
    }),
  );

  mountTest('an index that cannot be read is put aside and rebuilt', () =>
    withLayers(async (layers) => {
      await withHistory(layers);
      const index = `${layers.overlay}/.kasane/index`;
      await fs.writeFile(`${index}/CURRENT`, 'garbage\n');
      const { code, stderr } = await kasane(mountArgs(layers, ['--settle', '0']));
      expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringMatching(/index/) });
      await waitUntil(async () => (await look(layers)).conflicts.length > 0);
      expect(await look(layers)).toEqual(expected);
      expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0 });
      const names = await fs.readdir(`${layers.overlay}/.kasane`);
      expect(names.filter((name) => name.startsWith('index.damaged-'))).toHaveLength(1);
    }),
  );

  mountTest('a journal that is torn, empty or full of garbage', () =>
    withLayers(async (layers) => {
      await withHistory(layers);
      const state = `${layers.overlay}/.kasane`;
      const contents = [Buffer.alloc(0), Buffer.from('KASJRNL1'), Buffer.alloc(5000, 'garbage')];
      for (const content of contents) {
        await fs.writeFile(`${state}/journal`, content);
        await withMount(layers, async () => expect(await look(layers)).toEqual(expected));
      }
      // Cut off in the midst of a frame, by a daemon that was killed while it wrote.
      const mount = await startMount({ ...layers, mountPoint: layers.mnt });
      await mount.sh('for i in {1..50}; do echo x > made$i; rm text; git -c x= --version > text; done');
      await mount.write('text', 'of the guest\n');
      await mount.kill();
      for (const name of await fs.readdir(state)) {
        if (!name.startsWith('journal')) continue;
        const { size } = await fs.stat(`${state}/${name}`);
        await fs.truncate(`${state}/${name}`, Math.max(0, size - 7));
      }
      await withMount(layers, async () => {
        expect((await look(layers)).text).toBe('of the guest\nbase\nguest\n');
        expect((await fs.readdir(layers.overlay)).length).toBeGreaterThan(50);
      });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
    }),
  );
});

mountTest('a base that vanishes gives errors for what is gone, and is back when it is back', () =>
  withLayers(async (layers) => {
    const { base, mnt, dir } = layers;
    await sh('mkdir -p "$1"/d/e; cd "$1"; echo a > a; echo b > d/b; echo c > d/e/c; cp -a "$1" "$2"', [
      base,
      `${dir}/safe`,
    ]);
    await withMount(layers, async (mount) => {
      await mount.sh('cat a d/b; echo guest > d/guest; echo guest >> a');
      await sh('rm -rf "$1"/*', [base]);
      await caughtUp(mnt);
      expect((await run('cat', [`${mnt}/d/b`])).stderr).toMatch(/No such file|Input\/output error|Stale/);
      expect(await mount.read('d/guest')).toBe('guest\n');
      expect(await mount.read('a')).toBe('a\nguest\n');
      await sh('cp -a "$2"/. "$1"', [base, `${dir}/safe`]);
      await caughtUp(mnt);
      expect(await mount.sh('cat d/b d/e/c d/guest a')).toBe('b\nc\nguest\na\nguest\n');
      // Taken away as a whole, another time, and put back.
      await fs.rename(base, `${dir}/away`);
      const there = await run('cat', [`${mnt}/d/b`]);
      expect(there.stdout === 'b\n' || /No such|Input\/output|Stale/.test(there.stderr)).toBe(true);
      expect(await mount.read('d/guest')).toBe('guest\n');
      await sleep(300);
      await fs.rename(`${dir}/away`, base);
      const back = () => run('cat', [`${mnt}/d/b`, `${mnt}/d/e/c`]);
      expect(await waitUntil(async () => (await back()).stdout === 'b\nc\n')).toBe(true);
      expect(await mount.read('a')).toBe('a\nguest\n');
      expect(isAlive(mount.pid)).toBe(true);
    });
    expect(path.basename(base)).toBe('base');
  }),
);
