// What a guest asked to be on the disk when a call returns is there: with O_SYNC and O_DSYNC, per call, by fsync and
// msync, of a file and of a directory, past the daemon and through it. The overlay lies on ext4 in a file which is
// copied right after the call, while the daemon stands still: what the kernel has not written by then is lost.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Image, imageNeeds, makeLoopImage, mountImage } from '../lib/images.ts';
import { type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { snapshot } from '../lib/power.ts';
import { sh } from '../lib/run.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

/** Enough to be handed to the kernel in the base, and for O_DIRECT. */
const OLD = 'old.'.repeat(32 * 1024);

const library = `
import mmap, os, sys
os.chdir(sys.argv[1])
new = b'new.' * 1024
opened = []
def put(name, flags, call=lambda fd: os.pwrite(fd, new, 0), after=lambda fd: None):
    opened.append((os.open(name, flags, 0o644), call, after))
def work():
    for fd, call, after in opened:
        call(fd)
        after(fd)
    opened.clear()
def mapped(fd):
    m = mmap.mmap(fd, len(new))
    m[:] = new
    m.flush()
def aligned(fd):
    m = mmap.mmap(-1, len(new))
    m[:] = new
    os.pwritev(fd, [m], 0)
def copied(fd):
    source = os.open('source', os.O_RDONLY)
    assert os.copy_file_range(source, fd, len(new), 0, 0) == len(new)
def directory(name, call):
    call()
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
`;

/** Calls that write to a file of this name. */
const writes: Record<string, string> = {
  O_SYNC: 'put(name, os.O_WRONLY | os.O_SYNC)',
  O_DSYNC: 'put(name, os.O_RDWR | os.O_DSYNC)',
  'O_DIRECT and O_DSYNC': 'put(name, os.O_WRONLY | os.O_DSYNC | os.O_DIRECT, aligned)',
  RWF_SYNC: 'put(name, os.O_WRONLY, lambda fd: os.pwritev(fd, [new], 0, os.RWF_SYNC))',
  RWF_DSYNC: 'put(name, os.O_RDWR, lambda fd: os.pwritev(fd, [new], 0, os.RWF_DSYNC))',
  fsync: 'put(name, os.O_WRONLY, after=os.fsync)',
  fdatasync: 'put(name, os.O_WRONLY, after=os.fdatasync)',
  msync: 'put(name, os.O_RDWR, mapped)',
  'copy_file_range to O_DSYNC': 'put(name, os.O_WRONLY | os.O_DSYNC, copied)',
  'O_TRUNC and O_SYNC': 'put(name, os.O_WRONLY | os.O_SYNC | os.O_TRUNC)',
  'set-id, O_DSYNC': 'put(name, os.O_WRONLY | os.O_DSYNC)',
  'set-id, RWF_DSYNC': 'put(name, os.O_WRONLY, lambda fd: os.pwritev(fd, [new], 0, os.RWF_DSYNC))',
};
/** The same for a file that is not there before. */
const creations: Record<string, string> = {
  'new, O_SYNC': 'put(name, os.O_WRONLY | os.O_CREAT | os.O_SYNC)',
  'new, fsync': 'put(name, os.O_RDWR | os.O_CREAT, after=os.fsync)',
};

/** Calls that change names in a directory of the base, `d`, which is synced; what is there afterwards, and what not. */
const namings: [string, string, string[], string[]][] = [
  ['a file that was made', 'os.close(os.open("d/made", os.O_CREAT | os.O_WRONLY))', ['d/made'], []],
  ['a directory that was made', 'os.mkdir("d/sub")', ['d/sub'], []],
  ['a symlink', 'os.symlink("x", "d/symlink")', ['d/symlink'], []],
  ['a link', 'os.link("d/linked", "d/link")', ['d/link'], []],
  ['a rename', 'os.rename("d/made", "d/renamed")', ['d/renamed'], ['d/made']],
  ['a rename of the base’s', 'os.rename("d/base", "d/moved")', ['d/moved'], []],
  ['a removal', 'os.unlink("d/renamed")', [], ['d/renamed']],
];

type Run = (script: string) => Promise<unknown>;
interface Stage extends Layers {
  image: Image;
}

/** The disk as it is now. */
async function withDisk(stage: Stage, pid: number, body: (overlay: string) => void): Promise<void> {
  const copy = `${stage.dir}/copy.img`;
  await snapshot(pid, stage.image.file, copy);
  const image = await mountImage(copy, `${stage.dir}/after`, 'ext4');
  try {
    body(`${image.dir}/overlay`);
  } finally {
    await image.umount();
    fs.rmSync(copy);
  }
}

const beginning = (file: string) => (fs.existsSync(file) ? fs.readFileSync(file, 'latin1').slice(0, 8) : '');

async function proveAll(stage: Stage, pid: number, run: Run): Promise<void> {
  const names = Object.keys(writes);
  await run(`
for name in ${JSON.stringify(names)}:
    put('copied, ' + name, os.O_WRONLY, lambda fd: os.pwrite(fd, b'old.', 0), os.fsync)
put('source', os.O_WRONLY | os.O_CREAT)
work()
for name in ${JSON.stringify(names)}:
    if name.startswith('set-id'): os.chmod('copied, ' + name, 0o4755)
os.sync()`);
  const calls = (all: Record<string, string>, kind: string) =>
    Object.entries(all).map(([name, call]) => `name = ${JSON.stringify(kind + name)}\n${call}\n`);
  // All are open before the first is written to: to bring one up syncs more than its own bytes.
  await run(`${[...calls(writes, 'copied, '), ...calls(writes, '')].join('')}work()`);
  const lost = (overlay: string, all: readonly string[]) =>
    all.filter((name) => beginning(`${overlay}/${name}`) !== 'new.new.');
  await withDisk(stage, pid, (overlay) => {
    expect(lost(overlay, [...names, ...names.map((name) => `copied, ${name}`)])).toEqual([]);
  });
  for (const [i, name] of Object.keys(creations).entries()) {
    await run(`${calls(creations, '')[i]}work()`);
    await withDisk(stage, pid, (overlay) => expect(lost(overlay, [name])).toEqual([]));
  }
  for (const [what, call, there, gone] of namings) {
    await run(`directory('d', lambda: ${call})`);
    await withDisk(stage, pid, (overlay) => {
      const is = (name: string) =>
        fs.lstatSync(`${overlay}/${name}`, { throwIfNoEntry: false }) !== undefined;
      expect([...there.filter((name) => !is(name)), ...gone.filter(is)], what).toEqual([]);
    });
  }
}

async function withStage(body: (stage: Stage) => Promise<void>): Promise<void> {
  await withLayers(async (outer) => {
    const files = Object.keys(writes).flatMap((name) => [name, `copied, ${name}`]);
    for (const name of files) fs.writeFileSync(`${outer.base}/${name}`, OLD);
    fs.mkdirSync(`${outer.base}/d`);
    for (const name of ['base', 'linked']) fs.writeFileSync(`${outer.base}/d/${name}`, OLD);
    const options = 'commit=600,noauto_da_alloc';
    const image = await makeLoopImage(outer.dir, { fs: 'ext4', sizeMiB: 64, options });
    const layers = { ...outer, overlay: `${image.dir}/overlay` };
    fs.mkdirSync(layers.overlay);
    try {
      await body({ ...layers, image });
    } finally {
      await image.umount();
    }
  });
}

const needs = { ...imageNeeds('ext4'), timeout: 200_000 };

mountTest(
  'what a guest has synced is on the disk when the call returns, past the daemon',
  () =>
    withStage((stage) =>
      withMount({ ...stage, options: ['-o', 'suid'] }, (mount) =>
        proveAll(stage, mount.pid, (script) => sh('python3 -c "$2" "$1"', [mount.dir, library + script])),
      ),
    ),
  needs,
);

mountTest(
  'what a guest has synced is on the disk when the call returns, through the daemon',
  () =>
    withStage(async (stage) => {
      await giveToUser(stage);
      await withUsersMount(stage, 'user', (mount) =>
        proveAll(stage, mount.pid, (script) => mount.sh(`python3 - "$1" <<'END'\n${library}${script}\nEND`)),
      );
    }),
  { ...needs, commands: [...(needs.commands ?? []), ...usersNeed.commands] },
);
