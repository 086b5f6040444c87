// What an agent (agent.ts) does beyond node:fs: maps, locks and inotify. Loaded when it is first asked for.
import * as fs from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load(null);
const mmap = libc.func('void *mmap(void *, size_t, int, int, int, int64_t)');
const munmap = libc.func('int munmap(void *, size_t)');
const msync = libc.func('int msync(void *, size_t, int)');
const fcntl = libc.func('int fcntl(int, int, ...)');
const inotifyInit = libc.func('int inotify_init1(int)');
const inotifyAdd = libc.func('int inotify_add_watch(int, const char *, uint32_t)');
const flockCall = libc.func('int flock(int, int)');

const MAP_FAILED = 2n ** 64n - 1n;
const MS_SYNC = 4;
const commands = { posix: 6, 'posix, waiting': 7, ofd: 37, 'ofd, waiting': 38 };
const types = { read: 0, write: 1, none: 2 };
const operations = { shared: 1, exclusive: 2, none: 8 };
const LOCK_NB = 4;

const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
const outcome = (result) => (result < 0 ? (names.get(koffi.errno()) ?? String(koffi.errno())) : 'done');

const maps = [];
const O_NONBLOCK = 0o4000;
/** Opening and reading are left out, of which guests do enough. */
const kinds = {
  MODIFY: 0x2,
  ATTRIB: 0x4,
  CLOSE_WRITE: 0x8,
  MOVED_FROM: 0x40,
  MOVED_TO: 0x80,
  CREATE: 0x100,
  DELETE: 0x200,
  DELETE_SELF: 0x400,
};
const watched = new Map();

export const calls = {
  /** Watches paths, which `heard` calls by what they are here. */
  hear(fd, path, label) {
    const inotify = fd < 0 ? inotifyInit(O_NONBLOCK) : fd;
    const mask = Object.values(kinds).reduce((all, bit) => all | bit, 0);
    const watch = inotifyAdd(inotify, path, mask);
    if (watch < 0) throw Object.assign(new Error(path), { code: outcome(-1) });
    watched.set(`${inotify} ${watch}`, label);
    return inotify;
  },
  /** What has been told since: `KIND LABEL` or `KIND LABEL/NAME`. */
  heard(inotify) {
    const list = [];
    const buffer = Buffer.alloc(1 << 16);
    for (let length; ; ) {
      try {
        length = fs.readSync(inotify, buffer);
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;
        return list;
      }
      for (let at = 0; at < length; ) {
        const [watch, bits, size] = [
          buffer.readInt32LE(at),
          buffer.readUInt32LE(at + 4),
          buffer.readUInt32LE(at + 12),
        ];
        const name = buffer.toString('utf8', at + 16, at + 16 + size).replace(/\0+$/, '');
        const label = watched.get(`${inotify} ${watch}`);
        for (const [kind, bit] of Object.entries(kinds)) {
          if ((bits & bit) !== 0) list.push(`${kind} ${label}${name === '' ? '' : `/${name}`}`);
        }
        at += 16 + size;
      }
    }
  },
  /** Maps the beginning of an open file: the map's number. */
  map(fd, length, kind) {
    const protection = kind === 'shared, for writing' ? 3 : 1;
    const address = mmap(null, length, protection, kind === 'private' ? 2 : 1, fd, 0);
    if (koffi.address(address) === MAP_FAILED) throw Object.assign(new Error('mmap'), { code: outcome(-1) });
    maps.push({ address, length });
    return maps.length - 1;
  },
  peek(map, at, length) {
    return Buffer.from(Buffer.from(koffi.view(maps[map].address, maps[map].length), at, length));
  },
  poke(map, at, text) {
    Buffer.from(koffi.view(maps[map].address, maps[map].length)).write(text, at);
    return null;
  },
  syncMap(map) {
    return outcome(msync(maps[map].address, maps[map].length, MS_SYNC));
  },
  unmap(map) {
    return outcome(munmap(maps[map].address, maps[map].length));
  },
  /** fcntl's lock on a range; a length of 0 is up to the end. 'done', or the errno's name. */
  lock(fd, how, type, start, length) {
    const lock = Buffer.alloc(32);
    lock.writeInt16LE(types[type], 0);
    lock.writeBigInt64LE(BigInt(start), 8);
    lock.writeBigInt64LE(BigInt(length), 16);
    return outcome(fcntl(fd, commands[how], 'void *', lock));
  },
  flock(fd, operation, waits) {
    return outcome(flockCall(fd, operations[operation] | (waits ? 0 : LOCK_NB)));
  },
};
