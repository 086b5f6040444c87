// The operations of the random differential test that work by path. Each takes the world, a source of random numbers and the
// means to do a step on both sides; it keeps the model up to date and returns the result on the plain tree.
import { describeStat, listEntries, xattrsOf } from './look.mjs';

const USERS = [
  [1000, 1000],
  [1001, 1000],
  [1002, 1002],
];
const MODES = [0o644, 0o600, 0o755, 0o666, 0o400, 0o000, 0o4755, 0o2755, 0o2644, 0o777];
const DIR_MODES = [0o755, 0o700, 0o777, 0o1777, 0o2775, 0o555];
const NAMES = [
  'a',
  'b',
  'c',
  'd',
  'e',
  'f',
  'g',
  'h',
  'x y',
  'caf\xe9',
  '\xff\xfe',
  '.hidden',
  'n'.repeat(255),
];
const ATTRS = ['user.one', 'user.two', 'user.three', 'trusted.mine'];
const OFFSETS = [0, 1, 100, 4095, 4096, 5000, 20_000, 70_000];
/** Entries: beyond this, more is removed than made. */
const CROWDED = 160;

/** There is nothing to do it with. */
const NO_SLOT = { r: 0 };

const join = (dir, name) => (dir === '' ? name : `${dir}/${name}`);
const parentOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf('/')));
const nameOf = (path) => path.slice(path.lastIndexOf('/') + 1);
const show = (path) => JSON.stringify(path.length > 60 ? `${path.slice(0, 57)}...` : path);

function pathsOf(world, ...types) {
  const found = [];
  for (const [path, { type }] of world.model) if (path !== '' && types.includes(type)) found.push(path);
  return found;
}

/** An existing path of a type (now and then of any, or of none). */
function existing(world, random, ...types) {
  if (random.chance(0.04)) return fresh(world, random);
  const wanted = random.chance(0.04) ? ['file', 'dir', 'link', 'fifo', 'char', 'block', 'socket'] : types;
  const paths = pathsOf(world, ...wanted);
  return paths.length === 0 ? fresh(world, random) : random.of(paths);
}

/** A name in an existing directory, mostly one that is free. */
function fresh(world, random) {
  const dirs = ['', ...pathsOf(world, 'dir').filter((path) => path.split('/').length < 5)];
  for (let tries = 0; ; tries += 1) {
    const path = join(random.of(dirs), random.of(NAMES));
    if (!world.model.has(path) || tries > 6 || random.chance(0.03)) return path;
  }
}

/** As root mostly; else the file system ids of another user, for the time of the call. */
function asSomebody(world, random) {
  if (!random.chance(0.12)) return { text: '', as: (work) => work() };
  const [uid, gid] = random.of(USERS);
  const as = (work) => {
    world.sys.setFsIds(uid, gid);
    world.asUser = true;
    try {
      return work();
    } finally {
      world.sys.setFsIds(0, 0);
      world.asUser = false;
    }
  };
  return { text: ` as ${uid}`, as };
}

function bytesOf(random, limit = 3000) {
  const length = 1 + random.below(random.chance(0.1) ? limit * 20 : limit);
  return Buffer.alloc(length, `${random.below(1e9).toString(36)}\n`);
}

function step(world, random, { step: both }, text, call) {
  const who = asSomebody(world, random);
  const run = (side) => who.as(() => call(side));
  return both({ text: `${text}${who.text}`, run });
}

/** For calls that give a number of which only the sign counts. */
const plainly = (r) => ({ r: Math.min(r, 0) });

/** Opens, does something, closes. */
function withOpen(world, side, path, flags, mode, work) {
  const { sys } = world;
  const fd = sys.openat(side.root, path, flags | sys.O_NONBLOCK, mode);
  if (fd < 0) return { r: fd };
  const result = work(fd);
  sys.close(fd);
  return result;
}

function made(world, path, type) {
  if (!world.model.has(path)) world.model.set(path, { type, base: false });
}

function removed(world, path) {
  world.model.delete(path);
}

function moved(world, from, to) {
  for (const path of [...world.model.keys()]) {
    if (path === to || path.startsWith(`${to}/`)) world.model.delete(path);
  }
  for (const [path, entry] of [...world.model]) {
    if (path !== from && !path.startsWith(`${from}/`)) continue;
    world.model.delete(path);
    world.model.set(to + path.slice(from.length), entry);
  }
}

function swapped(world, a, b) {
  const renamed = new Map();
  for (const [path, entry] of world.model) {
    const [old, now] = path === a || path.startsWith(`${a}/`) ? [a, b] : [b, a];
    const here = path === old || path.startsWith(`${old}/`);
    renamed.set(here ? now + path.slice(old.length) : path, entry);
  }
  world.model = renamed;
}

const create = (world, random, tools) => {
  const { sys } = world;
  const path =
    world.model.size > CROWDED && random.chance(0.7) ? existing(world, random, 'file') : fresh(world, random);
  const mode = random.of(MODES);
  const flags =
    sys.O_CREAT | sys.O_RDWR | (random.chance(0.3) ? sys.O_EXCL : 0) | (random.chance(0.3) ? sys.O_TRUNC : 0);
  const bytes = bytesOf(random);
  const text = `create ${show(path)} mode ${mode.toString(8)} flags ${flags.toString(8)}`;
  const result = step(world, random, tools, text, (side) =>
    withOpen(world, side, path, flags, mode, (fd) => ({ r: sys.pwrite(fd, bytes, 0, bytes.length, 0) })),
  );
  if (result.r >= 0) made(world, path, 'file');
  return result;
};

const write = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'file', 'file', 'link');
  const how = random.of([sys.O_WRONLY, sys.O_RDWR, sys.O_WRONLY | sys.O_TRUNC]);
  const bytes = bytesOf(random);
  const offset = random.of(OFFSETS);
  return step(world, random, tools, `write ${show(path)} ${bytes.length} at ${offset} flags ${how}`, (side) =>
    withOpen(world, side, path, how, 0, (fd) => ({ r: sys.pwrite(fd, bytes, 0, bytes.length, offset) })),
  );
};

const append = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'file');
  const bytes = bytesOf(random, 200);
  return step(world, random, tools, `append ${show(path)} ${bytes.length}`, (side) =>
    withOpen(world, side, path, sys.O_WRONLY | sys.O_APPEND, 0, (fd) => ({
      r: sys.write(fd, bytes, 0, bytes.length),
    })),
  );
};

const truncate = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'file');
  const size = random.of([0, 0, ...OFFSETS]);
  return step(world, random, tools, `truncate ${show(path)} ${size}`, (side) =>
    withOpen(world, side, path, sys.O_WRONLY, 0, (fd) => ({ r: sys.ftruncate(fd, size) })),
  );
};

/**
 * Those that FUSE knows; for the others see `refused`. tmpfs cannot zero ranges, which it says before it takes set-id
 * bits away; FUSE's kernel side says so after it.
 */
const fallocateModes = ({ sys, zeroes }) => [
  0,
  sys.FALLOC_FL_KEEP_SIZE,
  sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE,
  ...(zeroes ? [sys.FALLOC_FL_ZERO_RANGE, sys.FALLOC_FL_ZERO_RANGE | sys.FALLOC_FL_KEEP_SIZE] : []),
];

const allocate = (world, random, tools) => {
  const { sys } = world;
  const path = existing(world, random, 'file');
  const mode = random.of(fallocateModes(world));
  const [offset, length] = [random.of(OFFSETS), random.of([0, 10, 4096, 10_000])];
  return step(world, random, tools, `fallocate ${show(path)} mode ${mode} ${offset}+${length}`, (side) =>
    withOpen(world, side, path, sys.O_RDWR, 0, (fd) => ({ r: sys.fallocate(fd, mode, offset, length) })),
  );
};

function readFrom(world, fd, offset, length) {
  const bytes = Buffer.alloc(length);
  const r = world.sys.pread(fd, bytes, 0, length, offset);
  return { r, ...(r > 0 ? { data: bytes.toString('latin1', 0, r) } : {}) };
}

const read = (world, random, tools) => {
  const path = existing(world, random, 'file', 'file', 'link');
  const [offset, length] = random.chance(0.5) ? [0, 100_000] : [random.of(OFFSETS), 1 + random.below(9000)];
  return step(world, random, tools, `read ${show(path)} ${length} at ${offset}`, (side) =>
    withOpen(world, side, path, world.sys.O_RDONLY, 0, (fd) => readFrom(world, fd, offset, length)),
  );
};

const copyRange = (world, random, tools) => {
  const { sys } = world;
  const [from, to] = [existing(world, random, 'file'), existing(world, random, 'file')];
  const [offIn, offOut, length] = [random.of(OFFSETS), random.of(OFFSETS), 1 + random.below(9000)];
  const text = `copy_file_range ${show(from)} ${offIn} ${show(to)} ${offOut} ${length}`;
  return step(world, random, tools, text, (side) =>
    withOpen(world, side, from, sys.O_RDONLY, 0, (fdIn) =>
      withOpen(world, side, to, sys.O_WRONLY, 0, (fdOut) => ({
        r: sys.copyFileRange(fdIn, offIn, fdOut, offOut, length),
      })),
    ),
  );
};

const mkdir = (world, random, tools) => {
  const path = world.model.size > CROWDED ? existing(world, random, 'dir') : fresh(world, random);
  const mode = random.of(DIR_MODES);
  const result = step(world, random, tools, `mkdir ${show(path)} ${mode.toString(8)}`, (side) =>
    plainly(world.sys.mkdirat(side.root, path, mode)),
  );
  if (result.r >= 0) made(world, path, 'dir');
  return result;
};

/** Mostly one that is empty. */
const rmdir = (world, random, tools) => {
  const full = new Set([...world.model.keys()].map(parentOf));
  const empty = pathsOf(world, 'dir').filter((path) => !full.has(path));
  const path = empty.length > 0 && random.chance(0.8) ? random.of(empty) : existing(world, random, 'dir');
  const result = step(world, random, tools, `rmdir ${show(path)}`, (side) =>
    plainly(world.sys.unlinkat(side.root, path, world.sys.AT_REMOVEDIR)),
  );
  if (result.r >= 0) removed(world, path);
  return result;
};

const unlink = (world, random, tools) => {
  const path = existing(world, random, 'file', 'link', 'fifo', 'char', 'block', 'socket');
  const result = step(world, random, tools, `unlink ${show(path)}`, (side) =>
    plainly(world.sys.unlinkat(side.root, path, 0)),
  );
  if (result.r >= 0) removed(world, path);
  return result;
};

const symlink = (world, random, tools) => {
  const path = fresh(world, random);
  const up = '../'.repeat(path.split('/').length - 1);
  const target = random.chance(0.8) ? up + existing(world, random, 'file', 'dir') : random.of(NAMES);
  const result = step(world, random, tools, `symlink ${show(path)} to ${show(target)}`, (side) =>
    plainly(world.sys.symlinkat(target, side.root, path)),
  );
  if (result.r >= 0) made(world, path, 'link');
  return result;
};

const mknod = (world, random, tools) => {
  const path = fresh(world, random);
  const [type, mode, major, minor] = random.of([
    ['fifo', 0o010644, 0, 0],
    ['char', 0o020600, 1, 3],
    ['block', 0o060600, 7, 9],
    ['socket', 0o140644, 0, 0],
  ]);
  const result = step(world, random, tools, `mknod ${type} ${show(path)}`, (side) =>
    plainly(world.sys.mknodat(side.root, path, mode, major, minor)),
  );
  if (result.r >= 0) made(world, path, type);
  return result;
};

const link = (world, random, tools) => {
  const [from, to] = [existing(world, random, 'file', 'link', 'fifo', 'socket'), fresh(world, random)];
  const type = world.model.get(from)?.type ?? 'file';
  const result = step(world, random, tools, `link ${show(from)} ${show(to)}`, (side) =>
    plainly(world.sys.linkat(side.root, from, side.root, to, 0)),
  );
  if (result.r >= 0) made(world, to, type);
  return result;
};

/**
 * The allowed difference: EXDEV where a directory is renamed that comes from the base. Then both sides do what
 * mv does: copy and remove. So the union goes first, and the plain tree only renames what the union has renamed.
 */
const rename = (world, random, tools) => {
  const { sys, E } = world;
  const from = existing(world, random, 'file', 'file', 'dir', 'dir', 'link', 'fifo', 'socket');
  const over = random.chance(0.35);
  const to = over ? existing(world, random, world.model.get(from)?.type ?? 'file') : fresh(world, random);
  const flags = random.of([0, 0, 0, sys.RENAME_NOREPLACE, sys.RENAME_EXCHANGE]);
  const who = asSomebody(world, random);
  const text = `rename ${show(from)} ${show(to)} flags ${flags}${who.text}`;
  const isBase = (path) => world.model.get(path)?.type === 'dir' && world.model.get(path).base;
  const same = sameFile(world, from, to);
  const exchange = flags === sys.RENAME_EXCHANGE;
  const copies = ({ r }) => r === -E.EXDEV && (isBase(from) || (exchange && isBase(to)));
  const run = (side) => who.as(() => plainly(sys.renameat2(side.root, from, side.root, to, flags)));
  const plain = tools.step({ text, run, allowed: copies });
  if (copies(plain)) return exchange ? { r: 0 } : moveAsMv(world, tools, from, to);
  if (plain.r >= 0 && !same) {
    if (exchange) swapped(world, from, to);
    else moved(world, from, to);
  }
  return plain;
};

/** Two names of one file: rename does nothing then, and both stay. */
function sameFile(world, from, to) {
  if (from === to) return true;
  const { sys, stat, sides } = world;
  const { root } = sides.at(-1);
  if (sys.statx(root, from, sys.AT_SYMLINK_NOFOLLOW, stat) < 0) return false;
  const { ino } = stat;
  return sys.statx(root, to, sys.AT_SYMLINK_NOFOLLOW, stat) === 0 && stat.ino === ino;
}

/** What mv does where rename gives EXDEV, as steps on both sides. */
function moveAsMv(world, tools, from, to) {
  const { sys } = world;
  const onBoth = (text, call) => tools.step({ text, run: call });
  if (`${to}/`.startsWith(`${from}/`)) return { r: 0 };
  if (world.model.has(to)) {
    const gone = onBoth(`mv: rmdir ${show(to)}`, (side) =>
      plainly(sys.unlinkat(side.root, to, sys.AT_REMOVEDIR)),
    );
    if (gone.r < 0) return gone;
    removed(world, to);
  }
  const copied = copyTree(world, onBoth, from, to);
  if (copied.r < 0) return copied;
  removeTree(world, onBoth, from);
  return copied;
}

function childrenOf(world, path) {
  return [...world.model.keys()].filter((one) => one !== '' && parentOf(one) === path).sort();
}

function copyTree(world, onBoth, from, to) {
  const { sys, stat } = world;
  const { type } = world.model.get(from);
  const result = onBoth(`mv: copy ${show(from)} ${show(to)}`, (side) => {
    const made = copyObject(world, side, type, from, to);
    if (made < 0) return { r: made };
    sys.statx(side.root, from, sys.AT_SYMLINK_NOFOLLOW, stat);
    sys.fchownat(side.root, to, stat.uid, stat.gid);
    if (type !== 'link') sys.fchmodat(side.root, to, stat.mode & 0o7777);
    copyXattrs(world, side, from, to);
    return { r: 0 };
  });
  if (result.r < 0) return result;
  made(world, to, type);
  if (type === 'dir') {
    for (const child of childrenOf(world, from)) copyTree(world, onBoth, child, join(to, nameOf(child)));
  }
  return onBoth(`mv: times ${show(to)}`, (side) => {
    sys.statx(side.root, from, sys.AT_SYMLINK_NOFOLLOW, stat);
    const { mtimeSec, mtimeNsec } = stat;
    return plainly(sys.utimensat(side.root, to, mtimeSec, mtimeNsec, mtimeSec, mtimeNsec));
  });
}

function copyObject(world, side, type, from, to) {
  const { sys, stat } = world;
  switch (type) {
    case 'dir':
      return sys.mkdirat(side.root, to, 0o755);
    case 'link': {
      const target = sys.readlinkat(side.root, from);
      return typeof target === 'number' ? target : sys.symlinkat(target, side.root, to);
    }
    case 'file':
      return withOpen(world, side, from, sys.O_RDONLY, 0, (source) => {
        const { r, data = '' } = readFrom(world, source, 0, 1 << 20);
        if (r < 0) return { r };
        const bytes = Buffer.from(data, 'latin1');
        return withOpen(world, side, to, sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY, 0o600, (fd) => ({
          r: bytes.length === 0 ? 0 : sys.pwrite(fd, bytes, 0, bytes.length, 0),
        }));
      }).r;
    default:
      sys.statx(side.root, from, sys.AT_SYMLINK_NOFOLLOW, stat);
      return sys.mknodat(side.root, to, stat.mode, stat.rdevMajor, stat.rdevMinor);
  }
}

function copyXattrs(world, side, from, to) {
  const { sys } = world;
  const list = sys.listxattr(side.root, from);
  if (typeof list === 'number') return;
  for (const name of list.toString('latin1').split('\0').filter(Boolean)) {
    const value = sys.getxattr(side.root, from, name);
    if (typeof value !== 'number') sys.setxattr(side.root, to, name, value, 0);
  }
}

function removeTree(world, onBoth, path) {
  const { sys } = world;
  for (const child of childrenOf(world, path)) removeTree(world, onBoth, child);
  const flag = world.model.get(path)?.type === 'dir' ? sys.AT_REMOVEDIR : 0;
  onBoth(`mv: remove ${show(path)}`, (side) => plainly(sys.unlinkat(side.root, path, flag)));
  removed(world, path);
}

const chmod = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir', 'fifo', 'char');
  const mode = random.of(world.model.get(path)?.type === 'dir' ? DIR_MODES : MODES);
  return step(world, random, tools, `chmod ${show(path)} ${mode.toString(8)}`, (side) =>
    plainly(world.sys.fchmodat(side.root, path, mode)),
  );
};

const chown = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir', 'link');
  const [uid, gid] = [random.of([0, 1000, 1001, -1]), random.of([0, 1000, 1002, -1])];
  return step(world, random, tools, `chown ${show(path)} ${uid}:${gid}`, (side) =>
    plainly(world.sys.fchownat(side.root, path, uid, gid)),
  );
};

const utimes = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir', 'link');
  const seconds = random.of([-1000, 0, 1, 1_000_000_000, 1_500_000_000]);
  const { UTIME_NOW, UTIME_OMIT } = world.sys;
  const nsec = random.chance(0.15) ? random.of([UTIME_NOW, UTIME_OMIT]) : random.below(1e9);
  return step(world, random, tools, `utimes ${show(path)} ${seconds}.${nsec}`, (side) =>
    plainly(world.sys.utimensat(side.root, path, 5, 6, seconds, nsec)),
  );
};

const setxattr = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir');
  const attr = random.of(ATTRS);
  const value = Buffer.alloc(random.of([0, 1, 20, 300]), 'v');
  const flags = random.of([0, 0, 0, 1, 2]);
  return step(world, random, tools, `setxattr ${show(path)} ${attr} ${value.length} flags ${flags}`, (side) =>
    plainly(world.sys.setxattr(side.root, path, attr, value, flags)),
  );
};

/** Version 2, then tag, permissions and id of each entry: owner, a user, group, mask, others. */
function aclOf(entries) {
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  for (const [i, [tag, perm, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + i * 8);
    bytes.writeUInt16LE(perm, 6 + i * 8);
    bytes.writeUInt32LE(id, 8 + i * 8);
  }
  return bytes;
}

const NO_ID = 0xffffffff;

const acl = (world, random, tools) => {
  const path = existing(world, random, 'dir', 'file');
  const attr = random.of(['system.posix_acl_access', 'system.posix_acl_default']);
  const perm = () => random.below(8);
  const value = aclOf([
    [1, perm() | 4, NO_ID],
    [2, perm(), random.of([1000, 1001])],
    [4, perm(), NO_ID],
    [16, perm(), NO_ID],
    [32, perm(), NO_ID],
  ]);
  const removes = random.chance(0.4);
  return step(world, random, tools, `${removes ? 'remove' : 'set'} ${attr} ${show(path)}`, (side) => {
    const { sys } = world;
    return plainly(
      removes ? sys.removexattr(side.root, path, attr) : sys.setxattr(side.root, path, attr, value, 0),
    );
  });
};

/** Mostly one that is there. */
const removexattr = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir');
  const list = xattrsOf(world, world.sides.at(-1).root, path);
  const there = Array.isArray(list)
    ? list.map((one) => one.split('=')[0]).filter((one) => !one.startsWith('system.'))
    : [];
  const attr = there.length > 0 ? random.of(there) : random.of(ATTRS);
  return step(world, random, tools, `removexattr ${show(path)} ${attr}`, (side) =>
    plainly(world.sys.removexattr(side.root, path, attr)),
  );
};

const getxattrs = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir', 'link');
  return step(world, random, tools, `getxattrs ${show(path)}`, (side) => {
    const list = xattrsOf(world, side.root, path);
    return typeof list === 'number' ? { r: list } : { r: 0, list };
  });
};

const readdir = (world, random, tools) => {
  const path = random.chance(0.1) ? '' : existing(world, random, 'dir');
  return step(world, random, tools, `readdir ${show(path)}`, (side) => {
    const entries = listEntries(world, side.root, path);
    return typeof entries === 'number'
      ? { r: entries }
      : { r: 0, list: entries.map(({ name, type }) => [name, type]) };
  });
};

function statResult(world, r) {
  if (r < 0) return { r };
  return { r: 0, stat: describeStat(world, world.stat), ofIno: { ...world.stat } };
}

const stat = (world, random, tools) => {
  const path = existing(world, random, 'file', 'dir', 'link', 'fifo', 'block');
  const follow = random.chance(0.2) ? 0 : world.sys.AT_SYMLINK_NOFOLLOW;
  return step(world, random, tools, `stat ${show(path)} flags ${follow}`, (side) =>
    statResult(world, world.sys.statx(side.root, path, follow, world.stat)),
  );
};

const readlink = (world, random, tools) => {
  const path = existing(world, random, 'link');
  return step(world, random, tools, `readlink ${show(path)}`, (side) => {
    const target = world.sys.readlinkat(side.root, path);
    return typeof target === 'number' ? { r: target } : { r: 0, target };
  });
};

const umask = (_world, random, tools) => {
  const mask = random.of([0o022, 0o022, 0o077, 0o002, 0]);
  return tools.step({ text: `umask ${mask.toString(8)}`, run: () => plainly(process.umask(mask)) });
};

export const pathOperations = {
  umask,
  create,
  write,
  append,
  truncate,
  allocate,
  read,
  copyRange,
  mkdir,
  rmdir,
  unlink,
  symlink,
  mknod,
  link,
  rename,
  chmod,
  chown,
  utimes,
  setxattr,
  removexattr,
  acl,
  getxattrs,
  readdir,
  stat,
  readlink,
};

export {
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
  removed,
  show,
  statResult,
  step,
};
