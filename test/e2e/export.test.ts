// File handles of a mount with --export: what an NFS client holds for days. A handle gives the object that it was
// taken of, whatever became of caches, names, daemon and base; or ESTALE once that is gone; never another object.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { renameWith } from '../lib/calls.ts';
import { crashAt } from '../lib/crash.ts';
import {
  appendByHandle,
  type ExportedGuest,
  type Handles,
  openHandles,
  takeHandles,
  withExport,
} from '../lib/handles.ts';
import { kasane } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

const GONE = 'ESTALE';

/** A name for every kind of object; each file has its own content. */
const files = {
  file: 'base file\n',
  other: 'base other\n',
  third: 'base third\n',
  'dir/sub/file': 'deep file\n',
  'dir/sub/second': 'deep second\n',
  'dir/top': 'top\n',
  empty: null,
};

/** What each handle opens, by the name that it was taken of. */
async function openAll(guest: ExportedGuest, handles: Handles): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const [name, handle] of Object.entries(handles)) found[name] = await guest.open(handle);
  return found;
}

/** The same whether the kernel still knows the inodes, has forgotten them, or the daemon has been restarted. */
async function expectThroughout(
  guest: ExportedGuest,
  handles: Handles,
  expected: Record<string, string>,
): Promise<void> {
  expect(await openAll(guest, handles), 'as they are').toEqual(expected);
  await guest.forget();
  expect(await openAll(guest, handles), 'forgotten by the kernel').toEqual(expected);
  await guest.restart();
  expect(await openAll(guest, handles), 'after a restart').toEqual(expected);
  await guest.crash();
  expect(await openAll(guest, handles), 'after kill -9').toEqual(expected);
}

mountTest(
  'a handle of each kind of object opens it when all has been forgotten, after a restart and kill -9',
  () =>
    withExport({ files, options: ['--export=nfs4', '-o', 'dev'] }, async (guest) => {
      await guest.changeBase(() => sh('cd "$1"; ln -s file link; mkfifo fifo', [guest.base]));
      await guest.sh(`
      echo own > own; mkdir -p made/deep; echo in > made/deep/in; ln -s own ownlink; mknod device c 1 3
      echo more >> dir/top; ln own ownname; chmod 700 dir/sub`);
      const names = ['', 'file', 'dir', 'dir/sub', 'dir/sub/file', 'dir/top', 'link', 'fifo', 'empty', 'own'];
      names.push('ownname', 'made', 'made/deep', 'made/deep/in', 'ownlink', 'device');
      const handles = await takeHandles(guest.mnt, names);
      const before = await openHandles(guest.mnt, handles);
      expect(before.filter((one) => one.error !== undefined)).toEqual([]);
      const stats = names.map((name) => fs.lstatSync(`${guest.layers.mnt}/${name}`).ino);
      expect(before.map((one) => one.ino)).toEqual(stats);
      await guest.forget();
      expect(await guest.read('.kasane/metrics')).toContain('\nkasane_nodes 1\n');
      expect(await openHandles(guest.mnt, handles)).toEqual(before);
      await guest.restart();
      expect(await openHandles(guest.mnt, handles)).toEqual(before);
      await guest.crash();
      expect(await openHandles(guest.mnt, [...handles].reverse())).toEqual([...before].reverse());
    }),
);

mountTest('a handle follows renames of its object, and of directories above it', () =>
  withExport({ files }, async (guest) => {
    await guest.sh('mkdir own; echo mine > own/mine');
    const handles = await guest.take('file', 'dir', 'dir/sub', 'dir/sub/file', 'own', 'own/mine', 'other');
    await guest.sh('mv file moved; mv dir/sub sub; mv dir renamed; mv own renamed/own; mv sub/file sub/new');
    const expected = {
      file: 'base file\n',
      dir: 'own top',
      'dir/sub': 'new second',
      'dir/sub/file': 'deep file\n',
      own: 'mine',
      'own/mine': 'mine\n',
      other: 'base other\n',
    };
    await expectThroughout(guest, handles, expected);
    await guest.sh(
      'mv sub renamed/sub; mv renamed dir; mv dir/sub/new dir/sub/file; mv dir/own own; mv moved file',
    );
    await expectThroughout(guest, handles, { ...expected, dir: 'sub top', 'dir/sub': 'file second' });
  }),
);

mountTest('a handle follows what changes places with another', () =>
  withExport({ files }, async (guest) => {
    await guest.sh('mkdir own; echo mine > own/mine');
    const handles = await guest.take('file', 'other', 'dir', 'own', 'own/mine', 'dir/top');
    const exchange = async (a: string, b: string) =>
      expect(await renameWith(guest.at(a), guest.at(b), 'exchange')).toBe('done');
    await exchange('file', 'other');
    await exchange('dir', 'own');
    await exchange('own/top', 'third');
    await expectThroughout(guest, handles, {
      file: 'base file\n',
      other: 'base other\n',
      dir: 'sub top',
      own: 'mine',
      'own/mine': 'mine\n',
      'dir/top': 'top\n',
    });
    expect(await guest.read('third')).toBe('top\n');
    expect(await guest.read('file')).toBe('base other\n');
  }),
);

mountTest('a handle follows a copy-up, a write through it, and a merge, also while it is open', () =>
  withExport({ files: { ...files, conf: text(), replaced: text(), held: text() } }, async (guest) => {
    const handles = await guest.take('file', 'dir/sub', 'dir/sub/file', 'conf', 'replaced', 'held');
    // By the kernel's inode, by the handle when all is forgotten, and by the name.
    expect(await appendByHandle(guest.mnt, handles.file as string, 'written\n')).toBe(undefined);
    await guest.forget();
    expect(await appendByHandle(guest.mnt, handles['dir/sub/file'] as string, 'written\n')).toBe(undefined);
    const mine = `s/^line ${GUEST_LINE}$/guest/`;
    // Some write in place, others put a new file there: that is another object, until the base comes into it.
    await guest.sh(`sed '${mine}' conf > tmp; cat tmp > conf; cat tmp > held; mv tmp replaced`);
    expect(await guest.open(handles.replaced as string)).toBe(GONE);
    Object.assign(handles, await guest.take('replaced'));
    const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });
    const agent = startAgent();
    const fd = await agent.call<number>('openSync', guest.at('held'), 'r');
    for (const name of ['conf', 'replaced', 'held']) {
      await guest.update(name, text({ [BASE_LINE]: 'base' }));
      expect(await guest.read(name)).toBe(merged);
    }
    const expected = {
      file: 'base file\nwritten\n',
      'dir/sub': 'file second',
      'dir/sub/file': 'deep file\nwritten\n',
      conf: merged,
      replaced: merged,
    };
    const { held, ...others } = handles;
    expect(await openAll(guest, others)).toEqual(expected);
    // Who has it open keeps the bytes that were there; so does a handle, while the inode is in use.
    expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe(text({ [GUEST_LINE]: 'guest' }));
    await agent.call('closeSync', fd);
    await agent.stop();
    expect(await guest.open(held as string)).toBe(merged);
    await expectThroughout(guest, handles, { ...expected, held: merged });
  }),
);

mountTest('a handle follows the replacement of a base file, also one that is in use', () =>
  withExport({ files }, async (guest) => {
    const handles = await guest.take('file', 'other', 'third', 'dir/sub/file');
    const agent = startAgent();
    const fd = await agent.call<number>('openSync', guest.at('third'), 'r');
    await guest.forget();
    for (const name of Object.keys(handles)) await guest.update(name, `new ${name}\n`);
    expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe('base third\n');
    expect(await guest.read('third')).toBe('new third\n');
    await agent.call('closeSync', fd);
    await agent.stop();
    const expected = Object.fromEntries(Object.keys(handles).map((name) => [name, `new ${name}\n`]));
    await expectThroughout(guest, handles, expected);
    for (const name of Object.keys(handles)) await guest.update(name, `newer ${name}\n`);
    const newer = Object.fromEntries(Object.keys(handles).map((name) => [name, `newer ${name}\n`]));
    await expectThroughout(guest, handles, newer);
  }),
);

mountTest('an old handle of what was replaced while it was open and the new one go on as one object', () =>
  withExport({ files }, async (guest) => {
    const { file: old } = (await guest.take('file')) as { file: string };
    const agent = startAgent();
    const fd = await agent.call<number>('openSync', guest.at('file'), 'r');
    await guest.update('file', 'second\n');
    const { file: fresh } = (await guest.take('file')) as { file: string };
    await agent.call('closeSync', fd);
    const both = async () => [await guest.open(old), await guest.open(fresh)];
    expect(await both()).toEqual(['second\n', 'second\n']);
    expect(await appendByHandle(guest.mnt, old, 'by the old\n')).toBe(undefined);
    expect(await appendByHandle(guest.mnt, fresh, 'by the new\n')).toBe(undefined);
    const all = 'second\nby the old\nby the new\n';
    expect(await both()).toEqual([all, all]);
    expect(await guest.read('file')).toBe(all);
    await guest.sh('mv file dir/moved; echo another > file');
    expect(await both()).toEqual([all, all]);
    await guest.forget();
    expect(await both()).toEqual([all, all]);
    await guest.restart();
    expect(await both()).toEqual([all, all]);
    await guest.sh('rm dir/moved; echo another > dir/moved');
    expect(await both()).toEqual([GONE, GONE]);
    await guest.crash();
    expect(await both()).toEqual([GONE, GONE]);
    await agent.stop();
  }),
);

mountTest('handles outlive a new tree under the base’s path, with other inodes', () =>
  withExport({ files }, async (guest) => {
    await guest.sh('echo mine >> dir/top; mkdir own; echo own > own/file; mv dir/sub sub');
    const names = ['file', 'dir', 'dir/top', 'sub', 'sub/file', 'own', 'own/file', 'empty'];
    const handles = await guest.take(...names);
    const before = await openAll(guest, handles);
    const copy = () => sh('cp -a "$1" "$1.new"; mv "$1" "$1.old"; mv "$1.new" "$1"', [guest.base]);
    await guest.changeBase(copy);
    await guest.read('file');
    await expectThroughout(guest, handles, before);
    await guest.restart(() => guest.changeBase(() => sh('rm -rf "$1.old"', [guest.base]).then(copy)));
    await expectThroughout(guest, handles, before);
  }),
);

mountTest('a handle of what has been removed is stale for good, whatever comes under its name', () =>
  withExport({ files }, async (guest) => {
    await guest.sh('mkdir own; echo own > own/file; echo a > a; echo b > b; echo c > c');
    const names = ['file', 'other', 'third', 'dir/top', 'empty', 'own', 'own/file', 'a', 'b'];
    const handles = await guest.take(...names);
    await guest.forget();
    // Removed and made anew; renamed over, by the overlay's own and by the base's; a directory and one like it.
    await guest.sh(`rm file; echo another > file; mv c other; mv dir/sub/file third; rm dir/top; mkdir dir/top
      rmdir empty; mkdir empty; rm own/file; rmdir own; mkdir own; echo another > own/file
      rm a; ln b a; rm b; echo another > b`);
    const stale = Object.fromEntries(names.map((name) => [name, GONE]));
    // b goes on under its other name.
    const expected = { ...stale, b: 'b\n' };
    await expectThroughout(guest, handles, expected);
    const fresh = await guest.take(...names.filter((name) => name !== 'a'));
    expect(Object.values(fresh).filter((handle) => Object.values(handles).includes(handle))).toEqual([]);
  }),
);

mountTest('what the base removes is stale, and what it adds under that name is another object', () =>
  withExport({ files }, async (guest) => {
    const handles = await guest.take('file', 'dir/sub', 'dir/sub/file', 'dir/top', 'other');
    await guest.changeBase(() => sh('cd "$1"; rm -r file dir/sub; mkdir file; rm dir/top', [guest.base]));
    const stale = { file: GONE, 'dir/sub': GONE, 'dir/sub/file': GONE, 'dir/top': GONE };
    await expectThroughout(guest, handles, { ...stale, other: 'base other\n' });
    await guest.changeBase(() =>
      sh('cd "$1"; rmdir file; echo n > file; mkdir dir/sub; echo n > dir/sub/file; echo n > dir/top', [
        guest.base,
      ]),
    );
    await expectThroughout(guest, handles, { ...stale, other: 'base other\n' });
  }),
);

mountTest('a file with several names is found by each handle as long as it has a name', () =>
  withExport({ files }, async (guest) => {
    await guest.changeBase(() => sh('cd "$1"; ln file dir/second; ln file dir/sub/third', [guest.base]));
    await guest.sh('echo own > own; ln own dir/own');
    const [file, own, ownTwo] = await takeHandles(guest.mnt, ['file', 'own', 'dir/own']);
    expect(own).toBe(ownTwo);
    await guest.forget();
    const [second] = await takeHandles(guest.mnt, ['dir/second']);
    await guest.forget();
    const [third] = await takeHandles(guest.mnt, ['dir/sub/third']);
    const handles = { file, second, third, own } as Handles;
    const expected = { file: 'base file\n', second: 'base file\n', third: 'base file\n', own: 'own\n' };
    await expectThroughout(guest, handles, expected);
    await guest.sh('rm own; echo another > own; rm dir/second; echo another > dir/second');
    // Which of the base's names a handle was taken of is known, for they were never looked up together.
    await expectThroughout(guest, handles, { ...expected, second: GONE });
    await guest.sh('rm dir/own');
    await expectThroughout(guest, handles, { ...expected, second: GONE, own: GONE });
  }),
);
