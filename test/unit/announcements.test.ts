// What guests are told of the base by inotify: what waits, and whether anybody listens.
import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { isWatched } from '../../src/daemon/watchers.ts';
import { IN_CREATE, IN_MODIFY, IN_MOVED_TO } from '../../src/sys/constants.ts';
import { Announcements, monotonicMs } from '../../src/union/announcements.ts';
import { withTemp } from '../lib/temp.ts';

function listening(): { announcements: Announcements; calls: () => number } {
  const announcements = new Announcements();
  let calls = 0;
  announcements.stirs = () => (calls += 1);
  return { announcements, calls: () => calls };
}

describe('what waits to be told', () => {
  test('is one thing for a name, whatever happened to it, and announced once', () => {
    const { announcements, calls } = listening();
    announcements.note('etc/a', IN_CREATE, undefined);
    announcements.note('etc/a', IN_MODIFY, undefined);
    announcements.note('etc/b', IN_MODIFY, undefined);
    announcements.note('etc/c', IN_MOVED_TO, undefined);
    expect(calls()).toBe(1);
    expect(announcements.next()).toMatchObject(['etc/a', { was: false, mask: IN_CREATE | IN_MODIFY }]);
    expect(announcements.next()).toMatchObject(['etc/b', { was: true }]);
    expect(announcements.next()).toMatchObject(['etc/c', { was: false }]);
    expect(announcements.next()).toBe(null);
    announcements.given(3);
    announcements.note('etc/a', IN_MODIFY, undefined);
    expect(calls()).toBe(1);
    announcements.given(0);
    announcements.note('etc/b', IN_MODIFY, undefined);
    expect(calls()).toBe(2);
  });

  test('is dropped where nobody listened, but for what came after that was looked at', () => {
    const { announcements, calls } = listening();
    announcements.note('etc/a', IN_MODIFY, undefined);
    const looked = monotonicMs() + 0.001;
    while (monotonicMs() <= looked);
    announcements.note('etc/b', IN_MODIFY, undefined);
    announcements.drop(looked);
    expect(calls()).toBe(2);
    expect(announcements.next()?.[0]).toBe('etc/b');
    expect(announcements.next()).toBe(null);
  });

  test('is bounded', () => {
    const { announcements } = listening();
    for (let i = 0; i < 20_000; i++) announcements.note(`f${i}`, IN_MODIFY, undefined);
    let count = 0;
    while (announcements.next() !== null) count += 1;
    expect(count).toBe(10_000);
  });
});

describe('whether anybody listens', () => {
  const info: Record<string, [target: string, info: string]> = {
    'a watch in the mount': [
      'anon_inode:inotify',
      'pos:\t0\ninotify wd:1 ino:1 sdev:2b mask:fff ignored_mask:0\n',
    ],
    'a watch elsewhere': [
      'anon_inode:inotify',
      'pos:\t0\ninotify wd:1 ino:2b sdev:2b0 mask:fff ignored_mask:0\n',
    ],
    'fanotify on some mount': [
      'anon_inode:[fanotify]',
      'pos:\t0\nfanotify flags:10\nfanotify mnt_id:1 mflags:0 mask:1\n',
    ],
    'fanotify on the mount’s file system': [
      'anon_inode:[fanotify]',
      'pos:\t0\nfanotify flags:e13 event-flags:8000\nfanotify sdev:2b mflags:0 mask:40000fce ignored_mask:0\n',
    ],
    'fanotify on something in it': [
      'anon_inode:[fanotify]',
      'pos:\t0\nfanotify flags:10\nfanotify ino:1f sdev:2b mflags:0 mask:2 ignored_mask:0 fhandle-bytes:8\n',
    ],
    'fanotify on another file system, such as the base': [
      'anon_inode:[fanotify]',
      'pos:\t0\nfanotify flags:e13 event-flags:8000\nfanotify sdev:fe00000 mflags:0 mask:40000fce ignored_mask:0\n',
    ],
    'fanotify without a mark': ['anon_inode:[fanotify]', 'pos:\t0\nfanotify flags:10 event-flags:0\n'],
    'another file': ['/etc/passwd', 'pos:\t0\ninotify wd:1 ino:1 sdev:2b mask:fff\n'],
  };

  test('is told by the descriptors of all processes', () =>
    withTemp('memory', async (dir) => {
      const found: Record<string, boolean> = {};
      for (const [what, [target, text]] of Object.entries(info)) {
        const proc = `${dir}/${what}`;
        for (const name of ['fd', 'fdinfo']) fs.mkdirSync(`${proc}/12/${name}`, { recursive: true });
        fs.mkdirSync(`${proc}/13`);
        fs.symlinkSync(target, `${proc}/12/fd/3`);
        fs.writeFileSync(`${proc}/12/fdinfo/3`, text);
        found[what] = isWatched(0x2b, proc);
      }
      expect(found).toEqual({
        'a watch in the mount': true,
        'a watch elsewhere': false,
        'fanotify on some mount': true,
        'fanotify on the mount’s file system': true,
        'fanotify on something in it': true,
        'fanotify on another file system, such as the base': false,
        'fanotify without a mark': false,
        'another file': false,
      });
    }));
});
