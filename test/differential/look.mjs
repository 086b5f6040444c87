// What the random differential test sees of an object, as plain data, and where its choices come from. Names
// are latin1, calls are those of src/sys (world.sys), failures negative errnos.

/** Times before this are set by the test, and must be equal; later ones are "now" on each side. */
const OLD = Date.UTC(2020, 0, 1) / 1000;

export function randomFrom(seed) {
  let state = seed | 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  return { next, below, of: (list) => list[below(list.length)], chance: (p) => next() < p };
}

export function typeOf(mode) {
  const types = { 4: 'dir', 8: 'file', 10: 'link', 2: 'char', 6: 'block', 1: 'fifo', 12: 'socket' };
  return types[(mode >> 12) & 15];
}

const dents = Buffer.allocUnsafeSlow(1 << 16);

/** Sorted names of a directory, or a negative errno; with numbers and types if asked. */
export function listEntries(world, dirFd, path) {
  const { sys } = world;
  const fd = sys.openat(dirFd, path === '' ? '.' : path, sys.O_RDONLY | sys.O_DIRECTORY);
  if (fd < 0) return fd;
  const entries = [];
  let got = 1;
  while (got > 0) {
    got = sys.getdents(fd, dents);
    if (got > 0) {
      sys.parseDents(dents, got, (name, ino, type) => {
        if (name !== '.' && name !== '..') entries.push({ name, ino, type });
      });
    }
  }
  sys.close(fd);
  return got < 0 ? got : entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** What must be equal of an object's attributes; the times as strings. */
export function describeStat(world, s) {
  const type = typeOf(s.mode);
  const plain = type !== 'dir';
  return {
    type,
    mode: (s.mode & 0o7777).toString(8),
    uid: s.uid,
    gid: s.gid,
    ...(plain ? { size: s.size } : {}),
    ...(plain || world.countsDirectories ? { nlink: s.nlink } : {}),
    ...(type === 'char' || type === 'block' ? { rdev: `${s.rdevMajor}:${s.rdevMinor}` } : {}),
    // What goes through a FIFO is between the kernel and its users: the file system hears nothing of it.
    ...(type === 'fifo' ? {} : { mtime: s.mtimeSec < OLD ? `${s.mtimeSec}.${s.mtimeNsec}` : 'now' }),
  };
}

export function xattrsOf(world, dirFd, path) {
  const { sys } = world;
  const list = sys.listxattr(dirFd, path);
  if (typeof list === 'number') return list;
  const all = list.toString('latin1').split('\0').filter(Boolean).sort();
  // trusted.* is for CAP_SYS_ADMIN, which goes with the uid in the union and is kept by our other ids here.
  const names = world.asUser ? all.filter((name) => !name.startsWith('trusted.')) : all;
  return names.map((name) => {
    const value = sys.getxattr(dirFd, path, name);
    return `${name}=${typeof value === 'number' ? world.errno(value) : value.toString('base64')}`;
  });
}
