// Merges of long texts, which are made on a thread of their own.
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { mainFile } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk } from '../lib/run.ts';
import { withGuest } from '../lib/versioning.ts';

const FILE = 'etc/long.conf';
const lines = (changed: Record<number, string>) =>
  Array.from({ length: 20_000 }, (_, i) => `${changed[i] ?? `line ${i}`}\n`).join('');

mountTest('a long text is merged, and one in conflict has a proposal with markers', () =>
  withGuest({ files: { [FILE]: lines({}) }, options: ['--debug'] }, async (guest) => {
    await guest.mount.write(FILE, lines({ 9: 'guest' }));
    await guest.update(FILE, lines({ 19000: 'base' }));
    expect(await guest.kasane(['reconcile', guest.mnt])).toMatchObject({ code: 0 });
    expect(await guest.read(FILE)).toBe(lines({ 9: 'guest', 19000: 'base' }));
    expect(guest.mount.log()).toMatch(/bytes were merged on a thread of their own/);
    await guest.update(FILE, lines({ 9: 'other', 19000: 'base' }));
    expect(await guest.kasane(['reconcile', guest.mnt])).toMatchObject({ code: 1 });
    expect(await guest.conflictList()).toEqual([`${FILE} text`]);
    expect(await guest.read('.kasane/conflict/1/merged')).toMatch(/^<<<<<<< overlay\nguest\n/m);
  }),
);

test('a merge that takes too long is given up, and is a conflict without markers; the next one is made', async () => {
  const script = `(async () => {
    const { MergeThread } = await import(process.argv[1]);
    const said = [];
    const log = { warn: (line) => said.push(line), debug: () => {} };
    const side = (word) => Buffer.from(Array.from({ length: 20_000 }, (_, i) => word + i + '\\n').join(''));
    const input = { ancestor: side('a'), overlay: side('o'), base: side('a') };
    const given = await new MergeThread(log, 0).merge(input);
    const next = await new MergeThread(log).merge(input);
    const same = ({ out }) => out.equals(input.overlay);
    console.log(JSON.stringify([given.conflict, same(given), said, next.conflict, same(next)]));
  })()`;
  const module = path.join(path.dirname(mainFile), 'union', 'merge-thread.js');
  const said = await runOk(process.execPath, ['-e', script, module]);
  expect(JSON.parse(said)).toEqual([
    true,
    true,
    [expect.stringMatching(/^a merge of \d+ bytes was given up: it took more than 0 s$/)],
    false,
    true,
  ]);
});
