// Editors that stay open while the daemon dies and another one comes: what they had read is not forgotten, so an
// update that they have not seen is merged into what they write, or in conflict with it, and never taken back.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import { tracked } from '../lib/cleanup.ts';
import { kasane, type Layers, startMount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { run, waitUntil } from '../lib/run.ts';
import { BASE_LINE, GUEST_LINE, text, updateFile, writeFiles } from '../lib/versioning.ts';

interface Open {
  /** It writes, and ends. */
  write: () => Promise<void>;
}

/** Ways to write of programs that read a file, run a hook, and write the file with a line changed. */
const programs = {
  'writes in place': `
import subprocess, sys; f = sys.argv[1]; s = open(f).read(); subprocess.run(['sh', sys.argv[2]], check=True)
open(f, 'w').write(s.replace('line ${GUEST_LINE}\\n', 'guest\\n'))`,
  'renames over': `
import os, subprocess, sys; f = sys.argv[1]; s = open(f).read(); subprocess.run(['sh', sys.argv[2]], check=True)
open(f + '~', 'w').write(s.replace('line ${GUEST_LINE}\\n', 'guest\\n')); os.rename(f + '~', f)`,
};

/** vim asks whether to overwrite a file that has a new mtime; the answer comes from its input. */
const vim = (file: string, hook: string) => [
  ...['vim', '-u', 'NONE', '-i', 'NONE', '-es', '--cmd', 'set nocompatible writebackup noswapfile viminfo='],
  ...[
    '-c',
    `%s/^line ${GUEST_LINE}$/guest/`,
    '-c',
    `silent !sh ${hook}`,
    '-c',
    'write!',
    '-c',
    'quit!',
    file,
  ],
];

/** Opens a file, and is outside of the mount otherwise. */
async function opened(how: keyof typeof programs | 'vim', file: string, hook: string): Promise<Open> {
  fs.writeFileSync(hook, `touch ${hook}.read; while [ ! -e ${hook}.go ]; do sleep 0.05; done\n`);
  const [command = '', ...args] =
    how === 'vim' ? vim(file, hook) : ['python3', '-c', programs[how], file, hook];
  const child = spawn(command, args, { cwd: '/', stdio: ['pipe', 'ignore', 'inherit'] });
  tracked(async () => void child.kill('SIGKILL'));
  child.stdin.end('y\n');
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const hasRead = await waitUntil(() => fs.existsSync(`${hook}.read`));
  if (!hasRead) throw new Error(`${how} has not read ${file}`);
  return {
    write: async () => {
      fs.writeFileSync(`${hook}.go`, '');
      expect(await ended, how).toBe(0);
    },
  };
}

const ways = ['writes in place', 'renames over', 'vim'] as const;
const moments = ['while it is down', 'afterwards'] as const;
const nameOf = (way: string, moment: string) => `${way} ${moment}`.replace(/ /g, '-');

async function updateAll({ base }: Layers, moment: string): Promise<void> {
  for (const way of ways) {
    await updateFile(`${base}/${nameOf(way, moment)}`, text({ [BASE_LINE]: 'base' }), 'replace');
  }
}

mountTest(
  'a death of the daemon does not let who has read an older version take an update back',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      const all = ways.flatMap((way) => moments.map((moment) => ({ way, name: nameOf(way, moment) })));
      for (const { name } of all) fs.writeFileSync(`${base}/${name}`, text());
      const first = await startMount({ ...layers, mountPoint: mnt });
      const open: Open[] = [];
      for (const { way, name } of all)
        open.push(await opened(way, `${mnt}/${name}`, `${layers.dir}/${name}.hook`));
      await first.kill();
      await updateAll(layers, 'while it is down');
      await withMount(layers, async (mount) => {
        await updateAll(layers, 'afterwards');
        // Others see what is there, and that is not what the editors have seen.
        await mount.sh('cat *-down *-afterwards');
        for (const editor of open) await editor.write();
        await kasane(['reconcile', mnt]);
        const { stdout } = await run('sh', ['-c', 'cd "$1" && cat .kasane/conflicts', 'sh', mnt]);
        for (const { way, name } of all) {
          const now = await mount.read(name);
          expect(now, name).toContain('guest\n');
          if (name === nameOf(way, 'afterwards')) {
            expect(now, name).toBe(text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' }));
          } else if (!now.includes('base\n')) {
            expect(stdout, name).toContain(name);
          }
        }
      });
    }),
  { commands: ['vim', 'python3'] },
);

mountTest('a conflict that somebody was told of keeps its number, though the daemon dies at once', () =>
  withLayers(async (layers) => {
    const { base, mnt: mountPoint } = layers;
    writeFiles(base, { f: text(), g: text() });
    const mount = await startMount({ ...layers, mountPoint });
    const verbs = connectVerbs(runtimePaths(mountPoint).socket, { timeoutMs: 60_000 });
    const about = ({ id, path }: { id: number; path: string }) => `${id} ${path}`;
    let told: string[];
    try {
      await mount.sh('echo guest > f; echo guest > g');
      const update = text({ [BASE_LINE]: 'base' });
      for (const name of ['f', 'g']) await updateFile(`${base}/${name}`, update, 'replace');
      await verbs.reconcile({ path: '', dryRun: false, acceptBase: false }, async () => undefined);
      told = (await verbs.conflicts()).map(about);
    } finally {
      await mount.kill();
    }
    expect(told.length).toBe(2);
    // What the base had is there to be shown, though it has it no more.
    fs.rmSync(`${base}/g`);
    await withMount(layers, async () => {
      const found = JSON.parse((await kasane(['conflicts', '--json', mountPoint])).stdout);
      expect(found.map(about)).toEqual(told);
      const shown = await kasane(['show', '--side', 'base', `${mountPoint}/g`]);
      expect(shown).toMatchObject({ code: 0, stdout: text({ [BASE_LINE]: 'base' }) });
    });
  }),
);
