import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import { hash128 } from '../../src/lib/hash.ts';
import { Ancestors, dropTemporaries } from '../../src/versions/ancestors.ts';
import { hash } from '../lib/store.ts';
import { withTemp } from '../lib/temp.ts';

interface Setup {
  ancestors: Ancestors;
  dir: string;
  reports: string[];
}

function withAncestors<T>(body: (setup: Setup) => Promise<T>): Promise<T> {
  return withTemp('disk', (dir) => {
    const reports: string[] = [];
    const ancestors = new Ancestors(dir, (what, why) => void reports.push(`${what} ${why}`));
    return body({ ancestors, dir, reports });
  });
}

const fileOf = (dir: string, name: string) => path.join(dir, name.slice(0, 2), name);

describe('ancestors', () => {
  test('come back whole: empty, text, bytes that do not shrink, and large ones', () =>
    withAncestors(async ({ ancestors, dir }) => {
      const random = Buffer.alloc(100_000);
      for (let i = 0; i < random.length; i++) random[i] = Math.floor(Math.random() * 256);
      const contents = [
        Buffer.alloc(0),
        Buffer.from('a b c\n'.repeat(900)),
        random,
        Buffer.alloc(300_000, 7),
      ];
      for (const content of contents) {
        const name = await ancestors.put(content);
        expect(name).toBe(hash128(content));
        expect((await ancestors.get(name))?.equals(content)).toBe(true);
        expect(fs.statSync(fileOf(dir, name)).mode & 0o777).toBe(0o600);
        expect(fs.statSync(fileOf(dir, name)).size).toBeLessThanOrEqual(content.length + 7);
      }
      await ancestors.flush();
      expect([...ancestors.list()].length).toBe(4);
      expect((await ancestors.sizes()).count).toBe(4);
    }));

  test('of equal content are one file, also when they are put at the same time', () =>
    withAncestors(async ({ ancestors, dir }) => {
      const content = Buffer.from('twice');
      const names = await Promise.all([1, 2, 3, 4].map(() => ancestors.put(content)));
      await ancestors.put(content);
      expect(new Set(names).size).toBe(1);
      expect(fs.readdirSync(dir, { recursive: true }).length).toBe(2);
    }));

  test('can be taken from an open file, small or larger than memory should hold', () =>
    withAncestors(async ({ ancestors, dir, reports }) => {
      for (const size of [0, 5000, 9 * 1024 * 1024]) {
        const source = path.join(dir, `source-${size}`);
        const content = Buffer.alloc(size, `line ${size}\n`);
        fs.writeFileSync(source, content);
        const fd = fs.openSync(source, 'r');
        const name = await ancestors.putFromFile(fd);
        expect(name).toBe(hash128(content));
        expect(await ancestors.putFromFile(fd)).toBe(name);
        fs.closeSync(fd);
        expect((await ancestors.get(name))?.equals(content)).toBe(true);
        const back = fs.openSync(path.join(dir, `back-${size}`), 'w+');
        expect(await ancestors.writeTo(name, back)).toBe(size);
        fs.closeSync(back);
        expect(fs.readFileSync(path.join(dir, `back-${size}`)).equals(content)).toBe(true);
      }
      expect(fs.readdirSync(dir).filter((name) => name.startsWith('new-'))).toEqual([]);
      expect(reports).toEqual([]);
    }));

  test('that are damaged are found, told, and written again when the content comes again', () =>
    withAncestors(async ({ ancestors, dir, reports }) => {
      const content = Buffer.from('precious\n'.repeat(100));
      const name = await ancestors.put(content);
      const whole = fs.readFileSync(fileOf(dir, name));
      for (let at = 0; at < whole.length; at++) {
        const bad = Buffer.from(whole);
        bad[at] = (bad[at] as number) ^ 0x15;
        fs.writeFileSync(fileOf(dir, name), bad);
        expect(await ancestors.get(name)).toBe(null);
        expect(await ancestors.verify(name)).toBe('damaged');
      }
      for (let length = 0; length < whole.length; length++) {
        fs.writeFileSync(fileOf(dir, name), whole.subarray(0, length));
        expect(await ancestors.get(name)).toBe(null);
      }
      expect(reports[0]).toContain(name);
      const fresh = new Ancestors(dir, () => {});
      expect(await fresh.put(content)).toBe(name);
      expect(await fresh.get(name)).toEqual(content);
    }));

  test('that are missing are null, and names that are none do no harm', () =>
    withAncestors(async ({ ancestors, reports }) => {
      expect(await ancestors.get(hash(5))).toBe(null);
      expect(await ancestors.get('../../etc/passwd')).toBe(null);
      expect(await ancestors.writeTo(hash(5), -1)).toBe(-2);
      expect(ancestors.has(hash(5))).toBe(false);
      expect(reports).toEqual([]);
    }));

  test('can be found by the start of their name, and removed', () =>
    withAncestors(async ({ ancestors }) => {
      const name = await ancestors.put(Buffer.from('x'));
      expect(ancestors.findByPrefix(name.slice(0, 16))).toBe(name);
      expect(ancestors.findByPrefix(hash(1).slice(0, 16))).toBe(null);
      expect(await ancestors.remove(name)).toBeGreaterThan(0);
      expect(ancestors.has(name)).toBe(false);
      await ancestors.flush();
      expect(ancestors.findByPrefix(name.slice(0, 16))).toBe(null);
    }));

  test('leave no temporaries behind a crash', () =>
    withAncestors(async ({ dir }) => {
      fs.writeFileSync(path.join(dir, 'new-1-2'), 'half');
      dropTemporaries(dir);
      expect(fs.readdirSync(dir)).toEqual([]);
    }));
});
