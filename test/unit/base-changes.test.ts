// What the list of events says of the base: union/base-changes.ts, and how it is told and not kept.
import { describe, expect, test } from 'vitest';
import { AppendedFile } from '../../src/control/rendered.ts';
import {
  IN_ATTRIB,
  IN_CREATE,
  IN_DELETE,
  IN_MODIFY,
  IN_MOVED_FROM,
  IN_MOVED_TO,
} from '../../src/sys/constants.ts';
import { BaseChanges } from '../../src/union/base-changes.ts';
import { all, withStore } from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

/** What comes of events at one path. */
function kindOf(known: boolean, ...masks: number[]): string {
  const changes = new BaseChanges(() => {});
  for (const mask of masks) changes.note('etc/a', mask, known);
  return changes
    .settled(0)
    .changes.map(({ path, kind }) => `${kind} ${path}`)
    .join();
}

describe('changes of the base', () => {
  test('are of four kinds, whatever a name went through before it came to rest', () => {
    expect(kindOf(true, IN_MODIFY, IN_MODIFY, IN_ATTRIB)).toBe('base-changed etc/a');
    expect(kindOf(true, IN_MOVED_TO)).toBe('base-replaced etc/a');
    expect(kindOf(true, IN_DELETE, IN_CREATE, IN_MODIFY)).toBe('base-replaced etc/a');
    expect(kindOf(true, IN_MOVED_FROM)).toBe('base-removed etc/a');
    expect(kindOf(true, IN_DELETE, IN_CREATE, IN_DELETE)).toBe('base-removed etc/a');
    expect(kindOf(false, IN_CREATE, IN_MODIFY)).toBe('base-added etc/a');
    expect(kindOf(false, IN_MOVED_TO)).toBe('base-added etc/a');
    expect(kindOf(false, IN_CREATE, IN_MODIFY, IN_MOVED_FROM)).toBe('');
  });

  test('of what nobody uses are none, but for its coming', () => {
    expect(kindOf(false, IN_MODIFY)).toBe('');
    expect(kindOf(false, IN_DELETE)).toBe('');
  });

  test('are told of once they have come to rest, and asked for as long as they have not', () => {
    let calls = 0;
    const changes = new BaseChanges(() => (calls += 1));
    changes.note('a', IN_MODIFY, true);
    changes.note('b', IN_MODIFY, true);
    expect(changes.settled(60_000)).toMatchObject({ changes: [] });
    expect(changes.settled(60_000).nextMs).toBeGreaterThan(0);
    expect(calls).toBe(1);
    expect(changes.settled(0)).toMatchObject({ changes: [{ path: 'a' }, { path: 'b' }], nextMs: -1 });
    changes.note('a', IN_MODIFY, true);
    expect(calls).toBe(2);
  });

  test('beyond what is remembered are lost, and that is said', () => {
    const changes = new BaseChanges(() => {});
    for (let i = 0; i < 10_001; i++) changes.note(`f${i}`, IN_MODIFY, true);
    const { changes: list } = changes.settled(0);
    expect(list.length).toBe(10_001);
    expect(list[0]).toEqual({ path: '', kind: 'base-lost' });
    changes.lose();
    expect(changes.settled(0).changes).toEqual([{ path: '', kind: 'base-lost' }]);
    expect(changes.settled(0).changes).toEqual([]);
  });
});

describe('what is told and not kept', () => {
  test('stands among the other events, in no history, and is gone with the process', () =>
    withTemp('disk', async (dir) => {
      await withStore(`${dir}/.kasane`, async ({ events }) => {
        events.add({ kind: 'merged', path: 'a' });
        events.tell({ kind: 'base-changed', path: 'a' });
        events.add({ kind: 'kept', path: 'a' });
        events.tell({ kind: 'base-removed', path: 'a' });
        const kinds = (await all(events.from(0))).map(({ seq, kind }) => `${seq} ${kind}`);
        expect(kinds).toEqual(['1 merged', '2 base-changed', '3 kept', '4 base-removed']);
        expect((await all(events.from(4))).map(({ seq }) => seq)).toEqual([4]);
        expect((await all(events.of('a'))).map(({ seq }) => seq)).toEqual([1, 3]);
        expect((await all(events.of(''))).map(({ seq }) => seq)).toEqual([1, 3]);
      });
      await withStore(`${dir}/.kasane`, async ({ events }) => {
        expect((await all(events.from(0))).map(({ seq }) => seq)).toEqual([1, 3]);
        expect(events.add({ kind: 'kept', path: 'a' })).toBe(5);
      });
    }));

  test('is bounded: where the oldest have been dropped the list says so', () =>
    withTemp('disk', async (dir) => {
      await withStore(`${dir}/.kasane`, async ({ events }) => {
        for (let i = 0; i < 20_000; i++) events.tell({ kind: 'base-changed', path: `f${i}` });
        const list = await all(events.from(0));
        expect(list.length).toBe(10_000);
        expect(list[0]).toMatchObject({ seq: 10_001, kind: 'base-lost', path: '' });
        expect(list.at(-1)).toMatchObject({ seq: 20_000, path: 'f19999' });
      });
    }));

  test('leaves the file that lists it when that has become too large', async () => {
    const remembered = Array.from({ length: 10 }, (_, i) => `line ${i}\n`);
    let next = 0;
    const file = new AppendedFile(
      async (append, anew) => {
        if (anew) next = 0;
        for (; next < remembered.length; next += 1) append(remembered[next] as string);
      },
      () => 1,
    );
    const before = await file.at(1);
    expect(before.content.toString()).toBe(remembered.join(''));
    remembered.push('x'.repeat(5 * 1024 * 1024));
    // The oldest have been forgotten by the time that it has grown.
    const late = file.at(2);
    remembered.splice(0, 10);
    const after = await late;
    expect(after.content.length).toBe(5 * 1024 * 1024);
    expect(after.generation).toBeGreaterThan(before.generation);
    expect(before.content.toString()).toBe(Array.from({ length: 10 }, (_, i) => `line ${i}\n`).join(''));
  });
});
