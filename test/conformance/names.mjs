// Rules of names: what may be one, links, renames, symlinks. See rules.mjs.

/** Every byte that a name may have, in names of at most 255. */
function byteNames() {
  const bytes = Array.from({ length: 255 }, (_, i) => i + 1).filter((byte) => byte !== 0x2f);
  return [
    Buffer.from(bytes),
    Buffer.alloc(255, 0x78),
    Buffer.alloc(255, 0xff),
    Buffer.from([0x80]),
    Buffer.from('..x'),
    Buffer.from(' '),
    Buffer.from('\n'),
  ];
}

const inDir = (c, name) => Buffer.concat([Buffer.from(`${c.dir}/`), name]);

const names = [
  {
    name: 'a name is up to 255 bytes, any but NUL and slash',
    before(c) {
      for (const name of byteNames()) c.fs.writeFileSync(inDir(c, name), name);
    },
    run(c) {
      const shown = () => c.fs.readdirSync(c.dir, { encoding: 'buffer' }).map((one) => one.toString('hex'));
      const wanted = byteNames().map((one) => one.toString('hex'));
      c.equal(shown().sort(), wanted.sort());
      for (const name of byteNames()) {
        c.equal(c.fs.readFileSync(inDir(c, name)), name);
        c.fs.appendFileSync(inDir(c, name), '+');
        c.fs.renameSync(inDir(c, name), c.at('moved'));
        c.fs.renameSync(c.at('moved'), inDir(c, name));
        c.equal(c.fs.readFileSync(inDir(c, name)), Buffer.concat([name, Buffer.from('+')]));
      }
      c.equal(shown().sort(), wanted.sort());
      for (const name of byteNames()) c.fs.unlinkSync(inDir(c, name));
      c.equal(c.list(), []);
    },
  },
  {
    name: 'a name of 256 bytes is ENAMETOOLONG for every call',
    run(c) {
      const long = c.at('x'.repeat(256));
      c.put('f');
      c.fails('ENAMETOOLONG', () => c.fs.lstatSync(long));
      c.fails('ENAMETOOLONG', () => c.fs.writeFileSync(long, ''));
      c.fails('ENAMETOOLONG', () => c.fs.mkdirSync(long));
      c.fails('ENAMETOOLONG', () => c.fs.symlinkSync('f', long));
      c.fails('ENAMETOOLONG', () => c.fs.linkSync(c.at('f'), long));
      c.fails('ENAMETOOLONG', () => c.fs.renameSync(c.at('f'), long));
      c.fails('ENAMETOOLONG', () => c.fs.unlinkSync(long));
      c.fails('ENAMETOOLONG', () => c.fs.rmdirSync(long));
    },
  },
  {
    name: 'a tree may be deeper than one path may be long',
    run(c) {
      const { sys } = c;
      const part = 'd'.repeat(200);
      const fds = [c.open('', sys.O_RDONLY | sys.O_DIRECTORY)];
      for (let i = 0; i < 25; i++) {
        c.did(sys.mkdirat(fds[i], part, 0o755));
        fds.push(c.did(sys.openat(fds[i], part, sys.O_RDONLY | sys.O_DIRECTORY)));
      }
      const deepest = fds.at(-1);
      const fd = c.did(sys.openat(deepest, 'f', sys.O_RDWR | sys.O_CREAT, 0o644));
      c.equal(sys.pwrite(fd, Buffer.from('deep'), 0, 4, 0), 4);
      c.close(fd);
      c.did(sys.renameat2(deepest, 'f', deepest, 'g', 0));
      c.equal(sys.statx(deepest, 'g', 0, sys.newStat()), 0);
      c.did(sys.unlinkat(deepest, 'g', 0));
      for (const one of fds.slice(1)) c.close(one);
      for (let i = 24; i >= 0; i--) {
        let at = sys.dup(fds[0]);
        for (let j = 0; j < i; j++) {
          const next = c.did(sys.openat(at, part, sys.O_RDONLY | sys.O_DIRECTORY));
          sys.close(at);
          at = next;
        }
        c.did(sys.unlinkat(at, part, sys.AT_REMOVEDIR));
        sys.close(at);
      }
      c.close(fds[0]);
    },
  },
  {
    name: 'a path is up to 4095 bytes long, whatever it leads through',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.put('f');
    },
    run(c) {
      const { sys } = c;
      const path = (length) => {
        const rest = length - c.dir.length - '/f'.length;
        return `${c.dir}${rest % 2 === 0 ? '' : '/'}${'/.'.repeat(rest / 2)}/f`;
      };
      c.equal(path(4095).length, 4095);
      c.did(sys.statx(sys.AT_FDCWD, path(4095), 0, sys.newStat()));
      c.equal(c.fs.readFileSync(path(4095), 'latin1'), 'f');
      c.fs.renameSync(path(4095), c.at('d/f'));
      c.fails('ENAMETOOLONG', () => c.fs.lstatSync(path(4096)));
      c.fails('ENAMETOOLONG', () => c.fs.writeFileSync(path(4096), ''));
    },
  },
  {
    name: 'names that are taken are EEXIST, missing ones ENOENT, wrong types ENOTDIR, EISDIR',
    before(c) {
      c.put('f');
      c.fs.mkdirSync(c.at('d'));
      c.put('d/in');
    },
    run(c) {
      for (const taken of ['f', 'd']) {
        c.fails('EEXIST', () => c.fs.mkdirSync(c.at(taken)));
        c.fails('EEXIST', () => c.fs.symlinkSync('x', c.at(taken)));
        c.fails('EEXIST', () => c.fs.linkSync(c.at('f'), c.at(taken)));
        c.fails('EEXIST', () => c.fs.openSync(c.at(taken), 'wx'));
        c.fails('EEXIST', () => c.sys.mknodat(c.sys.AT_FDCWD, c.at(taken), 0o010644, 0, 0));
      }
      c.fails('ENOENT', () => c.fs.unlinkSync(c.at('none')));
      c.fails('ENOENT', () => c.fs.rmdirSync(c.at('none')));
      c.fails('ENOENT', () => c.fs.writeFileSync(c.at('none/f'), ''));
      c.fails('ENOENT', () => c.fs.renameSync(c.at('none'), c.at('g')));
      c.fails('ENOTDIR', () => c.fs.writeFileSync(c.at('f/g'), ''));
      c.fails('ENOTDIR', () => c.fs.rmdirSync(c.at('f')));
      c.fails('ENOTDIR', () => c.fs.readdirSync(c.at('f')));
      c.fails('EISDIR', () => c.fs.unlinkSync(c.at('d')));
      c.fails('EISDIR', () => c.fs.openSync(c.at('d'), 'r+'));
      c.fails('ENOTEMPTY', () => c.fs.rmdirSync(c.at('d')));
      c.fails('EINVAL', () => c.sys.unlinkat(c.sys.AT_FDCWD, c.at('d/.'), c.sys.AT_REMOVEDIR));
      c.equal(c.list(), ['d', 'f']);
    },
  },
  {
    name: 'a name can be removed and made again, as another type, over and over',
    before(c) {
      c.put('x', 'of old');
    },
    run(c) {
      c.fs.unlinkSync(c.at('x'));
      c.ok(!c.exists('x'));
      c.fs.mkdirSync(c.at('x'));
      c.put('x/in');
      c.equal(c.list('x'), ['in']);
      c.fs.unlinkSync(c.at('x/in'));
      c.fs.rmdirSync(c.at('x'));
      c.fs.symlinkSync('elsewhere', c.at('x'));
      c.equal(c.fs.readlinkSync(c.at('x')), 'elsewhere');
      c.fs.unlinkSync(c.at('x'));
      c.put('x', 'new');
      c.equal(c.get('x'), 'new');
      c.equal(c.stat('x').nlink, 1);
      c.equal(c.list(), ['x']);
    },
  },
];

const links = [
  {
    name: 'hard links are one file: content, attributes, nlink, inode number',
    before(c) {
      c.put('a', 'one');
      c.fs.linkSync(c.at('a'), c.at('b'));
    },
    run(c) {
      c.fs.linkSync(c.at('b'), c.at('c'));
      for (const name of ['a', 'b', 'c']) c.equal(c.stat(name).nlink, 3, `nlink of ${name}`);
      c.equal(c.stat('a').ino, c.stat('b').ino);
      c.equal(c.stat('a').ino, c.stat('c').ino);
      c.fs.appendFileSync(c.at('b'), ' two');
      c.equal(c.get('a'), 'one two');
      c.equal(c.get('c'), 'one two');
      c.fs.chmodSync(c.at('c'), 0o600);
      c.equal(c.mode('a'), '600');
      c.fs.unlinkSync(c.at('a'));
      c.equal(c.stat('b').nlink, 2);
      c.equal(c.get('b'), 'one two');
      c.fs.renameSync(c.at('b'), c.at('d'));
      c.equal(c.stat('c').nlink, 2);
      c.equal(c.stat('c').ino, c.stat('d').ino);
    },
  },
  {
    name: 'a rename of one link onto another of the same file does nothing',
    before(c) {
      c.put('a');
      c.fs.linkSync(c.at('a'), c.at('b'));
    },
    run(c) {
      c.equal(c.rename('a', 'b'), 0);
      c.equal(c.list(), ['a', 'b']);
      c.equal(c.stat('a').nlink, 2);
    },
  },
  {
    name: 'a directory cannot be linked, a symlink can, as itself',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.fs.symlinkSync('d', c.at('s'));
    },
    run(c) {
      const { sys } = c;
      c.fails('EPERM', () => c.fs.linkSync(c.at('d'), c.at('e')));
      c.did(sys.linkat(sys.AT_FDCWD, c.at('s'), sys.AT_FDCWD, c.at('t'), 0));
      c.equal(c.fs.readlinkSync(c.at('t')), 'd');
      c.equal(c.stat('s').nlink, 2);
      c.equal(c.stat('s').ino, c.stat('t').ino);
    },
  },
  {
    name: 'a symlink holds up to 4095 bytes, and its size says so',
    before(c) {
      c.sys.symlinkat('x'.repeat(4095), c.sys.AT_FDCWD, c.at('long'));
      c.sys.symlinkat('\x01\xff\x80 ', c.sys.AT_FDCWD, c.at('odd'));
    },
    run(c) {
      const { sys } = c;
      c.equal(sys.readlinkat(sys.AT_FDCWD, c.at('long')), 'x'.repeat(4095));
      c.equal(sys.readlinkat(sys.AT_FDCWD, c.at('odd')), '\x01\xff\x80 ');
      c.equal(c.stat('long').size, 4095);
      c.equal(c.stat('odd').size, 4);
      c.fails('ENAMETOOLONG', () => c.fs.symlinkSync('x'.repeat(4096), c.at('longer')));
      c.fails('ENOENT', () => c.fs.symlinkSync('', c.at('empty')));
      c.did(sys.fchownat(sys.AT_FDCWD, c.at('odd'), 1001, 1002));
      c.equal(sys.readlinkat(sys.AT_FDCWD, c.at('odd')), '\x01\xff\x80 ');
      c.equal([c.stat('odd').uid, c.stat('odd').gid], [1001, 1002]);
    },
  },
  {
    name: 'symlinks in a circle are ELOOP, one to nothing ENOENT, and O_NOFOLLOW refuses one',
    before(c) {
      c.fs.symlinkSync('b', c.at('a'));
      c.fs.symlinkSync('a', c.at('b'));
      c.fs.symlinkSync('none', c.at('dangling'));
      c.put('f');
      c.fs.symlinkSync('f', c.at('good'));
    },
    run(c) {
      const { sys } = c;
      c.fails('ELOOP', () => c.fs.readFileSync(c.at('a')));
      c.fails('ENOENT', () => c.fs.readFileSync(c.at('dangling')));
      c.fails('ELOOP', () => sys.openat(sys.AT_FDCWD, c.at('good'), sys.O_RDONLY | sys.O_NOFOLLOW));
      c.fails('EEXIST', () => c.fs.openSync(c.at('dangling'), 'wx'));
      c.fs.writeFileSync(c.at('dangling'), 'made');
      c.equal(c.get('none'), 'made');
      c.fs.appendFileSync(c.at('good'), '!');
      c.equal(c.get('f'), 'f!');
    },
  },
  {
    name: 'forty symlinks are followed one after another, and not one more',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.put('d/f', 'found');
      for (let i = 40; i >= 0; i--) c.fs.symlinkSync(i === 40 ? 'd' : `s${i + 1}`, c.at(`s${i}`));
    },
    run(c) {
      c.equal(c.get('s1/f'), 'found');
      c.fails('ELOOP', () => c.get('s0/f'));
      c.fs.unlinkSync(c.at('s20'));
      c.fails('ENOENT', () => c.get('s1/f'));
      c.fs.symlinkSync('s21', c.at('s20'));
      c.fs.appendFileSync(c.at('s1/f'), '!');
      c.equal(c.get('d/f'), 'found!');
    },
  },
];

const renames = [
  {
    name: 'rename replaces a file, and who has the old one open keeps it',
    before(c) {
      c.put('a');
      c.put('b', 'old');
    },
    run(c) {
      const { sys } = c;
      const fd = c.open('b', sys.O_RDONLY);
      const { ino } = c.stat('a');
      c.did(c.rename('a', 'b'));
      c.equal(c.list(), ['b']);
      c.equal(c.get('b'), 'a');
      c.equal(c.stat('b').ino, ino);
      const bytes = Buffer.alloc(3);
      c.equal(sys.pread(fd, bytes, 0, 3, 0), 3);
      c.equal(bytes.toString(), 'old');
      c.equal(c.fstat(fd).nlink, 0);
      c.close(fd);
    },
  },
  {
    name: 'rename refuses what cannot be replaced',
    before(c) {
      c.put('f');
      c.fs.mkdirSync(c.at('d'));
      c.fs.mkdirSync(c.at('full'));
      c.put('full/in');
    },
    run(c) {
      const { sys } = c;
      c.fails('EISDIR', () => c.rename('f', 'd'));
      c.fs.mkdirSync(c.at('new'));
      c.fails('ENOTDIR', () => c.rename('new', 'f'));
      c.fails('ENOTEMPTY', () => c.rename('new', 'full'));
      c.fails('EINVAL', () => c.rename('new', 'new/sub'));
      c.fails('EEXIST', () => c.rename('f', 'd', sys.RENAME_NOREPLACE));
      c.fails('EINVAL', () => c.rename('f', 'd', sys.RENAME_NOREPLACE | sys.RENAME_EXCHANGE));
      c.fails('ENOENT', () => c.rename('f', 'none', sys.RENAME_EXCHANGE));
      c.equal(c.list(), ['d', 'f', 'full', 'new']);
    },
  },
  {
    name: 'a directory can be renamed with all that it holds, also over an empty one',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.fs.mkdirSync(c.at('d/sub'));
      c.put('d/sub/in', 'kept');
      c.fs.mkdirSync(c.at('empty'));
    },
    run(c) {
      c.did(c.rename('d', 'e'));
      c.equal(c.list(), ['e', 'empty']);
      c.equal(c.get('e/sub/in'), 'kept');
      c.fs.appendFileSync(c.at('e/sub/in'), '!');
      c.did(c.rename('e', 'empty'));
      c.equal(c.list(), ['empty']);
      c.equal(c.get('empty/sub/in'), 'kept!');
      c.fs.mkdirSync(c.at('d'));
      c.equal(c.list('d'), []);
      c.did(c.rename('empty/sub', 'd/sub'));
      c.equal(c.get('d/sub/in'), 'kept!');
      c.equal(c.list('empty'), []);
    },
  },
  {
    name: 'RENAME_EXCHANGE changes two of any type in one step',
    before(c) {
      c.put('f', 'file');
      c.put('g', 'other');
      c.fs.symlinkSync('to', c.at('s'));
    },
    run(c) {
      const { sys } = c;
      c.did(c.rename('f', 'g', sys.RENAME_EXCHANGE));
      c.equal([c.get('f'), c.get('g')], ['other', 'file']);
      c.did(c.rename('g', 's', sys.RENAME_EXCHANGE));
      c.equal(c.fs.readlinkSync(c.at('g')), 'to');
      c.equal(c.get('s'), 'file');
      c.fs.mkdirSync(c.at('d'));
      c.put('d/in');
      c.did(c.rename('d', 'f', sys.RENAME_EXCHANGE));
      c.equal(c.list('f'), ['in']);
      c.equal(c.get('d'), 'other');
      c.equal(c.list(), ['d', 'f', 'g', 's']);
    },
  },
  {
    name: 'RENAME_NOREPLACE moves to a free name, also one that was removed before',
    before(c) {
      c.put('a');
      c.put('gone');
    },
    run(c) {
      c.fs.unlinkSync(c.at('gone'));
      c.did(c.rename('a', 'gone', c.sys.RENAME_NOREPLACE));
      c.equal(c.list(), ['gone']);
      c.equal(c.get('gone'), 'a');
    },
  },
  {
    name: 'a file goes from directory to directory and keeps its inode number',
    before(c) {
      for (const dir of ['p', 'q']) c.fs.mkdirSync(c.at(dir));
      c.put('p/f', 'moved');
    },
    run(c) {
      const { ino } = c.stat('p/f');
      c.did(c.rename('p/f', 'q/g'));
      c.equal([c.list('p'), c.list('q')], [[], ['g']]);
      c.equal(c.stat('q/g').ino, ino);
      c.equal(c.get('q/g'), 'moved');
      c.did(c.rename('q/g', 'p/f'));
      c.equal([c.list('p'), c.list('q')], [['f'], []]);
      c.equal(c.stat('p/f').ino, ino);
    },
  },
];

const types = [
  {
    name: 'device nodes, FIFOs and sockets keep type, mode and number',
    before(c) {
      const { sys } = c;
      c.did(sys.mknodat(sys.AT_FDCWD, c.at('char'), 0o020640, 1, 3));
      c.did(sys.mknodat(sys.AT_FDCWD, c.at('block'), 0o060600, 259, 70000));
      c.did(sys.mknodat(sys.AT_FDCWD, c.at('fifo'), 0o010644, 0, 0));
      c.did(sys.mknodat(sys.AT_FDCWD, c.at('sock'), 0o140644, 0, 0));
    },
    run(c) {
      const { sys } = c;
      const shown = () =>
        ['char', 'block', 'fifo', 'sock'].map((name) => {
          const { mode, rdevMajor, rdevMinor } = c.stat(name);
          return [mode.toString(8), rdevMajor, rdevMinor];
        });
      const made = [
        ['20640', 1, 3],
        ['60600', 259, 70000],
        ['10644', 0, 0],
        ['140644', 0, 0],
      ];
      c.equal(shown(), made);
      for (const name of c.list()) {
        c.did(sys.fchownat(sys.AT_FDCWD, c.at(name), 7, 8));
        c.did(c.rename(name, `${name}2`));
        c.did(c.rename(`${name}2`, name));
      }
      c.equal(shown(), made);
      c.equal(c.stat('block').uid, 7);
      c.fs.writeFileSync(c.at('char'), 'into nothing');
      c.equal(c.fs.readFileSync(c.at('char')).length, 0);
    },
  },
  {
    name: 'a FIFO connects who opens its two ends',
    before(c) {
      c.did(c.sys.mknodat(c.sys.AT_FDCWD, c.at('fifo'), 0o010666, 0, 0));
    },
    run(c) {
      const { sys } = c;
      c.fails('ENXIO', () => sys.openat(sys.AT_FDCWD, c.at('fifo'), sys.O_WRONLY | sys.O_NONBLOCK));
      const reader = c.open('fifo', sys.O_RDONLY | sys.O_NONBLOCK);
      const writer = c.open('fifo', sys.O_WRONLY | sys.O_NONBLOCK);
      c.equal(sys.write(writer, Buffer.from('through'), 0, 7), 7);
      const bytes = Buffer.alloc(7);
      c.equal(sys.read(reader, bytes, 0, 7), 7);
      c.equal(bytes.toString(), 'through');
      c.close(writer);
      c.close(reader);
    },
  },
  {
    name: 'a socket is bound to a name and found by it',
    async run(c) {
      const net = await import('node:net');
      const server = net.createServer((socket) => socket.end('hello'));
      await new Promise((resolve) => server.listen(c.at('s'), resolve));
      c.equal(c.stat('s').mode & 0o170000, 0o140000);
      const text = await new Promise((resolve, reject) => {
        const client = net.connect(c.at('s'));
        client.on('data', (data) => resolve(data.toString()));
        client.on('error', reject);
      });
      c.equal(text, 'hello');
      await new Promise((resolve) => server.close(resolve));
    },
  },
];

export const nameRules = [...names, ...links, ...renames, ...types];
