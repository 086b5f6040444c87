// What an agent (agent.ts) does beyond node:fs: maps and locks. Loaded when it is first asked for.
import koffi from 'koffi';

const libc = koffi.load(null);
const mmap = libc.func('void *mmap(void *, size_t, int, int, int, int64_t)');
const munmap = libc.func('int munmap(void *, size_t)');
const msync = libc.func('int msync(void *, size_t, int)');
const fcntl = libc.func('int fcntl(int, int, ...)');
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

export const calls = {
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
