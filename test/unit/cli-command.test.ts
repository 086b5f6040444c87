import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseMountOptions } from '../../src/cli/mount-options.ts';
import { thisHost, validateMount } from '../../src/cli/validate.ts';
import { newRegistration, runtimePaths, writeRegistration } from '../../src/control/registry.ts';
import { type ControlServer, createControlServer } from '../../src/control/server.ts';
import { E } from '../../src/lib/errno.ts';
import { kasane as spawnKasane } from '../lib/kasane.ts';
import { addConflict, fileSide, type Stub, stubVerbs } from '../lib/stub-verbs.ts';

let dir: string;
const before = process.env.KASANE_RUNTIME_DIR;

beforeEach(() => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-cli-')));
  process.env.KASANE_RUNTIME_DIR = `${dir}/run`;
  for (const name of ['base', 'overlay', 'mnt']) fs.mkdirSync(`${dir}/${name}`);
});

afterEach(() => {
  if (before === undefined) delete process.env.KASANE_RUNTIME_DIR;
  else process.env.KASANE_RUNTIME_DIR = before;
  fs.rmSync(dir, { recursive: true });
});

const kasane = async (...args: string[]) => {
  const result = await spawnKasane(args, { env: { KASANE_RUNTIME_DIR: `${dir}/run` }, cwd: dir });
  return { code: result.code, out: result.stdout, err: result.stderr.replaceAll(dir, 'DIR') };
};

const verbs =
  'mount list status conflicts diff log show resolve undo reconcile prune export plan hold check merge-file umount';

describe('help', () => {
  test.each(verbs.split(' '))('%s has help with an example', async (verb) => {
    const { code, out } = await kasane(verb, '--help');
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`Usage: kasane ${verb}[^]*--json[^]*Example:\n  (kasane ${verb}|git)`));
  });

  test('of the whole names each verb', async () => {
    const { code, out } = await kasane('--help');
    expect(code).toBe(0);
    for (const verb of verbs.split(' ')) expect(out).toMatch(new RegExp(`^  ${verb} `, 'm'));
    expect(out).not.toMatch(/^ {2}daemon/m);
  });
});

describe('mistakes give one line and the exit code of interface.md', () => {
  const paths = ['--base', 'base', '--overlay', 'overlay', 'mnt'];
  test.each([
    [[], 2, 'kasane: no verb: see kasane --help'],
    [['frob'], 2, 'kasane: frob: unknown verb: see kasane --help'],
    [['--frob'], 2, "kasane: unknown option '--frob': see kasane --help"],
    [['status', '--frob'], 2, "kasane: status: unknown option '--frob': see kasane status --help"],
    [['mount', '-o', 'frob', ...paths], 2, 'kasane: mount: -o frob: unknown option: see kasane mount --help'],
    [['mount', '--overlay', 'overlay', 'mnt'], 2, 'kasane: mount: no base: name it with --base DIR'],
    [
      ['mount', '--base', 'none', '--overlay', 'overlay', 'mnt'],
      2,
      'kasane: mount: DIR/none: base does not exist: create it or name another',
    ],
    [
      ['mount', '--base', '/dev/null', '--overlay', 'overlay', 'mnt'],
      2,
      'kasane: mount: /dev/null: base is not a directory',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'none', 'mnt'],
      2,
      'kasane: mount: DIR/none: overlay does not exist: create it or name another',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'base/../base', 'mnt'],
      2,
      'kasane: mount: DIR/base: base and overlay are the same directory: choose two',
    ],
    [
      ['mount', '--base', '.', '--overlay', 'overlay', 'mnt'],
      2,
      'kasane: mount: DIR/overlay: overlay lies in the base: choose a directory outside',
    ],
    [
      ['mount', '--base', 'base', '--overlay', '.', 'mnt'],
      2,
      'kasane: mount: DIR/base: base lies in the overlay: choose a directory outside',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'overlay', 'none'],
      2,
      'kasane: mount: DIR/none: mount point does not exist: create it or name another',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'overlay', 'base'],
      2,
      'kasane: mount: DIR/base: mount point lies in the base: choose another',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'overlay', 'overlay'],
      2,
      'kasane: mount: DIR/overlay: mount point lies in the overlay: choose another',
    ],
    [
      ['mount', '--base', 'base', '--overlay', 'overlay', '.'],
      2,
      'kasane: mount: DIR/base: base lies beneath the mount point, which would hide it',
    ],
    [
      ['mount', '--transport', 'fuse-native', '--export', ...paths],
      2,
      'kasane: mount: --export: libfuse 2 has no handles that survive a restart: use --transport direct',
    ],
    [['mount', '--policy', 'p', ...paths], 4, 'kasane: mount: --policy: not there yet'],
    [
      ['web1', 'mnt', '-o', 'base=none,overlay=overlay,dev,suid'],
      2,
      'kasane: mount: DIR/none: base does not exist',
    ],
    [['status', 'base'], 3, 'kasane: status: base: on no mount: kasane list shows those there are'],
    [['diff', 'none'], 2, 'kasane: diff: none: no such file or directory'],
    [['umount', 'mnt'], 3, 'kasane: umount: mnt: not a Kasane mount: kasane list shows those there are'],
    [['show', 'base'], 2, 'kasane: show: name either --side or --version'],
    [['show', '--version', 'x', 'base'], 2, 'kasane: show: --version x: not a whole number'],
    [
      ['show', '--side', 'ours', 'base'],
      2,
      'kasane: show: --side ours: one of ancestor, overlay, base, merged',
    ],
    [['resolve', 'base'], 2, 'kasane: resolve: name either --take overlay|base|merged or --file FILE'],
    [['resolve', 'base', '--file', 'none'], 2, 'kasane: resolve: --file none: no such file'],
    [['merge-file', 'a', 'b', 'c'], 2, 'kasane: merge-file: a: no such file'],
    [['prune', 'base'], 4, 'kasane: prune: not there yet'],
    [['export', 'base'], 3, 'kasane: export: base: on no mount: kasane list shows those there are'],
    [['plan', '--base', 'base', 'overlay'], 4, 'kasane: plan: not there yet'],
    [['hold', 'base', '--', 'apt-get', 'upgrade', '-y'], 4, 'kasane: hold: not there yet'],
    [['check', '--repair', 'overlay'], 4, 'kasane: check: --repair: not there yet'],
  ] as [string[], number, string][])('%j', async (args, code, line) => {
    const result = await kasane(...args);
    expect(result.err.startsWith(line)).toBe(true);
    expect(result.err.trimEnd().split('\n')).toHaveLength(1);
    expect([result.code, result.out]).toEqual([code, '']);
  });

  test('merge-file refuses a binary, and leaves OVERLAY as it was', async () => {
    for (const name of ['a', 'o', 'b']) fs.writeFileSync(`${dir}/${name}`, `${name}\0\n`);
    const result = await kasane('merge-file', '-w', 'a', 'o', 'b');
    expect(result).toEqual({ code: 4, out: '', err: 'kasane: merge-file: a: binary: it holds a NUL byte\n' });
    expect(fs.readFileSync(`${dir}/o`, 'latin1')).toBe('o\0\n');
  });

  test('names that are no text are shown escaped', async () => {
    const result = await kasane('status', 'a\nb\x1b[31m');
    expect(result.err).toBe('kasane: status: a\\x0ab\\x1b[31m: no such file or directory\n');
  });

  test('without /dev/fuse, and without fusermount3 for a user, mount says what to do', async () => {
    const words = [
      { name: 'base', value: 'base' },
      { name: 'overlay', value: 'overlay' },
    ];
    const options = parseMountOptions({ words, mountPoint: 'mnt', source: null, cwd: dir });
    const host = thisHost();
    const missing = validateMount(options, { ...host, device: `${dir}/fuse` });
    await expect(missing).rejects.toMatchObject({
      errno: E.ENODEV,
      message: expect.stringMatching(/fuse is missing: load the fuse module/),
    });
    const user = validateMount(options, { device: '/dev/null', uid: 1000, path: dir });
    await expect(user).rejects.toMatchObject({
      errno: E.ENODEV,
      message: expect.stringMatching(/fusermount3 is not installed/),
    });
    const { options: valid } = await validateMount(options, { ...host, device: '/dev/null', uid: 0 });
    expect(valid).toMatchObject({
      bases: [`${dir}/base`],
      overlay: `${dir}/overlay`,
      mountPoint: `${dir}/mnt`,
    });
  });

  test('a state directory that the guest or another file system would hold is refused', async () => {
    const refused = async (state: string) => (await kasane('mount', '--state', state, ...paths)).err;
    expect(await refused('overlay/x')).toMatch(/state lies in the overlay/);
    expect(await refused('base/x')).toMatch(/state lies in the base/);
    expect(await refused('/proc')).toMatch(/must lie on the overlay's file system/);
  });
});

describe('a mount whose daemon answers', () => {
  let stub: Stub;
  let server: ControlServer;
  const mountPoint = () => `${dir}/mnt`;

  beforeEach(async () => {
    stub = stubVerbs();
    addConflict(stub);
    const layers = { bases: [`${dir}/base`], overlay: `${dir}/overlay`, state: `${dir}/overlay/.kasane` };
    writeRegistration(newRegistration({ mountPoint: mountPoint(), ...layers }));
    const socketPath = runtimePaths(mountPoint()).socket;
    server = await createControlServer({ verbs: stub.verbs, socketPath, warn: () => {} });
  });

  afterEach(() => server.close());

  /** The machine may have other mounts. */
  const ownOf = (json: string) =>
    (JSON.parse(json) as { mountPoint: string }[]).filter((one) => one.mountPoint === mountPoint());

  test('is listed, alive, with its counts', async () => {
    const { code, out } = await kasane('list', '--json');
    expect(code).toBe(0);
    const one = {
      mountPoint: mountPoint(),
      pid: process.pid,
      state: 'alive',
      epoch: 3,
      pending: 1,
      conflicts: 1,
    };
    expect(ownOf(out)).toMatchObject([one]);
    expect((await kasane('list')).out).toMatch(/^\/.*\/mnt +\/.*\/base +.* 3 +1 +1 +alive$/m);
  });

  test('is listed as silent when it does not answer, and as dead when its process is gone', async () => {
    await server.close();
    expect(ownOf((await kasane('list', '--json')).out)).toMatchObject([{ state: 'silent', epoch: null }]);
    const layers = { bases: ['/b'], overlay: '/o', state: '/o/.kasane' };
    writeRegistration({ ...newRegistration({ mountPoint: mountPoint(), ...layers }), startTicks: '1' });
    expect(ownOf((await kasane('list', '--json')).out)).toMatchObject([{ state: 'dead' }]);
    expect(await kasane('umount', 'mnt')).toMatchObject({ code: 0 });
    expect(ownOf((await kasane('list', '--json')).out)).toEqual([]);
  });

  test('conflicts ends with 1 where there are any, and with 0 beneath a path that has none', async () => {
    expect(await kasane('conflicts', 'overlay')).toEqual({ code: 1, out: '17\ttext\tetc/passwd\n', err: '' });
    expect(await kasane('conflicts', 'overlay/etc/ssh')).toEqual({ code: 0, out: '', err: '' });
    expect((await kasane('conflicts')).out).toBe(`${mountPoint()}\t17\ttext\tetc/passwd\n`);
    expect(JSON.parse((await kasane('conflicts', '--json', 'overlay')).out)).toMatchObject([
      { id: 17, rev: 3 },
    ]);
  });

  test('status is text, an object, or an array of all mounts', async () => {
    expect((await kasane('status', 'overlay')).out).toContain('\nepoch 3\n');
    expect(JSON.parse((await kasane('status', '--json', 'overlay')).out)).toMatchObject({
      epoch: 3,
      mounted: true,
    });
    expect(JSON.parse((await kasane('status', '--json')).out)).toHaveLength(1);
  });

  test('resolve, undo and reconcile ask for what was named', async () => {
    expect((await kasane('resolve', 'overlay', '17@3', '--take', 'base')).code).toBe(0);
    const asked = { target: { id: 17 }, rev: 3, take: 'base', recursive: false, repeatOk: false };
    expect(stub.calls.at(-1)).toEqual(['resolve', asked]);
    expect(await kasane('resolve', 'overlay', '17@2', '--take', 'base')).toMatchObject({
      code: 4,
      err: 'kasane: resolve: it is at revision 3\n',
    });
    expect((await kasane('resolve', 'overlay', '99', '--take', 'base')).code).toBe(4);
    fs.writeFileSync(`${dir}/mine`, 'mine\n');
    await kasane('resolve', '-r', '--rev', '3', 'overlay/etc', '--file', 'mine');
    const byPath = { target: { path: 'etc' }, rev: 3, take: { content: 'bWluZQo=' } };
    expect(stub.calls.at(-1)?.[1]).toMatchObject({ ...byPath, recursive: true });
    await kasane('undo', 'overlay', '5', '--force');
    expect(stub.calls.at(-1)).toEqual(['undo', { target: { seq: 5 }, force: true, repeatOk: false }]);
    await kasane('undo', 'overlay/etc/passwd');
    expect(stub.calls.at(-1)?.[1]).toMatchObject({ target: { path: 'etc/passwd' }, force: false });
    expect(await kasane('reconcile', '--dry-run', 'overlay/etc')).toMatchObject({
      code: 0,
      out: 'merged\tetc\nwould be: 1 looked at, 1 merged\n',
    });
    expect(stub.calls.at(-1)).toEqual(['reconcile', { path: 'etc', dryRun: true, acceptBase: false }]);
  });

  test('show gives the bytes of a side, and nothing else', async () => {
    const bytes = Buffer.alloc(200_000, 'side of a file\n');
    stub.contents.set(JSON.stringify({ target: { path: 'etc/passwd' }, what: { side: 'base' } }), bytes);
    const { code, out } = await kasane('show', '--side', 'base', 'overlay/etc/passwd');
    expect([code, out === bytes.toString()]).toEqual([0, true]);
    await kasane('show', '--version', '3', 'overlay/etc/passwd');
    expect(stub.calls.at(-1)?.[1]).toEqual({ target: { path: 'etc/passwd' }, what: { version: 3 } });
  });

  test('diff shows both differences in unified form, with labels and metadata', async () => {
    const side = (text: string, mode: number) => ({
      ...fileSide(text.length),
      mode,
      content: Buffer.from(text).toString('base64'),
      unkept: false,
    });
    stub.verbs.diff = async (_request, emit) => {
      const sides = {
        ancestor: side('a\nb\n', 0o644),
        overlay: side('a\nB\n', 0o600),
        base: side('a\nb\nc', 0o644),
      };
      await emit({ path: 'etc/x', ...sides, changing: false });
      return { looked: 1 };
    };
    const { code, out } = await kasane('diff', 'overlay/etc/x');
    expect(code).toBe(1);
    expect(out).toBe(
      [
        '# etc/x',
        '# mode ancestor 0644, overlay 0600',
        '--- ancestor/etc/x\n+++ overlay/etc/x\n@@ -1,2 +1,2 @@\n a\n-b\n+B',
        '# etc/x',
        '# mode overlay 0600, base 0644',
        '--- overlay/etc/x\n+++ base/etc/x\n@@ -1,2 +1,3 @@\n a\n-B\n+b\n+c\n\\ No newline at end of file\n',
      ].join('\n'),
    );
    stub.verbs.diff = async () => ({ looked: 1 });
    expect(await kasane('diff', 'overlay/etc/x')).toEqual({ code: 0, out: '', err: '' });
  });

  test('diff says of an ancestor that is not kept that it is not', async () => {
    const side = { ...fileSide(5), content: null, unkept: false };
    const lost = { ...side, size: 0, unkept: true };
    const tell = async (ancestor: typeof lost) => {
      const other = { ...side, hash: 'f'.repeat(32) };
      stub.verbs.diff = async (_request, emit) => {
        await emit({ path: 'etc/x', ancestor, overlay: other, base: other, changing: false });
        return { looked: 1 };
      };
      return kasane('diff', 'overlay/etc/x');
    };
    const told = await tell({ ...lost, hash: 'e'.repeat(32) });
    expect(told.out).toBe('# etc/x\n# content differs: the ancestor’s is not kept\n');
    const unknown = await tell(lost);
    expect(unknown.out).toBe('# etc/x\n# content may differ: the ancestor’s is not kept\n');
  });

  test('diff names what comes and goes each time it is looked at, and takes it for a difference', async () => {
    const unknown = { ...fileSide(0), type: 'unknown' as const, content: null, unkept: false };
    const sides = { ancestor: unknown, overlay: unknown, base: unknown };
    stub.verbs.diff = async (_request, emit) => {
      await emit({ path: 'etc/x', ...sides, changing: true });
      return { looked: 1 };
    };
    const told = await kasane('diff', 'overlay/etc/x');
    expect(told).toEqual({ code: 1, out: '# etc/x\n# it keeps changing\n', err: '' });
    const { code, out } = await kasane('diff', '--json', 'overlay/etc/x');
    expect([code, JSON.parse(out)]).toMatchObject([1, [{ changing: true, overlay: { type: 'unknown' } }]]);
  });

  test('log tells the story, and check ends with 4 at damage', async () => {
    stub.verbs.log = async (_request, emit) => {
      const entry = { seq: 9, epoch: 1, time: 0, kind: 'merged' as const, path: 'etc/x', detail: '2 hunks' };
      await emit({ ...entry, conflict: null, version: 4, undoable: true });
      return { done: true };
    };
    expect((await kasane('log', 'overlay/etc/x')).out).toBe(
      '9  1970-01-01T00:00:00.000Z  merged  etc/x  (2 hunks; version 4; can be undone)\n',
    );
    expect((await kasane('check', 'overlay')).code).toBe(0);
    stub.verbs.check = async (_request, emit) => {
      await emit({ severity: 'damage', code: 'index-record', path: 'etc/x', message: 'record is torn' });
      return { objects: 1, origins: 1, ancestors: 0, records: 1, damage: 1, warnings: 0 };
    };
    const checked = await kasane('check', 'overlay');
    expect(checked.code).toBe(4);
    expect(checked.out).toMatch(
      /^damage\tindex-record\tetc\/x\trecord is torn\n1 objects, .*: 1 damaged, 0 warnings\n$/,
    );
  });

  test('its overlay cannot be mounted a second time', async () => {
    fs.mkdirSync(`${dir}/other`);
    const result = await kasane('mount', '--base', 'base', '--overlay', 'overlay', 'other');
    expect(result).toMatchObject({
      code: 4,
      err: `kasane: mount: DIR/overlay: overlay is in use: mounted on DIR/mnt, pid ${process.pid}\n`,
    });
  });
});
