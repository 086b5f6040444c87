// Rules of content: flags of open, truncate, holes, copying, maps, files without a name. See
// rules.mjs.

import { spawn } from 'node:child_process';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 32;
const MS_ASYNC = 1;
const MS_SYNC = 4;
const MIB = 1024 * 1024;
const PAGE = 4096;
const F_GETFL = 3;

function write(c, fd, text, at) {
  c.equal(c.sys.pwrite(fd, Buffer.from(text), 0, text.length, at), text.length);
}

function readAt(c, fd, length, at) {
  const bytes = Buffer.alloc(length);
  const got = c.did(c.sys.pread(fd, bytes, 0, length, at));
  return bytes.toString('latin1', 0, got);
}

const flags = [
  {
    name: 'O_APPEND writes at the end, whoever has written before',
    before(c) {
      c.put('f', 'old');
    },
    run(c) {
      const { sys } = c;
      const a = c.open('f', sys.O_WRONLY | sys.O_APPEND);
      const b = c.open('f', sys.O_RDWR | sys.O_APPEND);
      for (const [fd, text] of [
        [a, '1'],
        [b, '22'],
        [a, '333'],
      ]) {
        c.equal(sys.write(fd, Buffer.from(text), 0, text.length), text.length);
      }
      c.equal(readAt(c, b, 20, 0), 'old122333');
      c.close(a);
      c.close(b);
    },
  },
  {
    name: 'of what several processes append at the same time nothing is lost or torn',
    before(c) {
      c.put('f', 'first line\n');
    },
    async run(c) {
      const lines = 150;
      const writers = ['one', 'two', 'three', 'four'];
      const script = 'for ((i = 0; i < $3; i++)); do echo "$2 $i of what a process appends"; done >> "$1"';
      const ends = writers.map((name) => {
        const child = spawn('bash', ['-c', script, 'bash', c.at('f'), name, `${lines}`]);
        return new Promise((resolve) => child.on('exit', resolve));
      });
      c.equal(await Promise.all(ends), [0, 0, 0, 0]);
      const written = c.get('f').split('\n');
      c.equal([written.shift(), written.pop()], ['first line', '']);
      for (const name of writers) {
        const own = written.filter((line) => line.startsWith(`${name} `));
        c.equal(
          own,
          Array.from({ length: lines }, (_, i) => `${name} ${i} of what a process appends`),
        );
      }
      c.equal(written.length, writers.length * lines);
    },
  },
  {
    name: 'what is written with O_DIRECT, and what is not, both kinds of descriptor read',
    before(c) {
      c.put('small', 's'.repeat(2 * PAGE));
      c.put('large', 'l'.repeat(50 * PAGE));
    },
    run(c) {
      const { sys } = c;
      const memory = sys.mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      const page = sys.viewAt(memory, PAGE);
      for (const name of ['small', 'large', 'new']) {
        const plain = c.open(name, sys.O_RDWR | sys.O_CREAT);
        const before = readAt(c, plain, 4, 0);
        const direct = c.open(name, sys.O_RDWR | sys.O_DIRECT);
        page.fill('D');
        c.equal(sys.pwrite(direct, page, 0, PAGE, PAGE), PAGE);
        c.equal(readAt(c, plain, 4, PAGE - 2), `${before.slice(0, 2) || '\0\0'}DD`);
        write(c, plain, 'plain', PAGE + 1);
        c.equal(sys.pread(direct, page, 0, PAGE, PAGE), PAGE);
        c.equal(page.toString('latin1', 0, 7), 'DplainD');
        // At the end there is less than a page to be had, and then nothing.
        c.did(sys.ftruncate(direct, 3 * PAGE + 100));
        c.equal(sys.pread(direct, page, 0, PAGE, 3 * PAGE), 100);
        c.equal(sys.pread(direct, page, 0, PAGE, 4 * PAGE), 0);
        page.fill('E');
        c.equal(sys.pwrite(direct, page, 0, PAGE, 4 * PAGE), PAGE);
        c.equal(c.fstat(plain).size, 5 * PAGE);
        c.equal(readAt(c, plain, 4, 4 * PAGE - 2), '\0\0EE');
        c.close(direct);
        c.close(plain);
        c.equal(c.get(name).slice(PAGE, PAGE + 7), 'DplainD');
      }
      sys.munmap(memory, PAGE);
    },
  },
  {
    name: 'O_SYNC and O_DSYNC write as other descriptors do, and stay what they are',
    before(c) {
      c.put('f', 'old');
      c.put('large', 'l'.repeat(50 * PAGE));
    },
    run(c) {
      const { sys } = c;
      for (const name of ['f', 'large', 'new']) {
        for (const flag of [sys.O_DSYNC, sys.O_SYNC]) {
          const fd = c.open(name, sys.O_RDWR | sys.O_CREAT | flag);
          c.equal(sys.fcntl(fd, F_GETFL, 0) & sys.O_SYNC, flag);
          write(c, fd, `synced ${flag}`, 2);
          c.equal(readAt(c, fd, 6, 2), 'synced');
          c.close(fd);
        }
        c.equal(c.get(name).slice(2, 8), 'synced');
      }
    },
  },
  {
    name: 'O_TRUNC empties, O_EXCL makes or fails, O_CREAT alone takes what is there',
    before(c) {
      c.put('f', 'old content');
      c.put('kept', 'kept');
    },
    run(c) {
      const { sys } = c;
      c.close(c.open('f', sys.O_WRONLY | sys.O_TRUNC));
      c.equal(c.stat('f').size, 0);
      c.close(c.open('kept', sys.O_WRONLY | sys.O_CREAT));
      c.equal(c.get('kept'), 'kept');
      c.fails('EEXIST', () =>
        sys.openat(sys.AT_FDCWD, c.at('kept'), sys.O_WRONLY | sys.O_CREAT | sys.O_EXCL, 0o600),
      );
      c.close(c.open('new', sys.O_RDONLY | sys.O_CREAT | sys.O_EXCL, 0o400));
      c.equal(c.mode('new'), '400');
    },
  },
  {
    name: 'the file that made it may be written by whoever opened it, whatever its mode',
    run(c) {
      const { sys } = c;
      c.fs.chmodSync(c.dir, 0o777);
      c.as(1234, 1234, [], () => {
        const fd = c.open('f', sys.O_RDWR | sys.O_CREAT | sys.O_EXCL, 0o000);
        write(c, fd, 'written', 0);
        c.equal(readAt(c, fd, 7, 0), 'written');
        c.close(fd);
        c.fails('EACCES', () => c.get('f'));
      });
    },
  },
  {
    name: 'a descriptor reads or writes as it was opened',
    before(c) {
      c.put('f', 'content');
    },
    run(c) {
      const { sys } = c;
      const reader = c.open('f', sys.O_RDONLY);
      const writer = c.open('f', sys.O_WRONLY);
      c.fails('EBADF', () => sys.pwrite(reader, Buffer.from('x'), 0, 1, 0));
      c.fails('EBADF', () => sys.pread(writer, Buffer.alloc(1), 0, 1, 0));
      c.fails('EINVAL', () => sys.ftruncate(reader, 0));
      write(c, writer, 'C', 0);
      c.equal(readAt(c, reader, 7, 0), 'Content');
      c.close(reader);
      c.close(writer);
    },
  },
  {
    name: 'who reads sees what others write meanwhile',
    before(c) {
      c.put('f', 'first');
    },
    run(c) {
      const { sys } = c;
      const reader = c.open('f', sys.O_RDONLY);
      c.equal(readAt(c, reader, 5, 0), 'first');
      c.fs.writeFileSync(c.at('f'), 'second');
      c.equal(readAt(c, reader, 9, 0), 'second');
      c.fs.truncateSync(c.at('f'), 2);
      c.equal(readAt(c, reader, 9, 0), 'se');
      c.equal(c.fstat(reader).size, 2);
      c.close(reader);
    },
  },
  {
    name: 'big writes and reads at odd places are exact',
    run(c) {
      const { sys } = c;
      const bytes = Buffer.alloc(3 * MIB + 13);
      for (let i = 0; i < bytes.length; i += 4)
        bytes.writeUInt32LE((i * 2654435761) >>> 0, Math.min(i, bytes.length - 4));
      const fd = c.open('f', sys.O_RDWR | sys.O_CREAT);
      let at = 0;
      while (at < bytes.length) at += c.did(sys.pwrite(fd, bytes, at, bytes.length - at, 777 + at));
      c.equal(c.fstat(fd).size, bytes.length + 777);
      c.did(sys.fsync(fd));
      const back = Buffer.alloc(bytes.length);
      at = 0;
      while (at < back.length) at += c.did(sys.pread(fd, back, at, back.length - at, 777 + at));
      c.ok(back.equals(bytes));
      c.close(fd);
    },
  },
];

const sizes = [
  {
    name: 'truncate cuts, and fills with zeros',
    before(c) {
      c.put('f', '0123456789');
      c.put('g', '0123456789');
    },
    run(c) {
      const { sys } = c;
      c.fs.truncateSync(c.at('f'), 4);
      c.equal(c.get('f'), '0123');
      c.fs.truncateSync(c.at('f'), 8);
      c.equal(c.get('f'), '0123\0\0\0\0');
      const fd = c.open('g', sys.O_RDWR);
      c.did(sys.ftruncate(fd, 2));
      c.did(sys.ftruncate(fd, 5000));
      c.equal(c.fstat(fd).size, 5000);
      c.equal(readAt(c, fd, 4, 0), '01\0\0');
      c.close(fd);
      c.fails('EISDIR', () => c.fs.truncateSync(c.dir, 0));
      c.fails('ENOENT', () => c.fs.truncateSync(c.at('none'), 0));
    },
  },
  {
    name: 'files may be larger than 4 GiB, where nothing was written they are holes',
    before(c) {
      c.put('big', 'near');
    },
    run(c) {
      const { sys } = c;
      c.fs.truncateSync(c.at('big'), 5 * 1024 * MIB);
      const fd = c.open('big', sys.O_RDWR);
      c.equal(c.fstat(fd).size, 5 * 1024 * MIB);
      write(c, fd, 'far', 6 * 1024 * MIB);
      c.equal(c.fstat(fd).size, 6 * 1024 * MIB + 3);
      c.equal(readAt(c, fd, 3, 6 * 1024 * MIB), 'far');
      c.ok(c.fstat(fd).blocks < 1000);
      c.close(fd);
    },
  },
  {
    name: 'SEEK_DATA and SEEK_HOLE find data and holes, also of what was copied',
    before(c) {
      const fd = c.fs.openSync(c.at('f'), 'w');
      c.fs.writeSync(fd, Buffer.alloc(65536, 1), 0, 65536, MIB);
      c.fs.ftruncateSync(fd, 4 * MIB);
      c.fs.closeSync(fd);
    },
    run(c) {
      const { sys } = c;
      const look = (fd) => {
        c.equal(sys.lseek(fd, 0, sys.SEEK_DATA), MIB);
        c.equal(sys.lseek(fd, MIB, sys.SEEK_HOLE), MIB + 65536);
        c.equal(sys.lseek(fd, 0, sys.SEEK_HOLE), 0);
        c.fails('ENXIO', () => sys.lseek(fd, 2 * MIB, sys.SEEK_DATA));
        c.fails('ENXIO', () => sys.lseek(fd, 4 * MIB, sys.SEEK_HOLE));
      };
      const reader = c.open('f', sys.O_RDONLY);
      look(reader);
      c.close(reader);
      const writer = c.open('f', sys.O_RDWR);
      look(writer);
      c.ok(c.fstat(writer).blocks < 1000);
      c.close(writer);
    },
  },
  {
    name: 'fallocate reserves, keeps the size, punches holes and zeroes',
    before(c) {
      c.put('f', 'x'.repeat(65536));
    },
    run(c) {
      const { sys } = c;
      const fd = c.open('f', sys.O_RDWR);
      c.did(sys.fallocate(fd, 0, 0, 100_000));
      c.equal(c.fstat(fd).size, 100_000);
      c.did(sys.fallocate(fd, sys.FALLOC_FL_KEEP_SIZE, 0, 200_000));
      c.equal(c.fstat(fd).size, 100_000);
      c.did(sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE, 4096, 8192));
      c.equal(readAt(c, fd, 4, 4094), 'xx\0\0');
      c.equal(readAt(c, fd, 4, 12_286), '\0\0xx');
      c.equal(sys.lseek(fd, 0, sys.SEEK_HOLE), 4096);
      if (!c.onTmpfs) {
        c.did(sys.fallocate(fd, sys.FALLOC_FL_ZERO_RANGE, 20_000, 100));
        c.equal(readAt(c, fd, 102, 19_999), `x${'\0'.repeat(100)}x`);
      }
      c.fails('EINVAL', () => sys.fallocate(fd, 0, 0, 0));
      c.close(fd);
      const reader = c.open('f', sys.O_RDONLY);
      c.fails('EBADF', () => sys.fallocate(reader, 0, 0, 10));
      c.close(reader);
    },
  },
  {
    name: 'fallocate takes ranges out and puts ranges in, and unshares where there is sharing',
    before(c) {
      c.put(
        'f',
        'aabbcc'.replace(/./g, (letter) => letter.repeat(PAGE)),
      );
    },
    run(c) {
      const { sys } = c;
      if (c.onTmpfs) return;
      const fd = c.open('f', sys.O_RDWR);
      c.did(sys.fallocate(fd, sys.FALLOC_FL_COLLAPSE_RANGE, 2 * PAGE, 2 * PAGE));
      c.equal(c.fstat(fd).size, 4 * PAGE);
      c.equal(readAt(c, fd, 4, 2 * PAGE - 2), 'aacc');
      c.did(sys.fallocate(fd, sys.FALLOC_FL_INSERT_RANGE, 2 * PAGE, 2 * PAGE));
      c.equal(c.fstat(fd).size, 6 * PAGE);
      c.equal(readAt(c, fd, 4, 2 * PAGE - 2), 'aa\0\0');
      c.equal(readAt(c, fd, 4, 4 * PAGE - 2), '\0\0cc');
      const unshared = sys.fallocate(fd, sys.FALLOC_FL_UNSHARE_RANGE, 0, PAGE);
      c.ok(unshared === 0 || unshared === -c.sys.E.EOPNOTSUPP);
      c.equal(readAt(c, fd, 2, 0), 'aa');
      c.close(fd);
    },
  },
  {
    name: 'copy_file_range copies from file to file, and within one',
    before(c) {
      c.put('from', 'abcdefghij'.repeat(1000));
    },
    run(c) {
      const { sys } = c;
      const from = c.open('from', sys.O_RDONLY);
      const to = c.open('to', sys.O_RDWR | sys.O_CREAT);
      c.equal(sys.copyFileRange(from, 3, to, 5, 4000), 4000);
      c.equal(c.fstat(to).size, 4005);
      c.equal(readAt(c, to, 8, 0), '\0\0\0\0\0def');
      c.equal(sys.copyFileRange(from, 9995, to, 0, 4000), 5);
      c.equal(readAt(c, to, 8, 0), 'fghijdef');
      c.equal(sys.copyFileRange(from, 20_000, to, 0, 10), 0);
      c.equal(sys.copyFileRange(to, 0, to, 5000, 5), 5);
      c.equal(readAt(c, to, 5, 5000), 'fghij');
      c.fails('EBADF', () => sys.copyFileRange(from, 0, from, 5000, 5));
      c.close(from);
      c.close(to);
    },
  },
];

/** Runs `work` on a map of a file, as a Buffer over its memory. */
function mapped(c, fd, length, protection, kind, work) {
  const address = c.sys.mmap(0, length, protection, kind, fd, 0);
  c.ok(address > 0, `mmap failed: ${address}`);
  try {
    work(address);
  } finally {
    c.sys.munmap(address, length);
  }
}

const maps = [
  {
    name: 'a shared map is the file: stores reach it, writes are seen in it',
    before(c) {
      c.put('f', 'm'.repeat(8192));
    },
    run(c) {
      const { sys } = c;
      const fd = c.open('f', sys.O_RDWR);
      mapped(c, fd, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, (address) => {
        const bytes = sys.viewAt(address, 8192);
        bytes.write('stored', 4090);
        c.equal(readAt(c, fd, 8, 4089), 'mstoredm');
        write(c, fd, 'written', 100);
        c.equal(bytes.toString('latin1', 99, 108), 'mwrittenm');
        c.did(sys.msync(address, 8192, MS_SYNC));
      });
      c.close(fd);
      c.equal(c.get('f').slice(4089, 4097), 'mstoredm');
    },
  },
  {
    name: 'a store into a shared map moves mtime and ctime, by msync at the latest',
    before(c) {
      c.put('f', 'm'.repeat(PAGE));
      c.put('large', 'l'.repeat(50 * PAGE));
    },
    run(c) {
      const { sys } = c;
      for (const name of ['f', 'large']) {
        const fd = c.open(name, sys.O_RDWR);
        c.did(sys.utimensat(sys.AT_FDCWD, c.at(name), 5, 0, 5, 0));
        mapped(c, fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (address) => {
          const bytes = sys.viewAt(address, PAGE);
          c.equal(bytes.toString('latin1', 0, 1), name === 'f' ? 'm' : 'l');
          c.equal(c.stat(name).mtimeSec, 5);
          bytes.write('stored', 0);
          c.did(sys.msync(address, PAGE, MS_ASYNC));
          c.did(sys.msync(address, PAGE, MS_SYNC));
          c.ok(c.onTmpfs || c.stat(name).mtimeSec > 5, name);
        });
        c.close(fd);
        c.equal(c.get(name).slice(0, 7), name === 'f' ? 'storedm' : 'storedl');
      }
    },
  },
  {
    name: 'a private map keeps its stores to itself',
    before(c) {
      c.put('f', 'p'.repeat(4096));
    },
    run(c) {
      const { sys } = c;
      const fd = c.open('f', sys.O_RDONLY);
      mapped(c, fd, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, (address) => {
        const bytes = sys.viewAt(address, 4096);
        bytes.write('mine', 10);
        c.equal(bytes.toString('latin1', 9, 15), 'pminep');
        c.equal(readAt(c, fd, 6, 9), 'pppppp');
      });
      c.close(fd);
      c.equal(c.get('f'), 'p'.repeat(4096));
    },
  },
  {
    name: 'a map lives on when descriptor and name are gone',
    before(c) {
      c.put('f', 'kept'.repeat(1024));
    },
    run(c) {
      const { sys } = c;
      const fd = c.open('f', sys.O_RDONLY);
      mapped(c, fd, 4096, PROT_READ, MAP_SHARED, (address) => {
        c.close(fd);
        c.fs.unlinkSync(c.at('f'));
        c.put('f', 'another');
        c.equal(sys.viewAt(address, 4096).toString('latin1'), 'kept'.repeat(1024));
      });
      c.equal(c.get('f'), 'another');
    },
  },
];

const unnamed = [
  {
    name: 'a file that was removed lives on for who has it open',
    before(c) {
      c.put('read', 'still there');
      c.put('write', 'still');
    },
    run(c) {
      const { sys } = c;
      const reader = c.open('read', sys.O_RDONLY);
      const writer = c.open('write', sys.O_RDWR);
      c.fs.unlinkSync(c.at('read'));
      c.fs.unlinkSync(c.at('write'));
      c.equal(c.list(), []);
      c.equal(readAt(c, reader, 20, 0), 'still there');
      c.equal([c.fstat(reader).nlink, c.fstat(writer).nlink], [0, 0]);
      write(c, writer, 'STILL here', 0);
      c.equal(readAt(c, writer, 20, 0), 'STILL here');
      c.did(sys.ftruncate(writer, 5));
      c.fs.fchmodSync(writer, 0o600);
      c.fs.fchownSync(writer, 5, 6);
      c.fs.futimesSync(writer, 77, 78);
      const { mode, uid, gid, size, mtimeSec } = c.fstat(writer);
      c.equal([mode & 0o7777, uid, gid, size, mtimeSec], [0o600, 5, 6, 5, 78]);
      c.put('write', 'a new one');
      c.equal(readAt(c, writer, 20, 0), 'STILL');
      c.close(reader);
      c.close(writer);
      c.equal(c.get('write'), 'a new one');
    },
  },
  {
    name: 'a removed file that only a path descriptor holds can still be asked and opened',
    before(c) {
      c.put('f', 'held');
    },
    run(c) {
      const { sys } = c;
      const held = c.open('f', sys.O_PATH);
      const opened = c.open('f', sys.O_RDONLY);
      c.fs.unlinkSync(c.at('f'));
      c.close(opened);
      c.equal(c.fstat(held).nlink, 0);
      const again = c.did(sys.reopen(held, sys.O_RDWR));
      c.equal(readAt(c, again, 4, 0), 'held');
      write(c, again, 'H', 0);
      c.close(again);
      const last = c.did(sys.reopen(held, sys.O_RDONLY));
      c.equal(readAt(c, last, 4, 0), 'Held');
      c.close(last);
      c.close(held);
    },
  },
  {
    name: 'O_TMPFILE makes a file without a name, which may be given one',
    run(c) {
      const { sys } = c;
      const fd = c.open('', sys.O_TMPFILE | sys.O_RDWR, 0o640);
      write(c, fd, 'anonymous', 0);
      c.equal(c.fstat(fd).nlink, 0);
      c.equal(c.list(), []);
      c.did(sys.linkFd(fd, sys.AT_FDCWD, c.at('named')));
      c.equal(c.get('named'), 'anonymous');
      c.equal([c.mode('named'), c.stat('named').nlink], ['640', 1]);
      c.close(fd);
      const never = c.open('', sys.O_TMPFILE | sys.O_RDWR | sys.O_EXCL, 0o600);
      c.fails('ENOENT', () => sys.linkFd(never, sys.AT_FDCWD, c.at('never')));
      c.close(never);
      c.equal(c.list(), ['named']);
    },
  },
];

export const dataRules = [...flags, ...sizes, ...maps, ...unnamed];
