// Nodes by their ids: the same as in a Map.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { IdTable } from '../../src/union/id-table.ts';
import type { Node } from '../../src/union/node.ts';

/** Of one piece, of the next one, far away, and as a mount has them that is read-only. */
const ids = [1, 2, 31, 32, 33, 64, 1_000_000, Date.now() * 1024, Date.now() * 1024 + 1];

test('nodes come, are replaced and go as in a Map', () => {
  const action = fc.record({ id: fc.constantFrom(...ids), what: fc.constantFrom('set', 'delete') });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const table = new IdTable();
      const map = new Map<number, Node>();
      for (const { id, what } of actions) {
        if (what === 'delete') {
          expect(table.delete(id)).toBe(map.delete(id));
          continue;
        }
        const node = { id } as Node;
        table.set(id, node);
        map.set(id, node);
      }
      expect(table.size).toBe(map.size);
      for (const id of ids) expect(table.get(id)).toBe(map.get(id));
      expect(new Set(table.values())).toEqual(new Set(map.values()));
    }),
  );
});

test('all can be dropped while they are gone through', () => {
  const table = new IdTable();
  for (let id = 1; id <= 100; id++) table.set(id, { id } as Node);
  let seen = 0;
  for (const { id } of table.values()) {
    seen += 1;
    table.delete(id);
  }
  expect([seen, table.size]).toEqual([100, 0]);
});
