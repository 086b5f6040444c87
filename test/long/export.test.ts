// Exported over NFS: a hundred thousand file handles through changes and restarts, and a real server with real
// clients, of NFSv4 and NFSv3.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type ExportedGuest, openHandles, takeHandles, withExport } from '../lib/handles.ts';
import { mountTest } from '../lib/needs.ts';
import { nfsCommands, startNfsClient, withNfsServer } from '../lib/nfs.ts';
import { run, runOk, sh, waitUntil } from '../lib/run.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

/** 300 directories with 300 files each in the base, 20 with 500 of the guest's; each has a size of its own. */
const FILES = 300;
const OWN = 500;
const sizeOf = (dir: number, file: number) => 1 + ((dir * 7919 + file) % 3001);

function makeFiles(root: string, dirs: number, files: number): void {
  const bytes = Buffer.alloc(3002, 'x');
  for (let dir = 0; dir < dirs; dir += 1) {
    fs.mkdirSync(`${root}/d${dir}`);
    for (let file = 0; file < files; file += 1)
      fs.writeFileSync(`${root}/d${dir}/f${file}`, bytes.subarray(0, sizeOf(dir, file)));
  }
}

/** In a child, for the guest's files are made through the mount. */
const makeOwn = `for (let d = 0; d < 20; d += 1) {
  fs.mkdirSync('own' + d);
  for (let f = 0; f < ${OWN}; f += 1) fs.writeFileSync('own' + d + '/f' + f, 'x'.repeat(1 + ((d * 7919 + f) % 3001)));
}`;

interface Known {
  name: string;
  handle: string;
  /** null: it has been removed. */
  size: number | null;
}

async function expectAll(guest: ExportedGuest, known: readonly Known[], when: string): Promise<void> {
  const started = performance.now();
  const found = await openHandles(
    guest.mnt,
    known.map(({ handle }) => handle),
    { contents: false, timeout: 300_000 },
  );
  const wrong: string[] = [];
  for (const [i, { name, size }] of known.entries()) {
    const { error, size: is } = found[i] as { error?: string; size: number };
    const right = size === null ? error === 'ESTALE' : size < 0 ? error === undefined : is === size;
    if (!right) wrong.push(`${name}: ${error ?? is}, not ${size}`);
  }
  console.log(`${known.length} handles opened ${when} in ${Math.round(performance.now() - started)} ms`);
  expect(wrong.slice(0, 10), when).toEqual([]);
}

mountTest(
  'a hundred thousand handles open what they were taken of, after renames, removals and updates, restarts and kill -9',
  () =>
    withExport({ files: {} }, async (guest) => {
      await guest.changeBase(() => makeFiles(guest.base, 300, FILES));
      await runOk(process.execPath, ['-e', `const fs = require('fs'); ${makeOwn}`], {
        cwd: guest.mnt,
        timeout: 120_000,
      });
      const names: [name: string, size: number][] = [];
      for (let d = 0; d < 300; d += 1) {
        names.push([`d${d}`, -1]);
        for (let f = 0; f < FILES; f += 1) names.push([`d${d}/f${f}`, sizeOf(d, f)]);
      }
      for (let d = 0; d < 20; d += 1) {
        for (let f = 0; f < OWN; f += 1) names.push([`own${d}/f${f}`, sizeOf(d, f)]);
      }
      const handles = await takeHandles(
        guest.mnt,
        names.map(([name]) => name),
      );
      const known = names.map(([name, size], i): Known => ({ name, handle: handles[i] as string, size }));
      expect(known.length).toBeGreaterThan(100_000);
      expect(new Set(handles).size).toBe(handles.length);
      await guest.forget();
      await expectAll(guest, known, 'when the kernel had forgotten them');
      // Directories move with all that is in them; files move, go, come anew, are written to and are updated.
      const all = (range: string, act: string) =>
        sh(`for d in ${range}; do ${act}; done`, [], { cwd: guest.mnt, timeout: 120_000 });
      await all('{0..49}', 'mv d$d moved$d');
      await all(
        '{50..99}',
        'mv d$d/f0 d$d/g0; mv d$d/f1 d$d/f2; rm d$d/f3; rm d$d/f4; echo another > d$d/f4',
      );
      await all('{100..119}', 'echo more >> d$d/f0; chmod 600 d$d/f1; mv d$d/f5 d$(($d + 1))/new');
      await all('{0..9}', 'mv own$d own$d.new; rm -r own$(($d + 10)); mkdir own$(($d + 10))');
      await guest.changeBase(() =>
        sh('for d in {150..199}; do cd $1/d$d; echo update > new; mv new f0; rm f1; done', [guest.base]),
      );
      const at = new Map(known.map((one) => [one.name, one]));
      const set = (name: string, size: number | null) => {
        (at.get(name) as Known).size = size;
      };
      for (let d = 50; d < 100; d += 1) for (const f of [2, 3, 4]) set(`d${d}/f${f}`, null);
      for (let d = 100; d < 120; d += 1) set(`d${d}/f0`, sizeOf(d, 0) + 5);
      for (let d = 10; d < 20; d += 1) for (let f = 0; f < OWN; f += 1) set(`own${d}/f${f}`, null);
      for (let d = 150; d < 200; d += 1) {
        set(`d${d}/f0`, 7);
        set(`d${d}/f1`, null);
      }
      await expectAll(guest, known, 'after changes');
      await guest.restart();
      await expectAll(guest, known, 'after a restart');
      await guest.crash();
      await expectAll(guest, known, 'after kill -9');
      const { size } = fs.statSync(`${guest.overlay}/.kasane/identity`);
      console.log(`the identity log has ${Math.round(size / 1024)} KiB`);
    }),
  { timeout: 600_000 },
);

const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });

mountTest(
  'clients of NFSv4 list, read and write; updates, merges and conflicts reach them, also after restarts',
  () =>
    withExport({ files: { conf: text(), 'dir/clash': text(), 'dir/plain': 'plain\n' } }, async (guest) => {
      const url = (name: string) => `nfs://127.0.0.1${guest.mnt}/${name}?version=4`;
      const cat = (name: string) => runOk('nfs-cat', [url(name)], { timeout: 30_000 });
      const put = async (name: string, content: string) => {
        fs.writeFileSync(`${guest.dir}/in`, content);
        await runOk('nfs-cp', [`${guest.dir}/in`, url(name)], { timeout: 30_000 });
      };
      const list = async (name: string) => {
        const lines = (await runOk('nfs-ls', [url(name)], { timeout: 30_000 })).trim().split('\n');
        return lines.map((line) => line.trim().split(/\s+/).at(-1)).sort();
      };
      await withNfsServer(guest.mnt, guest.dir, async (server) => {
        expect(await list('')).toEqual(['.kasane', 'conf', 'dir']);
        expect(await cat('dir/plain')).toBe('plain\n');
        await put('dir/new', 'by a client\n');
        expect(await guest.read('dir/new')).toBe('by a client\n');
        for (const name of ['conf', 'dir/clash']) {
          const client = await startNfsClient(guest.mnt, 4);
          const file = await client.call<number>('open', `/${name}`, fs.constants.O_RDWR);
          await client.call('write', file, text({ [GUEST_LINE]: 'guest' }), 0);
          await client.call('truncate', `/${name}`, text({ [GUEST_LINE]: 'guest' }).length);
          await client.call('close', file);
          await client.stop();
        }
        const client = await startNfsClient(guest.mnt, 4);
        await client.call('mkdir', '/made');
        await client.call('rename', '/dir/new', '/made/renamed');
        await client.call('rename', '/made/renamed', '/dir/new');
        await client.call('rmdir', '/made');
        await client.stop();
        await guest.update('dir/plain', 'longer and newer\n');
        await guest.update('conf', text({ [BASE_LINE]: 'base' }));
        await guest.update('dir/clash', text({ [GUEST_LINE]: 'base' }));
        expect(await cat('dir/plain')).toBe('longer and newer\n');
        await guest.changeBase(() => sh('echo a > dir/added; echo b > top', [], { cwd: guest.base }));
        expect(await list('dir')).toEqual(['added', 'clash', 'new', 'plain']);
        expect(await list('')).toEqual(['.kasane', 'conf', 'dir', 'top']);
        expect(await cat('dir/added')).toBe('a\n');
        await guest.changeBase(() => sh('rm dir/added top', [], { cwd: guest.base }));
        expect(await list('dir')).toEqual(['clash', 'new', 'plain']);
        expect(await list('')).toEqual(['.kasane', 'conf', 'dir']);
        await waitUntil(async () => (await cat('conf')) === merged, 20_000, 500);
        expect(await cat('conf')).toBe(merged);
        expect(await cat('dir/clash')).toBe(text({ [GUEST_LINE]: 'guest' }));
        await waitUntil(async () => (await cat('.kasane/conflicts')) !== '', 10_000, 200);
        expect(await cat('.kasane/conflicts')).toMatch(/dir\/clash/);
        expect(await cat('.kasane/status')).toContain(`mount_point ${guest.mnt}\n`);
        expect(await list('.kasane')).toContain('conflicts');
        for (const restart of [guest.restart, guest.crash]) {
          await server.restart(restart);
          expect(await cat('conf')).toBe(merged);
          expect(await cat('dir/new')).toBe('by a client\n');
          expect(await cat('.kasane/conflicts')).toMatch(/dir\/clash/);
        }
        // The server goes on, and the daemon is not there while its export is not.
        await server.reload(guest.crash);
        expect(await cat('dir/new')).toBe('by a client\n');
        await put('dir/new2', 'again\n');
        expect(await list('dir')).toEqual(['clash', 'new', 'new2', 'plain']);
      });
    }),
  { commands: nfsCommands, timeout: 240_000 },
);

/** Restarts until the file system has its device number again: other mounts of the machine may have it for a while. */
async function restartAsBefore(guest: ExportedGuest, crash: boolean): Promise<void> {
  const deviceFile = `${guest.overlay}/.kasane/device`;
  const number = fs.readFileSync(deviceFile, 'utf8');
  const isBack = () => fs.readFileSync(deviceFile, 'utf8') === number;
  await (crash ? guest.crash() : guest.restart());
  for (let tries = 0; tries < 10 && !isBack(); tries += 1)
    await guest.restart(() => fs.writeFileSync(deviceFile, number));
  expect(isBack(), `device number ${number}`).toBe(true);
}

mountTest(
  'a client of NFSv3 goes on with what it has open when the daemon, and with it the server or its export, was restarted',
  () =>
    withExport(
      { files: { conf: text(), 'dir/sub/f': 'f\n', gone: 'gone\n' }, options: ['--export=on'] },
      async (guest) => {
        await withNfsServer(guest.mnt, guest.dir, async (server) => {
          const { call, stop } = await startNfsClient(guest.mnt, 3);
          expect(await call('list', '/')).toEqual(['.kasane', 'conf', 'dir', 'gone']);
          const reading = await call<number>('open', '/dir/sub/f', 0);
          expect(await call('read', reading)).toBe('f\n');
          const writing = await call<number>('create', '/dir/new', 0o640);
          await call('write', writing, 'one\n', 0);
          const copied = await call<number>('open', '/conf', 2);
          await call('write', copied, 'LINE 1', 0);
          await call('mkdir', '/made');
          await call('rename', '/dir/new', '/made/renamed');
          await call('rename', '/dir/sub', '/made/sub');
          await call('unlink', '/gone');
          await expect(call('stat', '/gone')).rejects.toMatchObject({ code: 'ENOENT' });
          await call('link', '/made/renamed', '/linked');
          for (const [crash, how] of [
            [false, server.restart],
            [true, server.restart],
            [true, server.reload],
          ] as const) {
            await how(() => restartAsBefore(guest, crash));
            const seen = await call<string>('read', writing);
            await call('write', writing, 'more\n', seen.length);
            expect(await call('read', writing)).toBe(`${seen}more\n`);
            expect(await call('read', reading)).toBe('f\n');
            expect(await call<string>('read', copied)).toMatch(/^LINE 1\n/);
            expect(await call('list', '/made')).toEqual(['renamed', 'sub']);
          }
          expect(await guest.read('linked')).toBe('one\nmore\nmore\nmore\n');
          expect(await call('stat', '/linked')).toMatchObject({ nlink: 2, size: 19 });
          // A client that has it open writes without opening: nothing is merged beneath it, until somebody says so.
          await guest.update('conf', text({ [GUEST_LINE]: 'base' }));
          expect(await call<string>('read', copied)).not.toMatch(/^base$/m);
          await call('close', copied);
          expect((await run('nfs-cat', [`nfs://127.0.0.1${guest.mnt}/conf?version=3`])).stdout).not.toMatch(
            /^base$/m,
          );
          expect(await guest.kasane(['reconcile', guest.mnt])).toMatchObject({ code: 0 });
          const wanted = text({ 1: 'LINE 1', [GUEST_LINE]: 'base' });
          const again = await call<number>('open', '/conf', 0);
          await waitUntil(async () => (await call('read', again)) === wanted, 20_000, 500);
          expect(await call('read', again)).toBe(wanted);
          await call('rmdir', '/dir');
          expect(await call('list', '/')).toEqual(['.kasane', 'conf', 'linked', 'made']);
          await stop();
        });
      },
    ),
  { commands: nfsCommands, timeout: 240_000 },
);
