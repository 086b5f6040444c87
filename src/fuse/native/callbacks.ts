// The addon's callbacks: arguments of libfuse 2 into those of the handlers, and what they give into what the addon's
// signals take. Here names become bytes, and 64-bit numbers whole.
import { E } from '../../lib/errno.ts';
import type { Callback, Operation } from './addon.ts';
import type { Answer, Listing, NativeHandlers } from './handlers.ts';
import { newStatfsWords, newStatWords } from './words.ts';

export type Callbacks = Partial<Record<Operation, Callback>>;

export interface Request {
  /** For the trace. */
  what: string;
  work: (handlers: NativeHandlers) => Answer;
  /** What the signal takes after the result; absent: nothing. */
  reply?: (result: number) => readonly unknown[];
  /** The signal's result; absent: the answer. */
  status?: (result: number) => number;
}

type HaveAnswered = (operation: Operation, thread: Buffer, request: Request) => void;

const WORD = 2 ** 32;
/** An owner or group that stays. */
const NO_ID = 2 ** 32 - 1;
/** Where the addon's memory of a thread holds the times of utimens, in bytes. */
const ATIME_AT = 104;
const MTIME_AT = 112;

/** All that are answered, but init. */
export function callbacksOf(answer: HaveAnswered): Callbacks {
  return { ...ofNames(answer), ...ofAttributes(answer), ...ofFiles(answer), ...ofXattrs(answer) };
}

/** For operations on one path whose answer is a number. */
function plain(
  answer: HaveAnswered,
  operation: Operation,
  work: (handlers: NativeHandlers, path: string, ...args: number[]) => Answer,
): Callback {
  return (thread, _, path: string, ...args: number[]) =>
    answer(operation, thread, { what: path, work: (h) => onPath(path, (inner) => work(h, inner, ...args)) });
}

/** For operations on two names. */
function pair(
  answer: HaveAnswered,
  operation: Operation,
  work: (handlers: NativeHandlers, from: string, to: string) => Answer,
): Callback {
  return (thread, _, from: string, to: string) =>
    answer(operation, thread, {
      what: `${from} ${to}`,
      work: (h) => onName(from, (a) => onName(to, (b) => work(h, a, b))),
    });
}

function ofNames(answer: HaveAnswered): Callbacks {
  return {
    mknod: plain(answer, 'mknod', (h, path, mode = 0, rdev = 0) => h.mknod(path, mode, rdev)),
    mkdir: plain(answer, 'mkdir', (h, path, mode = 0) => h.mkdir(path, mode)),
    unlink: plain(answer, 'unlink', (h, path) => h.unlink(path)),
    rmdir: plain(answer, 'rmdir', (h, path) => h.rmdir(path)),
    symlink: pair(answer, 'symlink', (h, target, path) => h.symlink(target, path.slice(1))),
    link: pair(answer, 'link', (h, from, to) => h.link(from.slice(1), to.slice(1))),
    rename: pair(answer, 'rename', (h, from, to) => h.rename(from.slice(1), to.slice(1))),
    readlink: (thread: Buffer, _: number, path: string) => {
      const out = { target: '' };
      answer('readlink', thread, {
        what: path,
        work: (h) =>
          onPath(path, (inner) => after(h.readlink(inner, out), () => (isText(out.target) ? 0 : -E.EILSEQ))),
        reply: () => [toText(out.target)],
      });
    },
    readdir: (thread: Buffer, _: number, path: string) => {
      const out: Listing = { names: [], entries: [] };
      answer('readdir', thread, {
        what: path,
        work: (h) => onPath(path, (inner) => h.readdir(inner, out)),
        reply: () => [out.names.map(toText), out.entries],
      });
    },
  };
}

function ofAttributes(answer: HaveAnswered): Callbacks {
  return {
    getattr: (thread: Buffer, _: number, path: string) => {
      const words = newStatWords();
      const work = (h: NativeHandlers) => onPath(path, (inner) => h.getattr(inner, words));
      answer('getattr', thread, { what: path, work, reply: () => [words] });
    },
    fgetattr: (thread: Buffer, _: number, path: string, handle: number) => {
      const words = newStatWords();
      answer('fgetattr', thread, {
        what: path,
        work: (h) => h.fgetattr(handle, words),
        reply: () => [words],
      });
    },
    statfs: (thread: Buffer) => {
      const words = newStatfsWords();
      answer('statfs', thread, { what: '', work: (h) => h.statfs(words), reply: () => [words] });
    },
    chmod: plain(answer, 'chmod', (h, path, mode = 0) => h.chmod(path, mode)),
    chown: plain(answer, 'chown', (h, path, uid = NO_ID, gid = NO_ID) =>
      h.chown(path, uid === NO_ID ? null : uid, gid === NO_ID ? null : gid),
    ),
    truncate: plain(answer, 'truncate', (h, path, low = 0, high = 0) => h.truncate(path, low + high * WORD)),
    ftruncate: (thread: Buffer, _: number, path: string, handle: number, low: number, high: number) =>
      answer('ftruncate', thread, { what: path, work: (h) => h.ftruncate(handle, low + high * WORD) }),
    utimens: (thread: Buffer, _: number, path: string, ...words: number[]) => {
      const [atime, mtime] = timesOf(thread, words);
      answer('utimens', thread, {
        what: path,
        work: (h) => onPath(path, (inner) => h.utimens(inner, atime, mtime)),
      });
    },
  };
}

function ofFiles(answer: HaveAnswered): Callbacks {
  const opened =
    (operation: 'open' | 'create'): Callback =>
    (thread, _, path: string, word: number) =>
      answer(operation, thread, {
        what: path,
        work: (h) => onPath(path, (inner) => h[operation](inner, word)),
        reply: (result) => [Math.max(result, 0)],
        status: (result) => Math.min(result, 0),
      });
  const moved =
    (operation: 'read' | 'write'): Callback =>
    (thread, _, path: string, fh: number, data: Buffer, length: number, low: number, high: number) =>
      answer(operation, thread, {
        what: `${path} ${length}`,
        work: (h) => h[operation](fh, data, low + high * WORD),
        reply: () => [0, data.buffer],
      });
  return {
    open: opened('open'),
    create: opened('create'),
    read: moved('read'),
    write: moved('write'),
    release: (thread: Buffer, _: number, path: string, fh: number) =>
      answer('release', thread, { what: path, work: (h) => h.release(fh) }),
    fsync: (thread: Buffer, _: number, path: string, dataOnly: number, fh: number) =>
      answer('fsync', thread, { what: path, work: (h) => h.fsync(fh, dataOnly !== 0) }),
    fsyncdir: plain(answer, 'fsyncdir', (h, path) => h.fsyncdir(path)),
  };
}

function ofXattrs(answer: HaveAnswered): Callbacks {
  return {
    setxattr: (thread: Buffer, _: number, path: string, name: string, value: Buffer, ...more: number[]) =>
      answer('setxattr', thread, {
        what: `${path} ${name}`,
        work: (h) =>
          onPath(path, (inner) => onName(name, (attr) => h.setxattr(inner, attr, value, more[1] ?? 0))),
        reply: () => [value.buffer],
      }),
    getxattr: (thread: Buffer, _: number, path: string, name: string, room: Buffer) => {
      const out = { value: Buffer.alloc(0) };
      answer('getxattr', thread, {
        what: `${path} ${name}`,
        work: (h) =>
          onPath(path, (inner) =>
            onName(name, (attr) => after(h.getxattr(inner, attr, out), () => put(out.value, room))),
          ),
        reply: () => [room.buffer],
      });
    },
    listxattr: (thread: Buffer, _: number, path: string, room: Buffer) => {
      const out = { value: Buffer.alloc(0) };
      answer('listxattr', thread, {
        what: path,
        work: (h) => onPath(path, (inner) => after(h.listxattr(inner, out), () => put(out.value, room))),
        reply: () => [room.buffer],
      });
    },
    removexattr: (thread: Buffer, _: number, path: string, name: string) =>
      answer('removexattr', thread, {
        what: `${path} ${name}`,
        work: (h) => onPath(path, (inner) => onName(name, (attr) => h.removexattr(inner, attr))),
      }),
  };
}

/** With a room of 0 only how long the value is. */
function put(value: Buffer, room: Buffer): number {
  if (room.length === 0) return value.length;
  if (value.length > room.length) return -E.ERANGE;
  value.copy(room);
  return value.length;
}

function after(answer: Answer, more: () => number): Answer {
  if (typeof answer !== 'number') return answer.then((result) => (result < 0 ? result : more()));
  return answer < 0 ? answer : more();
}

const ASCII = /^[\0-\x7f]*$/;

/** The addon decodes what is no UTF-8 into U+FFFD, so that names are lost and meet: such ones are EILSEQ. */
function onName(text: string, work: (name: string) => Answer): Answer {
  if (ASCII.test(text)) return work(text);
  return text.includes('\ufffd') ? -E.EILSEQ : work(Buffer.from(text, 'utf8').toString('latin1'));
}

/** A path comes with a slash before it. */
function onPath(text: string, work: (path: string) => Answer): Answer {
  return onName(text, (path) => work(path.slice(1)));
}

function toText(name: string): string {
  return ASCII.test(name) ? name : Buffer.from(name, 'latin1').toString('utf8');
}

function isText(name: string): boolean {
  return !toText(name).includes('\ufffd');
}

/**
 * The addon passes atime for both (fuse-native.c, utimens), but mtime lies beside it in the memory of its thread.
 * Only where atime is found where it is expected is that believed.
 */
function timesOf(thread: Buffer, [low = 0, high = 0]: readonly number[]): [number, number] {
  const atime = signed(low, high);
  const there = thread.length >= MTIME_AT + 8;
  const found = there && thread.readUInt32LE(ATIME_AT) === low && thread.readUInt32LE(ATIME_AT + 4) === high;
  if (!found) return [atime, atime];
  return [atime, signed(thread.readUInt32LE(MTIME_AT), thread.readUInt32LE(MTIME_AT + 4))];
}

/** Times before 1970 are negative. */
function signed(low: number, high: number): number {
  return (high | 0) * WORD + low;
}
