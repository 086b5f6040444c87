// A server of src/fuse against a socket in place of /dev/fuse: the kernel's side is a generator that yields
// messages and gets the replies. It runs inside onWake, so everything happens on one thread, in a known order.
import { defaultWishes } from '../../src/fuse/init.ts';
import { HEADER, opcodes, PAYLOAD } from '../../src/fuse/protocol.ts';
import type { Handlers } from '../../src/fuse/request.ts';
import { createServer, type FuseServer, type ServerOptions } from '../../src/fuse/server.ts';
import { close, read, setNonBlocking, write } from '../../src/sys/file.ts';
import { eventfd, eventfdSignal } from '../../src/sys/poll.ts';
import { socketpair } from '../../src/sys/socket.ts';

export interface Reply {
  error: number;
  unique: bigint;
  payload: Buffer;
}

export type Script = Generator<Buffer | null, void, Reply[]>;

export interface Driven {
  server: FuseServer;
  ending: string;
  logged: string[];
  destroyed: number;
}

let nextUnique = 2n;

export function message(
  opcode: number,
  body: Buffer | string = '',
  more: { unique?: bigint; node?: number } = {},
): Buffer {
  const bytes = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  const head = Buffer.alloc(HEADER);
  nextUnique += 2n;
  head.writeUInt32LE(HEADER + bytes.length, 0);
  head.writeUInt32LE(opcode, 4);
  head.writeBigUInt64LE(more.unique ?? nextUnique, 8);
  head.writeBigUInt64LE(BigInt(more.node ?? 1), 16);
  return Buffer.concat([head, bytes]);
}

export const lookup = (name: string, more = {}) => message(opcodes.LOOKUP.code, `${name}\0`, more);

function parse(bytes: Buffer): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at)) {
    const payload = Buffer.from(bytes.subarray(at + PAYLOAD, at + bytes.readUInt32LE(at)));
    replies.push({ error: bytes.readInt32LE(at + 4), unique: bytes.readBigUInt64LE(at + 8), payload });
  }
  return replies;
}

export interface Sides {
  server: () => FuseServer;
  /** Puts a message into the device. */
  feed: (bytes: Buffer) => void;
  /** The replies that came since the last time. */
  drain: () => Reply[];
}

/** Serves what `script` yields (null: nothing, only wake up again), and stops when it is done. */
export function drive(
  handlers: (sides: Sides) => Handlers,
  script: (sides: Sides) => Script,
  more: (sides: Sides) => Partial<ServerOptions> = () => ({}),
): Driven {
  const pair = socketpair();
  if (typeof pair === 'number') throw new Error('no socketpair');
  const [device, kernel] = pair;
  if (setNonBlocking(device) < 0 || setNonBlocking(kernel) < 0) throw new Error('the sockets stay blocking');
  const wakeFd = eventfd();
  const room = Buffer.alloc(1 << 20);
  const driven: Driven = { server: null as never, ending: '', logged: [], destroyed: 0 };
  const note = (line: string) => void driven.logged.push(line);
  const sides: Sides = {
    server: () => driven.server,
    feed: (bytes) => {
      if (write(kernel, bytes, 0, bytes.length) !== bytes.length) throw new Error('the message did not fit');
    },
    drain: () => parse(room.subarray(0, Math.max(0, read(kernel, room, 0, room.length)))),
  };
  const kernelSide = script(sides);
  driven.server = createServer({
    deviceFd: device,
    wakeFd,
    handlers: handlers(sides),
    log: { debug: note, info: note, warn: note, error: note },
    trace: null,
    buckets: [0.005, 10],
    wishes: defaultWishes,
    spinMicroseconds: 0,
    onWake: () => {
      const step = kernelSide.next(sides.drain());
      if (step.done) return driven.server.stop();
      if (step.value !== null) sides.feed(step.value);
      eventfdSignal(wakeFd);
    },
    onInterrupt: () => {},
    onDestroy: () => {
      driven.destroyed++;
    },
    ...more(sides),
  });
  eventfdSignal(wakeFd);
  try {
    driven.ending = driven.server.run();
  } finally {
    for (const fd of [device, kernel, wakeFd]) close(fd);
  }
  return driven;
}

/** One request, one reply. */
export function ask(handlers: Handlers, ...requests: Buffer[]): { replies: Reply[][]; driven: Driven } {
  const replies: Reply[][] = [];
  const driven = drive(
    () => handlers,
    function* () {
      for (const one of requests) replies.push(yield one);
    },
  );
  return { replies, driven };
}
