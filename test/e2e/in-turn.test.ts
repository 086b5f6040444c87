// What follows at once upon something else about the same name: there the daemon uses again what it has just found. One
// process does the same, at random, in the mount and in a plain copy of the base, and sees the same.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

/** Prints a line for each call: what it was, and what came of it. */
const calls = `
import os, random, sys
os.chdir(sys.argv[1])
random.seed(int(sys.argv[2]))
tops = ['d%d' % i for i in range(400)]
names = ['file', 'full', 'empty', 'link', 'none']
def created(path):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.write(fd, b'guest')
    os.close(fd)
def appended(path):
    with open(path, 'a') as file:
        file.write('+')
def unnamed(path):
    os.close(os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600))
def seen(path):
    s = os.lstat(path)
    return oct(s.st_mode), s.st_nlink, 0 if os.path.isdir(path) else s.st_size
one = {
    'seen': seen,
    'chmod': lambda path: os.chmod(path, 0o700),
    'setxattr': lambda path: os.setxattr(path, 'trusted.test', b'1'),
    'unlink': os.unlink,
    'rmdir': os.rmdir,
    'mkdir': lambda path: os.mkdir(path, 0o750),
    'create': created,
    'append': appended,
    'unnamed': unnamed,
    'symlink': lambda path: os.symlink('to', path),
    'list': lambda path: sorted(os.listdir(path)),
    'into': lambda path: created(path + '/in'),
    'outof': lambda path: os.unlink(path + '/in'),
}
two = {'rename': os.rename, 'link': lambda a, b: os.link(a, b, follow_symlinks=False)}
for step in range(4000):
    top = random.choice(tops)
    path = top + '/' + random.choice(names)
    # Mostly several things about one name.
    for _ in range(random.randint(1, 4)):
        if random.random() < 0.1:
            name, other = random.choice(list(two)), top + '/' + random.choice(names)
            args = (path, other)
        else:
            name, args = random.choice(list(one)), (path,)
        try:
            result = ({**one, **two}[name])(*args)
        except OSError as error:
            result = os.strerror(error.errno)
        print(step, name, *args, result)
print(sorted((p, sorted(d), [(x, oct(os.lstat(p + '/' + x).st_mode)) for x in sorted(f)]) for p, d, f in os.walk('.') if '/.kasane' not in p and p != '.'))
`;

for (const [seed, ...options] of [[1], [2], [3, '--coherence', 'check'], [4, '--metacopy', 'off']] as const) {
  mountTest(
    `whatever follows on what, it is as in a plain directory: ${[`seed ${seed}`, ...options].join(' ')}`,
    () =>
      withLayers(async (layers) => {
        const { base, mnt } = layers;
        await sh(
          `cd "$1"; for i in $(seq 0 399); do mkdir -p d$i/full d$i/empty; echo base > d$i/file
          echo base > d$i/full/in; ln -s file d$i/link; done`,
          [base],
        );
        const plain = `${layers.overlay}-plain`;
        await sh('cp -a "$1" "$2"', [base, plain]);
        const run = async (dir: string) =>
          (await runOk('python3', ['-c', calls, dir, `${seed}`])).split('\n');
        await withBaseUntouched(base, () =>
          withMount({ ...layers, options: [...options] }, async () => {
            const [expected, got] = [await run(plain), await run(mnt)];
            const at = expected.findIndex((line, i) => line !== got[i]);
            const around = (lines: string[]) => lines.slice(Math.max(0, at - 12), at + 1);
            if (at >= 0) expect(around(got)).toEqual(around(expected));
            expect(got).toHaveLength(expected.length);
          }),
        );
        fs.rmSync(plain, { recursive: true });
      }),
    { commands: ['python3'] },
  );
}
