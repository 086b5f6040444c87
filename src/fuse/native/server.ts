// Answers libfuse 2 through the addon of fuse-native, on the main thread: each request comes as a callback and goes
// as a signal, at once or later. Every request is answered whatever its handler does, and nothing is ever thrown into
// the addon, which would end the process. Knows nothing of unions.
import { E, errnoName } from '../../lib/errno.ts';
import { FsError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { toDisplay } from '../../lib/names.ts';
import { close, dup } from '../../sys/file.ts';
import { hasHungUp } from '../../sys/poll.ts';
import { Complaints, MAX_ERRNO } from '../complaints.ts';
import { Counters, type OpcodeCounters } from '../counters.ts';
import type { DeviceOptions } from '../device.ts';
import { type OpcodeName, opcodes } from '../protocol.ts';
import { type Addon, type Callback, type Operation, operations } from './addon.ts';
import { type Callbacks, callbacksOf, type Request } from './callbacks.ts';
import type { Answer, NativeHandlers } from './handlers.ts';
import { deviceDescriptors, optionText, textOf, unmountByProgram } from './mount.ts';

export interface NativeOptions {
  device: DeviceOptions;
  log: Log;
  /** Takes a line per request and per answer; null: no trace. */
  trace: ((line: string) => void) | null;
  buckets: readonly number[];
}

/** For the counters, which know the kernel's names. */
const opcodeOf: Partial<Record<Operation, OpcodeName>> = {
  getattr: 'GETATTR',
  fgetattr: 'GETATTR',
  statfs: 'STATFS',
  readlink: 'READLINK',
  readdir: 'READDIR',
  mknod: 'MKNOD',
  mkdir: 'MKDIR',
  symlink: 'SYMLINK',
  link: 'LINK',
  rename: 'RENAME',
  unlink: 'UNLINK',
  rmdir: 'RMDIR',
  chmod: 'SETATTR',
  chown: 'SETATTR',
  truncate: 'SETATTR',
  ftruncate: 'SETATTR',
  utimens: 'SETATTR',
  open: 'OPEN',
  create: 'CREATE',
  read: 'READ',
  write: 'WRITE',
  release: 'RELEASE',
  fsync: 'FSYNC',
  fsyncdir: 'FSYNCDIR',
  setxattr: 'SETXATTR',
  getxattr: 'GETXATTR',
  listxattr: 'LISTXATTR',
  removexattr: 'REMOVEXATTR',
};

/** Between two looks at whether the mount is over. */
const ENDED_MS = 100;
/** A file system that is mounted and is served once `serve` has been called, before this thread does anything else. */
export class NativeServer {
  readonly #addon: Addon;
  readonly #options: NativeOptions;
  readonly #counters: Counters;
  readonly #complaints: Complaints;
  /** Memory that the addon keeps pointers to. */
  readonly #kept = new Set<Buffer>();
  readonly #deviceFd: number;
  #handlers: NativeHandlers | null = null;
  #onInit: () => void = () => {};
  #onEnd: () => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  /** Mounts. Throws FsError. */
  constructor(addon: Addon, options: NativeOptions) {
    this.#addon = addon;
    this.#options = options;
    this.#counters = new Counters(options.buckets);
    this.#complaints = new Complaints(options.log);
    const { device } = options;
    const before = new Set(deviceDescriptors());
    const callbacks: Callbacks = {
      ...callbacksOf((operation, thread, request) => this.#answer(operation, thread, request)),
      init: (thread) => {
        addon.fuse_native_signal_init?.(thread, 0);
        this.#onInit();
      },
    };
    const implemented = new Uint32Array(operations.length + 1);
    for (const [number, name] of operations.entries()) implemented[number] = callbacks[name] ? 1 : 0;
    const silent: Callback = () => {};
    try {
      addon.fuse_native_mount(
        textOf(device.mountPoint),
        optionText(device),
        this.#keep(addon.sizeof_fuse_thread_t),
        this,
        (size) => this.#keep(size),
        operations.map((name) => callbacks[name] ?? silent),
        implemented,
      );
    } catch (error) {
      const where = toDisplay(device.mountPoint);
      throw new FsError(E.EPERM, `mounting on ${where} failed: libfuse says why in the log`, error);
    }
    const opened = deviceDescriptors().find((fd) => !before.has(fd));
    this.#deviceFd = opened === undefined ? -1 : dup(opened);
    if (this.#deviceFd < 0) throw new FsError(E.EIO, 'the device that libfuse has opened is not to be found');
  }

  /** `onInit`: the kernel has been answered for the first time. `onEnd`: nothing can be answered any more. */
  serve(handlers: NativeHandlers, onInit: () => void, onEnd: () => void): void {
    this.#handlers = handlers;
    this.#onInit = onInit;
    this.#onEnd = onEnd;
    this.#timer = setInterval(() => this.#look(), ENDED_MS);
  }

  /** 0 or a negative errno. */
  async unmount(lazy: boolean): Promise<number> {
    const result = await unmountByProgram(this.#options.device.mountPoint, lazy);
    this.#look();
    return result;
  }

  metrics(): OpcodeCounters[] {
    return this.#counters.report();
  }

  #keep(size: number): Buffer {
    const buffer = Buffer.alloc(size);
    this.#kept.add(buffer);
    return buffer;
  }

  #look(): void {
    if (this.#over || !hasHungUp(this.#deviceFd)) return;
    this.#over = true;
    clearInterval(this.#timer);
    close(this.#deviceFd);
    this.#onEnd();
  }

  /** Whether a thread that waits for an answer is still there; after the end its memory is not to be touched. */
  #isOver(): boolean {
    this.#look();
    return this.#over;
  }

  /** Has one request answered, now or later. */
  #answer(operation: Operation, thread: Buffer, request: Request): void {
    const { what, work, reply, status } = request;
    const started = performance.now();
    const { trace } = this.#options;
    trace?.(`-> ${operation} ${what}`);
    const done = (given: number) => {
      const result = this.#sendable(operation, given);
      trace?.(`<- ${operation} ${result < 0 ? errnoName(result) : result}`);
      const opcode = opcodeOf[operation];
      if (opcode) this.#counters.add(opcodes[opcode].code, performance.now() - started, result);
      this.#addon[`fuse_native_signal_${operation}`]?.(
        thread,
        status?.(result) ?? result,
        ...(reply?.(result) ?? []),
      );
    };
    const answer = this.#attempt(operation, work);
    if (typeof answer === 'number') {
      done(answer);
      return;
    }
    const later = (result: number) => {
      if (!this.#isOver()) done(result);
    };
    void answer.catch((error: unknown) => this.#complaints.thrown(operation, error)).then(later);
  }

  #attempt(operation: Operation, work: (handlers: NativeHandlers) => Answer): Answer {
    try {
      return this.#handlers === null ? -E.EAGAIN : work(this.#handlers);
    } catch (error) {
      return this.#complaints.thrown(operation, error);
    }
  }

  #sendable(operation: Operation, result: number): number {
    if (Number.isInteger(result) && result >= -MAX_ERRNO && result < 2 ** 31) return result;
    this.#complaints.add(`${operation}: the handler returned ${result}`);
    return -E.EIO;
  }
}
