// libc through koffi: the only file that knows it. A wrapped function takes numbers (pointers are addresses
// of pinned memory), repeats itself after EINTR, and returns the value or the negative errno. Each thread
// that imports this module has a copy of its own, with its own errno.
import koffi from 'koffi';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';

/** Types of parameters. A number costs the same for all of them; a Buffer or a struct would cost more. */
export type CType = 'int' | 'uint' | 'int64_t' | 'size_t' | 'uintptr_t';
export type CResult = 'int' | 'int64_t';
type Numbers<P extends readonly CType[]> = { [K in keyof P]: number };
type Raw = ((...args: number[]) => number) & { async(...args: unknown[]): void };

/** The symbols of the process itself: whichever libc Node is linked with. */
const libc = koffi.load(null);

/** This thread's errno, read where libc keeps it: a tenth of the cost of koffi.errno(). */
const errnoCell = new Int32Array(koffi.view(libc.func('__errno_location', 'void *', [])(), 4));

function raw(name: string, result: CResult, params: readonly CType[]): Raw {
  return libc.func(name, result, [...params]) as Raw;
}

/** A libc function as a JavaScript one that returns its value, or the negative errno for any value below 0. */
export function native<const P extends readonly CType[]>(
  name: string,
  result: CResult,
  params: P,
): (...args: Numbers<P>) => number {
  const wrap = wrappers[params.length];
  if (wrap === undefined) throw new FsError(E.EINVAL, `${name}: no wrapper for ${params.length} parameters`);
  return wrap(raw(name, result, params)) as (...args: Numbers<P>) => number;
}

/** As native, of what not every libc has; undefined there. */
export function nativeIfThere<const P extends readonly CType[]>(
  name: string,
  result: CResult,
  params: P,
): ((...args: Numbers<P>) => number) | undefined {
  try {
    return native(name, result, params);
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('Cannot find function')) return undefined;
    throw error;
  }
}

/** As native, for what must not be repeated: after EINTR the descriptor that close(2) was given is gone. */
export function nativeOnce(name: string, params: readonly ['int']): (fd: number) => number {
  const f = raw(name, 'int', params);
  return (fd) => (f(fd) >= 0 ? 0 : -(errnoCell[0] as number));
}

/** A numbered system call through syscall(2): the number is the first argument. */
export function systemCall<const P extends readonly CType[]>(
  params: P,
): (number: number, ...args: Numbers<P>) => number {
  const call = native('syscall', 'int64_t', ['int64_t', ...params]);
  return call as (number: number, ...args: Numbers<P>) => number;
}

const INTERRUPTED = -E.EINTR;

function outcome(value: number): number {
  return value >= 0 ? value : -(errnoCell[0] as number);
}

// Spelled out by number of parameters, for rest parameters would allocate an array per call.
const wrappers: readonly ((f: Raw) => (...args: number[]) => number)[] = [
  (f) => () => {
    let value: number;
    do value = outcome(f());
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number) => {
    let value: number;
    do value = outcome(f(a));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number) => {
    let value: number;
    do value = outcome(f(a, b));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number, c: number) => {
    let value: number;
    do value = outcome(f(a, b, c));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number, c: number, d: number) => {
    let value: number;
    do value = outcome(f(a, b, c, d));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number, c: number, d: number, e: number) => {
    let value: number;
    do value = outcome(f(a, b, c, d, e));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number, c: number, d: number, e: number, g: number) => {
    let value: number;
    do value = outcome(f(a, b, c, d, e, g));
    while (value === INTERRUPTED);
    return value;
  },
  (f) => (a: number, b: number, c: number, d: number, e: number, g: number, h: number) => {
    let value: number;
    do value = outcome(f(a, b, c, d, e, g, h));
    while (value === INTERRUPTED);
    return value;
  },
];

/** koffi refuses more than 256 calls at a time; libuv's pool runs four, so the others wait here instead. */
const MOST_ASYNC = 64;
let running = 0;
const waiting: (() => void)[] = [];
/** Memory that calls under way use: nothing else may refer to it meanwhile. */
const inUse = new Set<readonly unknown[]>();

/**
 * The same on a thread of libuv's pool; `keep` is the memory that the call uses. koffi brings the pool
 * thread's errno over: it is this thread's while the callback runs, and no longer.
 */
export function nativeAsync<const P extends readonly CType[]>(
  name: string,
  result: CResult,
  params: P,
): (keep: readonly unknown[], ...args: Numbers<P>) => Promise<number> {
  const f = raw(name, result, params);
  return async (keep, ...args) => {
    // A list of its own, so that two calls with the same one do not share an entry.
    const own = [...keep];
    inUse.add(own);
    try {
      let value: number;
      do value = await pooled(f, args);
      while (value === INTERRUPTED);
      return value;
    } finally {
      inUse.delete(own);
    }
  };
}

function pooled(f: Raw, args: readonly number[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const done = (error: unknown, value: number) => {
      const result = outcome(value);
      running -= 1;
      if (error) reject(error);
      else resolve(result);
      startWaiting();
    };
    waiting.push(() => f.async(...args, done));
    startWaiting();
  });
}

function startWaiting(): void {
  if (running >= MOST_ASYNC) return;
  const start = waiting.shift();
  if (start === undefined) return;
  running += 1;
  start();
}

const bases = new WeakMap<ArrayBufferLike, number>();
let lastBytes: Uint8Array = Buffer.alloc(0);
let lastAddress = 0;

/**
 * Address of the first byte. Memory of a Buffer never moves; the last one asked for also stays alive, so that
 * a call made right after this cannot lose it to the garbage collector.
 */
export function addressOf(bytes: Uint8Array): number {
  if (bytes === lastBytes) return lastAddress;
  // An empty buffer may have no memory; the kernel does not look at an address of no bytes.
  if (bytes.length === 0) return 0;
  const buffer = bytes.buffer;
  let base = bases.get(buffer);
  if (base === undefined) {
    base = Number(koffi.address(bytes)) - bytes.byteOffset;
    bases.set(buffer, base);
  }
  lastBytes = bytes;
  lastAddress = base + bytes.byteOffset;
  return lastAddress;
}

/** Of the byte at an offset. The first one's is handed on as it is: a sum would be a new object of the heap. */
export function addressAt(bytes: Uint8Array, offset: number): number {
  const address = addressOf(bytes);
  return offset === 0 ? address : address + offset;
}

/** Memory for arguments and results that lives as long as the thread, with its address. */
export interface Pinned {
  readonly bytes: Buffer;
  readonly u32: Uint32Array;
  readonly view: DataView;
  readonly address: number;
}

/** A user who keeps the address alone would lose the memory to the garbage collector. */
const allPinned: Buffer[] = [];

export function pinned(size: number): Pinned {
  const bytes = Buffer.allocUnsafeSlow((size + 7) & ~7).fill(0);
  allPinned.push(bytes);
  return {
    bytes,
    u32: new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2),
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    address: Number(koffi.address(bytes)),
  };
}

/** Whether `length` bytes at `offset` lie in the buffer: addresses are not checked by anybody else. */
export function inside(bytes: Uint8Array, offset: number, length: number): boolean {
  return offset >= 0 && length >= 0 && offset + length <= bytes.length;
}
