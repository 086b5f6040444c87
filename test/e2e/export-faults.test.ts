// File handles of an exported mount after what goes wrong: kill -9 in the midst of an operation, a log that is
// torn, lost or behind the tree, a power loss, sessions that kept no log. A handle may go stale by that where it
// must; it never opens another object. And what comes with --export: the control directory, and what is said.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { FormatFile, readFormat } from '../../src/versions/format.ts';
import { exchangeCommand } from '../lib/calls.ts';
import { crashAt } from '../lib/crash.ts';
import { copyOverlay, type ExportedGuest, type Handles, withExport } from '../lib/handles.ts';
import { kasane, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh, waitUntil } from '../lib/run.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

const GONE = 'ESTALE';
const files = { file: 'base file\n', other: 'base other\n', 'dir/in': 'in\n', third: 'base third\n' };

/** Runs in the mount's root. */
const inMount = (guest: ExportedGuest, script: string) => sh(script, [], { cwd: guest.mnt });
const logOf = (guest: ExportedGuest) => `${guest.overlay}/.kasane/identity`;

/** Each opens what is expected, or is stale. */
function expectNoOther(found: Record<string, string>, expected: Record<string, string>): void {
  for (const [name, content] of Object.entries(found))
    expect([expected[name], GONE], name).toContain(content);
}

interface Crash {
  what: string;
  before?: string;
  act: string;
  step: string;
  /** Also just before it happens, not only just after. */
  both?: boolean;
  /** Of `a`, `b`, `dir` and `dir/in`, which are the guest's own, and of `file`, `other` and `based`, the base's. */
  undone: Record<string, string>;
  done: Record<string, string>;
}

const whole = { a: 'a\n', b: 'b\n', file: 'base file\n', other: 'base other\n', dir: 'in', 'dir/in': 'in\n' };

const crashes: Crash[] = [
  {
    what: 'a rename over another',
    act: 'mv a b',
    step: 'rename',
    undone: whole,
    done: { ...whole, b: GONE },
  },
  {
    what: 'a rename over a base file',
    act: 'mv a file',
    step: 'rename',
    undone: whole,
    done: { ...whole, file: GONE },
  },
  {
    what: 'a rename of one base file over another',
    before: 'chmod 600 file',
    act: 'mv file other',
    step: 'rename',
    undone: whole,
    done: { ...whole, other: GONE },
  },
  { what: 'a rename of a directory', act: 'mv dir moved', step: 'rename', undone: whole, done: whole },
  {
    what: 'a rename of a directory over an empty one',
    before: 'mkdir dir2',
    act: 'mv -T dir dir2',
    step: 'rename',
    undone: whole,
    done: whole,
  },
  {
    what: 'an exchange',
    act: exchangeCommand('a', 'file'),
    step: 'exchange',
    both: true,
    undone: whole,
    done: whole,
  },
  { what: 'a removal', act: 'rm a', step: 'remove', undone: whole, done: { ...whole, a: GONE } },
  { what: 'a whiteout', act: 'rm file', step: 'whiteout', undone: whole, done: { ...whole, file: GONE } },
  { what: 'a copy-up', act: 'echo -n >> file', step: 'copy-up', undone: whole, done: whole },
];

/** Each crash has a directory of its own; one daemon after another dies, and the last one is asked. */
const cuts = crashes.flatMap((crash, i) =>
  (crash.both ? (['before', 'after'] as const) : (['after'] as const)).map((moment) => ({
    ...crash,
    dir: `c${i}-${moment}`,
    point: `${crash.step}-${moment}-rename`,
    expected: moment === 'before' ? crash.undone : crash.done,
  })),
);

mountTest(
  'kill -9 in the midst of an operation leaves every handle at its own object',
  () =>
    withExport({ files: { still: 'still\n' } }, async (guest) => {
      await guest.changeBase(async () => {
        for (const { dir } of cuts)
          await sh('mkdir "$1"; cd "$1"; echo base file > file; echo base other > other', [
            `${guest.base}/${dir}`,
          ]);
      });
      const handles: Handles[] = [];
      for (const { dir, before } of cuts) {
        const make = 'echo a > a; echo b > b; mkdir dir; echo in > dir/in';
        await inMount(guest, `cd ${dir}; ${make}; ${before ?? ':'}`);
        const taken = await guest.take(...Object.keys(whole).map((one) => `${dir}/${one}`));
        handles.push(
          Object.fromEntries(Object.entries(taken).map(([name, one]) => [name.slice(dir.length + 1), one])),
        );
      }
      await guest.restart(async () => {
        for (const { dir, act, point } of cuts)
          await crashAt(guest.layers, point, `cd ${dir}; ${act}`, ['--export=nfs4']);
      });
      for (const [i, { what, point, expected }] of cuts.entries())
        expect.soft(await guest.openAll(handles[i] as Handles), `${what}, ${point}`).toEqual(expected);
    }),
  { timeout: 400_000 },
);

/** What a power loss does to the store: it was not closed, and another kernel runs. */
function losePower(guest: ExportedGuest): void {
  const dir = `${guest.overlay}/.kasane`;
  new FormatFile(dir, readFormat(dir).format, true).write({ clean: false, bootId: 'another' });
}

mountTest('a torn log, one that ends in rubbish, and one that is lost lead no handle to another object', () =>
  withExport({ files }, async (guest) => {
    await inMount(guest, 'echo own > own');
    const handles = await guest.take('file', 'other', 'dir', 'dir/in', 'own');
    const expected = {
      file: 'base file\n',
      other: 'base other\n',
      dir: 'in',
      'dir/in': 'in\n',
      own: 'own\n',
    };
    await guest.crash(() => fs.appendFileSync(logOf(guest), Buffer.from('0000000000', 'hex')));
    expect(await guest.openAll(handles)).toEqual(expected);
    // What is remembered from then on is not lost behind it.
    const third = await guest.take('third');
    await guest.crash(() => fs.appendFileSync(logOf(guest), Buffer.alloc(300, 0x5a)));
    expect(await guest.openAll({ ...handles, ...third })).toEqual({ ...expected, third: 'base third\n' });
    await inMount(guest, 'rm own; echo another > own; mv file moved; echo another > file');
    await guest.crash(() => fs.truncateSync(logOf(guest), fs.statSync(logOf(guest)).size - 3));
    const now = await guest.openAll(handles);
    expectNoOther(now, { ...expected, own: GONE });
    await guest.crash(() => fs.truncateSync(logOf(guest), 100));
    expectNoOther(await guest.openAll(handles), { ...expected, own: GONE });
    await guest.restart(() => fs.rmSync(logOf(guest)));
    expect(new Set(Object.values(await guest.openAll(handles)))).toEqual(new Set([GONE]));
    // And none of the new handles is an old one.
    const again = await guest.take('file', 'other', 'dir', 'dir/in', 'own', 'moved');
    const old = new Set([...Object.values(handles), ...Object.values(third)]);
    expect(Object.values(again).filter((one) => old.has(one))).toEqual([]);
  }),
);

/** What a guest does after the last sync, to names that it had before. */
const afterwards = `mv a b; echo new > a; rm c; echo new > c; mv file dir/file; echo new > file; rm other; mkdir other
  mv own/in own/moved; echo new > own/in; rm -r gone; mkdir gone; echo new > gone/in; ln d e; rm d; echo new > d
  mv dir dir2; mkdir dir; echo new > dir/in`;
const before = `echo a > a; echo b > b; echo c > c; echo d > d; mkdir own gone; echo own > own/in; echo gone > gone/in`;
const names = [
  'a',
  'b',
  'c',
  'd',
  'file',
  'other',
  'dir',
  'dir/in',
  'own',
  'own/in',
  'gone',
  'gone/in',
  'third',
];

mountTest(
  'after a power loss no handle opens another object: the overlay is as it was some time before',
  () =>
    withExport({ files }, async (guest) => {
      await inMount(guest, before);
      const first = await guest.take(...names);
      const kept = `${guest.dir}/kept`;
      await copyOverlay(guest.overlay, kept);
      await inMount(guest, `${afterwards}; echo x > fresh`);
      const second = await guest.take(...names.filter((name) => name !== 'b'), 'fresh');
      await guest.crash(async () => {
        await copyOverlay(kept, guest.overlay);
        losePower(guest);
      });
      await inMount(guest, 'echo y > fresh; echo y > more; cat a b c d file third own/in > /dev/null');
      expectNoOther(await guest.openAll(first), {
        a: 'a\n',
        b: 'b\n',
        c: 'c\n',
        d: 'd\n',
        file: 'base file\n',
        other: 'base other\n',
        dir: 'in',
        'dir/in': 'in\n',
        own: 'in',
        'own/in': 'own\n',
        gone: 'in',
        'gone/in': 'gone\n',
        third: 'base third\n',
      });
      const { third, dir, ...lost } = await guest.openAll(second);
      expect([dir, third]).toEqual([GONE, 'base third\n']);
      expectNoOther(lost, { own: 'in' });
    }),
);

mountTest('after a power loss no handle opens another object: the log is behind the tree', () =>
  withExport({ files }, async (guest) => {
    await inMount(guest, before);
    const handles = await guest.take(...names);
    const log = fs.readFileSync(logOf(guest));
    await inMount(guest, afterwards);
    await guest.crash(() => {
      fs.writeFileSync(logOf(guest), log);
      losePower(guest);
    });
    const opened = await guest.openAll(handles);
    expectNoOther(opened, { own: 'in moved', third: 'base third\n' });
    expect(opened).toMatchObject({ own: 'in moved', third: 'base third\n' });
    // Also once what lies there now has been met by name.
    await inMount(guest, 'find . > /dev/null; stat -c %n * */* > /dev/null');
    expect(await guest.openAll(handles)).toEqual(opened);
  }),
);

mountTest('a session without --export between leads no handle to another object', () =>
  withExport({ files }, async (guest) => {
    await inMount(guest, before);
    const handles = await guest.take(...names);
    await guest.restart(() => withMount(guest.layers, (mount) => mount.sh(afterwards)));
    expect(await guest.openAll(handles)).toEqual({
      ...Object.fromEntries(names.map((name) => [name, GONE])),
      own: 'in moved',
      third: 'base third\n',
    });
  }),
);

mountTest('what somebody changes in the overlay itself leads no handle to another object', () =>
  withExport({ files }, async (guest) => {
    await inMount(guest, before);
    const handles = await guest.take('a', 'b', 'own', 'own/in', 'gone', 'gone/in', 'third');
    await guest.restart(() =>
      sh('rm a; echo new > a; mv own/in b; rm -r gone; mkdir gone; echo new > gone/in', [], {
        cwd: guest.overlay,
      }),
    );
    const stale = { a: GONE, b: GONE, 'own/in': GONE, gone: GONE, 'gone/in': GONE };
    expect(await guest.openAll(handles)).toEqual({ ...stale, own: '', third: 'base third\n' });
  }),
);

mountTest(
  'handles of a read-only mount work when all is forgotten, and none of another session opens anything',
  () =>
    withExport({ files }, async (guest) => {
      await inMount(guest, before);
      const handles = await guest.take('a', 'file');
      const readOnly = ['--export', '-o', 'ro'];
      let earlier: Handles = {};
      await guest.restart(async () => {
        for (let round = 0; round < 2; round += 1) {
          await withMount({ ...guest.layers, options: readOnly }, async () => {
            const found = await guest.openAll({ ...handles, ...earlier });
            expect(new Set(Object.values(found))).toEqual(new Set([GONE]));
            // In another order each time.
            const order = round === 0 ? ['dir/in', 'file', 'a'] : ['a', 'own/in', 'file', 'dir/in'];
            const now = await guest.take(...order);
            await guest.forget();
            const expected = { 'dir/in': 'in\n', file: 'base file\n', a: 'a\n', 'own/in': 'own\n' };
            expectNoOther(await guest.openAll(now), expected);
            expect(Object.values(await guest.openAll(now))).not.toContain(GONE);
            earlier = Object.fromEntries(
              Object.entries(now).map(([name, handle]) => [`earlier ${name}`, handle]),
            );
          });
        }
      });
      expect(await guest.openAll(handles)).toEqual({ a: 'a\n', file: 'base file\n' });
    }),
);

mountTest(
  'the control directory is listed, and its handles work when they are forgotten and after a restart',
  () =>
    withExport({ files: { ...files, conf: text() } }, async (guest) => {
      await inMount(guest, `sed -i 's/^line ${GUEST_LINE}$/guest/' conf`);
      await guest.update('conf', text({ [GUEST_LINE]: 'base' }));
      await guest.read('conf');
      expect(await guest.conflictList()).toEqual(['conf text']);
      expect(await inMount(guest, 'ls -A')).toBe('.kasane\nconf\ndir\nfile\nother\nthird\n');
      const id = (await guest.conflicts())[0]?.id;
      const inside = ['', '/status', '/conflicts', '/conflict', `/conflict/${id}`, `/conflict/${id}/overlay`];
      const handles = await guest.take(...inside.map((name) => `.kasane${name}`));
      const check = async () => {
        const found = await guest.openAll(handles);
        expect(found['.kasane']?.split(' ')).toContain('status');
        expect(found['.kasane/status']).toContain(guest.mnt);
        expect(found['.kasane/conflicts']).toContain('conf');
        expect(found['.kasane/conflict']).toBe(String(id));
        expect(found[`.kasane/conflict/${id}`]).toContain('overlay');
        expect(found[`.kasane/conflict/${id}/overlay`]).toBe(text({ [GUEST_LINE]: 'guest' }));
      };
      await check();
      await guest.forget();
      await check();
      await guest.restart();
      await check();
      await guest.crash();
      await guest.forget();
      await check();
    }),
);

mountTest(
  'with --export for NFSv3 clients nothing is merged when it is met, only at mount and by reconcile',
  () =>
    withExport({ files: { conf: text(), later: text() }, options: ['--export=on'] }, async (guest) => {
      const guestText = text({ [GUEST_LINE]: 'guest' });
      const update = text({ [BASE_LINE]: 'base' });
      const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });
      await inMount(guest, `sed -i 's/^line ${GUEST_LINE}$/guest/' conf later`);
      for (const name of ['conf', 'later']) await guest.update(name, update);
      expect(await guest.read('conf')).toBe(guestText);
      await inMount(guest, 'stat conf later; cat conf >> later; ls -l');
      expect(await guest.read('conf')).toBe(guestText);
      const status = await kasane(['status', guest.mnt]);
      expect(status.stdout).toMatch(/^option_export on$/m);
      expect(status.stdout).toMatch(/merged at mount and by kasane reconcile only/);
      expect((await kasane(['reconcile', guest.mnt])).code).toBe(0);
      expect(await guest.read('conf')).toBe(merged);
      await guest.update('conf', text({ [BASE_LINE]: 'newer' }));
      expect(await guest.read('conf')).toBe(merged);
      await guest.restart();
      await waitFor(guest, 'conf', text({ [BASE_LINE]: 'newer', [GUEST_LINE]: 'guest' }));
    }),
);

async function waitFor(guest: ExportedGuest, name: string, content: string): Promise<void> {
  await waitUntil(async () => (await guest.read(name)) === content);
  expect(await guest.read(name)).toBe(content);
}

mountTest('export writes a configuration that names the mount, and refuses a mount without --export', () =>
  withExport({ files }, async (guest) => {
    const { code, stdout } = await kasane(['export', guest.mnt]);
    expect(code).toBe(0);
    expect(stdout).toContain(`Path = "${guest.mnt}";`);
    expect(stdout).toMatch(/^# {3}\S+ CLIENT\(rw,no_root_squash,no_subtree_check,fsid=\d+\)$/m);
    expect(stdout).toContain('Protocols = 4;');
    expect((await kasane(['status', guest.mnt])).stdout).toMatch(/all clients must speak NFSv4/);
    await guest.restart(() =>
      withMount(guest.layers, async () => {
        const refused = await kasane(['export', guest.mnt]);
        expect(refused.code).not.toBe(0);
        expect(refused.stderr).toMatch(/without --export/);
      }),
    );
  }),
);

mountTest('who has a directory open that a guest removes is told of it as it is', () =>
  withExport({ files }, async (guest) => {
    const told = await inMount(
      guest,
      'rm dir/in; exec 3< dir; rmdir dir; stat -L -c "%F %h" /proc/self/fd/3',
    );
    expect(told).toBe('directory 0\n');
  }),
);
