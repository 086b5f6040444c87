// Waiting for descriptors: poll(2) of three, eventfd(2) to wake another thread, inotify(7).
import { E } from '../lib/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_NONBLOCK, POLLIN } from './constants.ts';
import { native, pinned } from './ffi.ts';
import { read, write } from './file.ts';
import { NAME_A, PROC_PATH, putA, putProcFd, putProcName } from './scratch.ts';

const cPoll = native('poll', 'int', ['uintptr_t', 'uint', 'int']);
const cEventfd = native('eventfd', 'int', ['uint', 'int']);
const cInotifyInit = native('inotify_init1', 'int', ['int']);
const cInotifyAdd = native('inotify_add_watch', 'int', ['int', 'uintptr_t', 'uint']);
const cInotifyRm = native('inotify_rm_watch', 'int', ['int', 'int']);

/** Three struct pollfd: descriptor, asked events, returned events. */
const fds = pinned(24);
const fdWords = new Int32Array(fds.u32.buffer, fds.u32.byteOffset, 6);

/**
 * Waits until one of three descriptors can be read (or has an error or has ended, which a read will tell), for
 * `timeoutMs` at most; -1 for ever. A set of 1 for A, 2 for B, 4 for C, 0 after the time. -1 as descriptor: none.
 * A signal that a handler took starts the time anew.
 */
export function poll3(fdA: number, fdB: number, fdC: number, timeoutMs: number): number {
  fdWords[0] = fdA;
  fdWords[1] = POLLIN;
  fdWords[2] = fdB;
  fdWords[3] = POLLIN;
  fdWords[4] = fdC;
  fdWords[5] = POLLIN;
  const count = cPoll(fds.address, 3, timeoutMs);
  return count <= 0 ? count : returned(1, 1) | returned(3, 2) | returned(5, 4);
}

function returned(word: number, bit: number): number {
  return (fdWords[word] as number) >> 16 === 0 ? 0 : bit;
}

/** Whether a descriptor has an error or has ended; what can be read from it is no matter. */
export function hasHungUp(fd: number): boolean {
  fdWords[0] = fd;
  fdWords[1] = 0;
  return cPoll(fds.address, 1, 0) > 0;
}

/** A counter that can be polled; non-blocking. */
export function eventfd(): number {
  return cEventfd(0, O_CLOEXEC | O_NONBLOCK);
}

const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
const counter = Buffer.alloc(8);

/** Wakes whoever polls it. From any thread. */
export function eventfdSignal(fd: number): number {
  const written = write(fd, one, 0, 8);
  // EAGAIN: it has been signalled so often that it is full, which is as good.
  return written === 8 || written === -E.EAGAIN ? 0 : written;
}

/** Whether it had been signalled since the last time: 1 or 0. */
export function eventfdClear(fd: number): number {
  const got = read(fd, counter, 0, 8);
  if (got === -E.EAGAIN) return 0;
  return got < 0 ? got : 1;
}

/** A non-blocking inotify descriptor. */
export function inotifyInit(): number {
  return cInotifyInit(O_CLOEXEC | O_NONBLOCK);
}

/** Watches a name, or with '' what is open as `dirFd`, O_PATH ones too; `mask` of IN_*. The watch's number. */
export function inotifyAdd(fd: number, dirFd: number, name: string, mask: number): number {
  if (dirFd === AT_FDCWD) return putA(name) || cInotifyAdd(fd, NAME_A, mask);
  const bad = name === '' ? putProcFd(dirFd) : putProcName(dirFd, name);
  return bad || cInotifyAdd(fd, PROC_PATH, mask);
}

export function inotifyRm(fd: number, watch: number): number {
  return cInotifyRm(fd, watch);
}

/** Calls `each` for every event of what was read from an inotify descriptor. */
export function parseInotify(
  buf: Buffer,
  len: number,
  each: (watch: number, mask: number, cookie: number, name: string) => void,
): void {
  let at = 0;
  while (at < len) {
    const size = buf.readUInt32LE(at + 12);
    // Padded with NULs; no name at all in events of the watched object itself.
    const nul = size === 0 ? at + 16 : buf.indexOf(0, at + 16);
    each(
      buf.readInt32LE(at),
      buf.readUInt32LE(at + 4),
      buf.readUInt32LE(at + 8),
      buf.toString('latin1', at + 16, nul),
    );
    at += 16 + size;
  }
}
