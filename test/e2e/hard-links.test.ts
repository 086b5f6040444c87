// Files with several names in the base: copied up they stay one file under all of their names, whatever names the base
// gives it or takes from it later.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { O_PATH } from '../../src/sys/constants.ts';
import { startAgent } from '../lib/agent.ts';
import { caughtUp, type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';
import { text } from '../lib/versioning.ts';

interface Case {
  what: string;
  /** In a directory of its own, where the base has one file as `a` and `b`. */
  before?: string;
  guest: string;
  base: string;
  /** What the guest does when the base has done that, and the base thereafter. */
  use?: string;
  later?: string;
  /** `NAMES COUNT` of each file, sorted; and a name with a line that is in it. */
  files: string[];
  holds: [name: string, line: string];
  /** Whether links/ keeps the copy. */
  kept: boolean;
}

const copied = 'echo guest >> a; read -r < b';
const merged = 'until cat a b | grep -c base | grep -x 2; do sleep 0.05; done';

const cases: Case[] = [
  {
    what: 'a name that the base gives to a file all of whose names are copied up',
    guest: copied,
    base: 'ln a c',
    files: ['a b c 3'],
    holds: ['c', 'guest'],
    kept: true,
  },
  {
    what: 'one that it gives in place of another',
    guest: copied,
    base: 'mv b c',
    files: ['a b c 3'],
    holds: ['c', 'guest'],
    kept: true,
  },
  {
    what: 'one that it takes from a file before anybody has come to it',
    before: 'ln a c',
    guest: 'echo guest >> a',
    base: 'rm c',
    files: ['a b 2'],
    holds: ['b', 'guest'],
    kept: true,
  },
  {
    what: 'the one that was copied up, taken away while the other has not been come to',
    guest: 'echo guest >> a',
    base: 'rm a',
    files: ['a b 2'],
    holds: ['b', 'guest'],
    kept: true,
  },
  {
    what: 'one more, when the guest has saved a name anew',
    guest: `${copied}; cp b x; mv x b; echo own >> b`,
    base: 'ln a c',
    files: ['a c 2', 'b 1'],
    holds: ['c', 'guest'],
    kept: true,
  },
  {
    what: 'one more, when the guest has renamed the copy',
    guest: `${copied}; mv a x; mv b y`,
    base: 'ln a c',
    files: ['c x y 3'],
    holds: ['c', 'guest'],
    kept: true,
  },
  {
    what: 'one more, when the guest has removed the copy: the file of the base',
    guest: `${copied}; rm a b`,
    base: 'ln a c; rm a b',
    files: ['c 1'],
    holds: ['c', 'line 1'],
    kept: false,
  },
  {
    what: 'one more, when something else has been renamed over the copy',
    guest: `${copied}; rm b; echo own > x; mv x a`,
    base: 'ln a c; rm b',
    files: ['a 1', 'c 1'],
    holds: ['c', 'line 1'],
    kept: false,
  },
  {
    what: 'one more, after a merge of what the base had edited in place',
    guest: copied,
    base: "sed 's/^line 3$/base/' a > x; cat x > a; rm x",
    use: merged,
    later: 'ln a c',
    files: ['a b c 3'],
    holds: ['c', 'base'],
    kept: true,
  },
  {
    what: 'one more, after a merge of what the base had put there anew',
    guest: copied,
    base: "sed 's/^line 3$/base/' a > x; ln x y; mv x a; mv y b",
    use: merged,
    later: 'ln a c',
    files: ['a b c 3'],
    holds: ['c', 'base'],
    kept: true,
  },
  {
    what: 'one that is not come to before a merge of the others',
    before: 'ln a c',
    guest: copied,
    base: "sed 's/^line 3$/base/' a > x; cat x > a; rm x",
    use: merged,
    files: ['a b c 3'],
    holds: ['c', 'base'],
    kept: true,
  },
  {
    what: 'one that follows the base again, when the guest has renamed the copy: two files',
    guest: 'mv a x; read -r < b',
    base: "sed 's/^line 3$/base/' b > y; cat y > b; rm y",
    use: 'until grep base b; do sleep 0.05; done',
    files: ['b 1', 'x 1'],
    holds: ['b', 'base'],
    kept: false,
  },
  {
    what: 'a second one of a file that had one when it was copied up, once that is seen to have changed',
    before: 'rm b',
    guest: 'echo guest >> a',
    base: 'ln a c',
    use: 'stat c; until cat a; [ a -ef c ]; do sleep 0.05; done',
    files: ['a c 2'],
    holds: ['c', 'guest'],
    kept: true,
  },
];

/** Links that links/ has to copies. Other names there are of what the guest has hidden. */
const copiesIn = (overlay: string) =>
  fs.readdirSync(`${overlay}/.kasane/links`).filter((name) => name.includes('+'));

/** All cases at once, on however busy a machine. */
const patient = { timeout: 100_000 };

const inEach = (of: (one: Case) => string | undefined) =>
  cases.map((one, i) => `( cd ${i}; ${of(one) ?? ''}\n)`).join('\n');

/** In each directory: its files with their names and counts, and what they hold. */
async function expectAll(mount: Mount): Promise<void> {
  // What has been looked up may change what others count.
  const look = "stat -c '%i %h %n' */*";
  const seen = await mount.sh(`${look} > /dev/null; ${look}; echo; grep '' */*`, [], patient);
  const [stats = '', contents = ''] = seen.trimEnd().split('\n\n');
  const files = cases.map(() => new Map<string, string[]>());
  for (const line of stats.split('\n')) {
    const [ino = '', count = '', path = ''] = line.split(' ');
    const [dir, name = ''] = path.split('/');
    const found = files[Number(dir)] as Map<string, string[]>;
    const [, ...names] = found.get(ino) ?? [];
    found.set(ino, [count, ...names, name]);
  }
  for (const [i, one] of cases.entries()) {
    const found = [...(files[i]?.values() ?? [])].map(([count, ...names]) => `${names.join(' ')} ${count}`);
    expect(found.sort(), one.what).toEqual(one.files);
    const [name, line] = one.holds;
    expect(contents.split('\n'), one.what).toContain(`${i}/${name}:${line}`);
  }
}

mountTest(
  'names that the base gives to a copied file, or takes from it, are names of the copy',
  () =>
    withLayers(async (layers) => {
      const { base, overlay } = layers;
      const inBase = (script: string) => sh(script, [], { cwd: base, ...patient });
      for (const i of cases.keys()) fs.mkdirSync(`${base}/${i}`);
      for (const i of cases.keys()) fs.writeFileSync(`${base}/${i}/a`, text());
      await inBase(inEach(({ before }) => `ln a b; ${before ?? ''}`));
      await withMount(layers, async (mount) => {
        await mount.sh(
          inEach(({ guest }) => guest),
          [],
          patient,
        );
        await inBase(inEach((one) => one.base));
        await caughtUp(mount.dir);
        await mount.sh(`exec > /dev/null; ${inEach(({ use }) => use)}`, [], patient);
        await inBase(inEach((one) => one.later));
        await caughtUp(mount.dir);
        await expectAll(mount);
        // A write by one name is a write by all.
        await mount.sh('echo more >> 0/c; tail -1 0/a | grep -x more');
      });
      await withMount(layers, expectAll);
      fs.rmSync(`${overlay}/.kasane/index`, { recursive: true });
      await withMount(layers, expectAll);
      expect(copiesIn(overlay).length).toBe(cases.filter(({ kept }) => kept).length);
    }),
  { timeout: 300_000 },
);

mountTest('a file that has lost a name which somebody knows is changed by its other name', () =>
  withLayers(async (layers) => {
    fs.writeFileSync(`${layers.base}/x`, 'base\n');
    fs.linkSync(`${layers.base}/x`, `${layers.base}/y`);
    await withBaseUntouched(layers.base, () =>
      withMount(layers, async (mount) => {
        const agent = startAgent({ cwd: mount.dir });
        await agent.call('openSync', 'y', O_PATH);
        await agent.call('unlinkSync', 'y');
        await agent.call('statSync', 'x');
        await agent.call('chmodSync', 'x', 0o600);
        await agent.call('appendFileSync', 'x', 'guest\n');
        expect(await agent.call('readFileSync', 'x', 'utf8')).toBe('base\nguest\n');
        await agent.stop();
      }),
    );
  }),
);

mountTest('a mount for reading alone leaves what is kept for other names as it is', () =>
  withLayers(async (layers) => {
    const { base, overlay } = layers;
    await sh('echo base > a; ln a b; ln a c', [], { cwd: base });
    await withMount(layers, (mount) => mount.sh('echo guest >> a; cat b > /dev/null'));
    const links = () => fs.readdirSync(`${overlay}/.kasane/links`);
    const before = links();
    fs.unlinkSync(`${base}/c`);
    await withMount({ ...layers, options: ['-o', 'ro'] }, async (mount) => {
      expect(await mount.sh('stat -c "%n %h" a b; cat b')).toBe('a 2\nb 2\nbase\nguest\n');
      expect(links()).toEqual(before);
    });
    await withMount(layers, (mount) => mount.sh('stat a b > /dev/null'));
    expect(links()).not.toEqual(before);
  }),
);

mountTest(
  'a file that is open, and one of whose names the base gives to another, is changed by its other name',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      await sh('cd "$1"; echo base > a; ln a b', [base]);
      await withMount(layers, async (mount) => {
        const reader = startAgent();
        const fd = await reader.call<number>('openSync', `${mnt}/a`, 'r');
        await mount.sh('cat b');
        await sh('cd "$1"; echo other > x; mv x a', [base]);
        await reader.call('fchmodSync', fd, 0o600);
        expect((await reader.call<{ mode: number }>('fstatSync', fd)).mode & 0o777).toBe(0o600);
        expect(await mount.sh('stat -c %a a b; cat a b')).toBe('644\n600\nother\nbase\n');
        await reader.stop();
      });
    }),
);

/** More than what goes by way of the daemon. */
const LARGE = 256 * 1024;

mountTest('a large file with several names is opened for writing while somebody reads it', () =>
  withLayers(async (layers) => {
    const { base, mnt } = layers;
    fs.writeFileSync(`${base}/a`, Buffer.alloc(LARGE, 'b'));
    fs.linkSync(`${base}/a`, `${base}/b`);
    await withMount(layers, async (mount) => {
      await mount.sh('stat a b');
      const reader = startAgent();
      const fd = await reader.call<number>('openSync', `${mnt}/a`, 'r');
      await mount.sh('printf guest 1<> a; cmp a b; head -c 5 b');
      expect((await reader.call<Buffer>('readWhole', fd)).equals(Buffer.alloc(LARGE, 'b'))).toBe(true);
      await reader.stop();
    });
  }),
);

/** What a guest does in a directory where the base has one file as `a`, `b`, `c` and `sub/d`, and another as `one`. */
const hiding: string[] = [
  'rm a',
  'rm a b',
  'rm a b c; stat -c "%h %n" sub/d',
  'echo other > x; mv x a',
  'echo other > x; chmod 600 a; mv x a',
  'chmod 600 b; echo other > x; mv x a',
  'rm a; chmod 600 b',
  'rm a; chmod 600 b; rm b',
  'chmod 600 b; rm a',
  'chmod 600 b; rm a b',
  'rm a; echo other > a',
  'rm a; mkdir a',
  'rm a; ln b a',
  'rm a; ln b x; rm b',
  'rm a; mv b a',
  'mv a x',
  'mv a x; rm x',
  'mv one a',
  'mv a one',
  'rm -r sub',
  'rm -r sub; mkdir sub',
  'mv sub x; rm x/d',
  'mv sub x; chmod 600 a; rm x/d',
  'rm s; chown -h 1 t',
  'rm a; exec 3< b; rm b; stat -Lc %h /proc/self/fd/3',
  'exec 3< a; rm a; chmod 600 b; stat -Lc %h /proc/self/fd/3',
  'exec 3< a; rm a b c sub/d; stat -Lc %h /proc/self/fd/3',
  'exec 3< a; chmod 600 b; rm a b c sub/d; stat -Lc %h /proc/self/fd/3',
  'exec 3< a; echo x > x; for name in a b c sub/d; do ln x y; mv y $name; done; stat -Lc %h /proc/self/fd/3',
  'exec 3< one; rm one; stat -Lc %h /proc/self/fd/3',
  'exec 3< one; echo x > x; mv x one; stat -Lc %h /proc/self/fd/3',
];

/** The counts of all that has not gone, each asked for before anything is known of the names after it. */
const counts = hiding
  .map(
    (_, i) =>
      `( cd ${i}; for name in c b sub/d x one a t; do stat -c "${i} %h %F $name" $name 2> /dev/null || :; done )`,
  )
  .join('\n');

mountTest(
  'names that the guest removes or replaces, brought up before or not, are not counted, in the next mount neither',
  () =>
    withLayers(async (layers) => {
      const { base, overlay, dir } = layers;
      const make = 'mkdir sub; echo a > a; ln a b; ln a c; ln a sub/d; echo one > one; ln -s a s; ln s t';
      for (const i of hiding.keys()) fs.mkdirSync(`${base}/${i}`);
      await sh(hiding.map((_, i) => `( cd ${i}; ${make} )`).join('\n'), [], { cwd: base, ...patient });
      await sh(`cp -a base plain`, [], { cwd: dir, ...patient });
      const act = hiding.map((script, i) => `( echo ${i}; cd ${i}; ${script} )`).join('\n');
      const onPlain = (script: string) => sh(script, [], { cwd: `${dir}/plain`, ...patient });
      const [said, expected] = [await onPlain(act), await onPlain(counts)];
      await withBaseUntouched(base, async () => {
        await withMount(layers, async (mount) => {
          expect(await mount.sh(act, [], patient)).toBe(said);
          expect(await mount.sh(counts, [], patient)).toBe(expected);
        });
        const again = () =>
          withMount(layers, async (mount) => {
            expect(await mount.sh(counts, [], patient)).toBe(expected);
          });
        await again();
        fs.rmSync(`${overlay}/.kasane/index`, { recursive: true });
        await again();
      });
    }),
  { timeout: 300_000 },
);

mountTest('what the base does with names that the guest has hidden is counted, mounted or not', () =>
  withLayers(async (layers) => {
    const inBase = (script: string) => sh(script, [], { cwd: layers.base });
    await inBase(`
      for dir in 0 1 2 3; do mkdir $dir; echo a > $dir/a; ln $dir/a $dir/b; ln $dir/a $dir/c; done
      mkdir d; echo a > d/a; ln d/a b
      ln -s x s; ln s t; ln s u`);
    await withMount(layers, async (mount) => {
      const reader = startAgent({ cwd: mount.dir });
      const open = (name: string) => reader.call<number>('openSync', name, 'r');
      const left = async (fd: number) => (await reader.call<{ nlink: number }>('fstatSync', fd)).nlink;
      const [first, second] = [await open('0/a'), await open('b')];
      await mount.sh('rm 0/a 1/a 2/a; chmod 600 2/b; rm 3/a 3/b; rm b d/a');
      // Nobody has looked at what is left of them.
      expect([await left(first), await left(second)]).toEqual([2, 0]);
      await inBase('rm 0/a 0/b; mv 1/a 1/d; ln 3/a 3/d; mv d e');
      await caughtUp(mount.dir);
      expect([await left(first), await left(second)]).toEqual([1, 1]);
      expect(await mount.sh('stat -c %h 0/c 1/b 2/b 3/c e/a')).toBe('1\n3\n2\n2\n1\n');
      // What is no file parts from its other names when it is copied up.
      expect(await mount.sh('touch -h s; stat -c %h t')).toBe('2\n');
      await reader.stop();
    });
    await inBase('rm 1/d; mv 2/a 2/d');
    await withMount(layers, async (mount) => {
      expect(await mount.sh('stat -c %h 1/b 2/d 2/b 3/d')).toBe('2\n3\n3\n2\n');
    });
  }),
);

mountTest(
  'a name that the base gets back counts again, and so does one whose whiteout somebody has removed',
  () =>
    withLayers(async (layers) => {
      const { base, overlay } = layers;
      fs.writeFileSync(`${base}/a`, text());
      await sh('ln a b; ln a c', [], { cwd: base });
      await withMount(layers, async (mount) => {
        await mount.sh("rm b; sed 's/^line 3$/guest/' a > x; mv x a; stat -c %h c | grep -x 1");
        await sh("sed 's/^line 3$/base/' a > ../x; cat ../x > a", [], { cwd: base });
        await caughtUp(mount.dir);
        expect(await mount.kasane(['reconcile', mount.dir])).toMatchObject({ code: 1 });
        const resolved = await mount.kasane(['resolve', `${mount.dir}/a`, '--take', 'base']);
        expect(resolved).toMatchObject({ code: 0 });
        expect(await mount.sh('stat -c %h c')).toBe('2\n');
      });
      fs.unlinkSync(`${overlay}/b`);
      await withMount(layers, async (mount) => {
        expect(await mount.sh('grep -x base b; stat -c %h c; rm a b; stat -c %h c')).toBe('base\n3\n1\n');
      });
    }),
);

mountTest('a file that the base has replaced under one name counts the other for who has it open', () =>
  withLayers(async (layers) => {
    await sh('echo a > a; ln a b', [], { cwd: layers.base });
    await withMount(layers, async (mount) => {
      const reader = startAgent({ cwd: mount.dir });
      const fd = await reader.call<number>('openSync', 'a', 'r');
      await sh('echo other > x; mv x a', [], { cwd: layers.base });
      await caughtUp(mount.dir);
      await mount.sh('grep other a');
      await expect.poll(async () => (await reader.call<{ nlink: number }>('fstatSync', fd)).nlink).toBe(1);
      await mount.sh('rm b');
      expect((await reader.call<{ nlink: number }>('fstatSync', fd)).nlink).toBe(0);
      await reader.stop();
    });
  }),
);

mountTest('the second of the names that somebody knows is renamed, of files and of what is none', () =>
  withLayers(async (layers) => {
    await sh(
      `cd "$1"; mkdir -p first second; echo file > first/file; ln -s target first/link; mkfifo first/pipe
       for f in file link pipe; do ln first/$f second/$f; done`,
      [layers.base],
    );
    await withMount(layers, async (mount) => {
      await mount.sh('stat first/* second/* > /dev/null; for f in file link pipe; do mv second/$f $f; done');
      expect(
        await mount.sh('echo * first/*; ls second; cat first/file file; readlink link; test -p pipe'),
      ).toBe('file first link pipe second first/file first/link first/pipe\nfile\nfile\ntarget\n');
      expect(await mount.sh('stat -c %h file; echo more >> file; cat first/file')).toBe('2\nfile\nmore\n');
    });
  }),
);
