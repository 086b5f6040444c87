import * as fs from 'node:fs';
import * as path from 'node:path';
import { Level } from 'level';
import { describe, expect, test } from 'vitest';
import { hashFingerprint } from '../../src/lib/fingerprint.ts';
import { FormatFile, readFormat } from '../../src/versions/format.ts';
import { JournalWriter } from '../../src/versions/journal.ts';
import { pathHash } from '../../src/versions/origin.ts';
import { openStore } from '../../src/versions/store.ts';
import type { StoreCheckItem } from '../../src/versions/types.ts';
import {
  all,
  hash,
  keepLog,
  sampleConflict,
  sampleFingerprint,
  sampleOrigin,
  samplePath,
  sampleVersion,
  startStoreChild,
  withStore,
} from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

const withState = <T>(body: (state: string) => Promise<T>) =>
  withTemp('disk', (dir) => body(path.join(dir, '.kasane')));

/** Writes to the index behind the store's back. */
async function withLevel(state: string, body: (db: Level<Buffer, Buffer>) => Promise<void>): Promise<void> {
  const db = new Level<Buffer, Buffer>(path.join(state, 'index'), {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
  });
  await db.open();
  await body(db).finally(() => db.close());
}

async function fill(state: string): Promise<{ content: string }> {
  return withStore(state, async (store) => {
    const content = await store.ancestors.put(Buffer.from('kept\n'.repeat(100)));
    for (let n = 0; n < 400; n++) {
      store.paths.put(samplePath(`etc/file${n}`));
      const version = store.versions.add(`etc/file${n}`, sampleVersion(content));
      store.events.add({ kind: 'merged', path: `etc/file${n}`, version });
    }
    store.conflicts.open(sampleConflict('etc/file1'));
    const { id } = store.conflicts.open(sampleConflict('etc/file2'));
    store.conflicts.close(id, { how: 'resolved', take: 'overlay', seq: 3 });
    return { content };
  });
}

const checkOf = (state: string) =>
  withStore(state, async (store) => {
    const items: StoreCheckItem[] = [];
    const counts = await store.check((item) => void items.push(item));
    return { items, counts };
  });

describe('a killed process', () => {
  test('loses nothing that a flush acknowledged, and its numbers are not used again', () =>
    withState(async (state) => {
      let lastSeq = 0;
      for (let round = 0; round < 3; round++) {
        const child = startStoreChild(['write', state]);
        const told: { seq: number; version: number; content: string }[] = [];
        while (told.length < 15) {
          const [seq, version, content] = (await child.line()).split(' ') as [string, string, string];
          told.push({ seq: Number(seq), version: Number(version), content });
        }
        await child.kill();
        expect(told[0]?.seq).toBeGreaterThan(lastSeq);
        await withStore(state, async (store, log) => {
          expect(store.recovered).toMatchObject({ clean: false, uncleanBoot: false, indexMissing: false });
          for (const { seq, version, content } of told) {
            const event = store.events.get(seq);
            expect(event).toMatchObject({ seq, version });
            expect(store.versions.get(event?.path as string, version)?.content).toBe(content);
            expect(await store.ancestors.get(content)).not.toBe(null);
          }
          lastSeq = store.events.add({ kind: 'hold', path: '' });
          expect(lastSeq).toBeGreaterThan(told.at(-1)?.seq as number);
          expect(log.lines).toEqual([]);
        });
      }
      expect((await checkOf(state)).items).toEqual([]);
    }));

  test('lets go of the lock, which until then refuses others', () =>
    withState(async (state) => {
      const child = startStoreChild(['hold', state]);
      expect(await child.line()).toBe('open');
      await expect(openStore({ stateDir: state, log: keepLog() })).rejects.toMatchObject({
        errno: 16,
        message: `overlay is in use (pid ${child.process.pid})`,
      });
      const second = startStoreChild(['hold', state]);
      expect(await second.line()).toBe(`16 overlay is in use (pid ${child.process.pid})`);
      await second.kill();
      await child.kill();
      await withStore(state, async (store) => expect(store.recovered.clean).toBe(false));
    }));

  test('of another boot is told', () =>
    withState(async (state) => {
      const child = startStoreChild(['hold', state]);
      await child.line();
      await child.kill();
      const bootId = '/proc/sys/kernel/random/boot_id';
      await withStore(state, async (store) => expect(store.recovered.uncleanBoot).toBe(false));
      new FormatFile(state, readFormat(state).format, true).write({ clean: false, bootId: 'another' });
      for (const clean of [false, true]) {
        await withStore(state, async (store) => {
          expect(store.recovered.uncleanBoot || store.recovered.torn).toBe(true);
          if (clean) store.recoveryDone();
        });
        expect(readFormat(state).format).toMatchObject({ clean });
      }
      expect(JSON.parse(fs.readFileSync(path.join(state, 'format'), 'utf8'))).toMatchObject({
        clean: true,
        bootId: fs.readFileSync(bootId, 'utf8').trim(),
      });
    }));
});

test('a state that was made anew, and whose first start failed, is no clean end: the overlay may hold origins', () =>
  withState(async (state) => {
    await withStore(state, async (store) => expect(store.recovered.created).toBe(true));
    await withStore(state, async (store) => {
      expect(store.recovered).toMatchObject({ created: false, clean: false, torn: true });
      store.recoveryDone();
    });
    await withStore(state, async (store) =>
      expect(store.recovered).toMatchObject({ clean: true, torn: false }),
    );
  }));

describe('a journal that was left behind', () => {
  const record = (n: number) => ({ kind: 'added', path: `n${n}`, time: n }) as const;

  async function leave(state: string, names: number): Promise<void> {
    await withStore(state, async () => {});
    const fd = fs.openSync(state, 'r');
    const writer = new JournalWriter(fd);
    for (let n = 0; n < names; n++) {
      writer.append(record(n * 2));
      writer.append(record(n * 2 + 1));
      if (n < names - 1) expect(writer.rotate()).toBe(`journal.${n + 1}`);
    }
    writer.close();
    fs.closeSync(fd);
  }

  test('is replayed in order, the numbered ones first, and removed when all is done that it tells of', () =>
    withState(async (state) => {
      await leave(state, 12);
      await withStore(state, async (store) => {
        expect(store.recovered).toMatchObject({ journal: 24, torn: false });
        expect((await all(store.events.from(0))).map((event) => event.path)).toEqual(
          Array.from({ length: 24 }, (_, n) => `n${n}`),
        );
      });
      await withStore(state, async (store) => {
        // The start before has not come to its end: all is to be learnt from the origins.
        expect(store.recovered).toMatchObject({ journal: 0, torn: true });
        store.recoveryDone();
        expect(fs.readdirSync(state).filter((name) => name.startsWith('journal'))).toEqual([]);
      });
    }));

  test('is asked whether its last records have come true; those before them are sure', () =>
    withState(async (state) => {
      await leave(state, 2);
      const asked: string[] = [];
      const happened = ({ path: name }: { path: string }) => {
        asked.push(name);
        return name !== 'n3';
      };
      // A start that ends before recoveryDone() leaves the last ones to be asked about again.
      for (const _ of ['first', 'second']) {
        const store = await openStore({ stateDir: state, log: keepLog(), happened });
        expect(asked.splice(0)).toEqual(['n3', 'n2']);
        expect(store.recovered.lastRecords.map((record) => record.path)).toEqual(['n2']);
        expect((await all(store.events.from(0))).map((event) => event.path)).toEqual(['n0', 'n1', 'n2']);
        await store.close();
      }
    }));

  test('that is gone or empty after a crash is told as torn', () =>
    withState(async (state) => {
      for (const spoil of [() => {}, () => fs.writeFileSync(path.join(state, 'journal'), '')]) {
        const child = startStoreChild(['hold', state]);
        await child.line();
        await child.kill();
        spoil();
        await withStore(state, async (store) => {
          expect(store.recovered.torn).toBe(true);
          store.recoveryDone();
        });
      }
      await withStore(state, async (store) => expect(store.recovered.torn).toBe(false));
    }));

  test('is not replayed twice when it could not be removed in time', () =>
    withState(async (state) => {
      await leave(state, 1);
      const copy = fs.readFileSync(path.join(state, 'journal'));
      await withStore(state, async (store) => {
        expect(store.recovered.journal).toBe(2);
        store.recoveryDone();
      });
      fs.writeFileSync(path.join(state, 'journal.1'), copy);
      // That session came to its end: nothing is undone, and nobody is asked.
      const happened = (record: { path: string }) => expect.fail(`asked about ${record.path}`);
      const store = await openStore({ stateDir: state, log: keepLog(), happened });
      expect(store.recovered).toMatchObject({ journal: 0, torn: false, lastRecords: [] });
      expect((await all(store.events.from(0))).length).toBe(2);
      await store.close();
    }));

  test('torn, empty or full of zeros, is no obstacle', () =>
    withState(async (state) => {
      await leave(state, 1);
      const journal = path.join(state, 'journal');
      fs.truncateSync(journal, fs.statSync(journal).size - 3);
      fs.writeFileSync(path.join(state, 'journal.1'), '');
      fs.writeFileSync(path.join(state, 'journal.2'), Buffer.alloc(4096));
      await withStore(state, async (store) => {
        expect(store.recovered).toMatchObject({ journal: 1, torn: true });
      });
    }));
});

describe('after the machine went down', () => {
  test('contents that had not reached the disk are dropped, unless a record that had names them', () =>
    withState(async (state) => {
      const { content } = await fill(state);
      const file = (hash: string) => path.join(state, 'ancestors', hash.slice(0, 2), hash);
      const torn = await withStore(state, (store) => store.ancestors.put(Buffer.from('torn')));
      const whole = await withStore(state, (store) => store.ancestors.put(Buffer.from('whole')));
      for (const hash of [torn, content]) fs.truncateSync(file(hash), 0);
      new FormatFile(state, readFormat(state).format, true).write({ clean: false, bootId: 'another' });
      await withStore(state, async (store, log) => {
        expect([torn, whole, content].map((hash) => store.ancestors.has(hash))).toEqual([false, true, true]);
        expect(log.lines).toEqual([]);
      });
    }));
});

describe('an index that is gone or damaged', () => {
  async function reopened(state: string, done = true): Promise<string[]> {
    return withStore(state, async (store, log) => {
      expect(store.recovered.indexMissing).toBe(true);
      expect(store.conflicts.all()).toEqual([]);
      expect(await all(store.paths.under(''))).toEqual([]);
      expect(store.conflicts.open(sampleConflict('z')).id).toBeGreaterThan(2);
      expect(store.events.add({ kind: 'rebuilt', path: '' })).toBeGreaterThan(400);
      expect(store.reserveNodeIds(1)[0]).toBeGreaterThanOrEqual(2);
      store.rebuild('etc/file1', [sampleOrigin('elsewhere'), sampleOrigin('etc/file1')], false);
      store.rebuild('etc/gone', [sampleOrigin('etc/gone')], true);
      const pin = { fingerprint: hash(5), content: '' };
      store.rebuild('etc/pinned', [sampleOrigin('etc/pinned', { pin })], false);
      const found = await all(store.paths.under('etc'));
      expect(found.map((record) => record.state)).toEqual(['P', 'W', 'U']);
      const fingerprint = hashFingerprint(sampleFingerprint());
      store.paths.put(samplePath('etc/file3', { state: 'X' }));
      store.rebuild('etc/file3', [sampleOrigin('etc/file3', { fingerprint })], false);
      expect(store.paths.get('etc/file3')?.state).toBe('X');
      store.paths.delete('etc/file3');
      if (done) store.rebuildDone();
      return log.lines;
    });
  }

  test('a number is the path’s where its object lies; one that was left to other names stays nobody’s', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const { known } = store.numbers;
        const origins = [sampleOrigin('a', { ino: 7 }), sampleOrigin('b', { ino: 7 })];
        store.rebuild('elsewhere', origins, false);
        expect(known.get(7)).toBe('');
        store.rebuild('a', origins, false);
        expect(known.get(7)).toBe('');
        store.numbers.take({ ino: 8, path: pathHash('old') });
        store.rebuild('b', [sampleOrigin('b', { ino: 8 }), sampleOrigin('c', { ino: 9 })], false);
        expect([known.get(8), known.get(9)]).toEqual([pathHash('b'), '']);
      }),
    ));

  test('removed: an empty one takes its place, and no id comes back', () =>
    withState(async (state) => {
      await fill(state);
      fs.rmSync(path.join(state, 'index'), { recursive: true });
      expect(await reopened(state, false)).toEqual([]);
      // It was interrupted before all had been put back.
      await withStore(state, async (store) => {
        expect(store.recovered.indexMissing).toBe(true);
        store.rebuildDone();
      });
      await withStore(state, async (store) => expect(store.recovered.indexMissing).toBe(false));
    }));

  test('emptied, or another one in its place: the same', () =>
    withState(async (state) => {
      await fill(state);
      fs.rmSync(path.join(state, 'index'), { recursive: true });
      fs.mkdirSync(path.join(state, 'index'));
      await reopened(state);
      const other = path.join(path.dirname(state), 'other');
      await fill(other);
      fs.rmSync(path.join(state, 'index'), { recursive: true });
      fs.renameSync(path.join(other, 'index'), path.join(state, 'index'));
      const lines = await reopened(state);
      expect(lines[0]).toContain('of another overlay');
      expect(fs.readdirSync(state).some((name) => name.startsWith('index.damaged-'))).toBe(true);
    }));

  test('with any one file full of garbage: opened, or moved aside with its history saved', async () => {
    const kinds = ['CURRENT', 'MANIFEST', '.ldb', '.log'];
    for (const kind of kinds) {
      await withState(async (state) => {
        await fill(state);
        // A second opening turns the first log into a table.
        await withStore(state, async (store) => store.paths.put(samplePath('etc/last')));
        const dir = path.join(state, 'index');
        const names = fs.readdirSync(dir).filter((name) => name.startsWith(kind) || name.endsWith(kind));
        expect(names.length).toBeGreaterThan(0);
        for (const name of names) {
          const { size } = fs.statSync(path.join(dir, name));
          fs.writeFileSync(path.join(dir, name), Buffer.alloc(Math.max(size, 64), 'garbage'));
        }
        await withStore(state, async (store) => {
          const events = await all(store.events.from(0));
          if (kind !== '.ldb') expect(events.length, kind).toBe(400);
          if (kind !== '.ldb') expect(store.versions.get('etc/file7', 1)).not.toBe(null);
          if (kind === 'CURRENT' || kind === 'MANIFEST' || kind === '.ldb') {
            expect(store.recovered.indexMissing, kind).toBe(true);
            expect(store.conflicts.all()).toEqual([]);
          }
          if (kind === 'MANIFEST') expect(store.conflicts.get(2)?.closed?.take).toBe('overlay');
          expect(store.events.add({ kind: 'hold', path: '' })).toBeGreaterThan(400);
        });
        expect(fs.existsSync(path.join(state, 'ancestors'))).toBe(true);
      });
    }
  });

  test('with some bytes wrong anywhere: never throws, and tells what it lost', () =>
    withState(async (state) => {
      await fill(state);
      await withStore(state, async (store) => store.paths.put(samplePath('etc/last')));
      const copy = `${state}-copy`;
      const table = fs.readdirSync(path.join(state, 'index')).find((name) => name.endsWith('.ldb')) as string;
      const { size } = fs.statSync(path.join(state, 'index', table));
      for (let round = 0; round < 12; round++) {
        fs.cpSync(state, copy, { recursive: true });
        const file = path.join(copy, 'index', table);
        const bytes = fs.readFileSync(file);
        bytes.fill(0xa5, Math.floor((size * round) / 12), Math.floor((size * round) / 12) + 40);
        fs.writeFileSync(file, bytes);
        const whole = await withStore(copy, async (store, log) => {
          const events = await all(store.events.of(''));
          const paths = await all(store.paths.under(''));
          for (let n = 0; n < 400; n += 40) store.versions.get(`etc/file${n}`, 1);
          const complete = events.length === 400 && paths.length === 401;
          if (!complete) expect(log.lines.length).toBeGreaterThan(0);
          store.paths.put(samplePath('etc/new'));
          await store.flush();
          await store.check(() => {});
          return complete;
        });
        if (whole) expect(round).toBeGreaterThanOrEqual(0);
        fs.rmSync(copy, { recursive: true });
      }
    }));
});

describe('a damaged record', () => {
  test('is skipped everywhere, told once and found by check, and the rest goes on', () =>
    withState(async (state) => {
      await fill(state);
      const damaged = [
        'petc/file5',
        'c00000000000001',
        `vetc/file5\0${'1'.padStart(14, '0')}`,
        'e00000000000009',
      ];
      await withLevel(state, async (db) => {
        for (const key of damaged) {
          const value = Buffer.from((await db.get(Buffer.from(key, 'latin1'))) as Buffer);
          value[value.length - 4] = (value[value.length - 4] as number) ^ 1;
          await db.put(Buffer.from(key, 'latin1'), value);
        }
        await db.put(Buffer.from('petc/odd'), Buffer.from('x'));
        await db.put(Buffer.from('Zunknown'), Buffer.from('{"v":1}'));
      });
      await withStore(state, async (store, log) => {
        expect(store.paths.get('etc/file5')).toBe(null);
        expect(store.paths.get('etc/file5')).toBe(null);
        expect((await all(store.paths.under(''))).length).toBe(399);
        expect(store.conflicts.all()).toEqual([]);
        expect(store.versions.get('etc/file5', 1)).toBe(null);
        expect((await all(store.events.of('etc'))).length).toBe(399);
        expect(log.lines.filter((line) => line.includes('path etc/file5'))).toEqual([
          'warn damaged: record of path etc/file5: wrong checksum',
        ]);
        expect(store.damage.length).toBe(5);
        // Version 1 may still be read by a person: its number is not given out again.
        expect(store.versions.add('etc/file5', sampleVersion(null))).toBe(2);
        expect(await store.gc(new Set(), { minAgeMs: -1000 })).toMatchObject({ removed: 0 });
        expect((await store.gc(new Set(), { minAgeMs: -1000 })).skipped).not.toBe('');
      });
      const { items } = await checkOf(state);
      expect(items.map((item) => item.code)).toEqual(Array(6).fill('index-record'));
      expect(items.find((item) => item.path === 'etc/file5')).toBeDefined();
    }));

  test('of a newer version is not read, and not touched', () =>
    withState(async (state) => {
      await fill(state);
      const key = Buffer.from('petc/file5');
      let before: Buffer = Buffer.alloc(0);
      await withLevel(state, async (db) => {
        const { encodeRecord } = await import('../../src/versions/records.ts');
        before = encodeRecord('petc/file5', { v: 2, path: 'etc/file5' });
        await db.put(key, before);
      });
      await withStore(state, async (store) => {
        expect(store.paths.get('etc/file5')).toBe(null);
        expect(store.damage[0]).toContain('of version 2');
      });
      await withLevel(state, async (db) => expect(await db.get(key)).toEqual(before));
    }));
});

describe('check', () => {
  test('of a sound overlay is silent', () =>
    withState(async (state) => {
      await fill(state);
      const { items, counts } = await checkOf(state);
      expect(items).toEqual([]);
      expect(counts.ancestors).toBe(1);
      expect(counts.records).toBeGreaterThan(1600);
    }));

  test('finds ancestors that are damaged or missing', () =>
    withState(async (state) => {
      const { content } = await fill(state);
      const file = path.join(state, 'ancestors', content.slice(0, 2), content);
      fs.truncateSync(file, fs.statSync(file).size - 1);
      const damaged = (await checkOf(state)).items;
      expect(damaged.map((item) => item.code)).toEqual(['ancestor-hash']);
      expect(damaged[0]?.path).toMatch(/^etc\/file/);
      fs.rmSync(file);
      await withStore(state, async (store) => store.paths.put(samplePath('p', { needs: [hash(4)] })));
      expect((await checkOf(state)).items.map((item) => `${item.severity} ${item.code}`).sort()).toEqual([
        'damage ancestor-missing',
      ]);
    }));
});

describe('the format file', () => {
  test('damaged: moved aside, and all numbers go on far beyond what can have been used', () =>
    withState(async (state) => {
      await fill(state);
      await withStore(state, async (store) => store.reserveNodeIds(1_000_000));
      const format = path.join(state, 'format');
      const text = fs.readFileSync(format, 'utf8');
      for (const bad of ['', '{', text.replace('1000002', '1000003'), 'null', '[]']) {
        fs.writeFileSync(format, bad);
        await withStore(state, async (store) => {
          expect(store.recovered).toMatchObject({ formatDamaged: true, created: false, indexMissing: false });
          expect(store.reserveNodeIds(1)[0]).toBeGreaterThan(1_000_002);
          expect(store.events.add({ kind: 'hold', path: '' })).toBeGreaterThan(400);
          expect(store.conflicts.open(sampleConflict('q')).id).toBeGreaterThan(2);
          expect(store.paths.get('etc/file7')).not.toBe(null);
        });
      }
    }));

  test('gone while the index is there: the same', () =>
    withState(async (state) => {
      await fill(state);
      fs.rmSync(path.join(state, 'format'));
      await withStore(state, async (store) => {
        expect(store.recovered).toMatchObject({ formatDamaged: true, created: false, indexMissing: false });
        expect(store.conflicts.open(sampleConflict('q')).id).toBeGreaterThan(2);
      });
    }));
});

describe('a table that cannot be read any more', () => {
  test('does not end writing: what is left goes into a new index, the old one aside', () =>
    withState(async (state) => {
      await fill(state);
      await withStore(state, async (store) => store.paths.put(samplePath('etc/last')));
      const dir = path.join(state, 'index');
      const table = fs.readdirSync(dir).find((name) => name.endsWith('.ldb')) as string;
      const bytes = fs.readFileSync(path.join(dir, table));
      // Of the paths: behind events, before versions; a block of 4 KiB before compression.
      const at = bytes.indexOf('petc/file', Math.floor(bytes.length * 0.6));
      bytes.fill(0xff, at - 300, at + 300);
      fs.writeFileSync(path.join(dir, table), bytes);
      await withStore(state, async (store) => {
        const random = () => Array.from({ length: 20 }, () => Math.random().toString(16)).join('');
        for (let round = 0; round < 12; round++) {
          for (let n = 0; n < 400; n++) {
            store.paths.put(samplePath(`etc/file${n}`, { detail: random() + random() + random() }));
          }
          await store.flush();
        }
        expect((await all(store.paths.under('etc'))).length).toBeGreaterThanOrEqual(400);
      });
      expect(fs.readdirSync(state).some((name) => name.startsWith('index.damaged-'))).toBe(true);
      await withStore(state, async (store) => {
        expect(store.recovered).toMatchObject({ indexMissing: false, indexDamaged: [] });
        expect((await all(store.paths.under('etc'))).length).toBeGreaterThanOrEqual(400);
        expect((await all(store.events.from(0))).length).toBeGreaterThan(300);
      });
    }));
});
