// Directories of the base that are renamed. Whatever is done with them comes to what a plain copy of the base comes
// to, at once, after a remount, and in kernel overlayfs; and what the base does beneath them goes on reaching them.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { exchangeCommand, renameWith } from '../lib/calls.ts';
import { differences } from '../lib/crash.ts';
import { kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, sh, waitUntil } from '../lib/run.ts';
import { diffTrees, readTree, withBaseUntouched } from '../lib/tree.ts';
import { BASE_LINE, GUEST_LINE, text, withGuest } from '../lib/versioning.ts';

/** What is done in a directory that is a scene's own, by a shell. */
const scenes: Record<string, string> = {
  once: 'mv d e; cat e/f; echo more >> e/f; echo new > e/new; rm e/g; echo over > d; chmod 700 e/sub',
  'several times':
    'mv d e; mv e f; mkdir box; mv f box/g; mv box other-box; mv other-box/g last; echo x > last/x',
  'and back': 'mv d e; echo more >> e/f; rm e/g; mv e d',
  'and back by a detour': 'mkdir box; mv d box/e; mv box box2; mv box2/e d; echo x > d/sub/x',
  'with one inside that is renamed, too':
    'mv d/sub d/sub2; mv d e; mv e/sub2/deep e/deep; mv e f; echo x > f/deep/x',
  'with one inside that goes back to where it was':
    'mv d/sub x; mv d e; mv x e/sub; echo x > e/sub/x; mv e d',
  'with one inside that goes home before it':
    'mv d e; mv e/sub x; mv x e/sub; mkdir d; mv e/sub d/sub; mv e/f d/f',
  'out of a renamed one':
    'mv d e; mv e/sub out; mv out/deep deeper; echo x > deeper/x; rmdir out 2> /dev/null || :',
  'into a renamed one': 'mv d e; mv d2 e/in; mv e/in/s e/sub/t; mkdir own; mv own e/own; mv e f; ls f/in',
  'into one that was made': 'mkdir own; mv d own/d; mv own/d/sub own/sub; mv own moved; rm -r moved/d',
  'over an empty one of the base': 'mv -T d empty; echo x > empty/x',
  'over one of the base that was emptied': 'rm d2/h; rm -r d2/s; mv -T d d2; echo x > d2/x',
  'over one that was made': 'mkdir own; mv -T d own; mv -T own own2; rm own2/f',
  'over one that was made where the base has one': 'rm -r d2; mkdir d2; mv -T d d2; ls d2',
  'over a name that was removed': 'rm -r d2; mv d d2; echo x > d2/x; mv d2 e; mv e d2',
  'over the name of a file that was removed': 'rm file; mv d file; mkdir d; echo x > d/x; mv file e',
  'where another one was, which went on': 'mv d e; mv d2 d; mv e d2; echo x > d/x; echo y > d2/y',
  'round in a circle': 'mv d e; mv d2 d; mv d3 d2; mv e d3; echo 1 > d/1; echo 2 > d2/2; echo 3 > d3/3',
  'and made anew': 'mv d e; mkdir d; echo x > d/f; mkdir d/sub; mv d g; mv e d; cat d/f g/f',
  'and removed': 'mv d e; rm -r e; mkdir e; echo x > e/f; mv e d',
  'home, beneath a directory that was made anew':
    'mv p/d x; rm -r p; mkdir p; mv x p/d; cat p/d/f; echo x > p/d/x',
  'out of a directory that was made anew':
    'rm -r p; mkdir p; mkdir p/d; echo x > p/d/x; mv p/d e; mv p q; mv e q/d',
  'with one inside that was made anew':
    'rm -r d/sub; mkdir d/sub; echo x > d/sub/x; mv d e; mv e/sub s; mv s e/sub',
  'with a removed and a new name inside': 'rm d/f; mkdir d/f; mv d e; rmdir e/f; echo x > e/f; mv e d',
  'with links inside':
    'ln d/f d/link; ln -s f d/soft; mv d e; echo more >> e/link; mv e/soft .; mv e d; rm d/f',
  'changing places with another of the base': `${exchangeCommand('d', 'd2')}; echo x > d/x; echo y > d2/y`,
  'changing places twice': `${exchangeCommand('d', 'd2')}; echo x > d/x; ${exchangeCommand('d2', 'd')}`,
  'changing places with one that was made': `mkdir own; echo x > own/x; ${exchangeCommand('d', 'own')}; mv d e`,
  'changing places with a file': `${exchangeCommand('d', 'file')}; echo x > file/x; echo y >> d; ${exchangeCommand('file', 'd2')}`,
  'changing places with one from inside another': `${exchangeCommand('d/sub', 'd2/s')}; mv d e; mv d2 d; ls e/sub d/s`,
  'changing places with its own made anew': `mv d e; mkdir d; echo x > d/x; ${exchangeCommand('d', 'e')}; mv e d/was`,
  'with strange names':
    "mv d $'caf\\xe9 \\\\'; mv $'caf\\xe9 \\\\' $'a\\nb'; mv $'a\\nb'/sub ' '; mv ' '/deep $'\\t'; mv $'\\t' d",
  'what cannot be': `for what in 'd d/sub' 'd d/sub/deep/in' 'd file' 'file d' '-T d d2' '-T d2 d' '-T d p' 'nothing d'; do
      mv $what 2> /dev/null && echo "moved $what" >> done; done; mv d e; mv -T e d2 2> /dev/null || echo refused >> done`,
};

async function makeBase({ base, dir }: Layers): Promise<void> {
  for (const i of Object.keys(scenes).keys()) {
    const script = `
      mkdir "$1"; cd "$1"; mkdir -p d/sub/deep d2/s d3 empty p/d; echo f > d/f; echo g > d/g; echo s > d/sub/s
      echo deep > d/sub/deep/file; echo h > d2/h; echo i > d2/s/i; echo j > d3/j; echo file > file; echo p > p/d/f
      chmod 750 d; chmod 1777 d2; chown 7:7 d3; setfattr -n user.note -v d d; echo top > p/top`;
    await sh(script, [`${base}/s${i}`]);
  }
  await runOk('cp', ['-a', base, `${dir}/plain`]);
}

/** Differences from the plain copy, by scene. */
async function compare(layers: Layers): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const [plain, union] = [await readTree(`${layers.dir}/plain`), await readTree(layers.mnt)];
  for (const line of diffTrees(plain, union, {
    mtime: false,
    nlink: false,
    ignoreXattrs: /^trusted\.kasane\./,
  })) {
    const scene = line.split(/[/:]/)[0] as string;
    found.set(scene, [...(found.get(scene) ?? []), line]);
  }
  return found;
}

/** What a script says, and what it says when it fails. */
async function tell(script: string, cwd: string): Promise<string> {
  const { code, stdout, stderr } = await run('bash', ['-euo', 'pipefail', '-c', script], { cwd });
  return `${code}: ${stdout}${stderr}`;
}

type Outcome = Record<'said' | 'at once' | 'after a remount' | 'in overlayfs', Map<string, string[]>>;

async function playAll(): Promise<{ outcome: Outcome; redirects: Map<string, string> }> {
  return withLayers(async (layers) => {
    await makeBase(layers);
    const outcome = {} as Outcome;
    const refused = new Map<string, string[]>();
    outcome.said = refused;
    await withBaseUntouched(layers.base, async () => {
      await withMount(layers, async () => {
        for (const [i, script] of Object.values(scenes).entries()) {
          const said = [`${layers.dir}/plain`, layers.mnt].map((root) => tell(script, `${root}/s${i}`));
          const [plain, union] = await Promise.all(said);
          if (plain !== union) refused.set(`s${i}`, [`${union} / ${plain}`]);
        }
        outcome['at once'] = await compare(layers);
      });
      await withMount(layers, async () => {
        outcome['after a remount'] = await compare(layers);
      });
      expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
      const { base, overlay, dir, mnt } = layers;
      await runOk('mkdir', [`${dir}/work`]);
      const options = `lowerdir=${base},upperdir=${overlay},workdir=${dir}/work,redirect_dir=on,metacopy=on`;
      await runOk('mount', ['-t', 'overlay', '-o', options, 'none', mnt]);
      try {
        outcome['in overlayfs'] = await compare(layers);
      } finally {
        await takeDown(mnt);
      }
    });
    const list = await run('getfattr', [
      '-R',
      '-h',
      '-n',
      'trusted.overlay.redirect',
      '--absolute-names',
      layers.overlay,
    ]);
    const redirects = new Map(
      [...list.stdout.matchAll(/^# file: (.*)\ntrusted.overlay.redirect="(.*)"$/gm)].map(
        ([, file, target]) => [(file as string).slice(layers.overlay.length + 1), target as string] as const,
      ),
    );
    return { outcome, redirects };
  });
}

let played: ReturnType<typeof playAll> | null = null;
const all = () => {
  played ??= playAll();
  return played;
};

const sceneOf = (name: string) => `s${Object.keys(scenes).indexOf(name)}`;
const needs = { commands: ['getfattr', 'setfattr'], filesystems: ['overlay'], timeout: 240_000 };

for (const name of Object.keys(scenes)) {
  mountTest(
    `a base directory is renamed ${name}`,
    async () => {
      const { outcome } = await all();
      const found = Object.entries(outcome).map(([when, lines]) => [when, lines.get(sceneOf(name)) ?? []]);
      expect(Object.fromEntries(found)).toEqual({
        said: [],
        'at once': [],
        'after a remount': [],
        'in overlayfs': [],
      });
    },
    needs,
  );
}

mountTest(
  'a directory that is where the base has it carries no redirect, and any other one the path in the base',
  async () => {
    const { redirects } = await all();
    const of = (name: string) =>
      [...redirects]
        .filter(([file]) => file.startsWith(`${sceneOf(name)}/`))
        .map(([file, target]) =>
          [file.slice(sceneOf(name).length + 1), target.slice(sceneOf(name).length + 2)].join(' '),
        );
    expect(of('several times')).toEqual(['last d']);
    expect(of('and back')).toEqual([]);
    expect(of('and back by a detour')).toEqual([]);
    expect(of('with one inside that goes back to where it was')).toEqual([]);
    expect(of('changing places twice')).toEqual([]);
    expect(of('home, beneath a directory that was made anew')).toEqual(['p/d p/d']);
    expect(of('round in a circle').sort()).toEqual(['d d2', 'd2 d3', 'd3 d']);
  },
  needs,
);

mountTest('open files and directories go on through renames of what is above them', () =>
  withGuest({ files: { 'd/sub/f': 'f\n', 'd/sub/g': 'g\n', 'd/deep/er/h': 'h\n' } }, async (guest) => {
    const agent = startAgent({ cwd: guest.at('d/sub') });
    const reader = await agent.call<number>('openSync', 'f', 'r');
    const writer = await agent.call<number>('openSync', 'g', 'a+');
    const own = await agent.call<number>('openSync', 'own', 'w+');
    await guest.mount.sh('mv d e; mv e/sub s; mv e f; mv s f/s; mkdir d');
    expect((await agent.call<Buffer>('readWhole', reader)).toString()).toBe('f\n');
    await agent.call('writeSync', writer, 'appended\n');
    await agent.call('writeSync', own, 'own\n');
    expect(await agent.call('readlinkSync', '/proc/self/cwd')).toBe(guest.at('f/s'));
    expect((await agent.call<string[]>('readdirSync', '.')).sort()).toEqual(['f', 'g', 'own']);
    await agent.call('writeFileSync', 'late', 'late\n');
    await agent.call('renameSync', 'f', '../f');
    await guest.mount.sh('mv f/s d/sub; mv f/f d/sub/f2');
    expect((await agent.call<string[]>('readdirSync', '.')).sort()).toEqual(['f2', 'g', 'late', 'own']);
    await agent.call('writeSync', writer, 'again\n');
    expect(await guest.read('d/sub/g')).toBe('g\nappended\nagain\n');
    expect(await guest.read('d/sub/own')).toBe('own\n');
    expect((await agent.call<Buffer>('readWhole', reader)).toString()).toBe('f\n');
    await agent.stop();
  }),
);

mountTest('what is not to be replaced or not to be reached is refused, and nothing has changed', () =>
  withGuest({ files: { 'd/f': 'f\n', 'd2/g': 'g\n', file: 'file\n', empty: null } }, async (guest) => {
    const tree = () => readTree(guest.mnt);
    await guest.mount.sh('mkdir own; echo x > own/x');
    const before = await tree();
    const results: string[] = [];
    for (const [from, to, how] of [
      ['d', 'd2', 'plainly'],
      ['d', 'own', 'plainly'],
      ['own', 'd', 'plainly'],
      ['d', 'file', 'plainly'],
      ['file', 'd', 'plainly'],
      ['d', 'd/in', 'plainly'],
      ['d', 'empty', 'noreplace'],
      ['d', 'nothing', 'exchange'],
      ['nothing', 'd', 'plainly'],
      ['d', '.kasane', 'plainly'],
      ['d', '.kasane/d', 'plainly'],
    ] as const)
      results.push(await renameWith(guest.at(from), guest.at(to), how));
    const full = 'ENOTEMPTY';
    expect(results).toEqual([
      ...[full, full, full, 'ENOTDIR', 'EISDIR', 'EINVAL', 'EEXIST', 'ENOENT', 'ENOENT', 'EPERM', 'EPERM'],
    ]);
    expect(differences(before, await tree())).toEqual([]);
  }),
);

mountTest(
  'with --redirect-dir off a directory that shows the base is not renamed, and mv copies it',
  () =>
    withGuest(
      { files: { 'd/f': 'f\n', 'd2/g': 'g\n' }, options: ['--redirect-dir', 'off'] },
      async (guest) => {
        expect(await renameWith(guest.at('d'), guest.at('e'), 'plainly')).toBe('EXDEV');
        await guest.mount.sh('echo x > d/x; mkdir own; echo own > own/own');
        expect(await renameWith(guest.at('d'), guest.at('e'), 'plainly')).toBe('EXDEV');
        expect(await renameWith(guest.at('own'), guest.at('d'), 'exchange')).toBe('EXDEV');
        expect(await renameWith(guest.at('own'), guest.at('d2/own'), 'plainly')).toBe('done');
        await guest.mount.sh('mv d e; rm -r d2; mkdir d2; echo new > d2/new; mv d2 d');
        expect(await guest.mount.sh('cd e; cat f x; cat ../d/new; ls -A ..')).toBe('f\nx\nnew\nd\ne\n');
        const redirects = await run('getfattr', [
          '-R',
          '-h',
          '-n',
          'trusted.overlay.redirect',
          guest.overlay,
        ]);
        expect(redirects.stdout).toBe('');
      },
    ),
  { commands: ['getfattr'] },
);

mountTest('a base path that is too long for a redirect is EXDEV, and mv copies', () =>
  withGuest({ files: { top: 'top\n' } }, async (guest) => {
    const long = Array.from({ length: 12 }, () => 'x'.repeat(250)).join('/');
    const made = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir $1; cd $1; done; mkdir d; echo f > d/f';
    await guest.changeBase(() => sh(made, ['x'.repeat(250)], { cwd: guest.base }));
    expect(await renameWith(guest.at(`${long}/d`), guest.at('e'), 'plainly')).toBe('EXDEV');
    await guest.mount.sh('mv "$1" e; cat e/f', [`${long}/d`]);
    expect(await guest.read('e/f')).toBe('f\n');
    expect(await guest.exists(`${long}/d`)).toBe(false);
  }),
);

mountTest('a renamed directory goes on following what the base adds, changes and removes beneath', () =>
  withGuest(
    { files: { 'd/f': 'f\n', 'd/sub/g': 'g\n', 'd/sub/gone': 'x\n', 'd/conf': text() } },
    async (guest) => {
      await guest.mount.sh(`mv d e; mv e/sub s; sed -i 's/^line ${GUEST_LINE}$/guest/' e/conf`);
      await guest.update('d/f', 'newer f\n');
      await guest.update('d/conf', text({ [BASE_LINE]: 'base' }));
      await guest.changeBase(() =>
        sh('cd "$1"; echo added > d/sub/added; mkdir d/dir; rm d/sub/gone', [guest.base]),
      );
      expect(await guest.mount.sh('cat e/f; ls e s')).toBe('newer f\ne:\nconf\ndir\nf\n\ns:\nadded\ng\n');
      expect(await guest.read('e/conf')).toBe(text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' }));
      expect(await guest.exists('d')).toBe(false);
      // Replaced by another directory of that name: that is followed; removed: what is the guest's own stays.
      await guest.changeBase(() =>
        sh('cd "$1"; cp -a d/sub new; rm -r d/sub; mv new d/sub; echo n > d/sub/n', [guest.base]),
      );
      expect(await guest.mount.sh('ls s; echo own > s/own')).toBe('added\ng\nn\n');
      await guest.changeBase(() => sh('rm -r "$1/d"', [guest.base]));
      expect(await guest.mount.sh('ls s e; cat s/own')).toBe('e:\nconf\n\ns:\nown\nown\n');
      await guest.changeBase(() => sh('mkdir -p "$1/d/sub"; echo back > "$1/d/sub/back"', [guest.base]));
      expect(await guest.mount.sh('ls s')).toBe('back\nown\n');
    },
  ),
);

mountTest(
  'conflicts beneath a renamed directory have its new path, move along with it, and are resolved there',
  () =>
    withGuest({ files: { 'd/conf': text(), 'd/sub/conf': text(), 'd/other': text() } }, async (guest) => {
      await guest.mount.sh(`sed -i 's/^line ${GUEST_LINE}$/guest/' d/conf d/sub/conf d/other`);
      for (const name of ['d/conf', 'd/sub/conf']) await guest.update(name, text({ [GUEST_LINE]: 'base' }));
      await guest.mount.sh('cat d/conf > /dev/null; mv d e; cat e/sub/conf > /dev/null');
      const list = async (expected: string[]) => {
        await waitUntil(async () => (await guest.conflictList()).join() === expected.join());
        expect(await guest.conflictList()).toEqual(expected);
      };
      await list(['e/conf text', 'e/sub/conf text']);
      await guest.mount.sh('mkdir box; mv e box/f; mv box/f/sub s');
      await list(['box/f/conf text', 's/conf text']);
      await guest.update('d/other', text({ [BASE_LINE]: 'base' }));
      expect(await guest.read('box/f/other')).toBe(text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' }));
      const resolved = await guest.kasane(['resolve', '--take', 'base', guest.at('s/conf')]);
      expect(resolved).toMatchObject({ code: 0 });
      expect(await guest.read('s/conf')).toBe(text({ [GUEST_LINE]: 'base' }));
      await guest.mount.sh('mv box/f d; mv s d/sub');
      await list(['d/conf text']);
      expect(await guest.kasane(['resolve', '--take', 'overlay', guest.at('d/conf')])).toMatchObject({
        code: 0,
      });
      expect(await guest.conflictList()).toEqual([]);
      expect(await guest.read('d/conf')).toBe(text({ [GUEST_LINE]: 'guest' }));
      expect(fs.readdirSync(`${guest.overlay}/.kasane/work`)).toEqual([]);
    }),
);
