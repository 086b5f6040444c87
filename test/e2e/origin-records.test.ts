// Origins of what can carry no attribute: symlinks, FIFOs and whiteouts without privileges, and files whose space
// for attributes is full. They are told from the guest's own, merged, undone, and whole after a crash.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { isAlive, run, sh, waitUntil } from '../lib/run.ts';
import { giveToUser, startUsersMount, type UsersMount, usersNeed, withUsersMount } from '../lib/users.ts';

const kasane = `${process.execPath} "$2"`;

async function populated(layers: Layers): Promise<void> {
  await sh(
    'cd "$1"; mkdir d; for f in a b d/f; do echo base > $f; done; for l in l m n o q d/l; do ln -s a $l; done; mkfifo p',
    [layers.base],
  );
  await giveToUser(layers);
}

const inBase = (layers: Layers, script: string) => sh(`cd "$1"; ${script}`, [layers.base]);

/** Number and birth time of all that is in the overlay, as records are named. */
async function livingIn(overlay: string): Promise<Set<string>> {
  const list = 'find "$1" -mindepth 1 -path "$1/.kasane" -prune -o -print0 | xargs -0r stat -c "%i-%.9W"';
  const lines = (await sh(list, [overlay])).split('\n').filter((line) => line !== '');
  return new Set(lines.map((line) => line.replace(/\.0*(\d)/, '.$1')));
}

/** Records without an object, of an overlay that nobody has mounted. */
async function deadRecords(overlay: string): Promise<string[]> {
  const living = await livingIn(overlay);
  return fs.readdirSync(`${overlay}/.kasane/origins`).filter((name) => !living.has(name));
}

mountTest(
  'a symlink that was touched follows the base, and one that was changed is in conflict, also after a rename',
  () =>
    withLayers(async (layers) => {
      await populated(layers);
      await withUsersMount(layers, 'user', async (mount) => {
        await mount.sh('cd "$1"; touch -h l m n o d/l p; ln -sfn mine n; mv o moved; mv d dd; rm b');
      });
      await inBase(layers, 'ln -sfn b l; ln -sfn b n; ln -sfn b d/l; echo new > b; rm m');
      await withUsersMount(layers, 'user', async (mount) => {
        expect(await mount.sh(`${kasane} reconcile "$1" || test $? = 1`)).toMatch(/./);
        const links = 'cd "$1"; for l in l n moved dd/l; do echo "$l $(readlink $l)"; done; ls';
        expect(await mount.sh(links)).toBe('l b\nn mine\nmoved a\ndd/l b\na\ndd\nl\nmoved\nn\np\nq\n');
        const conflicts = await mount.as(`${kasane} conflicts "$1"`);
        expect(conflicts.stdout.trim().split('\n')).toHaveLength(1);
        expect(conflicts.stdout).toMatch(/\tn$|\/n\b|\bn\n/);
        // The whiteout of b has been told what it hides.
        expect(await mount.sh(`${kasane} log "$1/b"`)).toMatch(/removed|whiteout/);
        expect(await mount.sh(`${kasane} undo "$1/l"; readlink "$1/l"`)).toMatch(/\na$/m);
        await mount.sh(`${kasane} resolve "$1/n" --take base`);
        expect(await mount.sh('readlink "$1/n"')).toBe('b\n');
      });
      expect(await deadRecords(layers.overlay)).toEqual([]);
      // The index can be rebuilt from them.
      fs.rmSync(`${layers.overlay}/.kasane/index`, { recursive: true });
      await withUsersMount(layers, 'user', async (mount) => {
        expect(mount.said()).toMatch(/rebuilt from \d+ origins/);
        expect(await mount.sh('readlink "$1/l" "$1/n" "$1/dd/l"')).toBe('a\nb\nb\n');
        expect((await mount.as(`${kasane} conflicts "$1"`)).stdout).toBe('');
      });
    }),
  usersNeed,
);

mountTest(
  'the inode number of what was brought up without an attribute stays, also by rename and remount',
  () =>
    withLayers(async (layers) => {
      await populated(layers);
      let before = '';
      await withUsersMount(layers, 'user', async (mount) => {
        before = await mount.sh('cd "$1"; stat -c %i l p');
        expect(await mount.sh('cd "$1"; touch -h l p; stat -c %i l p')).toBe(before);
        expect(await mount.sh('cd "$1"; mv l d/x; mv p d/y; stat -c %i d/x d/y')).toBe(before);
      });
      await withUsersMount(layers, 'user', async (mount) => {
        expect(await mount.sh('cd "$1"; stat -c %i d/x d/y')).toBe(before);
        expect(
          await mount.sh(
            'cd "$1/d"; python3 -c "import os; print(*(e.inode() for e in sorted(os.scandir(), key=lambda e: e.name) if len(e.name) == 1 and e.name > \'l\'), sep=chr(10))"',
          ),
        ).toBe(before);
      });
    }),
  usersNeed,
);

async function endOf(mount: UsersMount): Promise<void> {
  await waitUntil(() => !isAlive(mount.pid));
}

/** Fail point, a script for a link of its own, what that link shows afterwards ('': it is gone). */
const deaths = [
  ['special-before-rename', 'touch -h l', 'l', 'a'],
  ['special-after-rename', 'touch -h m', 'm', 'a'],
  ['whiteout-before-rename', 'rm n', 'n', 'a'],
  ['whiteout-after-rename', 'rm o', 'o', ''],
  ['create-before-rename', 'rm d/l; ln -s own d/l', 'd/l', ''],
  ['rename-after-rename:2', 'ln -s own y; mv -T y q; mv q z', 'q', ''],
] as const;

mountTest(
  'a death between record and name leaves the name as it was or as it was to be, and no record alone',
  () =>
    withLayers(async (layers) => {
      await populated(layers);
      for (const [point, script, link, shows] of deaths) {
        const mount = await startUsersMount(layers, 'user', [], { KASANE_FAIL: point });
        await mount.as(`cd "$1"; ${script}`);
        await endOf(mount);
        await mount.kill();
        await withUsersMount(layers, 'user', async (again) => {
          expect((await again.as(`readlink "$1/${link}"`)).stdout.trim(), point).toBe(shows);
        });
        expect(await deadRecords(layers.overlay), point).toEqual([]);
        expect(fs.readdirSync(`${layers.overlay}/.kasane/work`), point).toEqual([]);
      }
      // What lies there has its origin: the base's change is no addition to it.
      await inBase(layers, 'for l in l m n o d/l q; do ln -sfn b $l; done');
      await withUsersMount(layers, 'user', async (again) => {
        await again.sh(`${kasane} reconcile "$1"`);
        expect(await again.sh('readlink -v "$1/l" "$1/m" "$1/n"')).toBe('b\nb\nb\n');
      });
    }),
  { ...usersNeed, timeout: 240_000 },
);

mountTest(
  'a file whose space for attributes is full is brought up, and knows its origin',
  () =>
    withLayers(async (layers) => {
      const fill = `
        import os
        for name, most in (('user.a', 60), ('user.b', 4000)):
            for size in range(most, 0, -10):
                try: os.setxattr('f', name, b'0' * size); break
                except OSError: pass
      `.replace(/^ {8}/gm, '');
      await sh('cd "$1"; printf "1\\n2\\n3\\n" > f; python3 -c "$2"', [layers.base, fill]);
      await withMount(layers, async (mount) => {
        await mount.sh('echo guest >> f; test "$(getfattr -n user.a --only-values f | wc -c)" -gt 0');
        // From now on the attribute would have room, and the origin is set once more.
        await mount.sh('ln f g; setfattr -x user.b f; mv g h');
      });
      await inBase(layers, 'sed -i "1s/.*/base/" f');
      await withMount(layers, async (mount) => {
        expect((await run('cat', [`${mount.dir}/f`])).stdout).toBe('base\n2\n3\nguest\n');
      });
      expect(await deadRecords(layers.overlay)).toEqual([]);
    }),
  { commands: ['setfattr', 'python3'] },
);
