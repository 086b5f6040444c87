// What a path's name says: scope, ignore list, record formats, generated files, sets; and the checkers.
import { describe, expect, test } from 'vitest';
import { checkMerged } from '../../src/merge/checks.ts';
import {
  databaseSet,
  isGenerated,
  isIgnored,
  isLineMergeable,
  isRecordFormat,
  looksBinary,
  MAX_TEXT,
  mergeable,
  policyOf,
  scopeOf,
  setOf,
} from '../../src/merge/policy.ts';

const bytes = (text: string) => Buffer.from(text);

describe('scope', () => {
  test('of an OS tree only etc, usr/local, root, home and srv', () => {
    for (const path of [
      'etc',
      'etc/ssh/sshd_config',
      'usr/local/bin/x',
      'root/.profile',
      'home/a/b',
      'srv/www',
    ]) {
      expect(scopeOf(path, true), path).toBe('in');
    }
    for (const path of [
      '',
      'usr/bin/ls',
      'usr/localhost',
      'etcetera',
      'var/lib/dpkg/status',
      'lib',
      'opt/x',
    ]) {
      expect(scopeOf(path, true), path).toBe('out');
    }
  });

  test('of any other base everything', () => {
    for (const path of ['', 'usr/bin/ls', 'file', 'lib/a']) expect(scopeOf(path, false)).toBe('in');
  });
});

describe('the ignore list', () => {
  test.each([
    'etc/machine-id',
    'machine-id',
    'etc/hostname',
    'etc/resolv.conf',
    'etc/ssh/ssh_host_ed25519_key',
    'etc/ssh/ssh_host_rsa_key.pub',
    'etc/passwd-',
    'etc/gshadow-',
    'subuid-',
    'var/log/syslog',
    'log/syslog',
    'home/a/build.log',
    'srv/app/access.log.2.gz',
    'var/cache/man/index.db',
    'root/.cache/x/y',
    'usr/local/lib/python3/__pycache__/a.cpython-311.pyc',
    'var/spool/cron/crontabs/root',
    'var/lib/systemd/random-seed',
    'var/lib/dbus/machine-id',
    'etc/.updated',
    'var/lib/apt/periodic/update-success-stamp',
    'root/.bash_history',
  ])('%s is the guest’s own', (path) => {
    expect(isIgnored(path)).not.toBeNull();
    expect(isLineMergeable(path)).toBe(false);
    expect(mergeable(path, false, 10)).toBe(false);
  });

  test.each([
    'etc/passwd',
    'etc/hosts',
    'etc/hostname.d/x',
    'etc/ssh/sshd_config',
    'etc/logrotate.conf',
    'etc/rsyslog.d/a.conf',
    'home/a/catalog',
    'var/cache/debconf/config.dat',
    'home/a/project/.git/logs/HEAD',
    'home/a/project/cache/x',
    'run/script',
  ])('%s is not on it', (path) => {
    expect(isIgnored(path)).toBeNull();
  });
});

describe('record formats', () => {
  test('account files wherever an /etc may be, and the records of dpkg, apt and debconf', () => {
    for (const path of [
      'etc/passwd',
      'passwd',
      'chroot/etc/shadow',
      'etc/subuid',
      'var/lib/dpkg/status',
      'lib/dpkg/diversions',
      'var/lib/dpkg/triggers/File',
      'var/lib/apt/extended_states',
      'var/cache/debconf/config.dat',
    ]) {
      expect(isRecordFormat(path), path).toBe(true);
      expect(isLineMergeable(path), path).toBe(false);
    }
    for (const path of ['home/a/passwd', 'etc/pam.d/passwd', 'etc/status', 'etc/passwd.dpkg-dist']) {
      expect(isRecordFormat(path), path).toBe(false);
    }
  });
});

test('generated files come with the command that makes them anew', () => {
  expect(isGenerated('etc/ld.so.cache')).toBe('ldconfig');
  expect(isGenerated('etc/ssl/certs/ca-certificates.crt')).toBe('update-ca-certificates');
  expect(isGenerated('etc/ld.so.conf')).toBeNull();
  expect(policyOf('etc/aliases.db', true)).toMatchObject({
    generated: 'newaliases',
    set: null,
    lines: false,
  });
});

describe('sets', () => {
  test('the account files are one, in whatever directory', () => {
    const members = ['passwd', 'shadow', 'group', 'gshadow', 'subuid', 'subgid'];
    for (const name of members) {
      expect(setOf(`etc/${name}`)).toEqual({
        id: 'etc/passwd',
        kind: 'accounts',
        members: members.map((member) => `etc/${member}`),
      });
      expect(setOf(name)).toEqual({ id: 'passwd', kind: 'accounts', members });
    }
    expect(setOf('etc/passwd-')).toBeNull();
    expect(setOf('home/passwd')).toBeNull();
  });

  test('a database is one with its -wal, -journal and -shm, whatever its ending', () => {
    const set = databaseSet('srv/app.db');
    for (const path of set.members ?? []) expect(setOf(path)).toEqual(set);
    expect(set.members).toEqual(['srv/app.db', 'srv/app.db-wal', 'srv/app.db-journal', 'srv/app.db-shm']);
    expect(setOf('home/a/Cookies-journal')).toEqual(databaseSet('home/a/Cookies'));
    expect(setOf('home/a/Cookies'), 'only the caller sees what lies beside it').toBeNull();
    expect(isLineMergeable('srv/app.db-wal')).toBe(false);
    expect(isLineMergeable('home/a/travel-journal'), 'a diary').toBe(true);
  });

  test('a repository is one, and only what people write in it is merged by lines', () => {
    const set = { id: 'home/a/p/.git', kind: 'git', members: null };
    for (const path of ['home/a/p/.git', 'home/a/p/.git/index', 'home/a/p/.git/x.db']) {
      expect(setOf(path)).toEqual(set);
    }
    expect(isLineMergeable('home/a/p/.git/config')).toBe(true);
    expect(isLineMergeable('home/a/p/.git/packed-refs')).toBe(false);
    expect(setOf('home/a/p/.gitignore')).toBeNull();
  });
});

test('ancestors are kept of text in scope up to 4 MiB, of record formats too', () => {
  expect(mergeable('etc/fstab', true, MAX_TEXT)).toBe(true);
  expect(mergeable('etc/fstab', true, MAX_TEXT + 1)).toBe(false);
  expect(mergeable('etc/passwd', true, 100)).toBe(true);
  expect(mergeable('usr/share/doc/x', true, 100)).toBe(false);
  expect(mergeable('usr/share/doc/x', false, 100)).toBe(true);
  expect(mergeable('etc/ld.so.cache', true, 100)).toBe(false);
});

test('binary is what holds a NUL byte, however late', () => {
  expect(looksBinary(bytes('x'.repeat(70_000)))).toBe(false);
  expect(looksBinary(bytes(`${'x'.repeat(70_000)}\0`))).toBe(true);
});

describe('checkers', () => {
  const good = bytes('{"a": 1}');
  const check = (path: string, merged: string, ...inputs: string[]) =>
    checkMerged(path, bytes(merged), inputs.length === 0 ? [good, good] : inputs.map(bytes));

  test('JSON has to parse, and must not gain a key twice', () => {
    expect(check('a.json', '{"a": [1, {"a": 2}], "b": {"a": "a\\":"}}')).toBeNull();
    expect(check('a.json', '{"a": 1,}')).toMatch(/JSON/);
    expect(check('a.json', '{"a": 1, "b": {"c" : 1, "c": 2}}')).toMatch(/"c"/);
    expect(check('a.json', '{"a\\\\": 1, "a\\\\" : 2}')).toMatch(/twice/);
  });

  test('where an input is not valid itself, a check has no say', () => {
    expect(check('tsconfig.json', '{ // why\n}', '{ // why\n}', '{}')).toBeNull();
    expect(check('x.json', '{"a":1,"a":2}', '{"a":1,"a":2}', '{}')).toBeNull();
  });

  test('XML has to be balanced', () => {
    const xml = (merged: string) => check('a.xml', merged, '<a/>', '<a></a>');
    const prolog = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "<c>">]><!-- <d> -->';
    expect(xml(`${prolog}<a x="1>2" y='"'><b/><![CDATA[<e>]]><ns:c\n></ns:c></a>`)).toBeNull();
    expect(xml('<a><b></a>')).toMatch(/closes nothing/);
    expect(xml('<a><b>')).toMatch(/not closed/);
    expect(xml('<a/><b/>')).toMatch(/one element/);
    expect(xml('<a x="1></a>')).toMatch(/no end/);
  });

  test('a hostile file does not hold a check up', () => {
    const started = performance.now();
    check('a.xml', '<a "'.repeat(300_000), '<a/>', '<a/>');
    check('a.json', `[${'"'.repeat(600_000)}`);
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  test('other types are not checked', () => {
    expect(check('a.conf', '{', 'x', 'y')).toBeNull();
    expect(check('a.yaml', '{', 'x', 'y')).toBeNull();
  });
});
