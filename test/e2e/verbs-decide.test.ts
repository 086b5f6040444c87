// `resolve`, `undo` and `reconcile` against real mounts, by the command line: what they leave in the overlay, what
// they refuse, and their exit codes.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import { mountTest } from '../lib/needs.ts';
import { type Guest, text, withGuest } from '../lib/versioning.ts';

const FILE = 'etc/a.conf';
const guestText = text({ 10: 'guest' });
const baseText = text({ 10: 'base' });

/** Exit code of a verb, with what it said where that is not the one that was expected. */
async function ends(guest: Guest, code: number, ...args: string[]): Promise<string> {
  const result = await guest.kasane(args);
  if (result.code !== code) {
    throw new Error(`kasane ${args.join(' ')} ended with ${result.code}: ${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

const refused = async (guest: Guest, ...args: string[]) => {
  const result = await guest.kasane(args);
  expect(`${result.code}: ${result.stderr}`).toMatch(/^4: kasane: /);
  return result.stderr;
};

/** A conflict on a file: both have changed the same line. */
async function overlap(guest: Guest, name = FILE): Promise<{ id: number; rev: number }> {
  await guest.mount.write(name, guestText);
  await guest.update(name, baseText);
  await ends(guest, 1, 'reconcile', guest.at(name));
  const [one] = (await guest.conflicts()).filter((conflict) => conflict.path === name);
  if (one === undefined) throw new Error(`${name}: no conflict`);
  return one;
}

/** A merge on a file: both have changed it, far apart. */
async function merged(guest: Guest, name = FILE): Promise<string> {
  await guest.mount.write(name, text({ 15: 'guest' }));
  await guest.update(name, text({ 3: 'base' }));
  await ends(guest, 0, 'reconcile', guest.mnt);
  const both = text({ 3: 'base', 15: 'guest' });
  expect(await guest.read(name)).toBe(both);
  return both;
}

const withFile = (body: (guest: Guest) => Promise<void>, options: readonly string[] = []) =>
  withGuest({ files: { [FILE]: text() }, options }, body);

describe('resolve', () => {
  mountTest('takes the overlay: the base that was shown is the origin from then on', () =>
    withFile(async (guest) => {
      await ripen(`${guest.base}/${FILE}`);
      const { id } = await overlap(guest);
      await ends(guest, 0, 'resolve', guest.at(FILE), '--take', 'overlay');
      expect(await guest.read(FILE)).toBe(guestText);
      await ends(guest, 0, 'conflicts', guest.mnt);
      await guest.update(FILE, text({ 3: 'later', 10: 'base' }));
      expect(await guest.read(FILE)).toBe(text({ 3: 'later', 10: 'guest' }));
      expect(await guest.events(FILE)).toEqual(['copy-up', 'conflict', 'resolved', 'merged']);
      expect(await refused(guest, 'resolve', guest.mnt, String(id), '--take', 'base')).toContain('resolved');
    }),
  );

  mountTest('takes the base: the copy goes, and what it held can be shown', () =>
    withFile(async (guest) => {
      await overlap(guest);
      await ends(guest, 0, 'resolve', guest.at(FILE), '--take', 'base');
      expect(await guest.read(FILE)).toBe(baseText);
      expect(guest.raw(FILE)).toBe(null);
      const log = JSON.parse(await ends(guest, 0, 'log', '--json', guest.at(FILE)));
      const event = log.find((one: { kind: string }) => one.kind === 'resolved');
      expect(event).toMatchObject({ conflict: 1, undoable: true });
      const kept = await ends(guest, 0, 'show', '--version', String(event.version), guest.at(FILE));
      expect(kept).toBe(guestText);
    }),
  );

  mountTest(
    'decides of a file too large for its ancestor to be kept, and nothing is missed then or later',
    () =>
      withFile(async (guest) => {
        const big = (head: string) => `${head}\n${'line\n'.repeat(1_000_000)}`;
        await guest.changeBase(() => fs.writeFileSync(`${guest.base}/big`, big('base')));
        await ripen(`${guest.base}/big`);
        await guest.mount.sh('printf GUES | dd of=big conv=notrunc status=none');
        await guest.update('big', big('next'));
        await ends(guest, 1, 'reconcile', guest.mnt);
        const shown = await guest.kasane(['show', '--side', 'ancestor', guest.at('big')]);
        expect([shown.code, shown.stderr]).toEqual([2, 'kasane: show: its content is not kept\n']);
        expect(await ends(guest, 1, 'diff', guest.at('big'))).toContain('the ancestor’s is not kept\n');
        const sound = () => ends(guest, 0, 'check', guest.mnt);
        expect(await sound()).toContain(': no damage, 0 warnings');
        await ends(guest, 0, 'resolve', guest.at('big'), '--take', 'base');
        await ends(guest, 0, 'undo', guest.at('big'));
        expect((await guest.read('big')).slice(0, 5)).toBe('GUES\n');
        expect(await sound()).toContain(': no damage, 0 warnings');
        await ends(guest, 0, 'resolve', guest.at('big'), '--take', 'overlay');
        expect(await sound()).toContain(': no damage, 0 warnings');
      }),
  );

  mountTest('takes a file, which has the mode of the overlay’s, and no proposal with markers', () =>
    withFile(async (guest) => {
      await guest.mount.sh('chmod 640 "$1"', [FILE]);
      await overlap(guest);
      const proposal = await ends(guest, 0, 'show', '--side', 'merged', guest.at(FILE));
      expect(proposal).toContain(
        '<<<<<<< overlay\nguest\n||||||| ancestor\nline 10\n=======\nbase\n>>>>>>> base',
      );
      expect(await refused(guest, 'resolve', guest.at(FILE), '--take', 'merged')).toContain('markers');
      fs.writeFileSync(`${guest.dir}/mine`, text({ 10: 'mine' }));
      await ends(guest, 0, 'resolve', guest.at(FILE), '--file', `${guest.dir}/mine`);
      expect(await guest.read(FILE)).toBe(text({ 10: 'mine' }));
      expect(fs.statSync(`${guest.overlay}/${FILE}`).mode & 0o777).toBe(0o640);
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.read(FILE)).toBe(text({ 10: 'mine' }));
      // What the base has made of its mode was in no conflict, and is not refused with its bytes.
      await guest.changeBase(() => {
        fs.writeFileSync(`${guest.base}/${FILE}`, text({ 10: 'base again' }));
        fs.chmodSync(`${guest.base}/${FILE}`, 0o600);
      });
      await ends(guest, 1, 'reconcile', guest.mnt);
      await ends(guest, 0, 'resolve', guest.at(FILE), '--file', `${guest.dir}/mine`);
      expect(await guest.mount.sh('stat -c %a "$1"', [FILE])).toBe('600\n');
    }),
  );

  mountTest('takes a proposal without markers', () =>
    withGuest({ files: { 'etc/a.json': '{\n "a": 1,\n "x": 0,\n "b": 2\n}\n' } }, async (guest) => {
      // By lines there is no conflict; but a key would be there twice.
      await guest.mount.write('etc/a.json', '{\n "new": 1,\n "a": 1,\n "x": 0,\n "b": 2\n}\n');
      await guest.update('etc/a.json', '{\n "a": 1,\n "x": 0,\n "b": 2,\n "new": 2\n}\n');
      await ends(guest, 1, 'reconcile', guest.mnt);
      await ends(guest, 0, 'resolve', guest.at('etc/a.json'), '--take', 'merged');
      const both = '{\n "new": 1,\n "a": 1,\n "x": 0,\n "b": 2,\n "new": 2\n}\n';
      expect(await guest.read('etc/a.json')).toBe(both);
    }),
  );

  mountTest('refuses what has moved since the revision, and says what there is then', () =>
    withFile(async (guest) => {
      const { id, rev } = await overlap(guest);
      expect(rev).toBe(1);
      await guest.update(FILE, text({ 10: 'base again' }));
      await refused(guest, 'resolve', guest.mnt, `${id}@1`, '--take', 'overlay');
      await refused(guest, 'resolve', guest.at(FILE), '--take', 'base', '--rev', '1');
      expect(await guest.conflicts()).toMatchObject([{ id, rev: 2 }]);
      await guest.mount.write(FILE, text({ 10: 'guest again' }));
      await refused(guest, 'resolve', guest.mnt, `${id}@2`, '--take', 'base');
      expect(await guest.conflicts()).toMatchObject([{ id, rev: 3 }]);
      await ends(guest, 0, 'resolve', guest.mnt, `${id}@3`, '--take', 'base');
      expect(await guest.read(FILE)).toBe(text({ 10: 'base again' }));
    }),
  );

  mountTest('decides upon the base that was shown, also when it has moved since', () =>
    withFile(async (guest) => {
      const { id } = await overlap(guest);
      await guest.update(FILE, text({ 3: 'later', 10: 'base' }));
      // Without a revision: what was shown is refused, what came later is merged.
      await ends(guest, 0, 'resolve', guest.mnt, String(id), '--take', 'overlay');
      expect(await guest.read(FILE)).toBe(text({ 3: 'later', 10: 'guest' }));
      await ends(guest, 0, 'conflicts', guest.mnt);
    }),
  );

  mountTest('tells what is unknown, closed, no conflict, a directory or not there', () =>
    withGuest(
      { files: { 'etc/a.conf': text(), 'etc/b.conf': text(), 'etc/c.conf': text() } },
      async (guest) => {
        await overlap(guest, 'etc/a.conf');
        await overlap(guest, 'etc/b.conf');
        await refused(guest, 'resolve', guest.mnt, '4711', '--take', 'base');
        await refused(guest, 'resolve', guest.at('etc/c.conf'), '--take', 'base');
        await ends(guest, 2, 'resolve', guest.at('etc/none'), '--take', 'base');
        await ends(guest, 2, 'resolve', guest.at('etc/a.conf'), '--take', 'nothing');
        expect(await refused(guest, 'resolve', guest.at('etc'), '--take', 'base')).toContain('-r');
        await refused(guest, 'resolve', '-r', guest.at('etc'), '--take', 'merged');
        const done = JSON.parse(
          await ends(guest, 0, 'resolve', '-r', '--json', guest.at('etc'), '--take', 'base'),
        );
        expect(done).toMatchObject([
          { id: 1, path: 'etc/a.conf', already: false },
          { id: 2, path: 'etc/b.conf', already: false },
        ]);
        expect(await guest.read('etc/b.conf')).toBe(baseText);
        await refused(guest, 'resolve', guest.mnt, '1', '--take', 'base');
      },
    ),
  );

  mountTest('decides what the base has deleted meanwhile', () =>
    withGuest({ files: { 'etc/a.conf': text(), 'etc/b.conf': text() } }, async (guest) => {
      const a = await overlap(guest, 'etc/a.conf');
      await overlap(guest, 'etc/b.conf');
      await guest.changeBase(() => {
        fs.rmSync(`${guest.base}/etc/a.conf`);
        fs.rmSync(`${guest.base}/etc/b.conf`);
      });
      await ends(guest, 1, 'reconcile', guest.mnt);
      expect(await guest.conflictList()).toEqual(['etc/a.conf deleted', 'etc/b.conf deleted']);
      expect(await guest.conflicts()).toMatchObject([{ id: a.id, rev: 2 }, { rev: 2 }]);
      await ends(guest, 0, 'resolve', guest.at('etc/a.conf'), '--take', 'overlay');
      await ends(guest, 0, 'resolve', guest.at('etc/b.conf'), '--take', 'base');
      expect(await guest.read('etc/a.conf')).toBe(guestText);
      expect(await guest.exists('etc/b.conf')).toBe(false);
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.read('etc/a.conf')).toBe(guestText);
      await ends(guest, 0, 'undo', guest.at('etc/b.conf'));
      expect(await guest.read('etc/b.conf')).toBe(guestText);
      expect(await guest.conflictList()).toEqual(['etc/b.conf deleted']);
      // The guest may decide it, too.
      await guest.mount.sh('rm etc/b.conf; ls etc');
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.conflictList()).toEqual([]);
    }),
  );

  mountTest('decides symlinks, binary files and what has become a directory', () =>
    withGuest({ files: { 'etc/bin': 'a\0b', 'etc/x': 'x\n' } }, async (guest) => {
      await guest.changeBase(() => fs.symlinkSync('old', `${guest.base}/etc/link`));
      await guest.mount.sh(
        'ln -sfn mine etc/link; printf "m\\0m" > etc/bin; rm etc/x; mkdir etc/x; echo y > etc/x/y',
      );
      await guest.changeBase(() => {
        fs.rmSync(`${guest.base}/etc/link`);
        fs.symlinkSync('new', `${guest.base}/etc/link`);
      });
      await guest.update('etc/bin', 'b\0b');
      await guest.update('etc/x', 'new x\n');
      await ends(guest, 1, 'reconcile', guest.mnt);
      expect(await guest.conflictList()).toEqual(['etc/bin binary', 'etc/link text', 'etc/x type']);
      await refused(guest, 'resolve', guest.at('etc/link'), '--take', 'merged');
      await ends(guest, 0, 'resolve', guest.at('etc/link'), '--take', 'base');
      await ends(guest, 0, 'resolve', guest.at('etc/bin'), '--take', 'overlay');
      expect(await guest.mount.sh('readlink etc/link')).toBe('new\n');
      await ends(guest, 0, 'undo', guest.at('etc/link'));
      expect(await guest.mount.sh('readlink etc/link')).toBe('mine\n');
      await ends(guest, 0, 'resolve', guest.at('etc/link'), '--take', 'overlay');
      const [dir] = await guest.conflicts();
      await refused(guest, 'resolve', guest.at('etc/x'), '--take', 'base');
      await ends(guest, 0, 'resolve', guest.mnt, String(dir?.id), '--take', 'base');
      expect(await guest.read('etc/x')).toBe('new x\n');
      expect(fs.readFileSync(`${guest.overlay}/.kasane/displaced/${dir?.id}/y`, 'utf8')).toBe('y\n');
      await ends(guest, 0, 'undo', guest.at('etc/x'));
      expect(await guest.read('etc/x/y')).toBe('y\n');
      await ends(guest, 0, 'resolve', guest.mnt, String(dir?.id), '--take', 'overlay');
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.read('etc/x/y')).toBe('y\n');
    }),
  );
});

describe('undo', () => {
  mountTest('takes a merge back, and does not merge that version again', () =>
    withFile(async (guest) => {
      await ripen(`${guest.base}/${FILE}`);
      const both = await merged(guest);
      const told = await ends(guest, 0, 'undo', guest.at(FILE));
      expect(told).toMatch(/merged \d+ taken back/);
      expect(await guest.read(FILE)).toBe(text({ 15: 'guest' }));
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.read(FILE)).toBe(text({ 15: 'guest' }));
      expect(JSON.parse(await ends(guest, 0, 'status', '--json', guest.mnt)).counts.undone).toBe(1);
      await refused(guest, 'undo', guest.at(FILE));
      // Naming it lifts the pin.
      await ends(guest, 0, 'reconcile', guest.at(FILE));
      expect(await guest.read(FILE)).toBe(both);
      const events = ['copy-up', 'merged', 'undone', 'pin-lifted', 'merged'];
      expect(await guest.events(FILE)).toEqual(events);
    }),
  );

  mountTest(
    'of what was merged before directories above were renamed; the log tells of it under both paths',
    () =>
      withGuest({ files: { 'a/b/f': text(), 'a/b/g': text(), 'c/x': 'x\n' } }, async (guest) => {
        await ripen(`${guest.base}/c/x`);
        await merged(guest, 'a/b/f');
        await merged(guest, 'a/b/g');
        await guest.mount.sh('mv a/b a/d; mv a e; mkdir a');
        // What comes to the old place is not its history.
        await guest.mount.sh('mkdir a/b; echo new > a/b/f');
        const log = await ends(guest, 0, 'log', guest.at('e/d/f'));
        expect(log).toMatch(/copy-up {2}a\/b\/f\n.*merged {2}a\/b\/f {2}\(.*can be undone\)\n$/);
        expect(await ends(guest, 0, 'log', guest.at('e'))).toMatch(
          / merged {2}a\/b\/g .*\n.*added {2}e {2}\(renamed from a\)/s,
        );
        const events = JSON.parse(await ends(guest, 0, 'log', '--json', guest.at('e/d/f')));
        const { version } = events.find((one: { kind: string }) => one.kind === 'merged');
        const before = await ends(guest, 0, 'show', '--version', String(version), guest.at('e/d/f'));
        expect(before).toBe(text({ 15: 'guest' }));
        const [seq] = /^\d+(?=.* merged {2}a\/b\/g)/m.exec(
          log + (await ends(guest, 0, 'log', guest.mnt)),
        ) ?? ['0'];
        expect(await ends(guest, 0, 'undo', guest.at('e/d/f'))).toMatch(/merged \d+ taken back/);
        expect(await guest.read('e/d/f')).toBe(text({ 15: 'guest' }));
        // Directories that have changed places.
        await guest.mount.sh(`python3 -c "
import ctypes; assert ctypes.CDLL(None).renameat2(-100, b'e', -100, b'c', 2) == 0"`);
        await ends(guest, 0, 'undo', guest.mnt, seq);
        expect(await guest.read('c/d/g')).toBe(text({ 15: 'guest' }));
        expect(await guest.read('c/d/f')).toBe(text({ 15: 'guest' }));
        expect(await guest.read('a/b/f')).toBe('new\n');
        await refused(guest, 'undo', guest.at('a/b/f'));
        await ends(guest, 0, 'reconcile', guest.mnt);
        expect(await guest.read('c/d/g')).toBe(text({ 15: 'guest' }));
      }),
  );

  mountTest('a version after the one that was refused is a conflict, and going back withdraws it', () =>
    withFile(async (guest) => {
      await merged(guest);
      await ends(guest, 0, 'undo', guest.at(FILE));
      await guest.update(FILE, text({ 3: 'base', 5: 'more' }));
      expect(await guest.read(FILE)).toBe(text({ 15: 'guest' }));
      expect(await guest.conflictList()).toEqual([`${FILE} undone`]);
      await guest.update(FILE, text({ 3: 'base' }));
      await guest.read(FILE);
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.read(FILE)).toBe(text({ 15: 'guest' }));
    }),
  );

  mountTest('refuses where the guest has gone on, and keeps today’s bytes with --force', () =>
    withFile(async (guest) => {
      await merged(guest);
      const today = text({ 3: 'base', 15: 'guest', 20: 'today' });
      await guest.mount.write(FILE, today);
      expect(await refused(guest, 'undo', guest.at(FILE))).toContain('--force');
      const report = JSON.parse(await ends(guest, 0, 'undo', '--force', '--json', guest.at(FILE)));
      expect(report).toMatchObject({ kind: 'merged', path: FILE, reopened: null, already: false });
      expect(await guest.read(FILE)).toBe(text({ 15: 'guest' }));
      expect(await ends(guest, 0, 'show', '--version', String(report.keptVersion), guest.at(FILE))).toBe(
        today,
      );
    }),
  );

  mountTest('brings a dropped copy back, with its metadata', () =>
    withFile(async (guest) => {
      await guest.mount.sh('cat "$1" > x; cat x > "$1"; rm x; touch -d @1000000000 "$1"', [FILE]);
      await guest.update(FILE, baseText);
      expect(await guest.read(FILE)).toBe(baseText);
      expect(guest.raw(FILE)).toBe(null);
      await ends(guest, 0, 'undo', guest.at(FILE));
      expect(await guest.read(FILE)).toBe(text());
      expect(await guest.mount.sh('stat -c %Y "$1"', [FILE])).toBe('1000000000\n');
      await ends(guest, 0, 'reconcile', guest.mnt);
      expect(await guest.read(FILE)).toBe(text());
    }),
  );

  mountTest('opens a resolved conflict again, under its id', () =>
    withFile(async (guest) => {
      const { id } = await overlap(guest);
      for (const [turn, take] of ['overlay', 'base'].entries()) {
        await ends(guest, 0, 'resolve', guest.at(FILE), '--take', take);
        const told = await ends(guest, 0, 'undo', guest.at(FILE));
        expect(told).toContain(`conflict ${id} is open again`);
        expect(await guest.read(FILE)).toBe(guestText);
        expect(await guest.conflicts()).toMatchObject([{ id, rev: 2 + turn, kind: 'text', path: FILE }]);
      }
      await ends(guest, 0, 'resolve', guest.at(FILE), '--take', 'overlay');
      await ends(guest, 0, 'conflicts', guest.mnt);
    }),
  );

  mountTest('by number: unknown, nothing to take back, done, not the last', () =>
    withFile(async (guest) => {
      await merged(guest);
      const log = JSON.parse(await ends(guest, 0, 'log', '--json', guest.mnt));
      const seq = (kind: string) => log.find((one: { kind: string }) => one.kind === kind).seq;
      await refused(guest, 'undo', guest.mnt, '4711');
      await refused(guest, 'undo', guest.mnt, String(seq('copy-up')));
      await guest.update(FILE, text({ 3: 'base', 5: 'more' }));
      await guest.read(FILE);
      expect(await refused(guest, 'undo', guest.mnt, String(seq('merged')))).toContain('undo that first');
      await ends(guest, 2, 'undo', guest.at('none'));
      const last = JSON.parse(await ends(guest, 0, 'undo', '--json', guest.at(FILE)));
      await refused(guest, 'undo', guest.mnt, String(last.seq));
      expect(await guest.read(FILE)).toBe(text({ 3: 'base', 15: 'guest' }));
    }),
  );
});

describe('reconcile', () => {
  mountTest('says what would happen, and changes nothing', () =>
    withGuest({ files: { 'etc/a': text(), 'etc/b': text(), 'etc/c': text() } }, async (guest) => {
      await guest.mount.write('etc/a', text({ 15: 'guest' }));
      await guest.mount.write('etc/b', guestText);
      await guest.mount.sh('cat etc/c > x; cat x > etc/c; rm x');
      for (const [name, content] of [
        ['etc/a', text({ 3: 'base' })],
        ['etc/b', baseText],
        ['etc/c', baseText],
      ] as const)
        await guest.update(name, content);
      const report = JSON.parse(await ends(guest, 1, 'reconcile', '--dry-run', '--json', guest.mnt));
      expect(report).toMatchObject({ dryRun: true, looked: 3, merged: 1, dropped: 1, pending: 0 });
      expect(report.conflicts).toMatchObject([{ path: 'etc/b', kind: 'text' }]);
      expect(guest.raw('etc/a')).toBe(text({ 15: 'guest' }));
      expect(guest.raw('etc/c')).toBe(text());
      await ends(guest, 0, 'conflicts', guest.mnt);
      const done = JSON.parse(await ends(guest, 1, 'reconcile', '--json', guest.mnt));
      expect(done).toMatchObject({ dryRun: false, looked: 3, merged: 1, dropped: 1 });
      expect(done.conflicts).toMatchObject([{ id: 1, rev: 1, path: 'etc/b' }]);
      expect(guest.raw('etc/c')).toBe(null);
      await ends(guest, 2, 'reconcile', guest.at('none'));
    }),
  );

  mountTest('waits for a base that has not settled', () =>
    withFile(
      async (guest) => {
        await guest.mount.write(FILE, text({ 15: 'guest' }));
        await guest.update(FILE, text({ 3: 'base' }));
        const report = JSON.parse(await ends(guest, 0, 'reconcile', '--json', guest.mnt));
        expect(report).toMatchObject({ merged: 1, pending: 0 });
        expect(Date.now() - fs.statSync(`${guest.base}/${FILE}`).ctimeMs).toBeGreaterThan(990);
        expect(await guest.read(FILE)).toBe(text({ 3: 'base', 15: 'guest' }));
      },
      ['--settle', '1'],
    ),
  );

  mountTest('a set is counted as what became of each', () =>
    withGuest(
      {
        files: { 'etc/passwd': 'root:x:0:0::/:/bin/sh\n', 'etc/shadow': 'root:*:1::::::\n' },
        // So that nobody else has looked at it before.
        options: ['--settle', '1'],
      },
      async (guest) => {
        await ripen(guest.base);
        await guest.mount.sh('for f in etc/passwd etc/shadow; do cat $f > x; cat x > $f; done; rm x');
        await guest.update('etc/passwd', 'root:x:0:0::/:/bin/bash\n');
        await guest.update('etc/shadow', 'root:!:1::::::\n');
        const report = JSON.parse(await ends(guest, 0, 'reconcile', '--json', guest.mnt));
        expect(report).toMatchObject({ looked: 2, dropped: 2 });
      },
    ),
  );
});

describe('the control file', () => {
  mountTest('takes the same verb twice', () =>
    withFile(async (guest) => {
      const { id, rev } = await overlap(guest);
      const tell = (verb: string) => guest.mount.sh('echo "$1" > .kasane/control', [verb]);
      await expect(tell(`resolve ${id}@${rev + 1} overlay`)).rejects.toThrow();
      await tell(`resolve ${id}@${rev} overlay`);
      await tell(`resolve ${id}@${rev} overlay`);
      expect(await guest.mount.sh('cat .kasane/control.last')).toContain('done before');
      expect(await guest.mount.sh('cat .kasane/conflicts')).toBe('');
      const [event] = JSON.parse(await ends(guest, 0, 'log', '--json', guest.mnt)).slice(-1);
      expect(event.kind).toBe('resolved');
      await tell(`undo ${event.seq}`);
      await tell(`undo ${event.seq}`);
      expect(await guest.mount.sh('cat .kasane/conflicts')).toContain(FILE);
      expect(await guest.mount.sh(`cat .kasane/conflict/${id}/base`)).toBe(baseText);
    }),
  );
});
