// Reads requests from the device, hands each to its handler and writes the answer: one thread, one request at
// a time, and nothing that waits but the device itself and the eventfd by which other threads wake it. Every
// request is answered, whatever its handler does: a client without an answer cannot even be killed.
import { performance } from 'node:perf_hooks';
import { E, errnoName } from '../lib/errno.ts';
import { FsError, stackOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isPassing, PAUSE_MS, pause } from '../lib/passing.ts';
import { read, write } from '../sys/file.ts';
import { eventfdClear, poll3 } from '../sys/poll.ts';
import { Awake } from './awake.ts';
import { readers, sizeOf, writers } from './codec.ts';
import { Complaints, MAX_ERRNO } from './complaints.ts';
import { Counters, type OpcodeCounters } from './counters.ts';
import { type InitWishes, MAX_IO, type Negotiated, negotiate } from './init.ts';
import { INODE_SIZE, putDropped, putStore, STORE_ROOM } from './notify.ts';
import { hasUnique, newParked, type Parked, viewOf } from './parked.ts';
import { HEADER, opcodeName, opcodeRow, opcodes, PAYLOAD } from './protocol.ts';
import { type FuseRequest, type Handler, type Handlers, NO_REPLY, PARK } from './request.ts';
import { Spin } from './spin.ts';
import { replyLine, requestLine } from './trace.ts';

/** Room for the largest read or write with its header and struct; the kernel refuses to fill a smaller one. */
const BUFFER_SIZE = MAX_IO + 4096;
const DEVICE = 1;
const WAKE = 2;
const EVENTS = 4;
/** A device that is never idle keeps other threads' messages waiting for so many milliseconds at most. */
const LISTEN_EVERY = 1;
/** Nobody has asked for anything for so many milliseconds: idle. */
const IDLE_AFTER = 1000;
/** While it spins the device is read so often between two looks at the clock: some three microseconds. */
const SPIN_READS = 4;
/** A reply is tried so often before the client is answered with an error. */
const REPLY_TRIES = 20;

export interface ServerOptions {
  /** O_NONBLOCK. The server does not close it. */
  deviceFd: number;
  /** An eventfd that other threads signal. */
  wakeFd: number;
  /** A further descriptor to wait for; -1: none. Asked each time. */
  eventsFd?: () => number;
  handlers: Handlers;
  log: Log;
  /** Takes a line per request and per reply; null: no trace. */
  trace: ((line: string) => void) | null;
  /** Upper bounds of the latency histogram, in seconds, ascending. */
  buckets: readonly number[];
  wishes: InitWishes;
  /** How long to try the device again before waiting for it; 0: not at all. See spin.ts. */
  spinMicroseconds?: number;
  /** Of sys/cpu-latency.ts, to keep processors awake by: see awake.ts. The server does not close it. */
  latencyFd?: number;
  /** INIT has been answered: file system calls on the mount no longer wait for us. */
  onInit?(negotiated: Negotiated): void;
  /** The eventfd has been signalled; it is cleared already. */
  onWake(): void;
  /** The further descriptor can be read. */
  onEvents?(): void;
  /** For what can wait until nobody asks for anything: whether there is something to do, and doing it. */
  idle?: { isDue(): boolean; run(): void };
  /** Requests or messages have been dealt with; what came of them for others goes out now. */
  onDone?(): void;
  /** A small piece of work that can be done while there is no request; whether there was one. */
  spare?(): boolean;
  /** All requests that there were have been read. */
  onEmpty?: () => void;
  /** Before the device is waited for, and while it is never idle about every millisecond: for what may be late. */
  onPause?: () => void;
  /** The client of a parked request wants it no more. It still has to be answered, as a rule with EINTR. */
  onInterrupt(request: Parked): void;
  /** Once, when run() ends. Nothing can be answered any more. */
  onDestroy(): void;
}

export type Ending = 'unmounted' | 'aborted' | 'stopped';

export interface FuseServer {
  /** Serves until the file system is unmounted, its connection aborted, or stop() called. Once per server. */
  run(): Ending;
  /** Ends run() after the request in hand. On the server's own thread only. */
  stop(): void;
  /** Only inside a handler, which then returns PARK. */
  park(): Parked;
  /** Calls the handler again with a parked request: at once, or after the handler that is running now. */
  rerun(request: Parked): void;
  /** Answers a parked request: a negative errno, else success with `payload`. A second time does nothing. */
  answer(request: Parked, result: number, payload?: Buffer): void;
  /**
   * Puts the first `length` bytes of a file into the kernel's cache, as `fill` reads them to a place in a buffer;
   * whether it did. Only for what has never been open: a page that the kernel holds locked would stop us for ever.
   */
  store(
    nodeId: number,
    length: number,
    fill: (buffer: Buffer, at: number, length: number) => number,
  ): boolean;
  /**
   * The kernel keeps nothing of a directory's listing that it has read to its end. Of a directory this thread may say so:
   * its pages are locked only while the kernel copies names to or from them.
   */
  dropListing(nodeId: number): void;
  /** What INIT agreed upon; null before it. */
  readonly negotiated: Negotiated | null;
  metrics(): OpcodeCounters[];
}

export function createServer(options: ServerOptions): FuseServer {
  return new Server(options);
}

class Server implements FuseServer {
  negotiated: Negotiated | null = null;
  readonly #options: ServerOptions;
  /** By opcode. */
  readonly #handlers: readonly (Handler | undefined)[];
  readonly #counters: Counters;
  readonly #complaints: Complaints;
  readonly #spin: Spin;
  readonly #awake: Awake;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  readonly #view = viewOf(this.#buffer);
  readonly #dropped = Buffer.allocUnsafeSlow(INODE_SIZE);
  readonly #droppedView = viewOf(this.#dropped);
  readonly #r: FuseRequest;
  readonly #parked = new Set<Parked>();
  /** Reruns that were asked for inside a handler. */
  readonly #deferred: Parked[] = [];
  /** The parked request whose handler is called again. */
  #rerunning: Parked | null = null;
  /** What park() has given to the handler that is running, or ran last. */
  #parkedNow: Parked | null = null;
  #inHandler = false;
  #stopping = false;
  /** When the request in hand was read. */
  #started = 0;
  #listened = 0;
  /** When the last request came. */
  #served = 0;

  constructor(options: ServerOptions) {
    const reply = Buffer.allocUnsafeSlow(BUFFER_SIZE);
    this.#options = options;
    this.#counters = new Counters(options.buckets);
    this.#complaints = new Complaints(options.log);
    this.#spin = new Spin(options.spinMicroseconds);
    this.#awake = new Awake(options.latencyFd ?? -1);
    const handlers: (Handler | undefined)[] = [];
    for (const [name, handler] of Object.entries(options.handlers)) {
      handlers[opcodes[name as keyof Handlers].code] = handler;
    }
    this.#handlers = handlers;
    this.#r = {
      opcode: 0,
      nodeId: 0,
      uid: 0,
      gid: 0,
      pid: 0,
      extLength: 0,
      length: 0,
      buffer: this.#buffer,
      view: this.#view,
      reply,
      replyView: viewOf(reply),
      replyLimit: BUFFER_SIZE - PAYLOAD,
    };
  }

  run(): Ending {
    try {
      return this.#loop();
    } finally {
      for (const request of this.#parked) this.#close(request);
      this.#awake.rest();
      this.#options.onDestroy();
    }
  }

  stop(): void {
    this.#stopping = true;
  }

  metrics(): OpcodeCounters[] {
    return this.#counters.report();
  }

  park(): Parked {
    if (!this.#inHandler) throw new FsError(E.EINVAL, 'park() outside a handler');
    if (this.#parkedNow === null) {
      this.#parkedNow = this.#rerunning ?? newParked(this.#r, this.#started);
      this.#parked.add(this.#parkedNow);
    }
    return this.#parkedNow;
  }

  rerun(request: Parked): void {
    this.#deferred.push(request);
    if (!this.#inHandler) this.#runDeferred();
  }

  store(
    nodeId: number,
    length: number,
    fill: (buffer: Buffer, at: number, length: number) => number,
  ): boolean {
    // The reply's own bytes are written after this.
    const { reply, replyView, replyLimit } = this.#r;
    if (STORE_ROOM - PAYLOAD + length > replyLimit || fill(reply, STORE_ROOM, length) !== length)
      return false;
    putStore(replyView, nodeId, length);
    return write(this.#options.deviceFd, reply, 0, STORE_ROOM + length) > 0;
  }

  dropListing(nodeId: number): void {
    putDropped(this.#droppedView, nodeId);
    const written = write(this.#options.deviceFd, this.#dropped, 0, INODE_SIZE);
    // ENOENT: the kernel has forgotten the directory itself.
    if (written < 0 && written !== -E.ENOENT)
      this.#complaints.add(`a listing of node ${nodeId} stays with the kernel: ${errnoName(written)}`);
  }

  answer(request: Parked, result: number, payload?: Buffer): void {
    if (!request.open) return;
    this.#close(request);
    const size = result < 0 ? 0 : (payload?.length ?? 0);
    let answer = result < 0 ? result : size;
    if (!this.#sendable(answer)) {
      this.#complaints.add(`${describe(request)}: answered with ${result} and ${size} bytes`);
      answer = -E.EIO;
    }
    // The common reply buffer may be half filled by the handler that calls us, so this takes its own.
    const reply = Buffer.allocUnsafeSlow(PAYLOAD + Math.max(answer, 0));
    if (answer > 0) payload?.copy(reply, PAYLOAD);
    this.#send(request.opcode, request.view, reply, viewOf(reply), answer);
    this.#counters.add(request.opcode, performance.now() - request.started, answer);
  }

  #loop(): Ending {
    while (!this.#stopping) {
      const length = this.#receive();
      if (length >= HEADER) {
        this.#serve(length);
        if (this.#started - this.#listened > LISTEN_EVERY) this.#listen(0);
      } else if (length === -E.EAGAIN) {
        this.#options.onEmpty?.();
        this.#listen(-1);
      } else if (length === -E.ENODEV) {
        return 'unmounted';
      } else if (length === -E.ECONNABORTED) {
        return 'aborted';
      } else if (length >= 0) {
        throw new FsError(E.EPROTO, `reading the FUSE device gave ${length} bytes`);
      } else if (length !== -E.ENOENT) {
        // ENOENT: the client took the request back while we read it.
        this.#bear('reading the FUSE device', length);
      }
    }
    return 'stopped';
  }

  /** What the kernel refuses for the moment alone ends no mount: it is tried again after a pause. */
  #bear(what: string, error: number): void {
    if (!isPassing(error)) throw new FsError(-error, `${what} gave ${errnoName(error)}`);
    this.#complaints.add(`${what} gave ${errnoName(error)}: it is tried again`);
    pause(PAUSE_MS);
  }

  /** The length of the next message, or a negative errno: EAGAIN when even a spin found nothing. */
  #receive(): number {
    const { deviceFd } = this.#options;
    // In a variable: a field of this would be a new object of the heap at each turn of the spin.
    let now: number;
    let length: number;
    do {
      length = read(deviceFd, this.#buffer, 0, BUFFER_SIZE);
      now = performance.now();
    } while (length === -E.EAGAIN && this.#doSpare());
    if (length === -E.EAGAIN) {
      const until = now + this.#spin.budget();
      while (length === -E.EAGAIN && now < until) {
        for (let tries = 0; tries < SPIN_READS && length === -E.EAGAIN; tries++)
          length = read(deviceFd, this.#buffer, 0, BUFFER_SIZE);
        now = performance.now();
      }
      if (length !== -E.EAGAIN) this.#spin.caught();
    }
    this.#started = now;
    return length;
  }

  #doSpare(): boolean {
    const { spare } = this.#options;
    if (spare === undefined) return false;
    try {
      return spare();
    } catch (error) {
      this.#complaints.add(`what is done while there is no request: ${stackOf(error)}`);
      return false;
    }
  }

  /** Waits for the device or for other threads; with a timeout of 0 only asks whether one has called. */
  #listen(timeout: 0 | -1): void {
    const { deviceFd, wakeFd, eventsFd, idle, onPause } = this.#options;
    if (onPause) this.#call('what may be late', onPause);
    const { patience } = this.#awake;
    const limit = timeout === 0 ? 0 : patience < 0 && idle?.isDue() ? this.#untilIdle() : patience;
    const ready = poll3(deviceFd, wakeFd, eventsFd?.() ?? -1, limit);
    this.#listened = performance.now();
    if (ready < 0) {
      this.#bear('waiting for the FUSE device', ready);
      return;
    }
    if (timeout !== 0 && (ready & DEVICE) !== 0) this.#spin.waited(this.#listened - this.#started);
    if ((ready & WAKE) !== 0) {
      eventfdClear(wakeFd);
      this.#call('a message from another thread', () => this.#options.onWake());
    }
    if (ready === 0 && limit > 0) {
      if (patience > 0) this.#awake.rest();
      else this.#call('idle', () => idle?.run());
    }
    if ((ready & EVENTS) !== 0) this.#call('events', () => this.#options.onEvents?.());
    if ((ready & (WAKE | EVENTS)) !== 0) this.#done();
  }

  /** Milliseconds; at least one. Messages of other threads are no requests, and some come every second. */
  #untilIdle(): number {
    return Math.max(1, Math.ceil(this.#served + IDLE_AFTER - performance.now()));
  }

  /** What the owner passed in must not end the loop, which would leave every client waiting. */
  #call(what: string, callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#complaints.add(`${what}: ${stackOf(error)}`);
    }
  }

  #serve(length: number): void {
    this.#awake.came(this.#started - this.#served);
    this.#served = this.#started;
    this.#load(this.#buffer, this.#view, length);
    const { opcode } = this.#r;
    this.#options.trace?.(requestLine(this.#r, this.negotiated?.uses.SETXATTR_EXT ?? true));
    if (opcode === opcodes.INIT.code) this.#initialise();
    else if (opcode === opcodes.INTERRUPT.code) this.#interrupt();
    else if (opcode === opcodes.DESTROY.code) this.#finish(0);
    else this.#handle();
    if (this.#deferred.length > 0) this.#runDeferred();
    this.#done();
  }

  #done(): void {
    const { onDone } = this.#options;
    if (onDone) this.#call('what has been collected for others', onDone);
  }

  #load(buffer: Buffer, view: DataView, length: number): void {
    const r = this.#r;
    r.buffer = buffer;
    r.view = view;
    r.length = length;
    r.opcode = view.getUint32(4, true);
    r.nodeId = view.getUint32(16, true) + view.getUint32(20, true) * 2 ** 32;
    r.uid = view.getUint32(24, true);
    r.gid = view.getUint32(28, true);
    r.pid = view.getUint32(32, true);
    r.extLength = view.getUint16(36, true) * 8;
  }

  /** Their handlers may ask for more. */
  #runDeferred(): void {
    for (let next = this.#deferred.shift(); next !== undefined; next = this.#deferred.shift()) {
      if (!next.open) continue;
      this.#load(next.message, next.view, next.length);
      this.#started = next.started;
      this.#rerunning = next;
      this.#handle();
      this.#rerunning = null;
    }
  }

  #handle(): void {
    const handler = this.#handlers[this.#r.opcode];
    const result = handler === undefined ? -E.ENOSYS : this.#resultOf(handler);
    if (result !== PARK) this.#finish(result);
  }

  /** PARK, or what can be sent; whatever else a handler does becomes EIO and a line in the log. */
  #resultOf(handler: Handler): number {
    const result = this.#invoke(handler);
    const parked = this.#parkedNow;
    // Answered inside the handler already, or later.
    if (parked !== null && (result === PARK || !parked.open)) return PARK;
    if (parked !== null && parked !== this.#rerunning) this.#close(parked);
    if (result === NO_REPLY && opcodeRow(this.#r.opcode)?.silent) return 0;
    if (this.#sendable(result)) return result;
    this.#complaints.add(`${describe(this.#r)}: the handler returned ${result}`);
    return -E.EIO;
  }

  #invoke(handler: Handler): number {
    this.#parkedNow = null;
    this.#inHandler = true;
    try {
      return handler(this.#r);
    } catch (error) {
      return this.#complaints.thrown(describe(this.#r), error);
    } finally {
      this.#inHandler = false;
    }
  }

  #sendable(result: number): boolean {
    return Number.isInteger(result) && result >= -MAX_ERRNO && result <= this.#r.replyLimit;
  }

  /** Answers the request in hand. */
  #finish(result: number): void {
    const r = this.#r;
    if (this.#rerunning !== null) this.#close(this.#rerunning);
    if (!opcodeRow(r.opcode)?.silent) this.#send(r.opcode, r.view, r.reply, r.replyView, result);
    this.#counters.add(r.opcode, performance.now() - this.#started, result);
  }

  #close(request: Parked): void {
    request.open = false;
    this.#parked.delete(request);
  }

  /** `reply` has the payload at its place already; `result` is its length, or a negative errno. */
  #send(opcode: number, message: DataView, reply: Buffer, view: DataView, result: number): void {
    const length = PAYLOAD + Math.max(result, 0);
    view.setUint32(0, length, true);
    view.setInt32(4, Math.min(result, 0), true);
    view.setUint32(8, message.getUint32(8, true), true);
    view.setUint32(12, message.getUint32(12, true), true);
    this.#options.trace?.(replyLine(opcode, message, view, result));
    const written = write(this.#options.deviceFd, reply, 0, length);
    // ENOENT: the client is gone, or the connection was aborted.
    if (written < 0 && written !== -E.ENOENT) this.#sendAnyway(opcode, reply, view, written);
  }

  /** A reply was refused. It is tried again, and then an error in its place: the client gets some answer. */
  #sendAnyway(opcode: number, reply: Buffer, view: DataView, refused: number): void {
    const length = view.getUint32(0, true);
    let result = refused;
    for (let tries = 1; isPassing(result) && tries < REPLY_TRIES; tries++) {
      pause(PAUSE_MS);
      result = write(this.#options.deviceFd, reply, 0, length);
    }
    if (result >= 0 || result === -E.ENOENT) return;
    const what = `the reply to ${opcodeName(opcode)}, ${length} bytes`;
    this.#complaints.add(`${what}, was refused: ${errnoName(result)}`);
    view.setUint32(0, PAYLOAD, true);
    view.setInt32(4, -E.EIO, true);
    while (isPassing(write(this.#options.deviceFd, reply, 0, PAYLOAD))) pause(PAUSE_MS);
  }

  #initialise(): void {
    const r = this.#r;
    const init = { ...readers.init_in(r.view, HEADER) };
    if (r.length < HEADER + sizeOf('init_in')) init.flags2 = 0;
    const { handlers, wishes } = this.#options;
    const possible = { ...wishes, locks: wishes.locks && handlers.GETLK !== undefined };
    try {
      const { out, negotiated } = negotiate(init, possible);
      this.negotiated = negotiated;
      this.#finish(writers.init_out(r.replyView, PAYLOAD, out));
      this.#call('after INIT', () => this.#options.onInit?.(negotiated));
    } catch (error) {
      this.#finish(error instanceof FsError ? -error.errno : -E.EIO);
      throw error;
    }
  }

  /** One that is not parked has been answered by now, and the kernel expects no reply to this. */
  #interrupt(): void {
    // First, for what follows may load another request.
    this.#finish(0);
    const { uniqueLow, uniqueHigh } = readers.interrupt_in(this.#view, HEADER);
    for (const request of this.#parked) {
      if (!hasUnique(request, uniqueLow, uniqueHigh)) continue;
      this.#call(`interrupt of ${describe(request)}`, () => this.#options.onInterrupt(request));
      break;
    }
  }
}

function describe(request: { opcode: number; nodeId: number }): string {
  return `${opcodeName(request.opcode)} of node ${request.nodeId}`;
}
