import * as fs from 'node:fs';
import * as path from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type JournalRecord, JournalWriter, readJournal } from '../../src/versions/journal.ts';
import { sampleFingerprint, sampleOrigin, startStoreChild } from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

async function withWriter<T>(body: (writer: JournalWriter, dir: string) => T | Promise<T>): Promise<T> {
  return withTemp('memory', async (dir) => {
    const fd = fs.openSync(dir, 'r');
    const writer = new JournalWriter(fd);
    try {
      return await body(writer, dir);
    } finally {
      writer.close();
      fs.closeSync(fd);
    }
  });
}

const read = (dir: string, name = 'journal') => readJournal(fs.readFileSync(path.join(dir, name)));

function samples(count: number): JournalRecord[] {
  return Array.from({ length: count }, (_, n): JournalRecord => {
    const name = `etc/\xe9\u0001"${n}`;
    if (n % 3 === 0) return { kind: 'removed', path: name, time: n };
    if (n % 3 === 1) return { kind: 'renamed', path: name, time: n, from: 'old' };
    return {
      kind: 'copy-up',
      path: name,
      time: n,
      origin: sampleOrigin(name),
      fingerprint: sampleFingerprint(n),
    };
  });
}

describe('the journal', () => {
  test('gives back what was appended, names being any bytes', () =>
    withWriter((writer, dir) => {
      const records = samples(30);
      for (const record of records) expect(writer.append(record)).toBe(0);
      const found = read(dir);
      expect(found.records).toEqual(records);
      expect(found.torn).toBe(false);
      expect(found.validLength).toBe(fs.statSync(path.join(dir, 'journal')).size);
      expect(found.validLength).toBe(writer.size);
      expect(fs.statSync(path.join(dir, 'journal')).mode & 0o777).toBe(0o600);
    }));

  test('gives back every field', () =>
    withWriter((writer, dir) => {
      const hash = '0123456789abcdef0123456789abcdef';
      const record: Required<JournalRecord> = {
        kind: 'exchanged',
        path: 'srv/a name',
        time: 1_700_000_000_123,
        origin: { ...sampleOrigin('a'), torn: true, pin: { fingerprint: hash, content: '' } },
        fingerprint: sampleFingerprint(1),
        from: 'back\\slash\x7f\xff',
        content: hash,
        leaf: true,
        moved: true,
        ino: 2 ** 53 - 1,
      };
      expect(writer.append(record)).toBe(0);
      expect(writer.append({ ...record, leaf: false })).toBe(0);
      expect(read(dir).records).toEqual([record, { ...record, leaf: false }]);
    }));

  test('goes on in the same file after a reopen', () =>
    withWriter((writer, dir) => {
      const [first, second] = samples(2) as [JournalRecord, JournalRecord];
      writer.append(first);
      const fd = fs.openSync(dir, 'r');
      const again = new JournalWriter(fd);
      again.append(second);
      again.close();
      fs.closeSync(fd);
      expect(read(dir).records).toEqual([first, second]);
    }));

  test('rotates to numbered files, skips numbers that are taken, and leaves an empty one alone', () =>
    withWriter((writer, dir) => {
      const [first, second] = samples(2) as [JournalRecord, JournalRecord];
      expect(writer.rotate()).toBe('');
      fs.writeFileSync(path.join(dir, 'journal.1'), '');
      writer.append(first);
      expect(writer.rotate()).toBe('journal.2');
      writer.append(second);
      expect(writer.rotate()).toBe('journal.3');
      expect(read(dir, 'journal.2').records).toEqual([first]);
      expect(read(dir, 'journal.3').records).toEqual([second]);
      expect(read(dir)).toMatchObject({ records: [], torn: false });
      expect(new Set(['journal', 'journal.2', 'journal.3'].map((name) => read(dir, name).id)).size).toBe(3);
    }));

  test('answers with an errno when it cannot rotate, and goes on', () =>
    withWriter((writer, dir) => {
      const [first, second] = samples(2) as [JournalRecord, JournalRecord];
      writer.append(first);
      fs.renameSync(path.join(dir, 'journal'), path.join(dir, 'elsewhere'));
      expect(writer.rotate()).toBe(-2);
      expect(writer.append(second)).toBe(0);
      expect(read(dir, 'elsewhere').records).toEqual([first, second]);
    }));

  test('refuses a record that is too long, and leaves nothing of it', () =>
    withWriter((writer, dir) => {
      expect(writer.append({ kind: 'added', path: 'x'.repeat(70_000), time: 1 })).toBe(-90);
      expect(read(dir)).toMatchObject({ records: [], torn: false });
    }));

  test('cut anywhere, gives the records before the cut', () =>
    withWriter((writer, dir) => {
      const records = samples(6);
      const ends = records.map((record) => {
        writer.append(record);
        return writer.size;
      });
      const bytes = fs.readFileSync(path.join(dir, 'journal'));
      for (let cut = 0; cut < bytes.length; cut++) {
        const found = readJournal(bytes.subarray(0, cut));
        const whole = ends.filter((end) => end <= cut).length;
        expect(found.records).toEqual(records.slice(0, whole));
        expect(found.torn).toBe(cut > 0 && cut !== 16 && !ends.includes(cut));
        expect(found.validLength).toBe(cut < 16 ? 0 : whole === 0 ? 16 : ends[whole - 1]);
      }
    }));

  test('with wrong bits gives every record but those that were hit', () =>
    withWriter((writer, dir) => {
      const records = samples(9);
      for (const record of records) writer.append(record);
      const bytes = fs.readFileSync(path.join(dir, 'journal'));
      const texts = new Set(records.map((record) => JSON.stringify(record)));
      fc.assert(
        fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
          const bad = Buffer.from(bytes);
          bad[at] = (bad[at] as number) ^ flip;
          const found = readJournal(bad);
          expect(found.records.length).toBeGreaterThanOrEqual(records.length - 1);
          for (const record of found.records) expect(texts).toContain(JSON.stringify(record));
        }),
        { numRuns: 500 },
      );
    }));

  test('of garbage or zeros is empty, and does not throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(readJournal(bytes).records).toEqual([]);
      }),
    );
    expect(readJournal(Buffer.alloc(8192))).toMatchObject({ records: [], torn: true, validLength: 0 });
    expect(readJournal(Buffer.alloc(0))).toMatchObject({ records: [], torn: false, validLength: 0 });
  });

  test('takes back what did not come true, and goes on', () =>
    withTemp('disk', async (dir) => {
      const fd = fs.openSync(dir, 'r');
      const writer = new JournalWriter(fd);
      writer.append({ kind: 'added', path: 'one', time: 1 });
      const { size } = writer;
      writer.append({ kind: 'added', path: 'two', time: 2 });
      writer.append({ kind: 'added', path: 'three', time: 3 });
      writer.takeBack(size);
      expect(writer.size).toBe(size);
      writer.append({ kind: 'added', path: 'four', time: 4 });
      writer.close();
      fs.closeSync(fd);
      expect(read(dir, 'journal')).toMatchObject({ torn: false });
      expect(read(dir, 'journal').records.map((record) => record.path)).toEqual(['one', 'four']);
    }));

  test('loses nothing that was appended when the process is killed', () =>
    withTemp('disk', async (dir) => {
      const child = startStoreChild(['append', dir]);
      let last = -1;
      while (last < 350) last = Number(await child.line());
      await child.kill();
      const names = fs.readdirSync(dir).sort();
      const paths = names.flatMap((name) => read(dir, name).records.map((record) => record.path));
      for (let n = 0; n <= last; n++) expect(paths).toContain(`new${n}`);
      expect(names.filter((name) => read(dir, name).torn)).toEqual([]);
    }));
});
