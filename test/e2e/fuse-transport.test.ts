// The transport alone on a real mount, with a small file system in memory behind it (fuse-child.mjs).
import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { expect } from 'vitest';
import { E } from '../../src/lib/errno.ts';
import { tracked } from '../lib/cleanup.ts';
import { forgetAll } from '../lib/handles.ts';
import { abortConnection, mountAt, takeDown } from '../lib/mounts.ts';
import { mountTest, testNeeding } from '../lib/needs.ts';
import { asUser, run, runOk, sh, sleep, waitUntil } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';

const child = path.join(path.dirname(import.meta.dirname), 'lib', 'fuse-child.mjs');
/** Exits with the errno of unmount(); its own process, for one that serves must not do that. */
const unmountCommand = (mnt: string, lazy = false): string[] => {
  const device = path.join(path.dirname(path.dirname(import.meta.dirname)), 'dist', 'fuse', 'device.js');
  const script = `import(${JSON.stringify(device)}).then((m) => process.exit(-m.unmount(process.argv[1], ${lazy})))`;
  return [process.execPath, '-e', script, Buffer.from(mnt).toString('latin1')];
};
/** nobody: fusermount3 wants a user that has a name. */
const USER = 65534;

interface ChildOptions {
  /** Seconds that entries and attributes are valid. */
  valid?: number;
  trace?: boolean;
  wishes?: Record<string, unknown>;
  /** A directory whose `file` is what `hello` is, for the kernel to read by itself. */
  through?: string;
  mount?: Record<string, unknown>;
  /** Of the mount point. */
  name?: string;
  /** The child is started through this command; `dir` is one that it may use. */
  enter?: (dir: string) => string[];
}

interface Ended {
  ending: string;
  wakes: number;
  lookups: number;
  groups: number[][];
  metrics: { opcode: string; count: number; errors: number; seconds: number; histogram: number[] }[];
}

interface Toy {
  mnt: string;
  pid: number;
  negotiated: { minor: number; uses: Record<string, boolean> };
  /** What it has said on standard error. */
  log: () => string;
  /** After it has been unmounted. */
  ended: Promise<Ended>;
}

/** Serves while `body` runs; unmounts afterwards. */
function withToy(options: ChildOptions, body: (toy: Toy) => Promise<void>): Promise<void> {
  return withTemp('memory', async (dir) => {
    const mnt = `${dir}/${options.name ?? 'mnt'}`;
    await fs.mkdir(mnt);
    if (options.enter !== undefined) await fs.chown(mnt, USER, USER);
    const { enter, name: _, ...rest } = options;
    const mountPoint = Buffer.from(mnt).toString('latin1');
    const command = [process.execPath, child, JSON.stringify({ ...rest, mountPoint })];
    const [program = '', ...args] = [...(enter?.(dir) ?? []), ...command];
    const serving = spawn(program, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
    let errors = '';
    serving.stderr.on('data', (text: Buffer) => {
      errors += text.toString();
    });
    const closed = new Promise<number | null>((resolve) => serving.on('close', resolve));
    const stop = tracked(async () => {
      await takeDown(mnt);
      await Promise.race([closed, sleep(3000)]);
      serving.kill('SIGKILL');
    });
    const lines = readline.createInterface({ input: serving.stdout })[Symbol.asyncIterator]();
    const next = async <T>(): Promise<T> => {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the child said nothing: ${errors}`);
      return JSON.parse(value as string) as T;
    };
    try {
      const { negotiated } = await next<Pick<Toy, 'negotiated'>>();
      const ended = next<Ended>();
      await body({ mnt, pid: serving.pid as number, negotiated, log: () => errors, ended });
      if (mountAt(mnt) !== null) await takeDown(mnt);
      await ended;
      expect(await closed).toBe(0);
    } finally {
      await stop();
    }
  });
}

mountTest('files, directories, links, names, times, modes and attributes go through the transport', () =>
  withToy({}, async ({ mnt, ended }) => {
    const script = `
      cd "$1"
      test "$(cat hello)" = 'hello world'
      mkdir dir; echo one > dir/f; echo two >> dir/f; mv dir/f dir/g; ln -s ../hello dir/link
      test "$(cat dir/g dir/link)" = $'one\\ntwo\\nhello world'
      test "$(readlink dir/link)" = ../hello
      touch -d '1960-01-01 00:00:00.123456789 UTC' dir/g
      test "$(stat -c '%y %s' dir/g)" = '1960-01-01 00:00:00.123456789 +0000 8'
      (umask 027; touch dir/masked); test "$(stat -c %a dir/masked)" = 640
      chown 7:8 dir/g; chmod 4711 dir/g; test "$(stat -c '%a %u %g' dir/g)" = '4711 7 8'
      touch $'dir/\\xff\\xfe'; test "$(ls dir | grep -a -c $'\\xff\\xfe')" = 1
      test ! -e missing
      : > dir/g; test ! -s dir/g
      rm dir/*; rmdir dir; test "$(ls)" = $'hello\\nnever\\nslow'
      test "$(stat -f -c '%b %f %a %S %l' .)" = '1000 500 400 4096 255'
    `;
    await sh(script, [mnt]);
    await runOk('umount', [mnt]);
    const { ending, lookups, metrics } = await ended;
    expect(ending).toBe('unmounted');
    expect(mountAt(mnt)).toBe(null);
    const counts = new Map(metrics.map((row) => [row.opcode, row]));
    for (const opcode of [
      'LOOKUP',
      'CREATE',
      'WRITE',
      'READ',
      'RENAME2',
      'SYMLINK',
      'READLINK',
      'SETATTR',
      'STATFS',
    ]) {
      expect(counts.get(opcode)?.count, opcode).toBeGreaterThan(0);
    }
    expect(counts.get('GETATTR')?.seconds).toBeGreaterThan(0);
    expect(lookups).toBeGreaterThanOrEqual(0);
  }),
);

mountTest('large writes, reads and attributes come through whole, in requests of up to a mebibyte', () =>
  withToy({ trace: true }, async ({ mnt, log }) => {
    const script = `
      head -c 5000001 /dev/urandom > "$2/data"
      dd if="$2/data" of="$1/data" bs=4M status=none
      dd if="$1/data" bs=2M iflag=direct status=none | cmp - "$2/data"
    `;
    await sh(script, [mnt, path.dirname(mnt)]);
    expect(log()).toMatch(/WRITE node=\d+ .* size=1048576 /);
    expect(log()).toMatch(/READ 1048576 bytes/);
    expect(log()).toMatch(/LOOKUP node=1 uid=0 gid=0 pid=\d+ "data"/);
  }),
);

mountTest(
  'an extended attribute of 64 KiB keeps every byte',
  () =>
    withToy({}, async ({ mnt }) => {
      // A command line takes no more than 128 KiB, and setfattr has no other way in.
      const value = Buffer.alloc(65_536 - 1, 'x\u0001').toString('base64');
      await runOk('setfattr', ['-n', 'user.big', '-v', `0s${value}`, `${mnt}/hello`]);
      const got = await runOk('getfattr', ['--only-values', '-n', 'user.big', `${mnt}/hello`]);
      expect(got).toBe(Buffer.from(value, 'base64').toString());
      expect((await run('getfattr', ['-n', 'user.none', `${mnt}/hello`])).stderr).toContain(
        'No such attribute',
      );
    }),
  { commands: ['setfattr', 'getfattr'] },
);

mountTest('a handler that throws gives its caller an error, and everybody else goes on', () =>
  withToy({}, async ({ mnt, log }) => {
    const failed = await run('cat', [`${mnt}/throw`]);
    expect(failed).toMatchObject({ code: 1, timedOut: false });
    expect(failed.stderr).toContain('Input/output error');
    expect(await runOk('cat', [`${mnt}/hello`])).toBe('hello world\n');
    expect(log()).toMatch(/LOOKUP of node 1: Error: asked for \| at /);
  }),
);

mountTest('a parked request is answered when another thread wakes the server', () =>
  withToy({}, async ({ mnt, ended }) => {
    expect(await runOk('cat', [`${mnt}/slow`])).toBe('slow world\n');
    await runOk('umount', [mnt]);
    const { metrics, wakes } = await ended;
    expect(wakes).toBeGreaterThan(0);
    expect(metrics.find((row) => row.opcode === 'READ')).toMatchObject({ count: 1, errors: 0 });
  }),
);

mountTest(
  'a file of the base that is handed to the kernel for writing, by mistake, cannot be written to',
  () =>
    withTemp('disk', async (dir) => {
      await fs.writeFile(`${dir}/file`, 'of the base\n');
      await withToy({ through: dir, wishes: { backingDepth: 1 } }, async ({ mnt, negotiated }) => {
        expect(negotiated.uses.PASSTHROUGH).toBe(true);
        expect(await runOk('cat', [`${mnt}/hello`])).toBe('of the base\n');
        for (const how of ['>>', '>', '1<>']) {
          const { code, stderr } = await run('bash', [
            '-c',
            `echo written ${how} "$1"`,
            'bash',
            `${mnt}/hello`,
          ]);
          expect(code).not.toBe(0);
          expect(stderr).toMatch(/Read-only file system|Input\/output error/);
        }
      });
      expect(await fs.readFile(`${dir}/file`, 'utf8')).toBe('of the base\n');
    }),
);

/** A program that waits for ever to open a file, once it does. */
async function startWaiting({ mnt, log }: Toy): Promise<{ end: () => void; ended: Promise<string> }> {
  const child = spawn('cat', [`${mnt}/never`], { cwd: '/', stdio: 'ignore' });
  const end = () => void child.kill('SIGTERM');
  tracked(async () => end());
  const ended = new Promise<string>((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? String(code)));
  });
  expect(await waitUntil(() => /OPEN node=/.test(log()))).toBe(true);
  return { end, ended };
}

mountTest('whoever waits for a parked request can be interrupted', () =>
  withToy({ trace: true }, async (toy) => {
    const { mnt, ended } = toy;
    const waiting = await startWaiting(toy);
    waiting.end();
    expect(await waiting.ended).toBe('SIGTERM');
    expect(await runOk('cat', [`${mnt}/hello`])).toBe('hello world\n');
    await runOk('umount', [mnt]);
    const { metrics } = await ended;
    expect(metrics.find((row) => row.opcode === 'INTERRUPT')).toMatchObject({ count: 1 });
    expect(metrics.find((row) => row.opcode === 'OPEN')).toMatchObject({ errors: 1 });
  }),
);

mountTest('an aborted connection ends the server, which says so', () =>
  withToy({ trace: true }, async (toy) => {
    const { mnt, ended } = toy;
    const waiting = await startWaiting(toy);
    abortConnection(mountAt(mnt)?.minor as number);
    expect((await ended).ending).toBe('aborted');
    expect(await waiting.ended).toBe('1');
  }),
);

mountTest('unmount() refuses what is in use unless it may be lazy, and what is not mounted', () =>
  withToy({ trace: true, name: 'm\u00e9' }, async (toy) => {
    const { mnt, ended } = toy;
    const unmount = async (lazy: boolean) => {
      const [program = '', ...args] = unmountCommand(mnt, lazy);
      return (await run(program, args)).code;
    };
    const user = await startWaiting(toy);
    expect(await unmount(false)).toBe(E.EBUSY);
    expect(await unmount(true)).toBe(0);
    expect(mountAt(mnt)).toBe(null);
    expect(await unmount(false)).toBe(E.EINVAL);
    user.end();
    expect(await user.ended).toBe('SIGTERM');
    expect((await ended).ending).toBe('unmounted');
  }),
);

mountTest('the mount table has type, name and options as they were asked for', async () => {
  const entryOf = async (mnt: string) => {
    const line = (await fs.readFile('/proc/self/mountinfo', 'utf8'))
      .split('\n')
      .find((one) => one.includes(mnt));
    return { line: line ?? '', entry: mountAt(mnt) };
  };
  await withToy({ mount: { fsname: 'a,b c' } }, async ({ mnt }) => {
    const { line, entry } = await entryOf(mnt);
    expect(entry).toMatchObject({ type: 'fuse.kasane', source: 'a,b c' });
    expect(line).toMatch(/ rw,nosuid,nodev,/);
    expect(line).toMatch(/user_id=0,group_id=0,default_permissions,allow_other/);
    expect(await runOk('cat', [`${mnt}/hello`])).toBe('hello world\n');
    expect(await asUser(USER, ['cat', `${mnt}/hello`])).toMatchObject({ stdout: 'hello world\n' });
  });
  const strict = { readOnly: true, exec: false, atime: false, allowOther: false };
  await withToy({ mount: strict, name: 'sp ace,é' }, async ({ mnt }) => {
    const entry = mountAt(mnt);
    expect(entry).toMatchObject({ type: 'fuse.kasane', source: 'toy' });
    const { line } = await entryOf(`${path.dirname(mnt)}/sp\\040ace,é`);
    expect(line).toMatch(/ ro,nosuid,nodev,noexec,noatime /);
    expect((await run('touch', [`${mnt}/f`])).stderr).toContain('Read-only file system');
    expect((await asUser(USER, ['ls', mnt])).stderr).toContain('Permission denied');
  });
});

mountTest('READDIRPLUS serves whole listings, attributes and all', () =>
  withToy({ valid: 60, wishes: { readdirplus: 'always' } }, async ({ mnt, negotiated, ended }) => {
    expect(negotiated.uses.DO_READDIRPLUS).toBe(true);
    await sh('cd "$1"; mkdir d; for i in {1..500}; do echo $i > d/file-$i; done', [mnt]);
    await forgetAll(mnt);
    expect(await sh('cd "$1/d"; ls -l | awk \'NR > 1 { n++; s += $5 } END { print n, s }\'', [mnt])).toBe(
      '500 1892\n',
    );
    await runOk('umount', [mnt]);
    const { metrics, lookups } = await ended;
    expect(metrics.find((row) => row.opcode === 'READDIRPLUS')?.count).toBeGreaterThan(1);
    expect(metrics.find((row) => row.opcode === 'READDIR')).toBe(undefined);
    expect(lookups).toBeGreaterThanOrEqual(0);
  }),
);

mountTest('a user who creates something in a directory of one of their groups has that group told', () =>
  withToy({}, async ({ mnt, ended }) => {
    await sh('mkdir "$1/shared"; chgrp 4242 "$1/shared"; chmod 2775 "$1/shared"', [mnt]);
    const made = await asUser(USER, ['mkdir', `${mnt}/shared/d`], { groups: [4241, 4242] });
    expect(made).toMatchObject({ code: 0 });
    await runOk('umount', [mnt]);
    expect((await ended).groups).toEqual([[], [4242]]);
  }),
);

/**
 * The device is open to all where udev has set it so, and only to root in many containers. This process gets a
 * mount namespace of its own, with a device that anybody can open; commands run in it by nsenter.
 */
function asOrdinaryUser(uid: number): (dir: string) => string[] {
  const script = `
    mkdir "$1/dev"; mount -t tmpfs none "$1/dev"; mknod -m 666 "$1/dev/fuse" c 10 229
    mount --bind "$1/dev/fuse" /dev/fuse
    shift; exec setpriv --reuid=${uid} --regid=${uid} --clear-groups "$@"
  `;
  return (dir) => ['unshare', '--mount', '--propagation', 'private', 'bash', '-euc', script, 'bash', dir];
}

const helperNeeds = { root: true, fuse: true, commands: ['fusermount3', 'unshare', 'nsenter', 'setpriv'] };

testNeeding(
  helperNeeds,
  'an ordinary user mounts through fusermount3, and umount ends the server',
  () =>
    withToy({ enter: asOrdinaryUser(USER), mount: { fsname: 'mine, all' } }, async ({ mnt, pid, ended }) => {
      const inside = (...command: string[]) => run('nsenter', ['--target', `${pid}`, '--mount', ...command]);
      const asOwner = (...command: string[]) =>
        inside('setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', ...command);
      expect((await inside('findmnt', '-n', '-o', 'FSTYPE,SOURCE', mnt)).stdout.trim()).toBe(
        'fuse.kasane mine, all',
      );
      expect(await asOwner('cat', `${mnt}/hello`)).toMatchObject({ code: 0, stdout: 'hello world\n' });
      expect((await inside('cat', `${mnt}/hello`)).stderr).toContain('Permission denied');
      expect(await asOwner('cat', `${mnt}/slow`)).toMatchObject({ code: 0, stdout: 'slow world\n' });
      expect(await asOwner(...unmountCommand(mnt))).toMatchObject({ code: 0, stderr: '' });
      expect((await ended).ending).toBe('unmounted');
    }),
  120_000,
);

testNeeding(
  helperNeeds,
  'what fusermount3 refuses is said',
  async () => {
    const toy = { enter: asOrdinaryUser(USER), mount: { mountPoint: '/' } };
    const body = () => Promise.reject(new Error('it was mounted'));
    await expect(withToy(toy, body)).rejects.toThrow(/mounting failed: fusermount3: .*\//);
  },
  120_000,
);
