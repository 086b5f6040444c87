// Rules of listings: every name once, places that last, and what removal does to who reads. See
// rules.mjs.

/** Entries of one getdents call: name, inode number, type, and the place after it. */
function entriesIn(buffer, length) {
  const found = [];
  for (let at = 0; at < length; ) {
    const size = buffer.readUInt16LE(at + 16);
    const raw = buffer.subarray(at + 19, at + size);
    const name = raw.subarray(0, raw.indexOf(0)).toString('latin1');
    found.push({
      name,
      ino: Number(buffer.readBigUInt64LE(at)),
      next: buffer.readBigInt64LE(at + 8),
      type: buffer[at + 18],
    });
    at += size;
  }
  return found;
}

/** Two directories, of four directories and one, to have their links counted. */
function directoriesToCount(c) {
  for (const name of ['d', 'd/a', 'd/b', 'd/c', 'd/e', 'o', 'o/a']) c.fs.mkdirSync(c.at(name));
  c.put('d/f');
}

/** Holds the links of the two to how many directories are in them, or to 1 each where nobody counts. */
function linkCounts(c) {
  const counts = c.stat('d').nlink > 1;
  return (d, o) => c.equal([c.stat('d').nlink, c.stat('o').nlink], counts ? [2 + d, 2 + o] : [1, 1]);
}

/** The next entries of an open directory; `size` bytes at most. */
function readSome(c, fd, size = 32768) {
  const buffer = Buffer.alloc(size);
  return entriesIn(buffer, c.did(c.sys.getdents(fd, buffer)));
}

function readAll(c, fd, size) {
  const all = [];
  for (let some = readSome(c, fd, size); some.length > 0; some = readSome(c, fd, size)) all.push(...some);
  return all;
}

const openDir = (c, name = '') => c.open(name, c.sys.O_RDONLY | c.sys.O_DIRECTORY);
const many = (n) => Array.from({ length: n }, (_, i) => `entry-${i}`);

export const directoryRules = [
  {
    name: 'a listing has every name once, with the inode number and type that stat tells',
    before(c) {
      for (const name of many(50)) c.put(name);
      c.fs.mkdirSync(c.at('d'));
      c.fs.symlinkSync('x', c.at('s'));
      c.did(c.sys.mknodat(c.sys.AT_FDCWD, c.at('p'), 0o010644, 0, 0));
    },
    run(c) {
      c.put('new');
      c.fs.appendFileSync(c.at('entry-1'), 'changed');
      c.fs.chmodSync(c.at('d'), 0o700);
      c.fs.unlinkSync(c.at('entry-2'));
      const fd = openDir(c);
      const entries = readAll(c, fd, 512);
      c.close(fd);
      const named = entries.filter(({ name }) => name !== '.' && name !== '..');
      c.equal(named.length, 53);
      c.equal(new Set(named.map(({ name }) => name)).size, 53);
      for (const { name, ino, type } of named) {
        const stat = c.stat(name);
        c.equal([name, ino, type], [name, stat.ino, stat.mode >> 12]);
      }
      const dots = entries.filter(({ name }) => name === '.' || name === '..');
      c.equal(dots.map(({ name, ino }) => [name, ino]).sort(), [
        ['.', c.stat('.').ino],
        ['..', c.stat('..').ino],
      ]);
    },
  },
  {
    name: 'who removes what they read leaves nothing out and gets nothing twice',
    before(c) {
      for (const name of many(300)) c.put(name);
    },
    run(c) {
      const fd = openDir(c);
      const seen = [];
      for (let some = readSome(c, fd, 1024); some.length > 0; some = readSome(c, fd, 1024)) {
        for (const { name } of some) {
          if (name === '.' || name === '..') continue;
          seen.push(name);
          c.fs.unlinkSync(c.at(name));
        }
      }
      c.close(fd);
      c.equal(seen.sort(), many(300).sort());
      c.equal(c.list(), []);
    },
  },
  {
    name: 'a place in a listing holds in another open, and after others were removed',
    before(c) {
      for (const name of many(100)) c.put(name);
    },
    run(c) {
      const { sys } = c;
      const first = openDir(c);
      const entries = readAll(c, first, 1024);
      c.close(first);
      const middle = entries[60];
      const rest = entries.slice(61).map(({ name }) => name);
      for (const { name } of entries.slice(0, 30)) {
        if (!name.startsWith('.')) c.fs.unlinkSync(c.at(name));
      }
      const second = openDir(c);
      c.equal(BigInt(sys.seekTo(second, middle.next, sys.SEEK_SET)), middle.next);
      c.equal(
        readAll(c, second).map(({ name }) => name),
        rest,
      );
      c.equal(sys.lseek(second, 0, sys.SEEK_SET), 0);
      c.put('added');
      c.ok(readAll(c, second).some(({ name }) => name === 'added'));
      c.close(second);
    },
  },
  {
    name: 'a directory has two links, and one for each directory in it, or always one',
    before: directoriesToCount,
    run(c) {
      const { renameSync: move, mkdirSync: make, rmdirSync: remove } = c.fs;
      const has = linkCounts(c);
      has(4, 1);
      c.put('d/new');
      has(4, 1);
      make(c.at('d/made'));
      has(5, 1);
      c.fs.chmodSync(c.at('d/a'), 0o700);
      has(5, 1);
      remove(c.at('d/a'));
      has(4, 1);
      c.put('d/a');
      has(4, 1);
      c.fs.unlinkSync(c.at('d/a'));
      make(c.at('d/a'));
      has(5, 1);
      move(c.at('d/b'), c.at('o/b'));
      has(4, 2);
      move(c.at('o/a'), c.at('d/c'));
      has(4, 1);
    },
  },
  {
    name: 'RENAME_EXCHANGE of a directory for a file changes the counts of links of the directories that they are in',
    before: directoriesToCount,
    run(c) {
      const { sys } = c;
      const exchange = (from, to) =>
        c.did(sys.renameat2(sys.AT_FDCWD, c.at(from), sys.AT_FDCWD, c.at(to), sys.RENAME_EXCHANGE));
      const has = linkCounts(c);
      exchange('d/f', 'o/a');
      has(5, 0);
      exchange('d/f', 'd/e');
      has(5, 0);
      c.fs.renameSync(c.at('d/f'), c.at('d/b'));
      has(4, 0);
    },
  },
  {
    name: 'a directory that was removed can be held open, lists nothing and takes nothing',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
    },
    run(c) {
      const { sys } = c;
      const fd = openDir(c, 'd');
      c.fs.rmdirSync(c.at('d'));
      c.equal(c.fstat(fd).nlink, 0);
      c.fails('ENOENT', () => sys.getdents(fd, Buffer.alloc(4096)));
      c.fails('ENOENT', () => sys.openat(fd, 'f', sys.O_WRONLY | sys.O_CREAT, 0o644));
      c.fails('ENOENT', () => sys.mkdirat(fd, 'e', 0o755));
      c.close(fd);
      c.ok(!c.exists('d'));
    },
  },
  {
    name: 'a directory made where one was removed is empty, and another one',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.put('d/in');
      c.fs.mkdirSync(c.at('d/sub'));
    },
    run(c) {
      c.fs.rmSync(c.at('d'), { recursive: true });
      c.fs.mkdirSync(c.at('d'));
      c.equal(c.list('d'), []);
      c.put('d/in', 'new');
      c.equal(c.list('d'), ['in']);
      c.fs.mkdirSync(c.at('d/sub'));
      c.equal(c.list('d/sub'), []);
    },
  },
  {
    name: 'a change of a listing moves mtime and ctime of the directory, a look does not',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.put('d/a');
    },
    run(c) {
      const { sys } = c;
      const past = () => c.did(sys.utimensat(sys.AT_FDCWD, c.at('d'), 1, 0, 1, 0));
      const changed = (what, work) => {
        past();
        work();
        c.ok(c.stat('d').mtimeSec > 1, what);
      };
      changed('create', () => c.put('d/b'));
      changed('unlink', () => c.fs.unlinkSync(c.at('d/a')));
      changed('mkdir', () => c.fs.mkdirSync(c.at('d/e')));
      changed('rename', () => c.fs.renameSync(c.at('d/b'), c.at('d/c')));
      changed('link', () => c.fs.linkSync(c.at('d/c'), c.at('d/l')));
      changed('symlink', () => c.fs.symlinkSync('x', c.at('d/s')));
      changed('rmdir', () => c.fs.rmdirSync(c.at('d/e')));
      past();
      c.list('d');
      c.fs.appendFileSync(c.at('d/c'), 'x');
      c.fs.chmodSync(c.at('d/c'), 0o600);
      c.equal(c.stat('d').mtimeSec, 1);
    },
  },
  {
    name: 'two who list at the same time do not disturb each other',
    before(c) {
      for (const name of many(60)) c.put(name);
    },
    run(c) {
      const a = openDir(c);
      const b = openDir(c);
      const ofA = [];
      const ofB = [];
      for (let i = 0; i < 200; i++) {
        ofA.push(...readSome(c, a, 256));
        if (i % 2 === 0) ofB.push(...readSome(c, b, 512));
      }
      c.close(a);
      c.close(b);
      c.equal(ofA.length, 62);
      c.equal(
        ofA.map(({ name }) => name),
        ofB.map(({ name }) => name),
      );
    },
  },
];
