// The identity log alone: what it knows after a restart, whatever its file went through.
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { IdentityLog } from '../../src/versions/identity-log.ts';

const FILE = 0o100000;
const DIR = 0o040000;
const mark = (n: number) => n.toString(16).padStart(16, '0');
const at = (parent: number, name: string) => ({ parent, name });
const place = (parent: number, name: string, n = 7) => ({ parent, name, mark: mark(n) });

let dir = '';
let log: IdentityLog;
const file = () => `${dir}/identity`;

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-identity-'));
  log = new IdentityLog(dir);
});

afterEach(() => {
  log.close();
  fs.rmSync(dir, { recursive: true });
});

/** As a new process finds it. */
function reopen(): void {
  log.close();
  log = new IdentityLog(dir);
}

test('places, types and marks are known after a restart, and names are bytes', () => {
  const odd = 'caf\xe9\n\x01\xff';
  log.link(2, DIR, place(1, 'd'));
  log.link(2 ** 52 - 1, FILE, place(2, odd, 9));
  log.link(5, FILE, place(2, 'x'.repeat(255)));
  reopen();
  expect(log.get(2 ** 52 - 1)).toEqual({ type: FILE, places: [place(2, odd, 9)] });
  expect(log.get(2)?.type).toBe(DIR);
  expect(log.at(at(2, 'x'.repeat(255)))).toEqual([5]);
  expect(log.markAt(5, at(2, 'x'.repeat(255)))).toBe(mark(7));
  expect(log.at(at(2, 'nothing'))).toEqual([]);
});

test('an id that has left all of its places is unknown', () => {
  log.link(3, FILE, place(1, 'a'));
  log.link(3, FILE, place(1, 'b'));
  log.unlink(3, at(1, 'a'));
  log.unlink(3, at(1, 'nowhere'));
  expect(log.get(3)?.places).toEqual([place(1, 'b')]);
  log.vacate(at(1, 'b'));
  reopen();
  expect(log.get(3)).toBe(undefined);
  expect(log.size).toBe(0);
});

test('what a crash cut off in the midst of a rename is known at both places', () => {
  log.link(3, FILE, place(1, 'from'));
  log.link(4, FILE, place(1, 'from', 8));
  log.link(5, FILE, place(1, 'to', 9));
  log.moving(at(1, 'from'), at(1, 'to'), false);
  reopen();
  expect(log.get(3)?.places).toEqual([place(1, 'from'), place(1, 'to')]);
  expect([...log.at(at(1, 'to'))].sort()).toEqual([3, 4, 5]);
});

test('a rename that was done, and one that failed', () => {
  for (const done of [true, false]) {
    log.link(3, FILE, place(1, 'from'));
    log.link(5, FILE, place(1, 'to', 9));
    log.moving(at(1, 'from'), at(1, 'to'), false)(done);
    reopen();
    expect(log.at(at(1, 'to'))).toEqual(done ? [3] : [5]);
    expect(log.at(at(1, 'from'))).toEqual(done ? [] : [3]);
    for (const name of ['from', 'to']) log.vacate(at(1, name));
  }
});

test('an exchange that was done, and one that failed', () => {
  for (const done of [true, false]) {
    log.link(3, FILE, place(1, 'from'));
    log.link(5, DIR, place(1, 'to', 9));
    log.moving(at(1, 'from'), at(1, 'to'), true)(done);
    reopen();
    expect([...log.at(at(1, 'from')), ...log.at(at(1, 'to'))]).toEqual(done ? [5, 3] : [3, 5]);
    expect(log.markAt(5, at(1, done ? 'from' : 'to'))).toBe(mark(9));
    for (const name of ['from', 'to']) log.vacate(at(1, name));
  }
});

test('what was replaced keeps its ids under a new mark, but for those that have another place', () => {
  log.link(3, FILE, place(1, 'a'));
  log.link(4, FILE, place(1, 'a'));
  log.link(4, FILE, place(1, 'b'));
  log.replaced(place(1, 'a', 8));
  reopen();
  expect(log.get(3)?.places).toEqual([place(1, 'a', 8)]);
  expect(log.get(4)?.places).toEqual([place(1, 'b')]);
});

test('what lay beneath a directory that has gone is dropped at the next start, also a circle', () => {
  log.link(2, DIR, place(1, 'd'));
  log.link(3, DIR, place(2, 'e'));
  log.link(4, FILE, place(3, 'f'));
  log.link(4, FILE, place(1, 'other'));
  log.link(8, DIR, place(9, 'x'));
  log.link(9, DIR, place(8, 'x'));
  log.vacate(at(1, 'd'));
  reopen();
  expect(log.size).toBe(1);
  expect(log.get(4)?.places).toEqual([place(1, 'other')]);
});

test('trees may be as deep as guests make them', () => {
  for (let i = 2; i < 30_000; i += 1) log.link(i, DIR, place(i - 1, 'd'));
  reopen();
  expect(log.size).toBe(29_998);
});

test('wherever the file ends, what is whole before is known, and what comes after is not lost', () => {
  for (let i = 2; i < 12; i += 1) log.link(i, FILE, place(1, `name${i}`));
  log.close();
  const whole = fs.readFileSync(file());
  const size = whole.length / 10;
  for (let length = 0; length <= whole.length; length += 7) {
    fs.writeFileSync(file(), whole.subarray(0, length));
    log = new IdentityLog(dir);
    const known = Math.floor(length / size);
    // name10 and name11 are longer by one.
    expect(Math.abs(log.size - known)).toBeLessThanOrEqual(1);
    log.link(99, FILE, place(1, 'late'));
    reopen();
    expect(log.get(99)?.places).toEqual([place(1, 'late')]);
    log.close();
  }
  log = new IdentityLog(dir);
});

test('no damage is taken for a record', () => {
  for (let i = 2; i < 40; i += 1) log.link(i, FILE, place(1, `name${i}`));
  log.close();
  const whole = fs.readFileSync(file());
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: whole.length - 1 }),
      fc.integer({ min: 1, max: 255 }),
      (where, change) => {
        const bytes = Buffer.from(whole);
        bytes[where] = (bytes[where] as number) ^ change;
        fs.writeFileSync(file(), bytes);
        log = new IdentityLog(dir);
        for (let i = 2; i < 40; i += 1) {
          const entry = log.get(i);
          if (entry) expect(entry).toEqual({ type: FILE, places: [place(1, `name${i}`)] });
        }
        log.close();
      },
    ),
    { numRuns: 60 },
  );
  log = new IdentityLog(dir);
});

test('it does not grow with what is gone', () => {
  log.link(2, FILE, place(1, 'stays'));
  for (let i = 3; i < 150_000; i += 1) {
    log.link(i, FILE, place(1, 'a name that comes and goes'));
    log.vacate(at(1, 'a name that comes and goes'));
  }
  expect(fs.statSync(file()).size).toBeLessThan(10 * 1024 * 1024);
  reopen();
  expect(log.get(2)?.places).toEqual([place(1, 'stays')]);
  expect(fs.statSync(file()).size).toBeLessThan(100);
});

test('in memory it knows the same, and leaves no file', () => {
  const memory = new IdentityLog(null);
  memory.link(3, FILE, place(1, 'a'));
  memory.moving(at(1, 'a'), at(1, 'b'), false)(true);
  expect(memory.at(at(1, 'b'))).toEqual([3]);
  memory.close();
  expect(fs.readFileSync(file()).length).toBe(0);
});
