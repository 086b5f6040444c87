// Who has read which version of a path: union/seen.ts and union/witness.ts.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { newStat } from '../../src/lib/stat.ts';
import { close } from '../../src/sys/file.ts';
import { fstat } from '../../src/sys/stat.ts';
import { SeenVersions } from '../../src/union/seen.ts';
import { stillShows, witnessOf } from '../../src/union/witness.ts';

const version = (fingerprint: string, fd = -1) => ({
  fingerprint,
  content: '',
  fd,
  witness: null,
  mode: 0o100644,
  uid: 0,
  gid: 0,
  xattrs: '',
  lasting: true,
});

/** A process that has ended: nobody has its id. */
const GONE = 2 ** 22 + 1;
const me = process.pid;

const dirs: string[] = [];
function temporary(): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-seen-'));
  dirs.push(dir);
  return dir;
}
afterEach(() => {
  for (const dir of dirs.splice(0)) fs.rmSync(dir, { recursive: true });
});

describe('what the writer had seen', () => {
  test('is what it opened itself, whatever others have read since', () => {
    const seen = new SeenVersions();
    expect(seen.of('f', me)).toBe(null);
    seen.opened('f', me, version('v1'));
    seen.opened('f', GONE, version('v2'));
    expect(seen.of('f', me)?.fingerprint).toBe('v1');
    expect(seen.of('g', me)).toBe(null);
  });

  test('is the newest that anybody opened, where the writer opened none', () => {
    const seen = new SeenVersions();
    seen.opened('f', GONE, version('v1'));
    seen.opened('f', GONE + 1, version('v2'));
    seen.opened('f', GONE + 2, version('v1'));
    expect(seen.of('f', me)?.fingerprint).toBe('v2');
    expect(seen.by('f', me)).toBe(null);
  });

  test('is not what it opened last, once only: that may have been for a backup', () => {
    const seen = new SeenVersions();
    seen.opened('f', me, version('v1'));
    seen.opened('f', me, version('v2'));
    expect(seen.of('f', me)?.fingerprint).toBe('v1');
    // It has loaded the file anew, and reads it once more for the backup.
    seen.opened('f', me, version('v2'));
    expect(seen.of('f', me)?.fingerprint).toBe('v2');
  });

  test('is not forgotten because many others have come and gone', () => {
    const seen = new SeenVersions();
    seen.opened('f', me, version('v1'));
    for (let i = 0; i < 500; i++) seen.opened('f', GONE + i, version('v2'));
    expect(seen.of('f', me)?.fingerprint).toBe('v1');
  });

  test('another thread of the writer counts as the writer', () => {
    const threads = fs.readdirSync('/proc/self/task').map(Number);
    const other = threads.find((tid) => tid !== me) as number;
    const seen = new SeenVersions();
    seen.opened('f', other, version('v1'));
    seen.opened('f', GONE, version('v2'));
    expect(seen.of('f', me)?.fingerprint).toBe('v1');
  });

  test('and that of a process that has ended is no more than what anybody opened', async () => {
    const child = spawn('sleep', ['30']);
    const seen = new SeenVersions();
    seen.opened('f', child.pid as number, version('v1'));
    seen.opened('f', GONE, version('v2'));
    expect(seen.of('f', child.pid as number)?.fingerprint).toBe('v1');
    child.kill();
    await new Promise((resolve) => child.on('close', resolve));
    expect(seen.of('f', me)?.fingerprint).toBe('v2');
  });
});

describe('which version is older', () => {
  test('goes by the order in which they were first opened; what nobody opened came later', () => {
    const seen = new SeenVersions();
    seen.opened('f', me, version('v1'));
    seen.opened('f', me, version('v2'));
    const first = seen.of('f', me);
    if (first === null) throw new Error('v1 is not known');
    expect(seen.isOlder('f', first, 'v1')).toBe(false);
    expect(seen.isOlder('f', first, 'v2')).toBe(true);
    expect(seen.isOlder('f', first, 'merged')).toBe(true);
  });
});

describe('descriptors', () => {
  test('are let go of before the versions are forgotten', () => {
    const dir = temporary();
    const seen = new SeenVersions();
    const kept: number[] = [];
    for (let i = 0; i < 400; i++) {
      const fd = fs.openSync(path.join(dir, 'f'), 'a+');
      kept.push(fd);
      seen.opened(`f${i}`, me, version('v1', fd));
    }
    expect(seen.of('f0', me)).toMatchObject({ fingerprint: 'v1', fd: -1 });
    expect(seen.of('f399', me)).toMatchObject({ fd: kept[399] });
    seen.clear();
    expect(() => fs.fstatSync(kept[399] as number)).toThrow(/EBADF/);
  });

  test('a second one of a known version is closed at once', () => {
    const dir = temporary();
    const seen = new SeenVersions();
    const [one, two] = [0, 1].map(() => fs.openSync(path.join(dir, 'f'), 'a+')) as [number, number];
    seen.opened('f', me, version('v1', one));
    seen.opened('f', me, version('v1', two));
    expect(seen.of('f', me)?.fd).toBe(one);
    expect(() => fs.fstatSync(two)).toThrow(/EBADF/);
    seen.clear();
  });

  test('give the bytes of their version when it was replaced, and not when it was written to', () => {
    const file = path.join(temporary(), 'f');
    fs.writeFileSync(file, 'one');
    const open = () => {
      const fd = fs.openSync(file, 'r');
      const stat = newStat();
      fstat(fd, stat);
      return { fd, witness: witnessOf(stat) };
    };
    const first = open();
    expect(stillShows(first.fd, first.witness)).toBe(true);
    fs.writeFileSync(`${file}.new`, 'two');
    fs.renameSync(`${file}.new`, file);
    expect(stillShows(first.fd, first.witness)).toBe(true);
    const second = open();
    fs.writeFileSync(file, 'six');
    expect(stillShows(second.fd, second.witness)).toBe(false);
    // Not even if the times were put back.
    const third = open();
    const { mtime, atime } = fs.statSync(file);
    fs.writeFileSync(file, 'ten');
    fs.utimesSync(file, atime, mtime);
    expect(stillShows(third.fd, third.witness)).toBe(false);
    for (const { fd } of [first, second, third]) close(fd);
  });
});
