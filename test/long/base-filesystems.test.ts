// A base on each file system that a distribution is delivered on: what a guest sees of it, does to it, and how it
// follows the next version. Each is a mount of its own; the overlay lies on the machine's disk.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { makeBase, workload } from '../differential/differential.ts';
import { type ImageType, imageNeeds, makeLoopImage } from '../lib/images.ts';
import { caughtUp, kasane, type Layers, notifyBy, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest, type Needs } from '../lib/needs.ts';
import { runOk, sh, waitUntil } from '../lib/run.ts';
import { type Compare, diffTrees, readTree, type Tree, withBaseUntouched } from '../lib/tree.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

const compare: Compare = { ignore: ['.kasane', ''], ignoreXattrs: /^trusted\.(kasane\.|SGI_ACL_)/ };
const commands = ['setfattr', 'getfattr', 'setfacl'];

interface Kind {
  needs: Needs;
  /** Mounts a file system with what the directory `tree` holds; where it is mounted. */
  mount: (dir: string, tree: string) => Promise<string>;
  readOnly?: boolean;
  /** Why fanotify cannot watch it; absent: it can. */
  unwatchable?: RegExp;
  /** Its directories have other numbers each time that they are looked at anew. */
  fleeting?: boolean;
}

function image(type: ImageType): Kind {
  const readOnly = type === 'erofs' || type === 'squashfs';
  return {
    needs: imageNeeds(type),
    readOnly,
    mount: async (dir, tree) => {
      const made = await makeLoopImage(dir, readOnly ? { fs: type, from: tree } : { fs: type });
      if (!readOnly) await sh('cp -a "$1"/. "$2"', [tree, made.dir]);
      return made.dir;
    },
  };
}

async function mountTmpfs(dir: string, tree: string): Promise<string> {
  await sh('mkdir "$1"; mount -t tmpfs none "$1"; cp -a "$2"/. "$1"', [dir, tree]);
  return dir;
}

const kinds: Record<string, Kind> = {
  ext4: image('ext4'),
  xfs: image('xfs'),
  squashfs: image('squashfs'),
  erofs: image('erofs'),
  tmpfs: { needs: {}, mount: (dir, tree) => mountTmpfs(`${dir}/tmpfs`, tree) },
  // Each subvolume numbers its objects anew.
  'btrfs with subvolumes': {
    ...image('btrfs'),
    mount: async (dir, tree) => {
      const made = await makeLoopImage(dir, { fs: 'btrfs' });
      const script = `
        cp -a "$1"/. "$2"; cd "$2"
        for s in s1 h/s3; do btrfs subvolume create $s; cp -a "$1"/a "$1"/base* $s; done > /dev/null
        btrfs subvolume snapshot s1 s1/s2 > /dev/null
      `;
      await sh(script, [tree, made.dir]);
      return made.dir;
    },
  },
  // Two file systems in one, whose numbers clash.
  'overlayfs of a tmpfs and the disk': {
    needs: { filesystems: ['overlay'] },
    fleeting: true,
    unwatchable: /lies on overlayfs/,
    mount: async (dir, tree) => {
      const lower = await mountTmpfs(`${dir}/lower`, tree);
      const script = `
        cd "$1"; mkdir upper work merged
        mount -t overlay -o lowerdir="$2",upperdir=upper,workdir=work,xino=off none merged
        cd merged; for f in base1 a/base2 d/e/base3; do echo more >> $f; done; mkdir -p new/sub; echo x > new/sub/f; mv h/base1 new
      `;
      await sh(script, [dir, lower]);
      return `${dir}/merged`;
    },
  },
};

/** Numbers of a listing, and of a look-up, differ nowhere; and objects with one name have one each. */
async function expectNumbers(dir: string, tree: Tree, fleeting = false): Promise<void> {
  const script = `
    find . -type d | while read -r d; do ls -1iUA "$d" | sed "s|^ *||; s| | $d/|"; done | LC_ALL=C sort > "$1/listed"
    find . -mindepth 1 $2 -exec stat -c '%i %n' {} + | LC_ALL=C sort > "$1/found"
    comm -23 "$1/found" "$1/listed" | head -5
  `;
  expect(await sh(script, [`${dir}/..`, fleeting ? '! -type d' : ''], { cwd: dir })).toBe('');
  const single = [...tree.values()].filter(({ type, nlink }) => (type === 'dir' ? !fleeting : nlink === 1));
  expect(new Set(single.map(({ ino }) => ino)).size).toBe(single.length);
}

const spec = (layers: Layers, base: string) => ({ ...layers, base, options: ['-o', 'suid,dev'] });

for (const [name, kind] of Object.entries(kinds)) {
  mountTest(
    `a base on ${name} is shown as it is, and what a guest does to it comes to what it comes to on a plain copy`,
    () =>
      withLayers(async (layers) => {
        const tree = `${layers.dir}/tree`;
        fs.mkdirSync(tree);
        await makeBase({ ...layers, base: tree }, true);
        const base = await kind.mount(layers.dir, tree);
        const plain = `${layers.dir}/copy`;
        await runOk('cp', ['-a', base, plain]);
        await withBaseUntouched(base, async () => {
          const counted = { ...compare, nlink: false };
          const shown = await withMount(spec(layers, base), async ({ dir }) => {
            const first = await readTree(dir);
            expect(diffTrees(await readTree(base), first, compare)).toEqual([]);
            await expectNumbers(dir, first, kind.fleeting);
            for (const at of [plain, dir]) {
              const { ok, failed } = await workload(at, 61, 250);
              expect(ok).toBeGreaterThan(failed);
            }
            const now = await readTree(dir);
            expect(diffTrees(await readTree(plain), now, { ...counted, mtime: false })).toEqual([]);
            await expectNumbers(dir, now, kind.fleeting);
            return now;
          });
          await withMount(spec(layers, base), async ({ dir }) => {
            const again = await readTree(dir);
            expect(diffTrees(shown, again, { ...counted, ino: kind.fleeting !== true })).toEqual([]);
          });
          expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0, stderr: '' });
        });
      }),
    { ...kind.needs, commands: [...commands, ...(kind.needs.commands ?? [])], timeout: 240_000 },
  );
}

const version = (line: string) => ({
  'etc/both': text({ [BASE_LINE]: line }),
  'etc/base': `${line}\n`,
  'etc/guest': text(),
});

async function writeTree(dir: string, files: Record<string, string>): Promise<void> {
  for (const [name, content] of Object.entries(files))
    await sh('mkdir -p "$(dirname "$1")"; cat > "$1"; touch -d @1000000000 "$1"', [`${dir}/${name}`], {
      input: content,
    });
}

const merged = text({ [BASE_LINE]: 'two', [GUEST_LINE]: 'guest' });

for (const [name, kind] of Object.entries(kinds)) {
  if (kind.readOnly) continue;
  mountTest(
    `what a guest has edited is merged with an update of its base on ${name}`,
    () =>
      withLayers(async (layers) => {
        const tree = `${layers.dir}/tree`;
        // What the mounts of the kinds want to be there.
        await sh('mkdir -p "$1"/{a,h,d/e}; touch "$1"/{h,a,d/e}/base{1,2,3} "$1"/base{1,2}', [tree]);
        await writeTree(tree, version('one'));
        const base = await kind.mount(layers.dir, tree);
        const options = [...spec(layers, base).options, ...notifyBy('fanotify')];
        await withMount({ ...layers, base, options }, async (mount) => {
          const status = await mount.sh('grep ^watcher .kasane/status');
          expect(status).toMatch(kind.unwatchable ?? /^watcher fanotify$/m);
          await mount.sh(`sed -i '${GUEST_LINE}s/.*/guest/' etc/both etc/guest; cat etc/base > /dev/null`);
          await sh(`cd "$1"/etc; sed -i '${BASE_LINE}s/.*/two/' both; echo two > base`, [base]);
          await caughtUp(mount.dir);
          expect(await waitUntil(async () => (await mount.read('etc/both')) === merged)).toBe(true);
          expect(await mount.read('etc/base')).toBe('two\n');
          expect(await mount.read('etc/guest')).toBe(text({ [GUEST_LINE]: 'guest' }));
        });
      }),
    { ...kind.needs, commands: [...commands, ...(kind.needs.commands ?? [])] },
  );
}

for (const type of ['squashfs', 'erofs'] as const) {
  for (const live of [true, false]) {
    mountTest(
      `a new ${type} image in place of the old one is followed by content, ${live ? 'under a mount' : 'between two mounts'}`,
      () =>
        withLayers(async (layers) => {
          const mkfs =
            type === 'erofs'
              ? ['-T', '1000000000', '-U', '01234567-89ab-cdef-0123-456789abcdef']
              : ['-mkfs-time', '1000000000', '-no-xattrs'];
          const make = async (line: string) => {
            await writeTree(`${layers.dir}/${line}`, version(line));
            const made = await makeLoopImage(layers.dir, {
              fs: type,
              name: `${line}.fs`,
              from: `${layers.dir}/${line}`,
              mkfs,
            });
            await made.umount();
            return made.file;
          };
          const images = { one: await make('one'), two: await make('two') };
          const use = (file: string) => runOk('mount', ['-t', type, '-o', 'loop,ro', file, layers.base]);
          const edit = `sed -i '${GUEST_LINE}s/.*/guest/' etc/both etc/guest; cat etc/base > /dev/null`;
          await use(images.one);
          const stats = () => sh('cd "$1"; stat -c "%n %i %s %Y %Z" etc/*', [layers.base]);
          const before = await stats();
          const swap = async () => {
            await takeDown(layers.base);
            await use(images.two);
            // Nothing that stat tells has moved.
            expect(await stats()).toBe(before);
          };
          const follow = async (read: (name: string) => Promise<string>) => {
            expect(await waitUntil(async () => (await read('etc/both')) === merged)).toBe(true);
            expect(await read('etc/base')).toBe('two\n');
            expect(await read('etc/guest')).toBe(text({ [GUEST_LINE]: 'guest' }));
          };
          await withMount(layers, async (mount) => {
            await mount.sh('getfattr -d -m - etc/*; setfattr -n user.x -v x etc/guest');
            await mount.sh(edit);
            if (!live) return;
            await swap();
            await follow(mount.read);
          });
          if (live) return;
          await swap();
          await withMount(layers, (mount) => follow(mount.read));
        }),
      { ...imageNeeds(type), commands: [...commands, ...(imageNeeds(type).commands ?? [])] },
    );
  }
}
