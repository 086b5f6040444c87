// The base puts an object of another type under a name that guests are about to use: they meet the one or the other,
// and no error that neither gives. The daemon is stopped meanwhile, so the kernel asks it about what is there no more.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { AT_FDCWD, RENAME_EXCHANGE } from '../../src/sys/constants.ts';
import { renameat2 } from '../../src/sys/names.ts';
import { startAgent } from '../lib/agent.ts';
import { caughtUp, type Mount, notifyBy, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, sh, sleep } from '../lib/run.ts';

const { O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY, S_IFIFO, S_IFMT } = fs.constants;

/** In a directory of the base, with a `target` beside. */
const makers: Record<string, (path: string) => void> = {
  file: (path) => fs.writeFileSync(path, 'text\n'),
  dir: (path) => fs.cpSync(`${path.slice(0, path.lastIndexOf('/'))}/target.d`, path, { recursive: true }),
  link: (path) => fs.symlinkSync('target', path),
  'link to a directory': (path) => fs.symlinkSync('target.d', path),
};

/** What one does to a name that has just been of one type and is of another now. */
const uses: Record<string, (agent: ReturnType<typeof startAgent>, path: string) => Promise<unknown>> = {
  'is opened and asked': async (agent, path) => {
    const fd = await agent.call<number>('openSync', path, O_RDONLY | O_NONBLOCK);
    await agent.call('fstatSync', fd).finally(() => agent.call('closeSync', fd));
  },
  'is opened for writing': async (agent, path) => {
    const fd = await agent.call<number>('openSync', path, O_WRONLY | O_APPEND | O_NONBLOCK);
    await agent.call('closeSync', fd);
  },
  'is asked for attributes': (_, path) => runOk('getfattr', ['-m', '-', '--', path]),
  'is asked': (agent, path) => agent.call('statSync', path),
  'is asked where it leads': (agent, path) => agent.call('readlinkSync', path),
  'is gone through': (agent, path) => agent.call('statSync', `${path}/in`),
};

/** What is an error on any file system, too; but for ESTALE, to who holds a directory that is none any more. */
const refused: Record<string, RegExp> = {
  'is opened and asked': /^dir, .*(ESTALE|-116).*, fstat$/,
  'is opened for writing': /EISDIR|ENXIO/,
  'is asked where it leads': /EINVAL/,
  'is gone through': /ENOTDIR/,
};

function exchange(from: string, to: string): void {
  expect(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE)).toBe(0);
}

/** What is done while the daemon stands still, and what is asked of it meanwhile. */
async function whileStopped<T>(mount: Mount, change: () => void, ask: () => Promise<T>): Promise<T> {
  process.kill(mount.pid, 'SIGSTOP');
  let asked: Promise<PromiseSettledResult<T>[]>;
  try {
    change();
    asked = Promise.allSettled([ask()]);
    await sleep(50);
  } finally {
    process.kill(mount.pid, 'SIGCONT');
  }
  const [answer] = await asked;
  if (answer?.status !== 'fulfilled') throw answer?.reason;
  return answer.value;
}

mountTest(
  'a name of which the base changes the type is of one of both to whoever uses it meanwhile',
  () =>
    withLayers(async (layers) => {
      const { base } = layers;
      fs.mkdirSync(`${base}/target.d`);
      for (const name of ['target', 'target.d/in']) fs.writeFileSync(`${base}/${name}`, 'text\n');
      const types = Object.keys(makers);
      const cases = types.flatMap((from) =>
        types.flatMap((to) => (from === to ? [] : Object.keys(uses).map((use) => ({ from, to, use })))),
      );
      for (const [i, { from, to }] of cases.entries()) {
        makers[from]?.(`${base}/${i}`);
        makers[to]?.(`${base}/${i}.next`);
      }
      await withMount({ ...layers, options: notifyBy('inotify') }, async (mount) => {
        const agent = startAgent();
        const problems: string[] = [];
        for (const [i, { from, to, use }] of cases.entries()) {
          const name = `${mount.dir}/${i}`;
          // Not where a symlink leads: the kernel would remember that.
          await agent.call('lstatSync', name);
          const change = () => exchange(`${base}/${i}`, `${base}/${i}.next`);
          await whileStopped(mount, change, () => uses[use]?.(agent, name) as Promise<unknown>).catch(
            (error: Error) => {
              const problem = `${from}, then ${to}, ${use}: ${error.message}`;
              if (!refused[use]?.test(problem)) problems.push(problem);
            },
          );
        }
        expect(problems).toEqual([]);
        await agent.stop();
      });
    }),
  { commands: ['getfattr'] },
);

/** What the base does with the first name of a file, and of a symlink. */
const losses = {
  removed: 'rm f l',
  'a directory': 'rm f l; mkdir f l',
  'a symlink': 'rm f l; ln -s other f; ln -s other l',
  'another file': 'echo another > new; mv new f; rm l; echo > l',
  'a FIFO': 'rm f l; mkfifo f l',
};

/** What a guest does by the second name, and what that comes to. */
const byOther: Record<string, [script: string, result: string]> = {
  read: ['cat of', 'text'],
  asked: ['stat -c %F of', 'regular file'],
  'asked for an attribute': ['getfattr --only-values -n user.a of', '1'],
  followed: ['readlink ol', 'there'],
  'written to': ['echo more >> of; cat of', 'text\nmore'],
  changed: ['chmod 600 of; stat -c %a of; cat of', '600\ntext'],
};

mountTest(
  'what has lost the first of the names that a guest knows it by is reached by the other, and not what lies there now',
  async () => {
    for (const options of [notifyBy('inotify'), ['--coherence', 'check']]) {
      await withLayers(async (layers) => {
        const { base, overlay } = layers;
        const cases = Object.entries(losses).flatMap(([loss, script]) =>
          Object.keys(byOther).map((use) => ({ loss, script, use, name: `${loss}, ${use}` })),
        );
        for (const { name } of cases) {
          fs.mkdirSync(`${base}/${name}`);
          const made = 'echo text > f; setfattr -n user.a -v 1 f; ln f of; ln -s there l; ln -P l ol';
          await sh(made, [], { cwd: `${base}/${name}` });
        }
        await withMount({ ...layers, options }, async ({ dir }) => {
          for (const { name } of cases) await sh('stat f of l ol', [], { cwd: `${dir}/${name}` });
          for (const { name, script } of cases) await sh(script, [], { cwd: `${base}/${name}` });
          await caughtUp(dir);
          const results: [string, string][] = [];
          for (const { name, use } of cases) {
            const { stdout, stderr } = await run('bash', ['-c', byOther[use]?.[0] as string], {
              cwd: `${dir}/${name}`,
            });
            results.push([name, (stdout + stderr).trim()]);
          }
          expect(results).toEqual(cases.map(({ name, use }) => [name, byOther[use]?.[1]]));
          for (const { name } of cases)
            for (const lost of ['f', 'l'])
              expect(fs.existsSync(`${overlay}/${name}/${lost}`), name).toBe(false);
        });
      });
    }
  },
  { commands: ['getfattr', 'setfattr'] },
);

mountTest('a FIFO that the base puts in place of a file is not opened by who opens the file', () =>
  withLayers(async (layers) => {
    const { base } = layers;
    fs.writeFileSync(`${base}/f`, 'text\n');
    await sh('mkfifo "$1"/fifo; ln "$1"/fifo "$1"/end', [base]);
    await withMount({ ...layers, options: notifyBy('inotify') }, async (mount) => {
      const [guest, writer] = [startAgent(), startAgent()];
      for (const one of [guest, writer]) await one.call('lstatSync', `${mount.dir}/f`);
      // That ends with the first that reads.
      let written = false;
      const writing = writer.call('writeFileSync', `${base}/end`, 'text\n').then(
        () => (written = true),
        () => {},
      );
      const fd = await whileStopped(
        mount,
        () => exchange(`${base}/f`, `${base}/fifo`),
        () => guest.call<number>('openSync', `${mount.dir}/f`, O_RDONLY | O_NONBLOCK),
      );
      await sleep(100);
      expect(written).toBe(false);
      // The guest’s own FIFO, as on any file system.
      const { mode } = await guest.call<fs.Stats>('fstatSync', fd);
      expect(mode & S_IFMT).toBe(S_IFIFO);
      await guest.stop();
      await writer.stop();
      await writing;
    });
  }),
);

mountTest(
  'who holds a directory that the base replaces is told that it is another, or gone, whoever has looked',
  () =>
    withLayers(async (layers) => {
      const { base } = layers;
      const names = ['gone', 'moved', 'file', 'link', 'dir'];
      for (const name of names) fs.mkdirSync(`${base}/${name}`);
      await withMount({ ...layers, options: notifyBy('inotify') }, async (mount) => {
        const agent = startAgent();
        const opened: [string, number][] = [];
        for (const name of names)
          opened.push([name, await agent.call('openSync', `${mount.dir}/${name}`, O_RDONLY)]);
        await sh(
          'cd "$1"; rmdir gone file link dir; mv moved other; touch file; ln -s other link; mkdir -m 711 dir',
          [base],
        );
        const told = async () => {
          await caughtUp(mount.dir);
          const tell = async ([name, fd]: [string, number]) => [
            name,
            await agent.call<fs.Stats>('fstatSync', fd).then(
              ({ mode }) => (mode & 0o777).toString(8),
              ({ message }) => String(message).split(/[:,]/)[0],
            ),
          ];
          return Object.fromEntries(await Promise.all(opened.map(tell)));
        };
        const stale = expect.stringMatching(/ESTALE|116/);
        const expected = { gone: 'ENOENT', moved: 'ENOENT', file: stale, link: stale, dir: '711' };
        expect(await told()).toEqual(expected);
        await sh('ls -ld "$@" 2> /dev/null || :', names, { cwd: mount.dir });
        expect(await told()).toEqual(expected);
        await agent.stop();
      });
    }),
);
