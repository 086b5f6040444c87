// Child of nfs.ts: a client of NFS (libnfs) that lives through restarts of its server. One line of JSON in, one out.
import * as fs from 'node:fs';
import * as readline from 'node:readline';
import koffi from 'koffi';

const lib = koffi.load('libnfs.so.13');
const nfs = {
  init: lib.func('void *nfs_init_context()'),
  setVersion: lib.func('int nfs_set_version(void *, int)'),
  mount: lib.func('int nfs_mount(void *, const char *, const char *)'),
  open: lib.func('int nfs_open(void *, const char *, int, _Out_ void **)'),
  creat: lib.func('int nfs_creat(void *, const char *, int, _Out_ void **)'),
  close: lib.func('int nfs_close(void *, void *)'),
  pread: lib.func('int nfs_pread(void *, void *, uint64_t, uint64_t, void *)'),
  pwrite: lib.func('int nfs_pwrite(void *, void *, uint64_t, uint64_t, const void *)'),
  fsync: lib.func('int nfs_fsync(void *, void *)'),
  rename: lib.func('int nfs_rename(void *, const char *, const char *)'),
  unlink: lib.func('int nfs_unlink(void *, const char *)'),
  mkdir: lib.func('int nfs_mkdir(void *, const char *)'),
  rmdir: lib.func('int nfs_rmdir(void *, const char *)'),
  link: lib.func('int nfs_link(void *, const char *, const char *)'),
  truncate: lib.func('int nfs_truncate(void *, const char *, uint64_t)'),
  lstat: lib.func('int nfs_lstat64(void *, const char *, void *)'),
  opendir: lib.func('int nfs_opendir(void *, const char *, _Out_ void **)'),
  readdir: lib.func('void *nfs_readdir(void *, void *)'),
  closedir: lib.func('void nfs_closedir(void *, void *)'),
  error: lib.func('const char *nfs_get_error(void *)'),
};
const Entry = koffi.struct({ next: 'void *', name: 'const char *' });

const context = nfs.init();
const files = new Map();
let next = 1;

/** Throws with the errno's name, as node:fs does. */
function check(result) {
  if (result >= 0) return result;
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === -result)?.[0] ?? String(result);
  throw Object.assign(new Error(nfs.error(context) ?? ''), { code });
}

function out(call) {
  const pointer = [null];
  check(call(pointer));
  return pointer[0];
}

function readAll(file) {
  const chunks = [];
  const buffer = Buffer.alloc(65_536);
  for (let at = 0, got = 1; got > 0; at += got) {
    got = check(nfs.pread(context, file, at, buffer.length, buffer));
    chunks.push(Buffer.from(buffer.subarray(0, got)));
  }
  return Buffer.concat(chunks).toString('latin1');
}

function writeAll(file, content, at) {
  const bytes = Buffer.from(content, 'latin1');
  check(nfs.pwrite(context, file, at, bytes.length, bytes));
  check(nfs.fsync(context, file));
}

const calls = {
  mount(server, path, version) {
    check(nfs.setVersion(context, version));
    check(nfs.mount(context, server, path));
  },
  open(path, flags) {
    files.set(
      next,
      out((pointer) => nfs.open(context, path, flags, pointer)),
    );
    return next++;
  },
  create(path, mode) {
    files.set(
      next,
      out((pointer) => nfs.creat(context, path, mode, pointer)),
    );
    return next++;
  },
  read: (file) => readAll(files.get(file)),
  write: (file, content, at) => writeAll(files.get(file), content, at),
  close(file) {
    check(nfs.close(context, files.get(file)));
    files.delete(file);
  },
  list(path) {
    const dir = out((pointer) => nfs.opendir(context, path, pointer));
    const names = [];
    for (let entry = nfs.readdir(context, dir); entry; entry = nfs.readdir(context, dir))
      names.push(koffi.decode(entry, Entry).name);
    nfs.closedir(context, dir);
    return names.filter((name) => name !== '.' && name !== '..').sort();
  },
  stat(path) {
    const stat = Buffer.alloc(256);
    check(nfs.lstat(context, path, stat));
    const field = (i) => Number(stat.readBigUInt64LE(8 * i));
    return { ino: field(1), mode: field(2), nlink: field(3), size: field(7) };
  },
  rename: (from, to) => check(nfs.rename(context, from, to)),
  unlink: (path) => check(nfs.unlink(context, path)),
  mkdir: (path) => check(nfs.mkdir(context, path)),
  rmdir: (path) => check(nfs.rmdir(context, path)),
  link: (from, to) => check(nfs.link(context, from, to)),
  truncate: (path, size) => check(nfs.truncate(context, path, size)),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  let answer;
  try {
    answer = { value: calls[name](...args) ?? null };
  } catch (error) {
    answer = { code: error.code ?? 'EUNKNOWN', message: error.message };
  }
  fs.writeSync(1, `${JSON.stringify(answer)}\n`);
}
