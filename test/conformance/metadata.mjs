// Rules of metadata: extended attributes, times, inode numbers, statfs. See rules.mjs.

const xattrs = [
  {
    name: 'extended attributes hold any bytes, are listed, replaced and removed',
    before(c) {
      c.put('f');
      c.did(c.setxattr('f', 'user.first', 'as it was'));
      c.fs.mkdirSync(c.at('d'));
      c.did(c.setxattr('d', 'trusted.dir', 'kept'));
    },
    run(c) {
      const { sys } = c;
      c.did(c.setxattr('f', 'user.empty', ''));
      c.did(c.setxattr('f', 'trusted.bytes', Buffer.from([0, 255, 10])));
      c.equal(c.listxattr('f'), ['trusted.bytes', 'user.empty', 'user.first']);
      c.equal(c.getxattr('f', 'user.first'), 'as it was');
      c.equal(c.getxattr('f', 'user.empty'), '');
      c.equal(c.getxattr('f', 'trusted.bytes'), '\x00\xff\x0a');
      c.fails('EEXIST', () => c.setxattr('f', 'user.first', 'x', sys.XATTR_CREATE));
      c.fails('ENODATA', () => c.setxattr('f', 'user.none', 'x', sys.XATTR_REPLACE));
      c.did(c.setxattr('f', 'user.first', 'other', sys.XATTR_REPLACE));
      c.equal(c.getxattr('f', 'user.first'), 'other');
      c.did(sys.removexattr(sys.AT_FDCWD, c.at('f'), 'user.first'));
      c.fails('ENODATA', () => c.getxattr('f', 'user.first'));
      c.fails('ENODATA', () => sys.removexattr(sys.AT_FDCWD, c.at('f'), 'user.first'));
      c.did(c.setxattr('d', 'user.new', '1'));
      c.equal(c.listxattr('d'), ['trusted.dir', 'user.new']);
      c.equal(c.get('f'), 'f');
    },
  },
  {
    name: 'attributes have limits: 255 bytes of name, known namespaces, user.* on files and directories only',
    before(c) {
      c.put('f');
      c.fs.symlinkSync('f', c.at('s'));
    },
    run(c) {
      const longest = `user.${'x'.repeat(250)}`;
      c.did(c.setxattr('f', longest, 'v'));
      c.equal(c.listxattr('f'), [longest]);
      c.fails('ERANGE', () => c.setxattr('f', `${longest}x`, 'v'));
      c.fails('EOPNOTSUPP', () => c.setxattr('f', 'nowhere.x', 'v'));
      c.fails('EPERM', () => c.setxattr('s', 'user.x', 'v'));
      c.did(c.setxattr('s', 'trusted.x', 'on the link'));
      c.equal(c.getxattr('s', 'trusted.x'), 'on the link');
      c.fails('E2BIG', () => c.setxattr('f', 'user.big', Buffer.alloc(65537)));
      c.did(c.setxattr('f', 'user.some', Buffer.alloc(2000, 1)));
      c.equal(c.getxattr('f', 'user.some').length, 2000);
    },
  },
  {
    name: 'trusted.* is for root, and user.* needs the right to write',
    before(c) {
      c.put('f');
      c.fs.chmodSync(c.at('f'), 0o644);
      c.did(c.setxattr('f', 'trusted.secret', 'x'));
      c.did(c.setxattr('f', 'user.open', 'y'));
    },
    run(c) {
      c.as(1234, 1234, [], () => {
        c.equal(c.listxattr('f'), ['user.open']);
        c.fails('ENODATA', () => c.getxattr('f', 'trusted.secret'));
        c.equal(c.getxattr('f', 'user.open'), 'y');
        c.fails('EACCES', () => c.setxattr('f', 'user.open', 'z'));
        c.fails('EPERM', () => c.setxattr('f', 'trusted.new', 'z'));
      });
      c.equal(c.listxattr('f'), ['trusted.secret', 'user.open']);
    },
  },
];

/** Seconds: before 1970, after 2038, with nanoseconds. */
const moments = [
  [-1, 999_999_999],
  [-86_400 * 365 * 40, 1],
  [0, 0],
  [1_700_000_000, 123_456_789],
  [2 ** 31 + 5, 7],
  [4_400_000_000, 500_000_000],
];

const times = [
  {
    name: 'times have nanoseconds, from before 1970 until long after 2038',
    before(c) {
      c.put('f');
      c.fs.symlinkSync('f', c.at('s'));
      c.fs.mkdirSync(c.at('d'));
      const { sys } = c;
      for (const [i, [sec, nsec]] of moments.entries()) {
        c.put(`old${i}`);
        c.did(sys.utimensat(sys.AT_FDCWD, c.at(`old${i}`), sec, nsec, sec, nsec));
      }
    },
    run(c) {
      const { sys } = c;
      for (const [i, [sec, nsec]] of moments.entries()) {
        const { mtimeSec, mtimeNsec } = c.stat(`old${i}`);
        c.equal([mtimeSec, mtimeNsec], [sec, nsec]);
        c.fs.chmodSync(c.at(`old${i}`), 0o600);
        c.equal([c.stat(`old${i}`).mtimeSec, c.stat(`old${i}`).mtimeNsec], [sec, nsec]);
        for (const name of ['f', 's', 'd']) {
          c.did(sys.utimensat(sys.AT_FDCWD, c.at(name), sec, nsec, sec + 1, nsec));
          const is = c.stat(name);
          c.equal([is.mtimeSec, is.mtimeNsec, is.atimeNsec], [sec + 1, nsec, nsec], name);
        }
      }
    },
  },
  {
    name: 'UTIME_OMIT leaves a time, UTIME_NOW sets it to now, and ctime moves',
    before(c) {
      c.put('f');
      c.did(c.sys.utimensat(c.sys.AT_FDCWD, c.at('f'), 11, 12, 13, 14));
    },
    run(c) {
      const { sys } = c;
      const set = (...args) => c.did(sys.utimensat(sys.AT_FDCWD, c.at('f'), ...args));
      set(0, sys.UTIME_OMIT, 21, 22);
      let is = c.stat('f');
      c.equal([is.atimeSec, is.atimeNsec, is.mtimeSec, is.mtimeNsec], [11, 12, 21, 22]);
      set(31, 32, 0, sys.UTIME_OMIT);
      is = c.stat('f');
      c.equal([is.atimeSec, is.atimeNsec, is.mtimeSec, is.mtimeNsec], [31, 32, 21, 22]);
      set(0, sys.UTIME_NOW, 0, sys.UTIME_OMIT);
      is = c.stat('f');
      c.ok(Math.abs(is.atimeSec - Date.now() / 1000) < 60);
      c.equal(is.mtimeSec, 21);
      c.ok(Math.abs(is.ctimeSec - Date.now() / 1000) < 60);
      set(0, sys.UTIME_NOW, 0, sys.UTIME_NOW);
      c.ok(Math.abs(c.stat('f').mtimeSec - Date.now() / 1000) < 60);
      const before = c.stat('f').mtimeNsec;
      set(0, sys.UTIME_OMIT, 0, sys.UTIME_OMIT);
      c.equal(c.stat('f').mtimeNsec, before);
    },
  },
  {
    name: 'times are set by the owner; to now by who may write',
    before(c) {
      c.put('f');
      c.fs.chmodSync(c.at('f'), 0o666);
    },
    run(c) {
      const { sys } = c;
      c.as(1234, 1234, [], () => {
        c.fails('EPERM', () => sys.utimensat(sys.AT_FDCWD, c.at('f'), 1, 0, 1, 0));
        c.did(sys.utimensat(sys.AT_FDCWD, c.at('f'), 0, sys.UTIME_NOW, 0, sys.UTIME_NOW));
      });
      c.fs.chmodSync(c.at('f'), 0o644);
      c.as(1234, 1234, [], () =>
        c.fails('EACCES', () => sys.utimensat(sys.AT_FDCWD, c.at('f'), 0, sys.UTIME_NOW, 0, sys.UTIME_NOW)),
      );
    },
  },
  {
    name: 'a write moves mtime and ctime, a change of attributes ctime alone, a read neither',
    before(c) {
      c.put('f', 'content');
      c.did(c.sys.utimensat(c.sys.AT_FDCWD, c.at('f'), 5, 0, 5, 0));
    },
    run(c) {
      const { sys } = c;
      c.get('f');
      c.equal(c.stat('f').mtimeSec, 5);
      c.fs.chmodSync(c.at('f'), 0o600);
      c.equal(c.stat('f').mtimeSec, 5);
      c.did(c.rename('f', 'g'));
      c.fs.linkSync(c.at('g'), c.at('l'));
      c.equal(c.stat('g').mtimeSec, 5);
      const fd = c.open('g', sys.O_WRONLY);
      c.equal(c.stat('g').mtimeSec, 5);
      c.equal(sys.pwrite(fd, Buffer.from('x'), 0, 1, 0), 1);
      c.close(fd);
      c.ok(c.stat('g').mtimeSec > 5);
      c.did(sys.utimensat(sys.AT_FDCWD, c.at('g'), 5, 0, 5, 0));
      c.fs.truncateSync(c.at('g'), 3);
      c.ok(c.stat('g').mtimeSec > 5);
      const { ctimeSec, ctimeNsec } = c.stat('g');
      c.did(c.setxattr('g', 'user.x', 'y'));
      const after = c.stat('g');
      c.ok(after.ctimeSec > ctimeSec || after.ctimeNsec >= ctimeNsec);
    },
  },
  {
    name: 'a birth time is told, of when the file was made, and nothing moves it',
    before(c) {
      c.put('f');
      c.fs.mkdirSync(c.at('d'));
    },
    run(c) {
      const { sys } = c;
      const born = (name) => {
        const { mask, btimeSec, btimeNsec } = c.stat(name);
        c.ok((mask & sys.STATX_BTIME) !== 0, `no birth time of ${name}`);
        return btimeSec + btimeNsec / 1e9;
      };
      const start = Date.now() / 1000;
      for (const name of ['f', 'd']) c.ok(born(name) <= start + 1, name);
      c.put('new', 'content');
      c.fs.mkdirSync(c.at('newer'));
      for (const name of ['new', 'newer']) c.ok(Math.abs(born(name) - start) < 60, name);
      // What is brought up is born anew.
      c.fs.appendFileSync(c.at('f'), '+');
      for (const name of ['f', 'new']) {
        const before = born(name);
        c.fs.appendFileSync(c.at(name), '+');
        c.fs.utimesSync(c.at(name), 1, 2);
        c.fs.chmodSync(c.at(name), 0o600);
        c.did(c.rename(name, `${name}-moved`));
        c.equal(born(`${name}-moved`), before);
      }
    },
  },
];

const numbers = [
  {
    name: 'an inode number stays when file, directory or link is changed, renamed and looked at anew',
    before(c) {
      c.put('f');
      c.fs.mkdirSync(c.at('d'));
      c.put('d/in');
      c.fs.symlinkSync('f', c.at('s'));
    },
    run(c) {
      const shown = () => ['f', 'd', 'd/in', 's'].map((name) => c.stat(name).ino);
      const before = shown();
      c.equal(new Set(before).size, 4);
      c.fs.appendFileSync(c.at('f'), 'x');
      c.fs.chmodSync(c.at('d'), 0o700);
      c.put('d/new');
      c.fs.truncateSync(c.at('d/in'), 0);
      c.did(c.sys.fchownat(c.sys.AT_FDCWD, c.at('s'), 3, 3));
      c.equal(shown(), before);
      for (const name of ['f', 's', 'd']) {
        c.did(c.rename(name, `${name}-elsewhere`));
        c.did(c.rename(`${name}-elsewhere`, name));
      }
      c.equal(shown(), before);
    },
  },
  {
    name: 'size and blocks tell what a file holds',
    before(c) {
      c.put('f', 'x'.repeat(10_000));
    },
    run(c) {
      c.equal(c.stat('f').size, 10_000);
      c.ok(c.stat('f').blocks >= 20);
      c.fs.appendFileSync(c.at('f'), 'y');
      c.equal(c.stat('f').size, 10_001);
      c.fs.truncateSync(c.at('f'), 0);
      // A block for extended attributes, at most.
      c.equal(c.stat('f').size, 0);
      c.ok(c.stat('f').blocks <= 8);
    },
  },
  {
    name: 'statfs tells space, and 255 as the longest name',
    run(c) {
      const { bsize, blocks, bfree, bavail, files, ffree } = c.fs.statfsSync(c.dir);
      c.ok(bsize >= 512);
      c.ok(blocks >= bfree && bfree >= bavail && bavail > 0);
      c.ok(files >= ffree);
      const out = c.sys.newStatfs();
      c.did(c.sys.statfs(c.dir, out));
      c.equal(out.namelen, 255);
    },
  },
];

export const metadataRules = [...xattrs, ...times, ...numbers];
