// The operations of the random differential test on maps, locks, holes and positions of open files, and those that
// a mount refuses by design, each with its errno.
import { onFile } from './handles.mjs';
import { existing, NO_SLOT, OFFSETS, plainly, show, step } from './paths.mjs';

const PAGE = 4096;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
/** sync_file_range: wait, write, wait. */
const WRITE_OUT = 7;
const F_SETLK = 6;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;

/** Calls that src/sys has no use for. */
export async function libcFor(sys) {
  const { default: koffi } = await import('koffi');
  const viewOf = (address, length) => Buffer.from(koffi.view(BigInt(address), length));
  return {
    mmap: sys.native('mmap', 'int64_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']),
    munmap: sys.native('munmap', 'int', ['uintptr_t', 'size_t']),
    fcntl: sys.native('fcntl', 'int', ['int', 'int', 'uintptr_t']),
    writeOut: sys.native('sync_file_range', 'int', ['int', 'int64_t', 'int64_t', 'uint']),
    viewOf,
    lock: sys.pinned(32),
  };
}

/**
 * Stores into a map and reads the file. Whether a store moves times depends on what the kernel has of the page, so
 * they are set; and written out before, or the union would do so after a later change of times.
 */
function store(world, fd, address, offset, text) {
  const { libc, sys } = world;
  libc.viewOf(address, offset + text.length).write(text, offset, 'latin1');
  const bytes = Buffer.alloc(text.length);
  const r = sys.pread(fd, bytes, 0, bytes.length, offset);
  libc.writeOut(fd, 0, 0, WRITE_OUT);
  const timed = sys.utimensat(fd, '', 0, sys.UTIME_NOW, 0, sys.UTIME_NOW);
  return { r: Math.min(r, timed < 0 ? timed : r), data: bytes.toString('latin1') };
}

const mapFile = (world, random, tools) => {
  const { libc, sys } = world;
  const path = existing(world, random, 'file');
  const [place, text] = [random.next(), `map ${random.below(1e9).toString(36)}`];
  const keep = random.chance(0.3);
  const at = random.below(world.maps.length);
  if (keep) unmap(world, at);
  const addresses = [0, 0];
  const fds = [-1, -1];
  let length = 0;
  const result = step(world, random, tools, `store into a map of ${show(path)}`, (side) => {
    const fd = sys.openat(side.root, path, sys.O_RDWR | sys.O_NONBLOCK);
    if (fd < 0) return { r: fd };
    const known = sys.fstat(fd, world.stat);
    length = world.stat.size;
    const plainFile = known === 0 && (world.stat.mode & 0o170000) === 0o100000 && length > 20;
    const address = plainFile ? libc.mmap(0, length, PROT_READ_WRITE, MAP_SHARED, fd, 0) : 0;
    if (address <= 0) {
      sys.close(fd);
      return { r: address };
    }
    const done = store(world, fd, address, Math.floor(place * (length - 20)), text);
    if (keep) {
      addresses[side.index] = address;
      fds[side.index] = fd;
    } else {
      libc.munmap(address, length);
      sys.close(fd);
    }
    return done;
  });
  if (keep && fds.some((fd) => fd >= 0)) world.maps[at] = { addresses, fds, length, path };
  return result;
};

function unmap(world, at) {
  const map = world.maps[at];
  if (map === null) return;
  for (const [i, fd] of map.fds.entries()) {
    if (fd < 0) continue;
    world.libc.munmap(map.addresses[i], map.length);
    world.sys.close(fd);
  }
  world.maps[at] = null;
}

export function unmapAll(world) {
  for (const at of world.maps.keys()) unmap(world, at);
}

/** Into a map that has been there for a while, as far as the file still reaches; or takes it away. */
const storeMap = (world, random, tools) => {
  const { sys } = world;
  const maps = world.maps.filter((map) => map !== null);
  if (maps.length === 0) return NO_SLOT;
  const map = random.of(maps);
  const at = world.maps.indexOf(map);
  const [place, text] = [random.next(), `kept ${random.below(1e9).toString(36)}`];
  const what = `store into kept map ${at} (${show(map.path)})`;
  const result = tools.step({
    text: what,
    run: (side) => {
      const fd = map.fds[side.index];
      const known = sys.fstat(fd, world.stat);
      if (known < 0 || world.stat.size < map.length) return { r: known };
      return store(world, fd, map.addresses[side.index], Math.floor(place * (map.length - 20)), text);
    },
  });
  if (random.chance(0.3)) unmap(world, at);
  return result;
};

function setLock({ libc }, fd, command, type, start, length) {
  const { bytes, address } = libc.lock;
  bytes.fill(0);
  bytes.writeInt16LE(type, 0);
  bytes.writeBigInt64LE(BigInt(start), 8);
  bytes.writeBigInt64LE(BigInt(length), 16);
  const r = libc.fcntl(fd, command, address);
  if (r < 0 || command !== F_OFD_GETLK) return { r };
  // Which of several is told of is nobody's promise.
  return { r, held: bytes.readInt16LE(0) !== 2 };
}

const lockHandle = (world, random, tools) => {
  const { sys } = world;
  const kind = random.of([sys.LOCK_SH, sys.LOCK_EX, sys.LOCK_UN]);
  const type = random.of([sys.F_RDLCK, sys.F_WRLCK, sys.F_UNLCK]);
  const asked = random.of([sys.F_RDLCK, sys.F_WRLCK]);
  const [start, length] = [random.of(OFFSETS), random.of([0, 1, 100, 5000])];
  const [what, call] = random.of([
    [`flock ${kind}`, (fd) => plainly(sys.flock(fd, kind | sys.LOCK_NB))],
    [`lock ${type} ${start}+${length}`, (fd) => setLock(world, fd, F_SETLK, type, start, length)],
    [`OFD lock ${type} ${start}+${length}`, (fd) => setLock(world, fd, F_OFD_SETLK, type, start, length)],
    [
      `ask of lock ${asked} ${start}+${length}`,
      (fd) => setLock(world, fd, F_OFD_GETLK, asked, start, length),
    ],
  ]);
  return onFile(world, random, tools, what, call);
};

/** Where data begin and end. That is for each file system to say, but between them there is nothing but zeros. */
const holes = (world, random, tools) => {
  const { sys, E } = world;
  return onFile(world, random, tools, 'look for holes', (fd) => {
    const known = sys.fstat(fd, world.stat);
    if (known < 0 || (world.stat.mode & 0o170000) !== 0o100000) return { r: known };
    const bytes = Buffer.alloc(world.stat.size);
    const read = sys.pread(fd, bytes, 0, bytes.length, 0);
    const found = [0];
    for (let whence = sys.SEEK_DATA; found.length < 99; ) {
      const at = sys.lseek(fd, found.at(-1), whence);
      if (at < 0) return { r: at === -E.ENXIO ? 0 : at, ...(read < 0 ? {} : { lost: lostIn(bytes, found) }) };
      found.push(at);
      whence = whence === sys.SEEK_DATA ? sys.SEEK_HOLE : sys.SEEK_DATA;
    }
    return { r: 0 };
  });
};

/** Holes that have data in them. */
function lostIn(bytes, found) {
  const ends = found.length % 2 === 0 ? found : [...found, bytes.length];
  const holes = [];
  for (let i = 0; i + 1 < ends.length; i += 2) holes.push([ends[i], ends[i + 1]]);
  return holes.filter(([from, to]) => bytes.subarray(from, to).some((byte) => byte !== 0));
}

/** Reads or writes where the descriptor stands, which moves it. */
const atPosition = (world, random, tools) => {
  const { sys } = world;
  const offset = random.chance(0.5) ? random.of(OFFSETS) : -1;
  const bytes = Buffer.alloc(1 + random.below(3000), `${random.below(1e9).toString(36)} `);
  const writes = random.chance(0.5);
  return onFile(world, random, tools, `${writes ? 'write' : 'read'} ${bytes.length} from ${offset}`, (fd) => {
    if (offset >= 0) sys.lseek(fd, offset, sys.SEEK_SET);
    if (writes) return { r: sys.write(fd, bytes, 0, bytes.length), at: sys.lseek(fd, 0, sys.SEEK_CUR) };
    const into = Buffer.alloc(bytes.length);
    const r = sys.read(fd, into, 0, into.length);
    return { r, data: into.toString('latin1', 0, Math.max(r, 0)) };
  });
};

/** What FUSE, or a union, cannot do: always the same errno, and nothing happens. */
const refused = (world, random, tools) => {
  const { sys, E } = world;
  if (world.sides.length === 1) return NO_SLOT;
  const path = existing(world, random, 'file');
  const to = `${path}.new`;
  const mode = random.of([sys.FALLOC_FL_COLLAPSE_RANGE, sys.FALLOC_FL_INSERT_RANGE]);
  const [what, wanted, call] = random.of([
    ['RENAME_WHITEOUT', E.EINVAL, ({ root }) => sys.renameat2(root, path, root, to, sys.RENAME_WHITEOUT)],
    ['mknod of 0:0', E.EPERM, ({ root }) => sys.mknodat(root, 'whiteout', 0o020644, 0, 0)],
    [
      `fallocate mode ${mode}`,
      E.EOPNOTSUPP,
      (side) => {
        const fd = sys.openat(side.root, path, sys.O_RDWR | sys.O_NONBLOCK | sys.O_NOFOLLOW);
        if (fd < 0) return fd;
        const r = sys.fallocate(fd, mode, 0, PAGE);
        sys.close(fd);
        return r;
      },
    ],
  ]);
  // The open before it may fail, and ENAMETOOLONG is right, too.
  const others = [
    E.ENOENT,
    E.EACCES,
    E.ENXIO,
    E.ENAMETOOLONG,
    E.ENOTDIR,
    E.ELOOP,
    E.EISDIR,
    E.ENODEV,
    E.ESPIPE,
  ];
  return tools.step({
    text: `${what} ${show(path)}`,
    run: (side) => {
      if (side.index === 1) return { r: -wanted };
      const r = call(side);
      return { r: others.includes(-r) ? -wanted : r };
    },
  });
};

export const mapOperations = { mapFile, storeMap, lockHandle, holes, atPosition, refused };
