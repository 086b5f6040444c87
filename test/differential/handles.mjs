// The operations of the random differential test on open files and directories, which are kept open while
// their names are removed, replaced and renamed. A slot holds a pair of descriptors, one of each side.
import { listEntries, typeOf } from './look.mjs';
import {
  bytesOf,
  existing,
  fallocateModes,
  fresh,
  MODES,
  made,
  NAMES,
  NO_SLOT,
  OFFSETS,
  plainly,
  readFrom,
  show,
  statResult,
  step,
} from './paths.mjs';

const F_SETLK = 6;

/**
 * Closes a handle. What the process has locked of the file goes with that, by whichever descriptor; but of one that
 * was open for reading before the lock was had, the union hears of no close ("Locks", native-notes/semantics.md).
 */
function closeHandle(world, fd) {
  const { bytes, address } = world.libc.lock;
  bytes.fill(0);
  bytes.writeInt16LE(world.sys.F_UNLCK, 0);
  world.libc.fcntl(fd, F_SETLK, address);
  return world.sys.close(fd);
}

/** Opens on both sides into a slot that is emptied before. */
function openInto(world, slots, random, tools, path, flags, mode) {
  const at = random.below(slots.length);
  for (const fd of slots[at]?.fds ?? []) if (fd >= 0) closeHandle(world, fd);
  slots[at] = null;
  const fds = [-1, -1];
  const text = `open ${show(path)} flags ${flags.toString(8)} as handle ${at}`;
  const result = step(world, random, tools, text, (side) => {
    fds[side.index] = world.sys.openat(side.root, path === '' ? '.' : path, flags, mode);
    return plainly(fds[side.index]);
  });
  if (result.r >= 0) slots[at] = { fds, path };
  return result;
}

const openFile = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'file');
  const access = random.of([sys.O_RDONLY, sys.O_RDONLY, sys.O_RDWR, sys.O_WRONLY]);
  const more = random.of([0, 0, 0, sys.O_TRUNC, sys.O_APPEND, sys.O_CREAT]);
  const flags = access | more | sys.O_NONBLOCK | sys.O_NOFOLLOW;
  const result = openInto(world, world.files, random, tools, path, flags, random.of(MODES));
  if (result.r >= 0 && more === sys.O_CREAT) made(world, path, 'file');
  return result;
};

const openDirectory = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'dir');
  const flags = random.of([sys.O_RDONLY, sys.O_PATH]) | sys.O_DIRECTORY;
  return openInto(world, world.dirs, random, tools, path, flags, 0);
};

/** Does something with an open file; `call` gets the descriptor. */
export function onFile(world, random, tools, what, call) {
  const open = world.files.filter((slot) => slot !== null);
  if (open.length === 0) return NO_SLOT;
  const slot = random.of(open);
  const text = `${what} by handle ${world.files.indexOf(slot)} (${show(slot.path)})`;
  return step(world, random, tools, text, (side) => call(slot.fds[side.index]));
}

const readHandle = (world, random, tools) => {
  const [offset, length] = [random.of([0, ...OFFSETS]), 1 + random.below(50_000)];
  return onFile(world, random, tools, `read ${length} at ${offset}`, (fd) =>
    readFrom(world, fd, offset, length),
  );
};

const writeHandle = (world, random, tools) => {
  const bytes = bytesOf(random);
  const offset = random.of(OFFSETS);
  return onFile(world, random, tools, `write ${bytes.length} at ${offset}`, (fd) => ({
    r: world.sys.pwrite(fd, bytes, 0, bytes.length, offset),
  }));
};

const statHandle = (world, random, tools) =>
  onFile(world, random, tools, 'fstat', (fd) => statResult(world, world.sys.fstat(fd, world.stat)));

const truncateHandle = (world, random, tools) => {
  const size = random.of(OFFSETS);
  return onFile(world, random, tools, `ftruncate ${size}`, (fd) => ({ r: world.sys.ftruncate(fd, size) }));
};

const allocateHandle = (world, random, tools) => {
  const { sys } = world;
  const mode = random.of(fallocateModes(world));
  const [offset, length] = [random.of(OFFSETS), random.of([1, 4096, 10_000])];
  return onFile(world, random, tools, `fallocate mode ${mode} ${offset}+${length}`, (fd) => ({
    r: sys.fallocate(fd, mode, offset, length),
  }));
};

const changeHandle = (world, random, tools) => {
  const { sys } = world;
  const mode = random.of(MODES);
  const seconds = 1_000_000_000 + random.below(1e8);
  const [what, call] = random.of([
    [`fchmod ${mode.toString(8)}`, (fd) => sys.fchmodat(fd, '', mode)],
    ['fchown 1000', (fd) => sys.fchownat(fd, '', 1000, -1)],
    [`futimens ${seconds}`, (fd) => sys.utimensat(fd, '', 1, 2, seconds, 3)],
    ['fsetxattr', (fd) => sys.setxattr(fd, '', 'user.one', Buffer.from('by handle'), 0)],
    ['fsync', (fd) => sys.fsync(fd)],
    ['fdatasync', (fd) => sys.fdatasync(fd)],
  ]);
  return onFile(world, random, tools, what, (fd) => plainly(call(fd)));
};

const seekHandle = (world, random, tools) => {
  const { sys } = world;
  const [what, whence, offset] = random.of([
    ['end', 2, 0],
    ['data beyond the end', sys.SEEK_DATA, 1e9],
    ['a hole beyond the end', sys.SEEK_HOLE, 1e9],
  ]);
  return onFile(world, random, tools, `seek to ${what}`, (fd) => {
    const known = sys.fstat(fd, world.stat);
    // Offsets in directories are each file system's own affair.
    if (known < 0 || typeOf(world.stat.mode) === 'dir') return { r: known };
    return { r: sys.lseek(fd, offset, whence) };
  });
};

const closeFile = (world, random, tools) => {
  const at = random.below(world.files.length);
  const slot = world.files[at];
  if (slot === null) return NO_SLOT;
  world.files[at] = null;
  return tools.step({
    text: `close handle ${at}`,
    run: (side) => plainly(closeHandle(world, slot.fds[side.index])),
  });
};

/** A file without a name, which gets one in half of the cases. */
const temporary = (world, random, tools) => {
  const { sys } = world;
  const dir = random.chance(0.2) ? '' : existing(world, random, 'dir');
  const to = fresh(world, random);
  const [bytes, named, flags] = [bytesOf(random), random.chance(0.5), sys.O_TMPFILE | sys.O_RDWR];
  const result = step(world, random, tools, `tmpfile in ${show(dir)} named ${named && show(to)}`, (side) => {
    const fd = sys.openat(side.root, dir === '' ? '.' : dir, flags, 0o640);
    if (fd < 0) return { r: fd };
    const written = sys.pwrite(fd, bytes, 0, bytes.length, 0);
    const linked = named ? sys.linkFd(fd, side.root, to) : 0;
    sys.close(fd);
    return { r: Math.min(written, linked, 0) };
  });
  if (result.r >= 0 && named) made(world, to, 'file');
  return result;
};

/** Does something in a directory by its descriptor, wherever its name has gone. */
const inDirectory = (world, random, tools) => {
  const { sys } = world;
  const open = world.dirs.filter((slot) => slot !== null);
  if (open.length === 0) return NO_SLOT;
  const slot = random.of(open);
  const [name, other] = [random.of(NAMES), random.of(NAMES)];
  const flags = sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY;
  const making = (dir) => {
    const fd = sys.openat(dir, name, flags, 0o644);
    return fd < 0 ? fd : sys.close(fd);
  };
  const [what, call] = random.of([
    [`create ${show(name)}`, (dir) => plainly(making(dir))],
    [`mkdir ${show(name)}`, (dir) => plainly(sys.mkdirat(dir, name, 0o755))],
    [`unlink ${show(name)}`, (dir) => plainly(sys.unlinkat(dir, name, 0))],
    [`rmdir ${show(name)}`, (dir) => plainly(sys.unlinkat(dir, name, sys.AT_REMOVEDIR))],
    [
      `rename a file ${show(name)} to ${show(other)}`,
      (dir) => {
        const known = sys.statx(dir, name, sys.AT_SYMLINK_NOFOLLOW, world.stat);
        if (known < 0 || typeOf(world.stat.mode) === 'dir') return { r: known };
        return plainly(sys.renameat2(dir, name, dir, other, 0));
      },
    ],
    [
      'readdir',
      (dir) => {
        const entries = listEntries(world, dir, '');
        return typeof entries === 'number'
          ? { r: entries }
          : { r: 0, list: entries.map((entry) => entry.name) };
      },
    ],
  ]);
  const text = `${what} in directory handle ${world.dirs.indexOf(slot)} (${show(slot.path)})`;
  const result = step(world, random, tools, text, (side) => call(slot.fds[side.index]));
  // Where the directory lies by now nobody has kept: the model is taken from the tree again.
  if (result.r >= 0 && what !== 'readdir') tools.rescan();
  return result;
};

export const handleOperations = {
  openFile,
  openDirectory,
  readHandle,
  writeHandle,
  statHandle,
  truncateHandle,
  allocateHandle,
  changeHandle,
  seekHandle,
  closeFile,
  temporary,
  inDirectory,
};
