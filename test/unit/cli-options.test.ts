import { describe, expect, test } from 'vitest';
import { parseMountHelper } from '../../src/cli/mount.ts';
import { type OptionWord, parseMountOptions, parseOptionList } from '../../src/cli/mount-options.ts';
import { isMountHelperForm, separateExport } from '../../src/cli/program.ts';
import { E } from '../../src/lib/errno.ts';

const required: OptionWord[] = [
  { name: 'base', value: '/b' },
  { name: 'overlay', value: 'o' },
];
const parse = (list: string) =>
  parseMountOptions({
    words: [...required, ...parseOptionList(list)],
    mountPoint: 'm',
    source: null,
    cwd: '/cwd',
  });

test('the word after --export is not its value, for it is the mount point', () => {
  expect(separateExport(['mount', '--export', 'm', '--export=nfs4', '--', '--export'])).toEqual([
    'mount',
    '--export=on',
    'm',
    '--export=nfs4',
    '--',
    '--export',
  ]);
});

describe('mount options', () => {
  test('have the defaults of interface.md', () => {
    expect(parse('')).toEqual({
      bases: ['/b'],
      overlay: '/cwd/o',
      mountPoint: '/cwd/m',
      state: null,
      coherence: { mode: 'auto' },
      watch: { by: 'auto', at: null },
      settleMs: 2000,
      export: 'off',
      volatile: false,
      metacopy: true,
      redirectDir: true,
      whiteouts: 'overlayfs',
      copyUpLimit: null,
      transport: 'direct',
      cpuLatency: 'auto',
      policy: null,
      log: null,
      foreground: false,
      debug: false,
      readOnly: false,
      suid: false,
      dev: false,
      exec: true,
      atime: true,
      allowOther: null,
      fsname: 'kasane',
    });
  });

  test.each([
    ['coherence=notify', { coherence: { mode: 'notify' } }],
    ['coherence=ttl=2.5', { coherence: { mode: 'ttl', seconds: 2.5 } }],
    ['watch=fanotify', { watch: { by: 'fanotify' } }],
    ['watch=auto', { watch: { by: 'auto', at: null } }],
    ['watch=auto=500', { watch: { by: 'auto', at: 500 } }],
    ['settle=0.5', { settleMs: 500 }],
    ['settle=0', { settleMs: 0 }],
    ['export', { export: 'on' }],
    ['export=nfs4', { export: 'nfs4' }],
    ['state=/s', { state: '/s' }],
    ['volatile', { volatile: true }],
    ['metacopy=off,redirect_dir=off', { metacopy: false, redirectDir: false }],
    ['copy-up-limit=2G', { copyUpLimit: 2 * 1024 ** 3 }],
    ['cpu-latency=off', { cpuLatency: 'off' }],
    ['copy_up_limit=17', { copyUpLimit: 17 }],
    ['log=l/x,debug,foreground', { log: '/cwd/l/x', debug: true, foreground: true }],
    ['suid,dev,ro,noexec,noatime', { suid: true, dev: true, readOnly: true, exec: false, atime: false }],
    ['suid,nosuid', { suid: false }],
    ['whiteouts=oci', { whiteouts: 'oci' }],
    ['fsname=a b,allow_other', { fsname: 'a b', allowOther: true }],
    ['log=/a\\,b\\\\c', { log: '/a,b\\c' }],
    ['defaults,_netdev,nofail,x-systemd.automount,relatime', {}],
  ])('-o %s', (list, expected) => {
    expect(parse(list)).toMatchObject(expected);
  });

  test.each([
    ['frob', '-o frob: unknown option: see kasane mount --help'],
    ['constructor', '-o constructor: unknown option: see kasane mount --help'],
    ['coherence=often', 'coherence=often: notify, check or ttl=SECONDS'],
    ['watch=closely', 'watch=closely: inotify, fanotify, auto or auto=WATCHES'],
    ['watch=auto=0', 'watch=auto=0: inotify, fanotify, auto or auto=WATCHES'],
    ['settle=-1', 'settle=-1: a number of seconds'],
    ['whiteouts=aufs', 'whiteouts=aufs: overlayfs or oci'],
    ['settle=soon', 'settle=soon: a number of seconds'],
    ['metacopy=maybe', 'metacopy=maybe: on or off'],
    ['ro=1', 'ro: takes no value'],
    ['state', 'state: needs a value'],
    ['transport=carrier', 'transport=carrier: direct or fuse-native'],
    ['cpu_latency=high', 'cpu-latency=high: auto, low or off'],
    ['copy-up-limit=1X', 'copy-up-limit=1X: a number of bytes, or with K, M, G, T'],
    ['fr\x1bob', '-o fr\\x1bob: unknown option: see kasane mount --help'],
  ])('-o %j is refused', (list, message) => {
    expect(() => parse(list)).toThrow(message);
    try {
      parse(list);
    } catch (error) {
      expect(error).toMatchObject({ errno: E.EINVAL });
    }
  });

  test('bases are a list, by colons or by repetition', () => {
    const words = [
      { name: 'base', value: '/a:b\\:c' },
      { name: 'base', value: '/d' },
      { name: 'overlay', value: '/o' },
    ];
    const options = parseMountOptions({ words, mountPoint: '/m', source: null, cwd: '/w' });
    expect(options.bases).toEqual(['/a', '/w/b:c', '/d']);
  });

  test('base and overlay are needed', () => {
    const none = (words: OptionWord[]) => () =>
      parseMountOptions({ words, mountPoint: '/m', source: null, cwd: '/' });
    expect(none([])).toThrow('no base: name it with --base DIR');
    expect(none(required.slice(0, 1))).toThrow('no overlay: name it with --overlay DIR');
  });
});

describe('the form in which mount.fuse3 calls', () => {
  const verbs = ['mount', 'list', 'status'];

  test('is told from a mistyped verb', () => {
    expect(isMountHelperForm(['src', '/mnt', '-o', 'base=/b,overlay=/o,dev,suid'], verbs)).toBe(true);
    expect(isMountHelperForm(['mount', '/mnt', '-o', 'base=/b,overlay=/o'], verbs)).toBe(false);
    expect(isMountHelperForm(['statsu', '/mnt'], verbs)).toBe(false);
    expect(isMountHelperForm(['statsu'], verbs)).toBe(false);
    expect(isMountHelperForm(['--help'], verbs)).toBe(false);
  });

  test('takes all from -o, and the source as fsname', () => {
    const options = parseMountHelper(['web1', '/mnt', '-o', 'rw,base=/b,overlay=/o,settle=5,dev,suid'], '/');
    expect(options).toMatchObject({
      bases: ['/b'],
      overlay: '/o',
      mountPoint: '/mnt',
      settleMs: 5000,
      fsname: 'web1',
    });
  });

  test('does not take the dev,suid that mount.fuse3 always adds for the wish of a person', () => {
    const options = (more: string) =>
      parseMountHelper(['s', '/mnt', '-o', `rw,base=/b,overlay=/o${more},dev,suid`], '/');
    expect(options('')).toMatchObject({ dev: false, suid: false });
    expect(options(',suid=on,dev=on')).toMatchObject({ dev: true, suid: true });
  });

  test('refuses what it does not know', () => {
    expect(() => parseMountHelper(['s', '/mnt', '--frob', '-o', 'base=/b'], '/')).toThrow(
      '--frob: unknown option',
    );
    expect(() => parseMountHelper(['s', '/mnt', '-o', 'base=/b'], '/')).toThrow('no overlay');
  });
});
