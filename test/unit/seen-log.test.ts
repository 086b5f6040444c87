// What of who has read what is known after a restart of the daemon: versions/seen-log.ts.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SeenVersions } from '../../src/union/seen.ts';
import { SeenLog, type SeenRecord } from '../../src/versions/seen-log.ts';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-seen-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

const record = (name: string, fingerprint: string, tid = process.pid): SeenRecord => ({
  path: name,
  tid,
  time: Date.now(),
  fingerprint,
  content: '',
  mode: 0o100644,
  uid: 0,
  gid: 0,
  xattrs: '',
});

function written(...records: SeenRecord[]): void {
  const log = new SeenLog(dir);
  for (const one of records) log.append(one);
  log.flush();
  log.close();
}

const taken = (): SeenRecord[] => {
  const log = new SeenLog(dir);
  const found = log.take();
  log.close();
  return found;
};

test('who still lives is known again, in order, and also at the start after the next', () => {
  const all = [record('a\xff\n"', 'v1'), record('b', 'v1'), record('b', 'v2')];
  written(...all);
  expect(taken()).toEqual(all);
  expect(taken()).toEqual(all);
});

test('who has ended is forgotten, and so is another one with that number', () => {
  const ended = spawnSync('true').pid;
  const before = { ...record('a', 'v1'), time: Date.now() - 365 * 86_400_000 };
  written(record('a', 'v1', ended), record('a', 'v1', 0), before, record('a', 'v2'));
  expect(taken().map((one) => one.fingerprint)).toEqual(['v2']);
});

test('what was cut off or changed is not read, what follows is; nothing of another boot is', () => {
  const log = new SeenLog(dir);
  for (const name of ['a', 'b']) {
    log.append(record(name, 'v1'));
    log.flush();
  }
  log.close();
  const file = path.join(dir, 'seen');
  const bytes = fs.readFileSync(file);
  fs.writeFileSync(file, bytes.subarray(0, bytes.length - 5));
  written(record('c', 'v1'));
  expect(taken().map((one) => one.path)).toEqual(['a', 'c']);
  const text = fs.readFileSync(file, 'latin1').split('\n');
  fs.writeFileSync(file, [text[0], ...text.slice(2)].join('\n'));
  expect(taken()).toEqual([]);
});

test('no name comes with the end, when the overlay is unmounted, and nothing is lost by that', () => {
  const log = new SeenLog(dir);
  log.take();
  const names = fs.readdirSync(dir);
  log.append(record('a', 'v1'));
  log.close();
  expect(fs.readdirSync(dir)).toEqual(names);
  expect(taken().map((one) => one.path)).toEqual(['a']);
});

test('it stays small, and knows the latest', () => {
  const long = 'x'.repeat(3000);
  const log = new SeenLog(dir);
  for (let i = 0; i < 4000; i++) log.append(record(`${long}${i}`, 'v1'));
  log.close();
  const sizes = fs.readdirSync(dir).map((name) => fs.statSync(path.join(dir, name)).size);
  expect(Math.max(...sizes)).toBeLessThan(5 * 1024 * 1024);
  expect(sizes.length).toBeLessThanOrEqual(2);
  expect(taken().at(-1)?.path).toBe(`${long}3999`);
});

test('only what is news is noted: a version, a reader, or a reader that has come to another version', () => {
  const noted: string[] = [];
  const seen = new SeenVersions({ append: ({ tid, fingerprint }) => noted.push(`${tid} ${fingerprint}`) });
  const version = (fingerprint: string, lasting = true) => {
    const { path: _, tid: __, time: ___, ...rest } = record('f', fingerprint);
    return { ...rest, fd: -1, witness: null, lasting };
  };
  for (const [tid, fingerprint] of [
    [1, 'v1'],
    [1, 'v1'],
    [2, 'v1'],
    [1, 'v2'],
    [1, 'v2'],
  ] as const)
    seen.opened('f', tid, version(fingerprint));
  seen.opened('program', 1, version('p', false));
  expect(noted).toEqual(['1 v1', '2 v1', '1 v2']);
  const next = new SeenVersions();
  next.restore(record('f', 'v1', 1), -1, null);
  next.opened('f', 2, version('v2'));
  expect(next.of('f', 1)?.fingerprint).toBe('v1');
  // What it is about to overwrite is read once more, for a backup.
  next.opened('f', 1, version('v2'));
  expect(next.of('f', 1)?.fingerprint).toBe('v1');
});
