// Rules of locks and leases: whom they keep out, how long they last, to whom they pass. See rules.mjs.
import { spawn } from 'node:child_process';

const F_GETLK = 5;
const F_SETLK = 6;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const RDLCK = 0;
const WRLCK = 1;
const UNLCK = 2;

/** Calls fcntl with a struct flock of these values, which is given back as it is afterwards. */
function fcntlLock(c, fd, command, type, start, length) {
  const memory = c.sys.pinned(32);
  memory.view.setInt16(0, type, true);
  memory.view.setBigInt64(8, BigInt(start), true);
  memory.view.setBigInt64(16, BigInt(length), true);
  const result = c.sys.fcntl(fd, command, memory.address);
  return { result, memory };
}

/** fcntl's lock: of the process, or with `ofd` of the open file. */
function lock(c, fd, type, start, length, ofd = false) {
  return fcntlLock(c, fd, ofd ? F_OFD_SETLK : F_SETLK, type, start, length).result;
}

/** The lock that keeps this one from being had: type, start, length; null: none does. */
function inTheWay(c, fd, type, start, length, ofd = false) {
  const { result, memory } = fcntlLock(c, fd, ofd ? F_OFD_GETLK : F_GETLK, type, start, length);
  c.did(result);
  const { view } = memory;
  const held = view.getInt16(0, true);
  return held === UNLCK
    ? null
    : [held, Number(view.getBigInt64(8, true)), Number(view.getBigInt64(16, true))];
}

const locks = [
  {
    name: 'flock excludes other opens of the same file, by any of its names',
    before(c) {
      c.put('f');
      c.fs.linkSync(c.at('f'), c.at('g'));
    },
    run(c) {
      const { sys } = c;
      const a = c.open('f', sys.O_RDONLY);
      const b = c.open('f', sys.O_RDWR);
      const other = c.open('g', sys.O_RDONLY);
      c.did(sys.flock(a, sys.LOCK_EX | sys.LOCK_NB));
      c.fails('EAGAIN', () => sys.flock(b, sys.LOCK_SH | sys.LOCK_NB));
      c.did(sys.flock(a, sys.LOCK_SH | sys.LOCK_NB));
      c.did(sys.flock(b, sys.LOCK_SH | sys.LOCK_NB));
      c.fails('EAGAIN', () => sys.flock(b, sys.LOCK_EX | sys.LOCK_NB));
      c.close(a);
      c.did(sys.flock(b, sys.LOCK_EX | sys.LOCK_NB));
      c.did(sys.flock(b, sys.LOCK_UN));
      c.did(sys.flock(other, sys.LOCK_EX | sys.LOCK_NB));
      c.close(b);
      c.close(other);
    },
  },
  {
    name: 'a lock outlives a change of the file by others, and its rename',
    before(c) {
      c.put('f', 'content');
    },
    run(c) {
      const { sys } = c;
      const held = c.open('f', sys.O_RDONLY);
      c.did(sys.flock(held, sys.LOCK_EX | sys.LOCK_NB));
      c.fs.appendFileSync(c.at('f'), 'more');
      c.did(c.rename('f', 'g'));
      const other = c.open('g', sys.O_RDWR);
      c.fails('EAGAIN', () => sys.flock(other, sys.LOCK_EX | sys.LOCK_NB));
      c.close(held);
      c.did(sys.flock(other, sys.LOCK_EX | sys.LOCK_NB));
      c.close(other);
    },
  },
  {
    name: 'fcntl locks exclude by range, and go when the process closes the file',
    before(c) {
      c.put('f', 'x'.repeat(100));
    },
    run(c) {
      const { sys } = c;
      const mine = c.open('f', sys.O_RDWR);
      const ofd = c.open('f', sys.O_RDWR);
      c.did(lock(c, mine, WRLCK, 0, 10));
      c.fails('EAGAIN', () => lock(c, ofd, WRLCK, 5, 10, true));
      c.fails('EAGAIN', () => lock(c, ofd, RDLCK, 0, 1, true));
      c.did(lock(c, ofd, WRLCK, 10, 10, true));
      c.did(lock(c, mine, UNLCK, 0, 5));
      c.did(lock(c, ofd, RDLCK, 0, 5, true));
      c.did(lock(c, mine, RDLCK, 0, 10));
      c.did(lock(c, mine, UNLCK, 0, 0));
      c.did(lock(c, mine, WRLCK, 50, 0));
      c.fails('EAGAIN', () => lock(c, ofd, WRLCK, 99, 1, true));
      // Any close of the file by the process lets go of its locks.
      c.close(c.open('f', sys.O_RDONLY));
      c.did(lock(c, ofd, WRLCK, 99, 1, true));
      c.close(mine);
      c.close(ofd);
    },
  },
  {
    name: 'a lock of the open file is kept by its duplicates and heirs, and goes with the last of them',
    before(c) {
      c.put('f', 'x'.repeat(100));
    },
    async run(c) {
      const { sys } = c;
      const held = c.open('f', sys.O_RDWR);
      const copy = c.did(sys.dup(held));
      const other = c.open('f', sys.O_RDWR);
      c.did(lock(c, held, WRLCK, 0, 10, true));
      c.fails('EAGAIN', () => lock(c, other, RDLCK, 9, 1, true));
      // The duplicate is the same open file: it changes the lock that it has.
      c.did(lock(c, copy, RDLCK, 0, 5, true));
      c.did(lock(c, other, RDLCK, 0, 5, true));
      c.did(lock(c, other, UNLCK, 0, 0, true));
      // Unlike a lock of the process, it outlives the close of another open of the file.
      c.close(c.open('f', sys.O_RDWR));
      c.close(held);
      c.fails('EAGAIN', () => lock(c, other, WRLCK, 0, 0, true));
      const heir = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore', copy] });
      c.close(copy);
      c.fails('EAGAIN', () => lock(c, other, WRLCK, 0, 0, true));
      heir.stdin.end();
      await new Promise((resolve) => heir.on('exit', resolve));
      c.did(lock(c, other, WRLCK, 0, 0, true));
      c.close(other);
    },
  },
  {
    name: 'who asks which lock is in the way is told its kind and range',
    before(c) {
      c.put('f', 'x'.repeat(100));
    },
    run(c) {
      const { sys } = c;
      const mine = c.open('f', sys.O_RDWR);
      const ofd = c.open('f', sys.O_RDWR);
      c.did(lock(c, mine, RDLCK, 10, 20));
      c.did(lock(c, mine, WRLCK, 50, 0));
      c.equal(inTheWay(c, ofd, RDLCK, 0, 40, true), null);
      c.equal(inTheWay(c, ofd, WRLCK, 0, 40, true), [RDLCK, 10, 20]);
      c.equal(inTheWay(c, ofd, RDLCK, 60, 1, true), [WRLCK, 50, 0]);
      // A process is not in its own way.
      c.equal(inTheWay(c, mine, WRLCK, 0, 0), null);
      c.did(lock(c, ofd, RDLCK, 0, 5, true));
      c.equal(inTheWay(c, mine, WRLCK, 0, 0), [RDLCK, 0, 5]);
      const reader = c.open('f', sys.O_RDONLY);
      c.fails('EBADF', () => lock(c, reader, WRLCK, 0, 1, true));
      c.close(reader);
      c.fails('EINVAL', () => lock(c, mine, RDLCK, -5, 2));
      c.close(mine);
      c.close(ofd);
    },
  },
  {
    name: 'of several locks in the way that is told which has the lowest place of its owner, joined with what adjoins it',
    before(c) {
      c.put('f', 'x'.repeat(100));
    },
    run(c) {
      const { sys } = c;
      const mine = c.open('f', sys.O_RDWR);
      const ofd = c.open('f', sys.O_RDWR);
      const told = () => inTheWay(c, ofd, WRLCK, 0, 0, true);
      // Set from the end to the beginning.
      c.did(lock(c, mine, WRLCK, 60, 10));
      c.did(lock(c, mine, RDLCK, 30, 10));
      c.equal(told(), [RDLCK, 30, 10], 'the lower one');
      c.did(lock(c, mine, RDLCK, 20, 10));
      c.equal(told(), [RDLCK, 20, 20], 'two that adjoin are one');
      c.did(lock(c, mine, RDLCK, 10, 15));
      c.equal(told(), [RDLCK, 10, 30], 'two that overlap are one');
      c.did(lock(c, mine, WRLCK, 15, 5));
      c.equal(told(), [RDLCK, 10, 5], 'what stands before a change');
      c.did(lock(c, mine, UNLCK, 0, 15));
      c.equal(told(), [WRLCK, 15, 5], 'what has been changed');
      c.did(lock(c, mine, UNLCK, 15, 20));
      c.equal(told(), [RDLCK, 35, 5], 'what is left');
      c.did(lock(c, mine, RDLCK, 60, 10));
      c.did(lock(c, mine, RDLCK, 40, 20));
      c.equal(told(), [RDLCK, 35, 35], 'what closes a gap joins both sides');
      c.did(lock(c, mine, UNLCK, 0, 0));
      c.equal(told(), null);
      c.close(mine);
      c.close(ofd);
    },
  },
];

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
/** Whose default it is to do nothing: a lease that is to end is told by it. */
const SIGURG = 23;

const leases = [
  {
    name: 'a lease is had while nobody is in its way, and holds up who then comes to be',
    before(c) {
      c.put('f', 'leased');
    },
    run(c) {
      const { sys } = c;
      const { fcntl } = sys;
      const tryOpen = (flags) => sys.openat(sys.AT_FDCWD, c.at('f'), flags | sys.O_NONBLOCK);
      const reader = c.open('f', sys.O_RDONLY);
      c.did(fcntl(reader, F_SETSIG, SIGURG));
      c.equal(fcntl(reader, F_GETLEASE, 0), UNLCK);
      c.did(fcntl(reader, F_SETLEASE, RDLCK));
      c.equal(fcntl(reader, F_GETLEASE, 0), RDLCK);
      c.close(c.open('f', sys.O_RDONLY));
      c.fails('EAGAIN', () => tryOpen(sys.O_WRONLY));
      c.equal(fcntl(reader, F_GETLEASE, 0), UNLCK, 'it is asked to go');
      c.did(fcntl(reader, F_SETLEASE, UNLCK));
      const writer = c.open('f', sys.O_RDWR | sys.O_NONBLOCK);
      c.fails('EAGAIN', () => fcntl(reader, F_SETLEASE, RDLCK));
      c.fails('EAGAIN', () => fcntl(writer, F_SETLEASE, WRLCK));
      c.close(reader);
      c.did(fcntl(writer, F_SETSIG, SIGURG));
      c.did(fcntl(writer, F_SETLEASE, WRLCK));
      c.fails('EAGAIN', () => tryOpen(sys.O_RDONLY));
      c.close(writer);
      c.equal(c.get('f'), 'leased');
    },
  },
];

export const lockRules = [...locks, ...leases];
