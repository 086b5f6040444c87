// Child of handles.ts: takes file handles of paths and opens them again, as an NFS server does. One question in
// JSON on standard input, the answer on standard output.
import * as fs from 'node:fs';
import koffi from 'koffi';

const AT_FDCWD = -100;
const O_PATH = 0o10000000;
const MOST = 128;

const libc = koffi.load(null);
const nameToHandle = libc.func('int name_to_handle_at(int, const char *, void *, void *, int)');
const openByHandle = libc.func('int open_by_handle_at(int, void *, int)');
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
      return { error: error.code };
    } finally {
      fs.closeSync(fd);
    }
  });
}

/** Opens a handle, writes to it or reads it, and renames or makes nothing: for what is done through old handles. */
function write({ mnt, handle, content }) {
  const mountFd = fs.openSync(mnt, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  const fd = openHandle(mountFd, handle, fs.constants.O_WRONLY | fs.constants.O_APPEND);
  if (fd < 0) return failure();
  fs.writeSync(fd, content);
  fs.closeSync(fd);
  return {};
}

const questions = { take, open, write };
const [name, argument] = JSON.parse(fs.readFileSync(0, 'utf8'));
fs.writeSync(1, '');
process.stdout.write(JSON.stringify(questions[name](argument)));
