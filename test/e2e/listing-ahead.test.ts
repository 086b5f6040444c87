// The directory that a walk is about to come to is listed before anybody asks (frontend/ahead.ts). What it is told to
// have is what it has by then, whoever has changed it in between, and however.
import { expect } from 'vitest';
import { withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

/** Directories beside each other and in each other, with files. */
const tree = `
  for i in 1 2 3 4 5 6 7 8 9; do mkdir -p $i/deep/er; for at in $i $i/deep $i/deep/er; do
    for f in a b c d e f; do echo $f > $at/$f; done; ln -s a $at/link; done; done`;

/**
 * Walks from here in the order in which the names are listed, and makes a change in each directory when the walk has
 * come to the one before it: beneath `truth`, and here, too, if a guest is to make it. Prints what is not as there.
 */
const walk = `
import os, sys, time
truth, who = sys.argv[1:]
def look(path):
    found = []
    for name in os.listdir(path):
        s = os.lstat(path + '/' + name)
        found.append((name, oct(s.st_mode), s.st_uid, s.st_mtime_ns if who == 'base' and not os.path.isdir(path + '/' + name) else 0,
                      s.st_size if not os.path.isdir(path + '/' + name) else 0))
    return sorted(found)
def rewrite(at):
    with open(at + '/b', 'a') as f: f.write('longer')
def replace(at):
    with open(at + '/.new', 'w') as f: f.write('another')
    os.rename(at + '/.new', at + '/c')
changes = [
    rewrite,
    lambda at: os.unlink(at + '/d'),
    lambda at: open(at + '/added', 'w').close(),
    replace,
    lambda at: os.chmod(at + '/e', 0o600),
    lambda at: os.rename(at + '/f', at + '/moved'),
    lambda at: (os.unlink(at + '/link'), os.symlink('longer/target', at + '/link')),
    lambda at: os.utime(at + '/a', (1, 1)),
]
steps = []
def walked(path):
    yield path
    # Only those that nobody has looked at are walked in the order of the listing.
    for name in os.listdir(path):
        if name in ('1', '2', '3', '4', '5', '6', '7', '8', '9', 'deep', 'er'): yield from walked(path + '/' + name)
count = 0
for path in walked('.'):
    if path == '.': continue
    count += 1
    if count > 3:
        # Time for the worker to list it, and then to hear of the change.
        time.sleep(0.01)
        for top in [truth] if who == 'base' else [truth, '.']: changes[count % len(changes)](top + '/' + path)
        time.sleep(0.05 if who == 'base' else 0)
    end = time.time() + 20
    while look(path) != look(truth + '/' + path):
        if time.time() > end:
            print(path, look(path), look(truth + '/' + path))
            break
        time.sleep(0.05)
print(count, 'directories')
`;

mountTest('a directory that a walk comes to is shown as the base has it by then', () =>
  withLayers(async (layers) => {
    await sh(tree, [], { cwd: layers.base });
    await withMount(layers, async (mount) => {
      const said = await mount.sh('python3 -c "$1" "$2" base', [walk, layers.base]);
      expect(said).toBe('27 directories\n');
    });
  }),
);

mountTest('a directory that a walk comes to is shown as guests have made it by then', () =>
  withLayers(async (layers) => {
    await sh(tree, [], { cwd: layers.base });
    const plain = `${layers.dir}/plain`;
    await runOk('cp', ['-a', layers.base, plain]);
    await withBaseUntouched(layers.base, () =>
      withMount(layers, async (mount) => {
        const said = await mount.sh('python3 -c "$1" "$2" guest', [walk, plain]);
        expect(said).toBe('27 directories\n');
      }),
    );
  }),
);
