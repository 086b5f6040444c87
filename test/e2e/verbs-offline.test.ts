// The verbs of an overlay that is not mounted: the history is there, and where the base is, too, what is decided.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { caughtUp, kasane, type Layers, say, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { text, updateFile, writeFiles } from '../lib/versioning.ts';

const json = async (code: number, ...args: string[]) => JSON.parse(await say(code, ...args, '--json'));

/** An overlay that was mounted, with a merge in `a` and a conflict in `b`. */
function withPast(body: (layers: Layers) => Promise<void>): Promise<void> {
  return withLayers(async (layers) => {
    writeFiles(layers.base, { 'etc/a': text(), 'etc/b': text() });
    await withMount(layers, async (mount) => {
      await ripen(layers.base);
      await mount.write('etc/a', text({ 15: 'guest' }));
      await mount.write('etc/b', text({ 10: 'guest' }));
      await updateFile(`${layers.base}/etc/a`, text({ 3: 'base' }), 'replace');
      await updateFile(`${layers.base}/etc/b`, text({ 10: 'base' }), 'replace');
      await say(1, 'reconcile', mount.dir);
    });
    await body(layers);
  });
}

describe('an overlay that is not mounted', () => {
  mountTest('is looked at', () =>
    withPast(async ({ overlay, base }) => {
      expect(await say(1, 'conflicts', overlay)).toBe('1\ttext\tetc/b\n');
      const status = await json(0, 'status', overlay);
      expect(status).toMatchObject({
        mounted: false,
        pid: 0,
        started: null,
        bases: [base],
        base: 'accepted',
      });
      expect(status.counts).toMatchObject({ copies: 2, conflicts: 1, stale: 1 });
      const log = await json(0, 'log', `${overlay}/etc/a`);
      expect(log.map((one: { kind: string }) => one.kind)).toEqual(['copy-up', 'merged']);
      expect(await say(0, 'show', '--side', 'ancestor', `${overlay}/etc/b`)).toBe(text());
      expect(await say(1, 'diff', `${overlay}/etc/b`)).toContain('+guest');
      expect(await json(0, 'check', overlay)).toMatchObject({ damage: 0, warnings: 0, findings: [] });
      expect(await json(0, 'reconcile', '--dry-run', `${overlay}/etc/a`)).toMatchObject({
        looked: 1,
        conflicts: [],
      });
      await say(4, 'prune', overlay);
    }),
  );

  mountTest(
    'shows of a copy of metadata alone that its metadata were changed, wherever the base has moved',
    () =>
      withLayers(async (layers) => {
        writeFiles(layers.base, { f: text() });
        await withMount(layers, (mount) => mount.sh('chmod 600 f'));
        await updateFile(`${layers.base}/f`, text({ 3: 'base' }), 'replace');
        expect(await say(1, 'diff', layers.overlay)).toBe('# f\n# mode ancestor 0644, overlay 0600\n');
      }),
  );

  mountTest('is decided, and a mount finds it so', () =>
    withPast(async (layers) => {
      const { overlay, base } = layers;
      await say(0, 'undo', `${overlay}/etc/a`);
      expect(fs.readFileSync(`${overlay}/etc/a`, 'utf8')).toBe(text({ 15: 'guest' }));
      await say(4, 'resolve', overlay, '1@7', '--take', 'base');
      await say(0, 'resolve', overlay, '1@1', '--take', 'base');
      expect(fs.existsSync(`${overlay}/etc/b`)).toBe(false);
      await say(0, 'undo', `${overlay}/etc/b`);
      expect(fs.readFileSync(`${overlay}/etc/b`, 'utf8')).toBe(text({ 10: 'guest' }));
      await say(0, 'resolve', `${overlay}/etc/b`, '--take', 'overlay');
      await say(0, 'conflicts', overlay);
      expect(await json(0, 'check', overlay)).toMatchObject({ damage: 0, findings: [] });
      await withMount(layers, async (mount) => {
        expect(await mount.read('etc/a')).toBe(text({ 15: 'guest' }));
        expect(await mount.read('etc/b')).toBe(text({ 10: 'guest' }));
        await updateFile(`${base}/etc/b`, text({ 3: 'later', 10: 'base' }), 'replace');
        await caughtUp(mount.dir);
        expect(await mount.read('etc/b')).toBe(text({ 3: 'later', 10: 'guest' }));
        expect(await say(0, 'status', mount.dir)).toContain('undone 1\n');
      });
    }),
  );

  mountTest('is reconciled', () =>
    withPast(async ({ overlay, base }) => {
      await updateFile(`${base}/etc/a`, text({ 3: 'base', 5: 'more' }), 'replace');
      // Two seconds of settling, doubled by the merge before.
      const report = await json(1, 'reconcile', overlay);
      expect(report).toMatchObject({ looked: 2, merged: 1 });
      expect(fs.readFileSync(`${overlay}/etc/a`, 'utf8')).toBe(text({ 3: 'base', 5: 'more', 15: 'guest' }));
    }),
  );

  mountTest('without its base is read only', () =>
    withPast(async ({ overlay, base }) => {
      fs.renameSync(base, `${base}.away`);
      expect(await json(0, 'status', overlay)).toMatchObject({ base: 'absent', bases: [base] });
      await say(1, 'conflicts', overlay);
      expect(await say(0, 'show', '--side', 'base', overlay, '1')).toBe(text({ 10: 'base' }));
      await say(2, 'show', '--side', 'base', `${overlay}/etc/a`);
      for (const args of [
        ['resolve', `${overlay}/etc/b`, '--take', 'overlay'],
        ['undo', `${overlay}/etc/a`],
        ['reconcile', overlay],
      ]) {
        const { code, stderr } = await kasane(args);
        expect(`${code} ${stderr}`).toMatch(/^4 .*base is not reachable/);
      }
      fs.renameSync(`${base}.away`, base);
      await say(0, 'undo', `${overlay}/etc/a`);
    }),
  );

  mountTest('whose index is lost is known again by its origins', () =>
    withPast(async ({ overlay }) => {
      fs.rmSync(`${overlay}/.kasane/index`, { recursive: true });
      const status = await json(0, 'status', overlay);
      expect(status.notes).toMatchObject([expect.stringContaining('rebuilt')]);
      expect(status.counts).toMatchObject({ copies: 2, conflicts: 0 });
      await say(1, 'reconcile', overlay);
      const [conflict] = await json(1, 'conflicts', overlay);
      expect(conflict).toMatchObject({ path: 'etc/b', kind: 'text' });
      expect(conflict.id).toBeGreaterThan(1);
      expect(await json(0, 'check', overlay)).toMatchObject({ damage: 0, findings: [] });
    }),
  );

  mountTest('tells what was put aside, where no conflict tells of it any more', () =>
    withPast(async ({ overlay }) => {
      const [{ id }] = await json(1, 'conflicts', overlay);
      for (const name of [id, 'empty-m-1', 4711]) fs.mkdirSync(`${overlay}/.kasane/displaced/${name}`);
      const { findings } = await json(0, 'check', overlay);
      const aside = { severity: 'warning', code: 'orphan-displaced' };
      const about = (name: string) => ({ ...aside, message: expect.stringContaining(`displaced/${name} `) });
      expect(findings).toHaveLength(2);
      expect(findings).toEqual(
        expect.arrayContaining(['4711', 'empty-m-1'].map((name) => expect.objectContaining(about(name)))),
      );
    }),
  );

  mountTest('tells what was left in work/, and looks at what Kasane has never seen', () =>
    withPast(async ({ overlay, dir }) => {
      fs.writeFileSync(`${overlay}/.kasane/work/left`, '');
      const report = await json(0, 'check', overlay);
      expect(report.findings).toMatchObject([{ severity: 'warning', code: 'orphan-work' }]);
      fs.mkdirSync(`${dir}/plain`);
      fs.writeFileSync(`${dir}/plain/file`, '');
      const plain = await json(0, 'check', `${dir}/plain`);
      expect(plain).toMatchObject({ objects: 1, origins: 0, damage: 0, warnings: 1 });
      expect(plain.findings).toMatchObject([{ severity: 'warning', code: 'no-state' }]);
      expect(fs.readdirSync(`${dir}/plain`)).toEqual(['file']);
      await say(3, 'status', `${dir}/plain`);
    }),
  );
});
