// `status`, `show`, `diff`, `log`, `check`, `conflicts` and the events of a mount, by the command line.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import { ripen } from '../lib/base-update.ts';
import { say } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { asUser, runOk } from '../lib/run.ts';
import { type Guest, text, withGuest } from '../lib/versioning.ts';

const FILE = 'etc/a.conf';
const withFile = (body: (guest: Guest) => Promise<void>) =>
  withGuest({ files: { [FILE]: text(), 'etc/other': 'other\n' } }, body);

const json = async (code: number, ...args: string[]) => JSON.parse(await say(code, ...args, '--json'));

const counts = async (guest: Guest) => (await json(0, 'status', guest.mnt)).counts;

describe('status', () => {
  mountTest('counts what there is', () =>
    withGuest(
      {
        files: { a: text(), b: text(), c: 'c\n', 'd/1': '1\n', 'd/2': '2\n', 'd/e/3': '3\n', 'd/e/4': '4\n' },
      },
      async (guest) => {
        const status = await json(0, 'status', guest.mnt);
        expect(status).toMatchObject({
          mountPoint: guest.mnt,
          bases: [guest.base],
          overlay: guest.overlay,
          state: `${guest.overlay}/.kasane`,
          mounted: true,
          pid: guest.mount.pid,
          base: 'accepted',
          coherence: 'notify',
          readOnly: false,
          overlayfsOptions: '',
          notes: [],
        });
        expect(status.options).toMatchObject({ settle: '0', volatile: 'off', metacopy: 'on' });
        const none = {
          copies: 0,
          whiteouts: 0,
          hidden: 0,
          stale: 0,
          pending: 0,
          kept: 0,
          conflicts: 0,
          undone: 0,
          metadataOnly: 0,
          withoutContent: 0,
        };
        expect(status.counts).toEqual(none);
        await ripen(guest.base);
        await guest.mount.write('a', text({ 15: 'guest' }));
        await guest.mount.write('b', text({ 3: 'guest' }));
        await guest.mount.write('new', 'new\n');
        await guest.mount.sh('rm c; rm -r d; mkdir d d/e; echo mine > d/e/3');
        expect(await counts(guest)).toEqual({ ...none, copies: 3, whiteouts: 1, hidden: 3 });
        await guest.update('a', text({ 3: 'base' }));
        await guest.update('b', text({ 3: 'base' }));
        await guest.mount.sh('sleep 1.2');
        expect((await counts(guest)).stale).toBe(2);
        await say(1, 'reconcile', guest.mnt);
        expect(await counts(guest)).toMatchObject({ stale: 1, conflicts: 1 });
        const { epoch, bytes } = await json(0, 'status', guest.mnt);
        expect(epoch).toBeGreaterThan(1);
        expect(bytes.overlay).toBeGreaterThan(0);
        expect(await guest.mount.sh('cat .kasane/status')).toContain('conflicts 1\n');
      },
    ),
  );

  mountTest(
    'is for everyone to read in the mount, with metrics, but without names; what tells names is not',
    () =>
      withFile(async (guest) => {
        const other = (...command: string[]) => asUser(1000, command);
        const at = `${guest.mnt}/.kasane`;
        expect((await other('ls', at)).stdout).toMatch(/^conflict\nconflicts\n/);
        for (const [name, first] of [
          ['status', 'mount_point '],
          ['metrics', '# HELP '],
        ] as const) {
          const { code, stdout, stderr } = await other('cat', `${at}/${name}`);
          expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
          expect(stdout.startsWith(first)).toBe(true);
        }
        for (const name of ['status.json', 'conflicts', 'events', 'control', 'conflict/']) {
          expect((await other('cat', `${at}/${name}`)).stderr, name).toMatch(
            /Permission denied|Is a directory/,
          );
        }
      }),
  );

  mountTest('metrics name requests and gauges', () =>
    withFile(async (guest) => {
      await guest.read(FILE);
      const metrics = await guest.mount.sh('cat .kasane/metrics');
      expect(metrics).toMatch(/^kasane_requests_total\{opcode="LOOKUP"\} [1-9]/m);
      for (const name of ['nodes', 'handles', 'rss_bytes', 'pending', 'conflicts', 'directory_fds', 'jobs']) {
        expect(metrics).toMatch(new RegExp(`^kasane_${name} \\d+$`, 'm'));
      }
      expect(metrics).toMatch(/^# TYPE kasane_epoch counter$/m);
    }),
  );
});

describe('show', () => {
  mountTest('every side of a path without a conflict', () =>
    withFile(async (guest) => {
      const side = (name: string, code = 0) => say(code, 'show', '--side', name, guest.at(FILE));
      expect(await side('base')).toBe(text());
      await side('overlay', 2);
      await side('ancestor', 2);
      await side('merged', 2);
      await guest.mount.write(FILE, text({ 10: 'guest' }));
      expect(await side('overlay')).toBe(text({ 10: 'guest' }));
      expect(await side('ancestor')).toBe(text());
      await say(2, 'show', '--side', 'base', guest.at('none'));
      await say(4, 'show', '--version', '99', guest.at(FILE));
      const shown = await json(0, 'show', '--side', 'overlay', guest.at(FILE));
      expect(shown).toMatchObject({
        path: FILE,
        type: 'file',
        mode: '0644',
        size: text({ 10: 'guest' }).length,
      });
      expect(Buffer.from(shown.content, 'base64').toString()).toBe(text({ 10: 'guest' }));
    }),
  );

  mountTest('sides of a conflict are those of its revision; large ones come in pieces', () =>
    withGuest({ files: { big: '', link: null } }, async (guest) => {
      const large = (fill: string) => Buffer.alloc(9 * 1024 * 1024 + 17, fill);
      await guest.changeBase(() => {
        fs.writeFileSync(`${guest.base}/big`, large('a'));
        fs.rmdirSync(`${guest.base}/link`);
        fs.symlinkSync('target', `${guest.base}/link`);
      });
      expect(await say(0, 'show', '--side', 'base', guest.at('link'))).toBe('target');
      await guest.mount.write('big', large('b'));
      await guest.changeBase(() => fs.writeFileSync(`${guest.base}/big`, large('c')));
      await say(1, 'reconcile', guest.mnt);
      await guest.changeBase(() => fs.writeFileSync(`${guest.base}/big`, 'small'));
      for (const [side, fill] of [
        ['overlay', 'b'],
        ['base', 'c'],
      ] as const) {
        const { out } = await guest.kasane(['show', '--side', side, guest.mnt, '1']);
        expect(out.equals(large(fill)), side).toBe(true);
      }
      await say(4, 'show', '--side', 'base', guest.mnt, '2');
    }),
  );
});

describe('diff and log', () => {
  mountTest('tell what the guest has changed, and what became of it', () =>
    withGuest(
      { files: { a: text(), b: 'b\n', 'd/x': 'x\n', follows: 'f\n', bin: 'a\0a' } },
      async (guest) => {
        expect(await say(0, 'diff', guest.mnt)).toBe('');
        await guest.mount.write('a', text({ 10: 'guest' }));
        await guest.mount.sh(
          'rm b; rm -r d; mkdir d; ln -s there new; chmod 600 follows; printf "b\\0" > bin',
        );
        await guest.update('a', text({ 10: 'base' }));
        const items: { path: string }[] = await json(1, 'diff', guest.mnt);
        const found = new Map(
          items.map((one) => [one.path, one as never as Record<string, Record<string, unknown>>]),
        );
        expect([...found.keys()].sort()).toEqual(['a', 'b', 'bin', 'd/x', 'follows', 'new']);
        expect(found.get('b')).toMatchObject({ ancestor: { type: 'file' }, overlay: { type: 'absent' } });
        expect(found.get('d/x')).toMatchObject({ overlay: { type: 'absent' }, base: { type: 'file' } });
        expect(found.get('new')).toMatchObject({
          ancestor: { type: 'absent' },
          overlay: { type: 'symlink', target: 'there' },
          base: { type: 'absent' },
        });
        expect(found.get('follows')).toMatchObject({ ancestor: { mode: '0644' }, overlay: { mode: '0600' } });
        const own = await say(1, 'diff', guest.at('a'));
        expect(own).toContain('--- ancestor/a\n+++ overlay/a\n');
        expect(own).toContain('-line 10\n+guest\n');
        expect(own).toContain('--- overlay/a\n+++ base/a\n');
        expect(own).toContain('-guest\n+base\n');
        expect(await say(1, 'diff', guest.at('bin'))).toContain('binary content differs');
        await say(2, 'diff', guest.at('none'));
      },
    ),
  );

  mountTest('the log of a path and of all, with what can be undone', () =>
    withFile(async (guest) => {
      await ripen(`${guest.base}/${FILE}`);
      await guest.mount.write(FILE, text({ 15: 'guest' }));
      await guest.update(FILE, text({ 3: 'base' }));
      await guest.read(FILE);
      const log = await json(0, 'log', guest.at(FILE));
      expect(log).toMatchObject([
        { kind: 'copy-up', path: FILE, undoable: false },
        { kind: 'merged', path: FILE, undoable: true },
      ]);
      await guest.mount.sh('rm etc/other');
      expect((await json(0, 'log', guest.mnt)).map((one: { kind: string }) => one.kind)).toEqual([
        'copy-up',
        'merged',
        'whiteout',
      ]);
      const kept = await say(0, 'show', '--version', String(log[1].version), guest.at(FILE));
      expect(kept).toBe(text({ 15: 'guest' }));
      await guest.mount.sh('rm "$1"', [FILE]);
      expect((await json(0, 'log', guest.at(FILE))).at(-2)).toMatchObject({
        kind: 'merged',
        undoable: false,
      });
      expect(await guest.mount.sh('grep -vc base- .kasane/events')).toBe('4\n');
    }),
  );
});

describe('events', () => {
  mountTest('those there are, and with follow those that come', () =>
    withFile(async (guest) => {
      const { socket } = runtimePaths(guest.mnt);
      await guest.mount.write(FILE, text({ 15: 'guest' }));
      const had: string[] = [];
      await connectVerbs(socket).events({ from: 0, follow: false }, ({ kind }) => void had.push(kind));
      expect(had).toEqual(['copy-up']);
      const came: string[] = [];
      const enough = new Error('enough');
      const following = connectVerbs(socket).events({ from: 1, follow: true }, ({ kind }) => {
        // What the base has done is told of at its own time.
        if (!kind.startsWith('base-')) came.push(kind);
        if (kind === 'merged') throw enough;
      });
      const ended = expect(following).rejects.toThrow('enough');
      await guest.update(FILE, text({ 3: 'base' }));
      await guest.read(FILE);
      await ended;
      expect(came).toEqual(['copy-up', 'merged']);
    }),
  );
});

describe('conflicts and check', () => {
  mountTest('a list for people and for programs', () =>
    withFile(async (guest) => {
      await guest.mount.write(FILE, text({ 10: 'guest' }));
      await guest.update(FILE, text({ 10: 'base' }));
      await guest.read(FILE);
      expect(await say(1, 'conflicts', guest.mnt)).toBe(`1\ttext\t${FILE}\n`);
      expect(await say(0, 'conflicts', guest.at('etc/other'))).toBe('');
      expect(await json(1, 'conflicts', guest.mnt)).toMatchObject([
        { id: 1, rev: 1, kind: 'text', path: FILE },
      ]);
      const info = await guest.mount.sh('cat .kasane/conflict/1/info');
      expect(info).toContain('reason both sides changed the same lines\n');
      expect(info).toContain(`overlay_size ${text({ 10: 'guest' }).length}\n`);
      // Who removes the file has decided, and is told so at once.
      await guest.mount.sh(`rm ${FILE}`);
      expect(await say(0, 'conflicts', guest.mnt)).toBe('');
    }),
  );

  mountTest('check is content with a mount, and finds an origin that was damaged', () =>
    withFile(async (guest) => {
      await guest.mount.write(FILE, text({ 10: 'guest' }));
      const report = await json(0, 'check', guest.mnt);
      expect(report).toMatchObject({ damage: 0, warnings: 0, findings: [], origins: 1 });
      expect(report.objects).toBeGreaterThan(1);
      await runOk('setfattr', ['-n', 'trusted.kasane.origin', '-v', 'rubbish', `${guest.overlay}/${FILE}`]);
      const damaged = await json(4, 'check', guest.mnt);
      expect(damaged.findings).toMatchObject([{ severity: 'damage', code: 'origin-unreadable', path: FILE }]);
      await say(4, 'check', '--repair', guest.mnt);
    }),
  );
});
