import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { absolute, isLocal } from '../../src/cli/paths.ts';
import { parseMountInfo } from '../../src/control/mountinfo.ts';
import { resolveOutside } from '../../src/control/resolve.ts';

let dir: string;

beforeEach(() => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-paths-')));
  fs.mkdirSync(`${dir}/mnt/web1/etc`, { recursive: true });
  fs.symlinkSync('/nowhere', `${dir}/mnt/web1/link`);
  fs.symlinkSync('mnt/web1', `${dir}/short`);
  fs.symlinkSync('b', `${dir}/a`);
  fs.symlinkSync('a', `${dir}/b`);
  fs.writeFileSync(`${dir}/file`, '');
});

afterEach(() => fs.rmSync(dir, { recursive: true }));

describe('a path is walked to the mount above it', () => {
  const walk = (name: string) => {
    const mount = `${dir}/mnt/web1`;
    const { path: found, stop, rest } = resolveOutside(`${dir}/${name}`, new Set([mount]));
    return { found: found.slice(dir.length), inside: stop === mount, rest };
  };

  test.each([
    ['mnt/web1', { found: '/mnt/web1', inside: true, rest: '' }],
    ['mnt/web1/etc/passwd', { found: '/mnt/web1/etc/passwd', inside: true, rest: 'etc/passwd' }],
    ['short/etc/passwd', { found: '/mnt/web1/etc/passwd', inside: true, rest: 'etc/passwd' }],
    ['mnt/web1/link/x', { found: '/mnt/web1/link/x', inside: true, rest: 'link/x' }],
    ['mnt/web1/etc/../var', { found: '/mnt/web1/var', inside: true, rest: 'var' }],
    ['mnt/web1/../../file', { found: '/file', inside: false, rest: '' }],
    ['mnt/web1/etc/../../web1/x', { found: '/mnt/web1/x', inside: true, rest: 'x' }],
    ['mnt/web11', { found: '/mnt/web11', inside: false, rest: '' }],
    ['missing/../file', { found: '/file', inside: false, rest: '' }],
  ])('%s', (name, expected) => {
    expect(walk(name)).toEqual(expected);
  });

  test('never looking inside: a link there stays a name', () => {
    expect(walk('short/link').rest).toBe('link');
  });

  test('a loop of links is ELOOP and no hang', () => {
    expect(() => walk('a/x')).toThrow('too many symbolic links');
  });

  test('above the root there is nothing', () => {
    expect(resolveOutside('/../../etc', new Set()).path).toBe('/etc');
    expect(resolveOutside('/', new Set(['/']))).toEqual({ path: '/', stop: '/', rest: '' });
  });
});

describe('what lies on local file systems alone is looked at without a child', () => {
  const told = (...lines: [at: string, type: string][]) =>
    parseMountInfo(lines.map(([at, type], i) => `${i} 1 0:${i} / ${at} rw - ${type} x rw`).join('\n'));

  test('also by a link, but not beneath, nor through, what waits for somebody', () => {
    const mounts = told(['/', 'ext4'], [dir, 'tmpfs'], [`${dir}/mnt/web1`, 'fuse.kasane']);
    const local = ['file', 'missing', 'mnt/web1', 'short/etc', 'mnt/web1/../../file'];
    expect(local.map((name) => isLocal(`${dir}/${name}`, mounts))).toEqual([true, true, false, false, true]);
  });

  test('an overlayfs is as slow as its layers; and of a chroot nobody tells what its root lies on', () => {
    expect(isLocal('/', told(['/', 'overlay']))).toBe(false);
    expect(isLocal(dir, told(['/proc', 'proc']))).toBe(false);
  });
});

test('a path is made absolute without deciding what .. means', () => {
  expect(absolute('a//b/./../c/', '/w')).toBe('/w/a/b/../c');
  expect(absolute('/', '/w')).toBe('/');
  expect(absolute('.', '/w')).toBe('/w');
});
