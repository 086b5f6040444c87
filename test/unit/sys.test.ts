// Every wrapper of sys/ that acts on files, in a plain directory: what it returns, its errnos, and what is
// easily got wrong (times, bytes in names, descriptors of symlinks, buffers).
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import koffi from 'koffi';
import { describe, expect, test } from 'vitest';
import { E } from '../../src/lib/errno.ts';
import { newStat, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../../src/lib/stat.ts';
import * as C from '../../src/sys/constants.ts';
import { addressOf } from '../../src/sys/ffi.ts';
import * as file from '../../src/sys/file.ts';
import * as names from '../../src/sys/names.ts';
import { socketpair } from '../../src/sys/socket.ts';
import * as stats from '../../src/sys/stat.ts';
import * as xattrs from '../../src/sys/xattr.ts';
import { testNeeding } from '../lib/needs.ts';
import { openDirPerTest } from '../lib/open-dir.ts';

const at = openDirPerTest();
const { keep, open, made, statOf } = at;

const text = (value: Buffer | number) => (typeof value === 'number' ? value : value.toString('latin1'));

describe('files', () => {
  test('openat makes, opens and refuses; every descriptor is close-on-exec', () => {
    const fd = open('a', C.O_CREAT | C.O_EXCL | C.O_WRONLY, 0o640);
    expect(statOf('a').mode).toBe(S_IFREG | (0o640 & ~process.umask()));
    expect(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(/flags:\s*0?2\d{6}\b/);
    expect(file.openat(at.fd, 'a', C.O_CREAT | C.O_EXCL | C.O_WRONLY)).toBe(-E.EEXIST);
    expect(file.openat(at.fd, 'none', C.O_RDONLY)).toBe(-E.ENOENT);
    expect(file.openat(at.fd, 'a/b', C.O_RDONLY)).toBe(-E.ENOTDIR);
    expect(file.openat(-1, 'a', C.O_RDONLY)).toBe(-E.EBADF);
    fs.symlinkSync('a', path.join(at.path, 'link'));
    expect(file.openat(at.fd, 'link', C.O_RDONLY | C.O_NOFOLLOW)).toBe(-E.ELOOP);
    expect(file.openat(at.fd, 'a', C.O_RDONLY | C.O_DIRECTORY)).toBe(-E.ENOTDIR);
  });

  test('a file of its own without a name: O_TMPFILE', () => {
    const fd = open('.', C.O_TMPFILE | C.O_RDWR, 0o600);
    expect(file.pwrite(fd, Buffer.from('x'), 0, 1, 0)).toBe(1);
    expect(names.linkFd(fd, at.fd, 'named')).toBe(0);
    expect(fs.readFileSync(path.join(at.path, 'named'), 'latin1')).toBe('x');
  });

  test('openat2 stays beneath and follows no symlink', () => {
    made('a', 'inside');
    fs.mkdirSync(path.join(at.path, 'sub'));
    fs.symlinkSync('/etc', path.join(at.path, 'out'));
    const how = C.RESOLVE_BENEATH | C.RESOLVE_NO_SYMLINKS;
    keep(file.openat2(at.fd, 'a', C.O_RDONLY, 0o777, how));
    keep(file.openat2(at.fd, 'new', C.O_CREAT | C.O_WRONLY, S_IFREG | 0o600, how));
    expect(file.openat2(at.fd, 'out/passwd', C.O_RDONLY, 0, how)).toBe(-E.ELOOP);
    expect(file.openat2(at.fd, 'sub/../..', C.O_PATH, 0, how)).toBe(-E.EXDEV);
    expect(file.openat2(at.fd, 'none', C.O_RDONLY, 0, how)).toBe(-E.ENOENT);
  });

  test('reopen and an empty name open the object itself again, dup shares the offset', () => {
    made('a', 'content');
    const handle = open('a', C.O_PATH | C.O_NOFOLLOW);
    const buf = Buffer.alloc(10);
    expect(file.read(handle, buf, 0, 10)).toBe(-E.EBADF);
    const again = keep(file.reopen(handle, C.O_RDONLY | C.O_NOFOLLOW));
    expect(file.read(again, buf, 1, 3)).toBe(3);
    const same = keep(file.dup(again));
    expect(file.read(same, buf, 4, 6)).toBe(4);
    expect(buf.toString('latin1')).toBe('\0content\0\0');
    const third = keep(file.openat(handle, '', C.O_RDWR));
    expect(file.write(third, Buffer.from('-C-'), 1, 1)).toBe(1);
    expect(fs.readFileSync(path.join(at.path, 'a'), 'latin1')).toBe('Content');
    expect(file.reopen(-1, 0)).toBe(-E.EBADF);
    const [a, b] = socketpair() as [number, number];
    expect(file.setNonBlocking(keep(a))).toBe(0);
    expect(file.read(a, buf, 0, 1)).toBe(-E.EAGAIN);
    expect(file.setNonBlocking(keep(b))).toBe(0);
    expect(file.setNonBlocking(-1)).toBe(-E.EBADF);
    expect(file.dup(-1)).toBe(-E.EBADF);
  });

  test('pread and pwrite move bytes at positions beyond 4 GiB', () => {
    const fd = made('big');
    const far = 2 ** 40 + 3;
    expect(file.pwrite(fd, Buffer.from('xhellox'), 1, 5, far)).toBe(5);
    const buf = Buffer.alloc(8, '.');
    expect(file.pread(fd, buf, 2, 5, far)).toBe(5);
    expect(buf.toString('latin1')).toBe('..hello.');
    expect(file.pread(fd, buf, 0, 8, far + 5)).toBe(0);
    expect(statOf('big').size).toBe(far + 5);
    expect(file.pread(fd, buf, 0, 1, -1)).toBe(-E.EINVAL);
  });

  test('preadCached reads what lies in memory, and no more than there is', () => {
    const fd = made('a', 'content');
    const buf = Buffer.alloc(16, '.');
    expect(file.preadCached(fd, buf, 1, 9, 3, 1)).toBe(4);
    expect(buf.toString('latin1', 0, 6)).toBe('.tent.');
    expect(file.preadCached(fd, buf, 0, 4, 7, 1)).toBe(0);
    expect(file.preadCached(fd, buf, 9, 8, 0, 1)).toBe(-E.EFAULT);
    expect(file.preadCached(-1, buf, 0, 4, 0, 1)).toBe(-E.EBADF);
    const shared = fs.openSync(`/dev/shm/kasane-cached-${process.pid}`, 'wx+');
    keep(shared);
    fs.unlinkSync(`/dev/shm/kasane-cached-${process.pid}`);
    expect(file.liesInMemory(shared)).toBe(true);
    fs.writeSync(shared, 'shared');
    // Asked, and known without being asked.
    for (let i = 0; i < 2; i++) expect(file.preadCached(shared, buf, 0, 16, 0, 2)).toBe(6);
  });

  test('what lies outside a buffer is refused, not touched', () => {
    const fd = made('a', 'content');
    const buf = Buffer.alloc(4);
    expect(file.pread(fd, buf, 0, 5, 0)).toBe(-E.EFAULT);
    expect(file.pread(fd, buf, -1, 1, 0)).toBe(-E.EFAULT);
    expect(file.pwrite(fd, buf, 4, 1, 0)).toBe(-E.EFAULT);
    expect(file.read(fd, buf, 5, 0)).toBe(-E.EFAULT);
    expect(file.write(fd, buf, 0, Number.NaN)).toBe(-E.EFAULT);
    expect(file.pread(fd, buf, 4, 0, 0)).toBe(0);
  });

  test('addresses are those of slices, shared memory and small arrays too', () => {
    const buf = Buffer.allocUnsafeSlow(64);
    expect(addressOf(buf.subarray(7))).toBe(addressOf(buf) + 7);
    expect(addressOf(buf)).toBe(Number(koffi.address(buf)));
    const fd = made('a', 'content');
    for (const bytes of [
      new Uint8Array(new SharedArrayBuffer(16)),
      new Uint8Array(16),
      Buffer.from('0123'),
    ]) {
      expect(file.pread(fd, bytes, 1, 3, 0)).toBe(3);
      expect(Buffer.from(bytes).toString('latin1', 1, 4)).toBe('con');
    }
  });

  test('close says EBADF for what is not open', () => {
    const fd = file.openat(C.AT_FDCWD, '/dev/null', C.O_RDONLY);
    expect(file.close(fd)).toBe(0);
    expect(file.close(fd)).toBe(-E.EBADF);
  });

  test('sizes, holes and allocation', () => {
    const fd = made('a');
    expect(file.ftruncate(fd, 2 ** 20)).toBe(0);
    expect(file.lseek(fd, 0, C.SEEK_DATA)).toBe(-E.ENXIO);
    expect(file.pwrite(fd, Buffer.alloc(131072, 1), 0, 131072, 262144)).toBe(131072);
    expect(file.fsync(fd)).toBe(0);
    expect(file.fdatasync(fd)).toBe(0);
    expect(file.lseek(fd, 0, C.SEEK_DATA)).toBe(262144);
    expect(file.lseek(fd, 262144, C.SEEK_HOLE)).toBe(393216);
    expect(file.lseek(fd, 0, C.SEEK_END)).toBe(2 ** 20);
    expect(file.lseek(fd, 2 ** 40, C.SEEK_SET)).toBe(2 ** 40);
    const punch = C.FALLOC_FL_PUNCH_HOLE | C.FALLOC_FL_KEEP_SIZE;
    expect(file.fallocate(fd, punch, 262144, 65536)).toBe(0);
    expect(file.lseek(fd, 0, C.SEEK_DATA)).toBe(327680);
    expect(file.fallocate(fd, 0, 0, 2 ** 21)).toBe(0);
    expect(statOf('a').size).toBe(2 ** 21);
    expect(file.fallocate(fd, C.FALLOC_FL_PUNCH_HOLE, 0, 4096)).toBe(-E.EOPNOTSUPP);
    expect(file.ftruncate(fd, -1)).toBe(-E.EINVAL);
    expect(file.fsync(-1)).toBe(-E.EBADF);
  });

  test('copyFileRange and ficlone', () => {
    const from = made('from', '0123456789');
    const to = made('to', 'abcdefghij');
    expect(file.copyFileRange(from, 2, to, 5, 3)).toBe(3);
    expect(fs.readFileSync(path.join(at.path, 'to'), 'latin1')).toBe('abcde234ij');
    expect(file.copyFileRange(from, 100, to, 0, 3)).toBe(0);
    expect(file.copyFileRange(-1, 0, to, 0, 3)).toBe(-E.EBADF);
    const statfs = file.newStatfs();
    file.fstatfs(from, statfs);
    const ext4 = statfs.type === 0xef53;
    const result = file.ficlone(to, from);
    if (ext4) expect(result).toBe(-E.EOPNOTSUPP);
    else expect([0, -E.EOPNOTSUPP, -E.ENOTTY, -E.EINVAL]).toContain(result);
    expect(file.ficlone(-1, from)).toBe(-E.EBADF);
  });

  test('statfs and fstatfs agree with df', () => {
    const a = file.newStatfs();
    const b = file.newStatfs();
    expect(file.statfs(at.path, a)).toBe(0);
    expect(file.fstatfs(at.fd, b)).toBe(0);
    const node = fs.statfsSync(at.path);
    for (const s of [a, b]) {
      expect(s).toMatchObject({ type: node.type, bsize: node.bsize, blocks: node.blocks, files: node.files });
      expect(s.namelen).toBe(255);
      expect(s.fsid).toMatch(/^[0-9a-f]{16}$/);
      expect(s.bavail).toBeLessThanOrEqual(s.bfree);
      expect(s.frsize).toBeGreaterThan(0);
    }
    expect(a.fsid).toBe(b.fsid);
    const shown = spawnSync('stat', ['-f', '-c', '%i', at.path]).stdout.toString().trim();
    expect(a.fsid).toBe(shown.padStart(16, '0'));
    expect(file.statfs(`${at.path}/none`, a)).toBe(-E.ENOENT);
  });
});

describe('directories', () => {
  test('getdents lists thousands of names in pieces, each byte as it is', () => {
    const wanted = Array.from({ length: 3000 }, (_, i) => `${'n'.repeat(i % 240)}-${i}`);
    wanted.push(Array.from({ length: 128 }, (_, i) => String.fromCharCode(0x80 + i)).join(''));
    wanted.push('\x01\n\t\x7f\\"', 'x'.repeat(255));
    fs.mkdirSync(path.join(at.path, 'many'));
    const many = open('many', C.O_RDONLY | C.O_DIRECTORY);
    for (const name of wanted) expect(names.mknodat(many, name, S_IFREG | 0o600, 0, 0)).toBe(0);
    const found = new Map<string, [number, number]>();
    const buf = Buffer.allocUnsafeSlow(4096);
    let pieces = 0;
    for (;;) {
      const got = file.getdents(many, buf);
      expect(got).toBeGreaterThanOrEqual(0);
      if (got === 0) break;
      pieces += 1;
      file.parseDents(buf, got, (name, ino, dtype) => found.set(name, [ino, dtype]));
    }
    expect(pieces).toBeGreaterThan(50);
    expect([...found.keys()].sort()).toEqual(['.', '..', ...wanted].sort());
    expect(found.get('.')?.[1]).toBe(C.DT_DIR);
    const st = newStat();
    for (const name of wanted.slice(-5)) {
      stats.statx(many, name, 0, st);
      expect(found.get(name)).toEqual([st.ino, C.DT_REG]);
    }
    expect(fs.readdirSync(path.join(at.path, 'many'), 'latin1').sort()).toEqual(wanted.sort());
    expect(file.getdents(at.fd, buf)).toBe(-E.EBADF);
    expect(file.getdents(made('f'), buf)).toBe(-E.ENOTDIR);
    expect(file.getdents(open('.', C.O_RDONLY), buf.subarray(0, 8))).toBe(-E.EINVAL);
  });

  test('names that are too long, have a NUL, or are no bytes never reach the kernel', () => {
    expect(names.mkdirat(at.fd, 'x'.repeat(256), 0o755)).toBe(-E.ENAMETOOLONG);
    expect(names.mkdirat(at.fd, 'x/'.repeat(3000), 0o755)).toBe(-E.ENAMETOOLONG);
    for (const bad of ['a\0b', `${'a'.repeat(100)}\0b`, 'a\u0100', `${'a'.repeat(100)}\u{1f600}`]) {
      expect(names.mkdirat(at.fd, bad, 0o755)).toBe(-E.EINVAL);
      expect(xattrs.listxattr(at.fd, bad)).toBe(-E.EINVAL);
      expect(xattrs.getxattrByPath(at.fd, bad, 'user.a')).toBe(-E.EINVAL);
    }
    expect(fs.readdirSync(at.path)).toEqual([]);
    expect(names.mkdirat(at.fd, '', 0o755)).toBe(-E.ENOENT);
  });

  test('folds inode numbers beyond 2^53 only', () => {
    expect(file.foldInode(0xffffffff, 0x1fffff)).toBe(Number.MAX_SAFE_INTEGER);
    expect(file.foldInode(5, 0)).toBe(5);
    const folded = file.foldInode(0x80000001, 0xffe00003);
    expect(folded).toBe(0x3 * 2 ** 32 + ((0x80000001 ^ 0x7ff) >>> 0));
    expect(Number.isSafeInteger(file.foldInode(0xffffffff, 0xffffffff))).toBe(true);
  });
});

describe('names', () => {
  testNeeding({ root: true }, 'mknodat makes every kind, with large device numbers', () => {
    expect(names.mknodat(at.fd, 'whiteout', S_IFCHR, 0, 0)).toBe(0);
    expect(statOf('whiteout')).toMatchObject({ mode: S_IFCHR, rdevMajor: 0, rdevMinor: 0 });
    expect(names.mknodat(at.fd, 'dev', S_IFCHR | 0o600, 0xabc, 0xfedcb)).toBe(0);
    expect(statOf('dev')).toMatchObject({ rdevMajor: 0xabc, rdevMinor: 0xfedcb });
    expect(names.mknodat(at.fd, 'fifo', S_IFIFO | 0o600, 0, 0)).toBe(0);
    expect(statOf('fifo').mode & S_IFMT).toBe(S_IFIFO);
    expect(names.mknodat(at.fd, 'fifo', S_IFIFO | 0o600, 0, 0)).toBe(-E.EEXIST);
    expect(names.mknodat(at.fd, 'x', S_IFDIR | 0o700, 0, 0)).toBe(-E.EPERM);
    expect(names.mknodat(at.fd, 'x', S_IFCHR, 0x1000, 0)).toBe(-E.EINVAL);
  });

  test('directories and removing', () => {
    expect(names.mkdirat(at.fd, 'd', 0o700)).toBe(0);
    expect(statOf('d').mode).toBe(S_IFDIR | 0o700);
    expect(names.mkdirat(at.fd, 'd', 0o700)).toBe(-E.EEXIST);
    expect(names.unlinkat(at.fd, 'd', 0)).toBe(-E.EISDIR);
    made('d/f');
    expect(names.unlinkat(at.fd, 'd', C.AT_REMOVEDIR)).toBe(-E.ENOTEMPTY);
    expect(names.unlinkat(at.fd, 'd/f', 0)).toBe(0);
    expect(names.unlinkat(at.fd, 'd', C.AT_REMOVEDIR)).toBe(0);
    expect(names.unlinkat(at.fd, 'd', C.AT_REMOVEDIR)).toBe(-E.ENOENT);
  });

  test('hard links, of names and of open objects', () => {
    made('a', 'x');
    expect(names.linkat(at.fd, 'a', at.fd, 'b', 0)).toBe(0);
    expect(statOf('b').ino).toBe(statOf('a').ino);
    expect(names.linkat(at.fd, 'a', at.fd, 'b', 0)).toBe(-E.EEXIST);
    const handle = open('a', C.O_PATH);
    expect(names.linkFd(handle, at.fd, 'c')).toBe(0);
    expect(names.linkat(handle, '', at.fd, 'd', 0)).toBe(0);
    expect(statOf('d').nlink).toBe(4);
    expect(names.linkFd(handle, at.fd, 'c')).toBe(-E.EEXIST);
    expect(names.linkFd(at.fd, at.fd, 'x')).toBe(-E.EPERM);
    fs.symlinkSync('a', path.join(at.path, 'link'));
    const link = open('link', C.O_PATH | C.O_NOFOLLOW);
    expect(names.linkFd(link, at.fd, 'link2')).toBe(0);
    expect(statOf('link2').mode & S_IFMT).toBe(S_IFLNK);
    expect(names.linkFd(-1, at.fd, 'x')).toBe(-E.EBADF);
  });

  test('symlinks carry any bytes', () => {
    const target = `/\x80\xff ${'t'.repeat(300)}`;
    expect(names.symlinkat(target, at.fd, 'l\xe9')).toBe(0);
    expect(names.readlinkat(at.fd, 'l\xe9')).toBe(target);
    const handle = open('l\xe9', C.O_PATH | C.O_NOFOLLOW);
    expect(names.readlinkat(handle, '')).toBe(target);
    expect(names.symlinkat('y'.repeat(4095), at.fd, 'long')).toBe(0);
    expect(names.readlinkat(at.fd, 'long')).toBe('y'.repeat(4095));
    made('a');
    expect(names.readlinkat(at.fd, 'a')).toBe(-E.EINVAL);
    expect(names.readlinkat(at.fd, 'none')).toBe(-E.ENOENT);
    expect(names.symlinkat('x', at.fd, 'a')).toBe(-E.EEXIST);
  });

  test('renameat2 replaces, refuses, exchanges and leaves whiteouts', () => {
    made('a', 'A');
    made('b', 'B');
    const content = (name: string) => fs.readFileSync(path.join(at.path, name), 'latin1');
    expect(names.renameat2(at.fd, 'a', at.fd, 'b', C.RENAME_NOREPLACE)).toBe(-E.EEXIST);
    expect(names.renameat2(at.fd, 'a', at.fd, 'b', C.RENAME_EXCHANGE)).toBe(0);
    expect([content('a'), content('b')]).toEqual(['B', 'A']);
    expect(names.renameat2(at.fd, 'a', at.fd, 'b', 0)).toBe(0);
    expect(content('b')).toBe('B');
    expect(names.renameat2(at.fd, 'a', at.fd, 'b', 0)).toBe(-E.ENOENT);
    expect(names.renameat2(at.fd, 'b', at.fd, 'c', C.RENAME_WHITEOUT)).toBe(0);
    expect(statOf('b')).toMatchObject({ rdevMajor: 0, rdevMinor: 0 });
    expect(statOf('b').mode & S_IFMT).toBe(S_IFCHR);
    const both = C.RENAME_NOREPLACE | C.RENAME_EXCHANGE;
    expect(names.renameat2(at.fd, 'b', at.fd, 'c', both)).toBe(-E.EINVAL);
  });
});

describe('attributes', () => {
  test('statx agrees with Node, and follows only when asked', () => {
    made('a', 'content');
    fs.symlinkSync('a', path.join(at.path, 'link'));
    const node = fs.statSync(path.join(at.path, 'a'), { bigint: true });
    const st = statOf('a');
    expect(st).toMatchObject({
      mode: Number(node.mode),
      ino: Number(node.ino),
      nlink: 1,
      uid: Number(node.uid),
      gid: Number(node.gid),
      size: 7,
      blocks: Number(node.blocks),
      blksize: Number(node.blksize),
      mtimeSec: Number(node.mtimeNs / 1_000_000_000n),
      mtimeNsec: Number(node.mtimeNs % 1_000_000_000n),
      ctimeSec: Number(node.ctimeNs / 1_000_000_000n),
      ctimeNsec: Number(node.ctimeNs % 1_000_000_000n),
      btimeSec: Number(node.birthtimeNs / 1_000_000_000n),
      btimeNsec: Number(node.birthtimeNs % 1_000_000_000n),
      devMajor: Number(node.dev >> 8n),
      devMinor: Number(node.dev & 0xffn),
    });
    expect(st.mask & C.STATX_BASIC_STATS).toBe(C.STATX_BASIC_STATS);
    expect(st.mntId).toBeGreaterThan(0);
    expect(statOf('link').mode & S_IFMT).toBe(S_IFLNK);
    expect(statOf('link', 0).ino).toBe(st.ino);
    const out = newStat();
    expect(stats.statx(at.fd, 'none', 0, out)).toBe(-E.ENOENT);
    expect(stats.fstat(-1, out)).toBe(-E.EBADF);
    expect(stats.fstat(open('link', C.O_PATH | C.O_NOFOLLOW), out)).toBe(0);
    expect(out.mode & S_IFMT).toBe(S_IFLNK);
    expect(stats.statx(C.AT_FDCWD, '/', 0, out)).toBe(0);
    expect(out.attributes & C.STATX_ATTR_MOUNT_ROOT).not.toBe(0);
  });

  for (const [title, seconds] of [
    ['before 1970', -1_000_000_001],
    ['one second before 1970', -1],
    ['in 1970', 0],
    ['after 2038', 2 ** 32 + 5],
    ['after 2106', 2 ** 33 + 2 ** 31],
  ] as const) {
    test(`times ${title} keep their nanoseconds`, () => {
      const fd = made('a');
      expect(stats.utimensat(at.fd, 'a', seconds, 999_999_999, seconds + 1, 1)).toBe(0);
      const times = { atimeSec: seconds, atimeNsec: 999_999_999, mtimeSec: seconds + 1, mtimeNsec: 1 };
      expect(statOf('a')).toMatchObject(times);
      expect(stats.utimensat(fd, '', 0, C.UTIME_OMIT, seconds, 123_456_789)).toBe(0);
      expect(statOf('a')).toMatchObject({ ...times, mtimeSec: seconds, mtimeNsec: 123_456_789 });
    });
  }

  test('utimensat: now, O_PATH descriptors and symlinks', () => {
    made('a');
    fs.symlinkSync('a', path.join(at.path, 'link'));
    expect(stats.utimensat(open('a', C.O_PATH), '', 0, C.UTIME_NOW, 5, 6)).toBe(0);
    expect(statOf('a')).toMatchObject({ mtimeSec: 5, mtimeNsec: 6 });
    expect(Math.abs(statOf('a').atimeSec - Date.now() / 1000)).toBeLessThan(10);
    expect(stats.utimensat(at.fd, 'link', 7, 0, 8, 9)).toBe(0);
    expect(statOf('link')).toMatchObject({ mtimeSec: 8, mtimeNsec: 9 });
    expect(statOf('a').mtimeSec).toBe(5);
    expect(stats.utimensat(open('link', C.O_PATH | C.O_NOFOLLOW), '', 1, 0, 2, 0)).toBe(0);
    expect(statOf('link').mtimeSec).toBe(2);
    expect(stats.utimensat(at.fd, 'a', 0, 2_000_000_000, 0, 0)).toBe(-E.EINVAL);
  });

  for (const [title, chmod] of [
    ['fchmodat', stats.fchmodat],
    ['chmodByDescriptor', stats.chmodByDescriptor],
  ] as const) {
    test(`${title} never follows`, () => {
      const fd = made('a');
      fs.symlinkSync('a', path.join(at.path, 'link'));
      expect(chmod(at.fd, 'a', 0o4711)).toBe(0);
      expect(statOf('a').mode).toBe(S_IFREG | 0o4711);
      expect(chmod(at.fd, 'link', 0o600)).toBe(-E.EOPNOTSUPP);
      expect(chmod(open('link', C.O_PATH | C.O_NOFOLLOW), '', 0o600)).toBe(-E.EOPNOTSUPP);
      expect(chmod(open('a', C.O_PATH), '', 0o640)).toBe(0);
      expect(statOf('a').mode).toBe(S_IFREG | 0o640);
      expect(chmod(fd, '', 0o600)).toBe(0);
      expect(chmod(at.fd, 'none', 0o600)).toBe(-E.ENOENT);
      expect(chmod(-1, '', 0o600)).toBe(-E.EBADF);
      expect(statOf('a').mode).toBe(S_IFREG | 0o600);
    });
  }

  testNeeding({ root: true }, 'fchownat sets either id, of symlinks too', () => {
    const fd = made('a');
    fs.symlinkSync('a', path.join(at.path, 'link'));
    expect(stats.fchownat(at.fd, 'a', 12345, -1)).toBe(0);
    expect(stats.fchownat(fd, '', -1, 4_000_000_000)).toBe(0);
    expect(statOf('a')).toMatchObject({ uid: 12345, gid: 4_000_000_000 });
    expect(stats.fchownat(at.fd, 'link', 1, 2)).toBe(0);
    expect(stats.fchownat(open('link', C.O_PATH | C.O_NOFOLLOW), '', -1, 3)).toBe(0);
    expect(statOf('link')).toMatchObject({ uid: 1, gid: 3 });
    expect(statOf('a').uid).toBe(12345);
    expect(stats.fchownat(at.fd, 'none', 1, 1)).toBe(-E.ENOENT);
  });
});

describe('extended attributes', () => {
  for (const [title, get] of [
    ['getxattr', xattrs.getxattr],
    ['getxattrByPath', xattrs.getxattrByPath],
  ] as const) {
    testNeeding({ root: true }, `${title}: names, descriptors, O_PATH descriptors and symlinks`, () => {
      const fd = made('\xe9\xff', 'x');
      fs.symlinkSync('\xe9\xff', path.join(at.path, 'link'));
      const handle = open('\xe9\xff', C.O_PATH);
      const link = open('link', C.O_PATH | C.O_NOFOLLOW);
      expect(xattrs.setxattr(at.fd, '\xe9\xff', 'user.a', Buffer.from('\xff\0\x80', 'latin1'), 0)).toBe(0);
      expect(xattrs.setxattr(fd, '', 'trusted.b', Buffer.from('bb'), C.XATTR_CREATE)).toBe(0);
      expect(xattrs.setxattr(handle, '', 'user.c', Buffer.alloc(0), 0)).toBe(0);
      expect(xattrs.setxattr(at.fd, 'link', 'trusted.l', Buffer.from('one'), 0)).toBe(0);
      expect(xattrs.setxattr(link, '', 'trusted.l', Buffer.from('two'), C.XATTR_REPLACE)).toBe(0);
      for (const [where, name] of [
        [at.fd, '\xe9\xff'],
        [fd, ''],
        [handle, ''],
      ] as const) {
        expect(text(get(where, name, 'user.a'))).toBe('\xff\0\x80');
        expect(text(get(where, name, 'trusted.b'))).toBe('bb');
        expect(text(get(where, name, 'user.c'))).toBe('');
        expect(get(where, name, 'user.none')).toBe(-E.ENODATA);
        expect(get(where, name, 'trusted.l')).toBe(-E.ENODATA);
      }
      expect(text(get(at.fd, 'link', 'trusted.l'))).toBe('two');
      expect(text(get(link, '', 'trusted.l'))).toBe('two');
      expect(text(get(C.AT_FDCWD, `${at.path}/link`, 'trusted.l'))).toBe('two');
      expect(get(at.fd, 'none', 'user.a')).toBe(-E.ENOENT);
      expect(get(9999, '', 'user.a')).toBe(-E.EBADF);
      expect(get(-1, '', 'user.a')).toBe(-E.EBADF);
      expect(get(at.fd, '\xe9\xff', `user.${'n'.repeat(300)}`)).toBe(-E.ERANGE);
    });
  }

  testNeeding({ root: true }, 'listing and removing', () => {
    const fd = made('a');
    fs.symlinkSync('a', path.join(at.path, 'link'));
    const handle = open('a', C.O_PATH);
    const link = open('link', C.O_PATH | C.O_NOFOLLOW);
    for (const name of ['user.one', 'trusted.two', 'user.three']) {
      expect(xattrs.setxattr(fd, '', name, Buffer.from('x'), 0)).toBe(0);
    }
    xattrs.setxattr(link, '', 'trusted.l', Buffer.from('x'), 0);
    const list = (where: number, name: string) =>
      String(text(xattrs.listxattr(where, name)))
        .split('\0')
        .filter((one) => one !== 'security.selinux')
        .sort();
    expect(list(at.fd, 'a')).toEqual(['', 'trusted.two', 'user.one', 'user.three']);
    expect(list(at.fd, 'link')).toEqual(['', 'trusted.l']);
    expect(list(link, '')).toEqual(['', 'trusted.l']);
    expect(xattrs.removexattr(at.fd, 'a', 'user.one')).toBe(0);
    expect(xattrs.removexattr(handle, '', 'trusted.two')).toBe(0);
    expect(xattrs.removexattr(at.fd, 'link', 'trusted.l')).toBe(0);
    expect(list(handle, '')).toEqual(['', 'user.three']);
    const dir = open('.', C.O_PATH | C.O_DIRECTORY);
    expect(xattrs.setxattr(dir, '', 'trusted.d', Buffer.from('dir'), 0)).toBe(0);
    expect(xattrs.setxattr(dir, '', 'trusted.d', Buffer.from('x'), C.XATTR_CREATE)).toBe(-E.EEXIST);
    for (const get of [xattrs.getxattr, xattrs.getxattrByPath])
      expect(String(get(dir, '', 'trusted.d'))).toBe('dir');
    expect(list(dir, '')).toEqual(['', 'trusted.d']);
    expect(xattrs.removexattr(dir, '', 'trusted.d')).toBe(0);
    expect(xattrs.getxattr(dir, '', 'trusted.d')).toBe(-E.ENODATA);
    expect(xattrs.getxattr(-1, '', 'trusted.d')).toBe(-E.EBADF);
    expect(xattrs.setxattr(-1, '', 'trusted.d', Buffer.from('x'), 0)).toBe(-E.EBADF);
    expect(xattrs.listxattr(-1, '')).toBe(-E.EBADF);
    expect(xattrs.removexattr(fd, '', 'user.three')).toBe(0);
    expect(xattrs.removexattr(fd, '', 'user.three')).toBe(-E.ENODATA);
    expect(xattrs.removexattr(link, '', 'trusted.l')).toBe(-E.ENODATA);
    expect(list(fd, '')).toEqual(['']);
    expect(xattrs.setxattr(fd, '', 'user.x', Buffer.from('x'), C.XATTR_REPLACE)).toBe(-E.ENODATA);
    expect(xattrs.setxattr(fd, '', 'nonsense', Buffer.from('x'), 0)).toBe(-E.EOPNOTSUPP);
    expect(xattrs.listxattr(at.fd, 'none')).toBe(-E.ENOENT);
  });

  testNeeding({ root: true }, 'values and lists larger than is tried first', () => {
    const memory = fs.mkdtempSync('/dev/shm/kasane-sys-');
    const fd = keep(file.openat(C.AT_FDCWD, memory, C.O_RDONLY));
    try {
      for (const size of [511, 512, 513, 3000, 65536]) {
        const value = Buffer.alloc(size, size & 0xff);
        expect(xattrs.setxattr(fd, '', 'trusted.big', value, 0)).toBe(0);
        for (const got of [
          xattrs.getxattr(fd, '', 'trusted.big'),
          xattrs.getxattr(C.AT_FDCWD, memory, 'trusted.big'),
          xattrs.getxattrByPath(C.AT_FDCWD, memory, 'trusted.big'),
        ]) {
          expect(value.equals(got as Buffer)).toBe(true);
        }
      }
      expect(xattrs.setxattr(fd, '', 'trusted.big', Buffer.alloc(65537), 0)).toBe(-E.E2BIG);
      for (let i = 0; i < 50; i++)
        xattrs.setxattr(fd, '', `trusted.${'n'.repeat(100)}${i}`, Buffer.from('x'), 0);
      const all = xattrs.listxattr(fd, '') as Buffer;
      expect(
        all
          .toString('latin1')
          .split('\0')
          .filter((one) => one.startsWith('trusted.n')).length,
      ).toBe(50);
    } finally {
      fs.rmSync(memory, { recursive: true });
    }
  });
});
