import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT, exitCodeOf } from '../../src/control/exit-codes.ts';
import { mountOf, parseMountInfo, superOption } from '../../src/control/mountinfo.ts';
import {
  ensureRuntimeDir,
  isAlive,
  newRegistration,
  readRegistrations,
  removeRegistration,
  runtimePaths,
  writeRegistration,
} from '../../src/control/registry.ts';
import { E } from '../../src/lib/errno.ts';

let dir: string;
const before = process.env.KASANE_RUNTIME_DIR;

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-run-'));
  process.env.KASANE_RUNTIME_DIR = `${dir}/kasane`;
});

afterEach(() => {
  if (before === undefined) delete process.env.KASANE_RUNTIME_DIR;
  else process.env.KASANE_RUNTIME_DIR = before;
  fs.rmSync(dir, { recursive: true });
});

const mine = () =>
  newRegistration({ mountPoint: '/mnt/caf\xe9', bases: ['/b'], overlay: '/o', state: '/o/.kasane' });

describe('registrations', () => {
  test('tell whom a living daemon serves, for its owner alone', () => {
    const registration = mine();
    writeRegistration(registration);
    const [found, ...others] = readRegistrations();
    expect(others).toEqual([]);
    expect(found).toMatchObject({ registration, alive: true });
    expect(fs.statSync(`${dir}/kasane`).mode & 0o777).toBe(0o700);
    expect(fs.statSync(found?.paths.registration ?? '').mode & 0o777).toBe(0o600);
    removeRegistration(registration.mountPoint);
    removeRegistration(registration.mountPoint);
    expect(readRegistrations()).toEqual([]);
  });

  test('of a process that is gone, of one that took over its pid, or of before a reboot are dead', () => {
    const { pid } = spawnSync('true');
    expect(isAlive({ ...mine(), pid })).toBe(false);
    expect(isAlive({ ...mine(), startTicks: '1' })).toBe(false);
    expect(isAlive({ ...mine(), bootId: 'another' })).toBe(false);
    writeRegistration({ ...mine(), pid });
    expect(readRegistrations().map((found) => found.alive)).toEqual([false]);
  });

  test('that are none are passed over', () => {
    ensureRuntimeDir();
    for (const [name, text] of [
      ['a', '{'],
      ['b', '{}'],
      ['c', 'null'],
      ['d', ''],
    ] as const) {
      fs.writeFileSync(`${dir}/kasane/${name}.json`, text);
    }
    expect(readRegistrations()).toEqual([]);
  });

  test('two mount points have two sockets', () => {
    expect(runtimePaths('/mnt/a').socket).not.toBe(runtimePaths('/mnt/b').socket);
    expect(runtimePaths('/mnt/a').socket).toBe(runtimePaths('/mnt/a').socket);
  });

  test('a directory that is a link to somewhere else is refused', () => {
    fs.symlinkSync('/etc', `${dir}/kasane`);
    expect(() => ensureRuntimeDir()).toThrow(/belongs to somebody else/);
  });
});

describe('mountinfo', () => {
  const text = [
    '22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
    '40 22 0:40 / /mnt/we\\040b rw,nosuid master:1 propagate_from:2 - fuse.kasane kasane rw,user_id=0',
    '41 22 0:41 / /mnt/o rw - overlay overlay rw,lowerdir=/l,upperdir=/up\\134,per,workdir=/w',
    '',
  ].join('\n');
  const mounts = parseMountInfo(text);

  test('is read with its escapes and optional fields', () => {
    expect(mounts.map((mount) => [mount.mountPoint, mount.type, mount.source])).toEqual([
      ['/', 'ext4', '/dev/sda1'],
      ['/mnt/we b', 'fuse.kasane', 'kasane'],
      ['/mnt/o', 'overlay', 'overlay'],
    ]);
    expect(mounts.map((mount) => superOption(mount, 'upperdir'))).toEqual([null, null, '/up,per']);
  });

  test('tells which mount a path lies on', () => {
    const on = (where: string) => mountOf(mounts, where)?.mountPoint;
    expect([on('/mnt/we b/etc'), on('/mnt/we b'), on('/mnt/we bb'), on('/')]).toEqual([
      '/mnt/we b',
      '/mnt/we b',
      '/',
      '/',
    ]);
  });
});

describe('exit codes', () => {
  test('are those of interface.md', () => {
    expect(EXIT).toEqual({ ok: 0, conflicts: 1, usage: 2, unreachable: 3, refused: 4 });
  });

  test.each([
    ['EINVAL', 2],
    ['ENOENT', 2],
    ['ENOTDIR', 2],
    ['ENOTCONN', 3],
    ['ENODEV', 3],
    ['ETIMEDOUT', 3],
    ['EBUSY', 4],
    ['EROFS', 4],
    ['ESTALE', 4],
    ['ENOKEY', 4],
    ['EALREADY', 4],
    ['EUCLEAN', 4],
    ['EBADMSG', 4],
    ['EISDIR', 4],
    ['EOPNOTSUPP', 4],
    ['EIO', 4],
  ] as const)('%s ends with %d', (name, code) => {
    expect([exitCodeOf(E[name]), exitCodeOf(-E[name])]).toEqual([code, code]);
  });
});
