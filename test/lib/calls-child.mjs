// Child of calls.ts: system calls that neither Node nor a common program makes. One question in JSON on standard
// input, the answer on standard output.
import * as fs from 'node:fs';
import koffi from 'koffi';

const AT_FDCWD = -100;
const O_PATH = 0o10000000;
const MOST = 128;

const libc = koffi.load(null);
const nameToHandle = libc.func('int name_to_handle_at(int, const char *, void *, void *, int)');
const openByHandle = libc.func('int open_by_handle_at(int, void *, int)');
const renameat2 = libc.func('int renameat2(int, const char *, int, const char *, unsigned int)');
const linkat = libc.func('int linkat(int, const char *, int, const char *, int)');
const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
const failure = () => ({ error: errnoNames.get(koffi.errno()) ?? String(koffi.errno()) });

/** Of each path: type and bytes of its handle in hexadecimal, or the error. */
function take(paths) {
  const buffer = Buffer.alloc(8 + MOST);
  const mountId = Buffer.alloc(8);
  return paths.map((path) => {
    buffer.writeUInt32LE(MOST, 0);
    if (nameToHandle(AT_FDCWD, path, buffer, mountId, 0) < 0) return failure();
    return { handle: buffer.toString('hex', 4, 8 + buffer.readUInt32LE(0)) };
  });
}

function openHandle(mountFd, handle, flags) {
  const bytes = Buffer.from(handle, 'hex');
  const buffer = Buffer.alloc(4 + bytes.length);
  buffer.writeUInt32LE(bytes.length - 4, 0);
  bytes.copy(buffer, 4);
  return openByHandle(mountFd, buffer, flags);
}

/** What an open object is, with its content or names where they are asked for. */
function describe(fd, contents) {
  const stat = fs.fstatSync(fd);
  const found = { ino: stat.ino, mode: stat.mode, size: stat.size, nlink: stat.nlink };
  if (!contents) return found;
  const path = `/proc/self/fd/${fd}`;
  if (stat.isFile()) found.content = fs.readFileSync(path, 'latin1');
  if (stat.isDirectory()) found.names = fs.readdirSync(path).sort();
  return found;
}

function open({ mnt, handles, contents }) {
  const mountFd = fs.openSync(mnt, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  return handles.map((handle) => {
    const fd = openHandle(mountFd, handle, O_PATH | fs.constants.O_NOFOLLOW);
    if (fd < 0) return failure();
    try {
      return describe(fd, contents);
    } catch (error) {
      // Node has no name for ESTALE.
      return { error: errnoNames.get(-error.errno) };
    } finally {
      fs.closeSync(fd);
    }
  });
}

function append({ mnt, handle, content }) {
  const mountFd = fs.openSync(mnt, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  const fd = openHandle(mountFd, handle, fs.constants.O_WRONLY | fs.constants.O_APPEND);
  if (fd < 0) return failure();
  fs.writeSync(fd, content);
  fs.closeSync(fd);
  return {};
}

function rename({ from, to, flags }) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) < 0 ? failure() : {};
}

const O_TMPFILE = 0o20200000;
const AT_SYMLINK_FOLLOW = 0x400;

/** Makes a file without a name, writes to it, and gives it the names one after another. */
function unnamed({ dir, content, names, exclusive, mode }) {
  const flags = O_TMPFILE | fs.constants.O_RDWR | (exclusive ? fs.constants.O_EXCL : 0);
  const fd = fs.openSync(dir, flags, mode ?? 0o644);
  fs.writeSync(fd, content);
  const before = fs.fstatSync(fd);
  const results = names.map((name) =>
    linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0
      ? failure().error
      : 'linked',
  );
  fs.writeSync(fd, 'more\n');
  const { ino, nlink, size } = fs.fstatSync(fd);
  const bytes = Buffer.alloc(size);
  fs.readSync(fd, bytes, 0, size, 0);
  return {
    before: before.nlink,
    mode: before.mode & 0o7777,
    ino,
    nlink,
    content: bytes.toString('latin1'),
    results,
  };
}

const questions = { take, open, append, rename, unnamed };
const [name, argument] = JSON.parse(fs.readFileSync(0, 'utf8'));
let answer;
try {
  answer = questions[name](argument);
} catch (error) {
  answer = { error: error.code ?? error.message };
}
process.stdout.write(JSON.stringify(answer));
