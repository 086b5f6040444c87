import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import { hashFingerprint } from '../../src/lib/fingerprint.ts';
import { racilyClean } from '../../src/versions/books.ts';
import { JournalWriter } from '../../src/versions/journal.ts';
import { pathHash } from '../../src/versions/origin.ts';
import { openStore } from '../../src/versions/store.ts';
import type { StoredEvent } from '../../src/versions/types.ts';
import {
  all,
  hash,
  keepLog,
  sampleConflict,
  sampleFingerprint,
  sampleOrigin,
  samplePath,
  sampleVersion,
  withStore,
} from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

const withState = <T>(body: (state: string) => Promise<T>) =>
  withTemp('disk', (dir) => body(path.join(dir, '.kasane')));

describe('the store', () => {
  test('makes its directories for the owner alone, and nothing is recovered at first', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        expect(store.recovered).toEqual({
          created: true,
          clean: true,
          uncleanBoot: false,
          journal: 0,
          paths: [],
          lastRecords: [],
          unfinished: [],
          torn: false,
          cutOff: false,
          indexMissing: false,
          indexDamaged: [],
          formatDamaged: false,
        });
      });
      for (const name of ['', 'work', 'index', 'ancestors', 'origins', 'links', 'displaced']) {
        expect(fs.statSync(path.join(state, name)).mode & 0o777).toBe(0o700);
      }
      expect(fs.statSync(path.join(state, 'format')).mode & 0o777).toBe(0o600);
    }));

  test('works under a path that is not UTF-8', () =>
    withTemp('disk', async (dir) => {
      for (const name of ['\xe9', '\xc3\xa9']) {
        const odd = Buffer.from(`${dir}/${name}`, 'latin1');
        fs.mkdirSync(odd);
        await withStore(`${odd.toString('latin1')}/.kasane`, async (store) => {
          store.paths.put(samplePath('etc/a'));
          await store.flush();
        });
        await withStore(`${odd.toString('latin1')}/.kasane`, async (store) => {
          expect(store.paths.get('etc/a')).toEqual(samplePath('etc/a'));
        });
      }
    }));

  test('gives back every kind of record, before and after a flush and a reopen', () =>
    withState(async (state) => {
      const conflict = sampleConflict('etc/b', {
        origin: sampleOrigin('etc/b'),
        overlay: sampleVersion(null),
      });
      await withStore(state, async (store) => {
        store.paths.put(samplePath('etc/a'));
        store.paths.put(samplePath('etc/a\xff'));
        store.hashes.set(hash(3), hash(4));
        expect(store.conflicts.open(conflict)).toMatchObject({ id: 1, rev: 1, closed: null });
        expect(store.versions.add('etc/a', sampleVersion(null))).toBe(1);
        expect(store.versions.add('etc/a', sampleVersion(hash(9)))).toBe(2);
        expect(store.versions.add('etc/a/b', sampleVersion(null))).toBe(1);
        await store.intents.put('etc/a', { merged: hash(8) });
        store.paths.put(samplePath('usr'));
        expect(store.paths.get('usr')).toEqual(samplePath('usr'));
        store.recoveryDone();
      });
      await withStore(state, async (store) => {
        expect(store.recovered).toMatchObject({ created: false, clean: true, indexMissing: false });
        expect(store.paths.get('etc/a')).toEqual(samplePath('etc/a'));
        expect((await all(store.paths.under('etc'))).map((record) => record.path)).toEqual([
          'etc/a',
          'etc/a\xff',
        ]);
        expect((await all(store.paths.under(''))).length).toBe(3);
        expect((await all(store.paths.under('et'))).length).toBe(0);
        expect(store.hashes.contentOf(hash(3))).toBe(hash(4));
        expect(store.hashes.contentOf(hash(4))).toBe(null);
        expect(store.conflicts.all()).toEqual([{ ...conflict, id: 1, rev: 1, closed: null }]);
        expect(store.versions.get('etc/a', 2)).toEqual(sampleVersion(hash(9)));
        expect((await all(store.versions.of('etc/a'))).map((version) => version.n)).toEqual([1, 2]);
        expect(await store.intents.all()).toEqual([{ path: 'etc/a', data: { merged: hash(8) } }]);
        store.intents.drop('etc/a');
        store.paths.delete('etc/a');
        expect(await store.intents.all()).toEqual([]);
        expect(store.paths.get('etc/a')).toBe(null);
        expect((await all(store.paths.under(''))).length).toBe(2);
      });
    }));

  test('merges what is in memory into ranges, in order', () =>
    withState((state) =>
      withStore(state, async (store) => {
        for (const name of ['b', 'd', 'f']) store.paths.put(samplePath(name));
        await store.flush();
        for (const name of ['a', 'c', 'g']) store.paths.put(samplePath(name));
        store.paths.put(samplePath('d', { state: 'X' }));
        store.paths.delete('f');
        const found = await all(store.paths.under(''));
        expect(found.map(({ path, state }) => path + state)).toEqual(['aC', 'bC', 'cC', 'dX', 'gC']);
      }),
    ));

  test('finds a path by its hash, what is in memory and what came or went since the first question', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        store.paths.put(samplePath('etc/flushed'));
        await store.flush();
        store.paths.put(samplePath('etc/fresh'));
        const found = (...paths: string[]) =>
          Promise.all(paths.map((one) => store.paths.ofHash(pathHash(one))));
        expect(await found('etc/flushed', 'etc/fresh', 'etc/none')).toEqual([
          'etc/flushed',
          'etc/fresh',
          null,
        ]);
        store.paths.put(samplePath('etc/none'));
        store.paths.delete('etc/flushed');
        expect(await found('etc/flushed', 'etc/fresh', 'etc/none')).toEqual([null, 'etc/fresh', 'etc/none']);
      });
    }));

  test('has events in order, by number, by path and beneath it, and marks what was undone', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        const heard: StoredEvent[] = [];
        const stop = store.events.subscribe((event) => heard.push(event));
        const paths = ['etc/a', 'etc/a/b', 'etc/ab', 'etc/a', ''];
        const seqs = paths.map((name) => store.events.add({ kind: 'merged', path: name }));
        expect(seqs).toEqual([1, 2, 3, 4, 5]);
        stop();
        store.events.add({ kind: 'hold', path: '', time: 7 });
        expect(heard.map((event) => event.seq)).toEqual(seqs);
        expect((await all(store.events.of('etc/a'))).map((event) => event.seq)).toEqual([1, 2, 4]);
        expect((await all(store.events.of(''))).length).toBe(6);
        store.events.markUndone(2, 6);
        await store.flush();
        expect((await all(store.events.from(5))).map((event) => event.seq)).toEqual([5, 6]);
        expect(store.events.get(2)?.undone).toBe(6);
        expect(store.events.get(99)).toBe(null);
        expect(store.events.epoch).toBe(1);
        expect(store.events.bumpEpoch()).toBe(2);
      });
      await withStore(state, async (store) => {
        expect(store.events.epoch).toBe(2);
        expect(store.events.add({ kind: 'epoch', path: '' })).toBe(7);
        expect(store.events.get(7)?.epoch).toBe(2);
      });
    }));

  test('moves conflicts through their life, and keeps closed ones readable', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        const { conflicts } = store;
        const first = conflicts.open(sampleConflict('etc/a'));
        const second = conflicts.open(sampleConflict('etc/b/c'));
        expect(conflicts.update(first.id, { reason: 'new' }, true)).toMatchObject({ rev: 2, reason: 'new' });
        expect(conflicts.update(first.id, { kind: 'binary' }, false)).toMatchObject({
          rev: 2,
          kind: 'binary',
        });
        expect(conflicts.of('etc/a')?.id).toBe(first.id);
        expect(conflicts.under('etc/b').map(({ id }) => id)).toEqual([second.id]);
        conflicts.close(first.id, { how: 'resolved', take: 'base', seq: 9, at: 5 });
        expect(conflicts.of('etc/a')).toBe(null);
        expect(conflicts.all().map(({ id }) => id)).toEqual([second.id]);
        expect(conflicts.close(first.id, { how: 'removed', take: '', seq: 1 })).toBe(null);
        expect(conflicts.update(first.id, {}, true)).toBe(null);
      });
      await withStore(state, async (store) => {
        const { conflicts } = store;
        const closed = { how: 'resolved', take: 'base', rev: 2, at: 5, seq: 9 };
        expect(conflicts.get(1)?.closed).toEqual(closed);
        expect(conflicts.all().map(({ id }) => id)).toEqual([2]);
        expect(conflicts.reopen(1, {})).toMatchObject({ id: 1, rev: 3, closed: null });
        expect(conflicts.reopen(1, {})).toBe(null);
        expect(conflicts.open(sampleConflict('x')).id).toBe(3);
        expect(conflicts.get(77)).toBe(null);
      });
    }));

  test('gives node ids out once, also after a start without a clean end', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        expect(store.reserveNodeIds(100)).toEqual([2, 102]);
        expect(JSON.parse(fs.readFileSync(path.join(state, 'format'), 'utf8')).nodeBlockEnd).toBe(102);
        store.setBases([{ identity: hash(1), osId: 'debian', osVersion: '12', rootIno: 2 }]);
      });
      await withStore(state, async (store) => {
        expect(store.bases()[0]?.osVersion).toBe('12');
        expect(store.reserveNodeIds(1)).toEqual([102, 103]);
      });
    }));

  test('shares one sync among flushes that come together, and all that came before is durable', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const before = await Promise.all(
          Array.from({ length: 50 }, (_, n) => {
            store.paths.put(samplePath(`p${n}`));
            return store.flush();
          }),
        );
        expect(before.length).toBe(50);
        expect((await all(store.paths.under(''))).length).toBe(50);
      }),
    ));

  test('flushes by itself', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const content = await store.ancestors.put(Buffer.from('a'));
        store.paths.put(samplePath('a', { needs: [content] }));
        const sizeOfLog = () =>
          fs
            .readdirSync(path.join(state, 'index'))
            .filter((name) => name.endsWith('.log'))
            .reduce((sum, name) => sum + fs.statSync(path.join(state, 'index', name)).size, 0);
        const size = sizeOfLog();
        await expect.poll(sizeOfLog, { timeout: 20_000 }).toBeGreaterThan(size);
      }),
    ));

  test('refuses a second opener, and a newer format', () =>
    withState(async (state) => {
      await withStore(state, async () => {
        await expect(openStore({ stateDir: state, log: keepLog() })).rejects.toMatchObject({
          errno: 16,
          message: `overlay is in use (pid ${process.pid})`,
        });
      });
      const format = path.join(state, 'format');
      const newer = { ...JSON.parse(fs.readFileSync(format, 'utf8')), version: 7 };
      fs.writeFileSync(format, JSON.stringify(newer));
      await expect(openStore({ stateDir: state, log: keepLog() })).rejects.toMatchObject({
        errno: 117,
        message: 'written by a newer Kasane (format 7): use that',
      });
      expect(JSON.parse(fs.readFileSync(format, 'utf8'))).toEqual(newer);
    }));

  test('opened for reading leaves no trace', () =>
    withState(async (state) => {
      await withStore(state, async (store) => {
        store.paths.put(samplePath('a'));
        store.events.add({ kind: 'merged', path: 'a' });
      });
      const listing = () =>
        fs
          .readdirSync(state, { recursive: true, encoding: 'utf8' })
          .sort()
          .map((name) => `${name} ${fs.statSync(path.join(state, name)).mtimeMs}`);
      const before = listing();
      const store = await openStore({ stateDir: state, log: keepLog(), readOnly: true });
      expect(store.paths.get('a')).toEqual(samplePath('a'));
      store.paths.put(samplePath('b'));
      expect(store.events.add({ kind: 'pending', path: 'b' })).toBe(2);
      await store.flush();
      expect((await all(store.paths.under(''))).length).toBe(2);
      await store.close();
      expect(listing()).toEqual(before);
      const none = path.join(state, 'none');
      const empty = await openStore({ stateDir: none, log: keepLog(), readOnly: true });
      empty.paths.put(samplePath('b'));
      await empty.flush();
      expect((await all(empty.paths.under(''))).length).toBe(1);
      await empty.close();
      expect(fs.existsSync(none)).toBe(false);
    }));
});

describe('folding the journal', () => {
  test('writes events, path records and hashes, and unlinks the file', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const fd = fs.openSync(state, 'r');
        const writer = new JournalWriter(fd);
        const fingerprint = sampleFingerprint(4);
        const origin = sampleOrigin('etc/a', { fingerprint: hashFingerprint(fingerprint) });
        writer.append({
          kind: 'copy-up',
          path: 'etc/a',
          time: 1.8e12,
          origin,
          fingerprint,
          content: hash(1),
        });
        writer.append({ kind: 'whiteout', path: 'etc/b', time: 5, origin: sampleOrigin('etc/b') });
        writer.append({ kind: 'added', path: 'etc/new', time: 6 });
        writer.append({ kind: 'removed', path: 'etc/new', time: 7 });
        writer.append({ kind: 'taken', path: 'etc/c', time: 8, origin: sampleOrigin('etc/c'), fingerprint });
        writer.append({ kind: 'content', path: 'etc/c', time: 1.8e12, fingerprint, content: hash(6) });
        const name = writer.rotate() as string;
        const result = await store.foldJournal(name);
        writer.close();
        fs.closeSync(fd);
        expect(fs.existsSync(path.join(state, name))).toBe(false);
        expect(result.events.map((event) => `${event.kind} ${event.path}`)).toEqual([
          'copy-up etc/a',
          'whiteout etc/b',
          'added etc/new',
          'copy-up etc/c',
        ]);
        expect(result.paths).toEqual(['etc/a', 'etc/b', 'etc/new', 'etc/c']);
        expect(store.paths.get('etc/a')).toMatchObject({ state: 'C', fingerprint, needs: [hash(1)] });
        expect(store.paths.get('etc/b')).toMatchObject({ state: 'W', fingerprint: null, baseSeen: hash(2) });
        expect(store.paths.get('etc/c')).toMatchObject({ state: 'C', needs: [hash(1), hash(6)] });
        expect(store.paths.get('etc/new')).toBe(null);
        expect(store.hashes.contentOf(hashFingerprint(fingerprint))).toBe(hash(6));
        await store.foldJournal(name);
      }),
    ));

  test('keeps what still waits for a decision, and pins', () =>
    withState((state) =>
      withStore(state, async (store) => {
        store.paths.put(samplePath('x', { state: 'X', lastMerges: [4] }));
        const pin = { fingerprint: hash(8), content: hash(9) };
        await store.fold([
          { kind: 'taken', path: 'x', time: 1, origin: sampleOrigin('x') },
          { kind: 'copy-up', path: 'u', time: 1, origin: sampleOrigin('u', { pin }) },
          { kind: 'copy-up', path: 't', time: 1, origin: sampleOrigin('t', { torn: true }) },
        ]);
        expect(store.paths.get('x')).toMatchObject({ state: 'X', lastMerges: [4] });
        expect(store.paths.get('u')).toMatchObject({ state: 'U', needs: [hash(1), hash(9)] });
        expect(store.paths.get('t')).toMatchObject({ state: 'P' });
      }),
    ));

  test('moves what lies beneath a renamed directory', () =>
    withState((state) =>
      withStore(state, async (store) => {
        for (const name of ['old', 'old/a', 'old/b/c', 'older']) store.paths.put(samplePath(name));
        store.paths.put({ ...samplePath('left'), state: 'K' });
        const conflict = store.conflicts.open(sampleConflict('old/a'));
        await store.fold([
          { kind: 'renamed', path: 'new', from: 'old', time: 1 },
          { kind: 'renamed', path: 'elsewhere', from: 'left', time: 1 },
        ]);
        const found = (await all(store.paths.under(''))).map((record) => record.path);
        expect(found).toEqual(['new/a', 'new/b/c', 'old', 'older']);
        expect(store.conflicts.of('new/a')?.id).toBe(conflict.id);
      }),
    ));

  test('does not trust a fingerprint that is as young as the file', () => {
    const fingerprint = sampleFingerprint();
    const changed = fingerprint.ctimeSec * 1000;
    expect(racilyClean(fingerprint, changed)).toBe(true);
    expect(racilyClean(fingerprint, changed + 5)).toBe(true);
    expect(racilyClean(fingerprint, changed + 100)).toBe(false);
    expect(racilyClean({ ...fingerprint, mtimeNsec: 0, ctimeNsec: 0 }, changed + 100)).toBe(true);
  });
});

describe('upkeep', () => {
  test('drops ancestors that nothing names, and no other', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const put = (text: string) => store.ancestors.put(Buffer.from(text));
        const [orphan, extra, version, side, merged, need, closed, intent, hashed] = (await Promise.all(
          ['orphan', 'extra', 'version', 'side', 'merged', 'need', 'closed', 'intent', 'hashed'].map(put),
        )) as [string, string, string, string, string, string, string, string, string];
        store.versions.add('a', sampleVersion(version));
        const proposal = { content: merged, markers: true, size: 6 };
        store.conflicts.open(sampleConflict('b', { ancestor: sampleVersion(side), merged: proposal }));
        store.paths.put(samplePath('c', { needs: [need] }));
        store.paths.put(samplePath('d', { fingerprint: sampleFingerprint(9) }));
        store.hashes.set(hashFingerprint(sampleFingerprint(9)), hashed);
        const old = store.conflicts.open(sampleConflict('e', { overlay: sampleVersion(closed) }));
        store.conflicts.close(old.id, { how: 'resolved', take: 'base', seq: 1 });
        await store.intents.put('f', { anything: [intent] });
        expect(await store.gc(new Set([extra]))).toMatchObject({ removed: 0 });
        const result = await store.gc(new Set([extra]), { minAgeMs: -1000 });
        expect(result).toMatchObject({ removed: 1, skipped: '' });
        expect(result.bytes).toBeGreaterThan(0);
        expect(store.ancestors.has(orphan)).toBe(false);
        for (const kept of [extra, version, side, merged, need, closed, intent, hashed]) {
          expect(store.ancestors.has(kept)).toBe(true);
        }
        const sizes = await store.sizes();
        expect(sizes.index).toBeGreaterThan(0);
        expect(sizes.ancestors).toBe(8 * 4096);
        expect(sizes.history).toBe(2 * 4096);
      }),
    ));

  test('forgets the history of one path', () =>
    withState((state) =>
      withStore(state, async (store) => {
        const content = await store.ancestors.put(Buffer.from('secret'));
        store.versions.add('a', sampleVersion(content));
        store.versions.add('a/b', sampleVersion(content));
        store.events.add({ kind: 'merged', path: 'a' });
        store.events.add({ kind: 'merged', path: 'a/b' });
        const { id } = store.conflicts.open(sampleConflict('a'));
        store.conflicts.close(id, { how: 'resolved', take: 'base', seq: 1 });
        expect(await store.forget('a')).toEqual({ versions: 1 });
        expect(await all(store.versions.of('a'))).toEqual([]);
        expect((await all(store.events.of('a'))).map((event) => event.path)).toEqual(['a/b']);
        expect(store.conflicts.get(id)).toBe(null);
        expect(store.versions.add('a', sampleVersion(null))).toBe(2);
      }),
    ));
});
