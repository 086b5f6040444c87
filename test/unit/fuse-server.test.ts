// The dispatcher: whatever a handler does, its client gets one answer, and everybody else goes on.
import { spawn } from 'node:child_process';
import { expect, test } from 'vitest';
import { writers } from '../../src/fuse/codec.ts';
import { initFlags } from '../../src/fuse/constants.ts';
import { type Parked, viewOf } from '../../src/fuse/parked.ts';
import { HEADER, opcodes, PAYLOAD } from '../../src/fuse/protocol.ts';
import { type Handlers, NO_REPLY, PARK, readName } from '../../src/fuse/request.ts';
import { E } from '../../src/lib/errno.ts';
import { FsError } from '../../src/lib/errors.ts';
import { close } from '../../src/sys/file.ts';
import { eventfd, eventfdClear } from '../../src/sys/poll.ts';
import { ask, drive, lookup, message, type Reply } from '../lib/fuse-driver.ts';

const hello: Handlers['LOOKUP'] = (r) => r.reply.write(`hello ${readName(r, HEADER)}`, PAYLOAD);

test('a reply has the payload, no error, and the very bytes of the request`s unique number', () => {
  const unique = 0xfedcba9876543210n;
  const { replies, driven } = ask({ LOOKUP: hello }, lookup('\xff\x80', { unique }));
  expect(replies).toEqual([[{ error: 0, unique, payload: Buffer.from('hello \xff\x80') }]]);
  expect(driven).toMatchObject({ ending: 'stopped', destroyed: 1, logged: [] });
});

test('the request has its header`s fields', () => {
  const seen: unknown[] = [];
  const one = lookup('a', { node: 2 ** 40 + 3 });
  one.writeUInt32LE(1000, 24);
  one.writeUInt32LE(1001, 28);
  one.writeUInt32LE(4321, 32);
  ask(
    {
      LOOKUP: (r) => {
        const { nodeId, uid, gid, pid, length, extLength, opcode } = r;
        seen.push({ nodeId, uid, gid, pid, length, extLength, opcode });
        return -E.ENOENT;
      },
    },
    one,
  );
  const header = {
    nodeId: 2 ** 40 + 3,
    uid: 1000,
    gid: 1001,
    pid: 4321,
    length: 42,
    extLength: 0,
    opcode: 1,
  };
  expect(seen).toEqual([header]);
});

test('an opcode without handler, or that nobody knows, is ENOSYS', () => {
  const { replies } = ask({}, lookup('a'), message(99));
  expect(replies.map(([one]) => one?.error)).toEqual([-E.ENOSYS, -E.ENOSYS]);
});

test('a handler that throws costs its client an EIO, the log a line, and nobody else anything', () => {
  let calls = 0;
  const { replies, driven } = ask(
    {
      LOOKUP: (r) => {
        calls++;
        if (calls === 1) throw new TypeError('no such thing');
        if (calls === 2) throw new FsError(E.ENOSPC, 'the disk is full');
        return r.reply.write('ok', PAYLOAD);
      },
    },
    lookup('a', { node: 17 }),
    lookup('b', { node: 18 }),
    lookup('c'),
  );
  expect(replies.map(([one]) => one?.error)).toEqual([-E.EIO, -E.ENOSPC, 0]);
  expect(driven.logged).toHaveLength(2);
  expect(driven.logged[0]).toMatch(/^LOOKUP of node 17: TypeError: no such thing \| at .*fuse-server/);
  expect(driven.logged[1]).toBe('LOOKUP of node 18: the disk is full');
});

test.each([
  ['nothing', undefined],
  ['NaN', Number.NaN],
  ['a fraction', 1.5],
  ['an error that the kernel would refuse', -512],
  ['more than there is room for', 1 << 21],
  ['PARK without park()', PARK],
  ['NO_REPLY where one is due', NO_REPLY],
])('a handler that returns %s costs its client an EIO', (_, value) => {
  const { replies, driven } = ask({ LOOKUP: () => value as number }, lookup('a'));
  expect(replies).toMatchObject([[{ error: -E.EIO, payload: Buffer.alloc(0) }]]);
  expect(driven.logged).toEqual([expect.stringMatching(/^LOOKUP of node 1: the handler returned /)]);
});

test('a handler that writes past the room for the reply costs its client an EIO', () => {
  const past: Handlers = {
    LOOKUP: (r) => {
      for (let i = 0; ; i += 8) r.replyView.setFloat64(PAYLOAD + i, 1);
    },
    READLINK: (r) => r.replyLimit,
  };
  const { replies } = ask(past, lookup('a'));
  expect(replies).toMatchObject([[{ error: -E.EIO }]]);
});

test('what has no reply gets none, whatever its handler does', () => {
  const seen: number[] = [];
  const forget = message(opcodes.FORGET.code, Buffer.alloc(8));
  const { replies, driven } = ask(
    {
      FORGET: (r) => {
        seen.push(r.opcode);
        if (seen.length === 2) throw new Error('lost');
        return NO_REPLY;
      },
    },
    forget,
    forget,
    message(opcodes.BATCH_FORGET.code, Buffer.alloc(8)),
    lookup('a'),
  );
  expect(replies.map((list) => list.length)).toEqual([0, 0, 0, 1]);
  expect(seen).toEqual([2, 2]);
  expect(driven.logged).toEqual([expect.stringContaining('FORGET of node 1: Error: lost')]);
});

test('counters have every answer, errors apart, and the time that a request was parked', () => {
  const tokens: Parked[] = [];
  const driven = drive(
    ({ server }) => ({
      LOOKUP: (r) => (readName(r, HEADER) === 'a' ? 0 : -E.ENOENT),
      READLINK: () => {
        tokens.push(server().park());
        return PARK;
      },
    }),
    function* ({ server }) {
      yield lookup('a');
      yield lookup('b');
      yield message(opcodes.READLINK.code);
      expect(server().metrics()).toMatchObject([{ opcode: 'LOOKUP' }]);
      const end = performance.now() + 8;
      while (performance.now() < end);
      server().answer(tokens[0] as Parked, 0);
      yield message(99);
    },
  );
  const metrics = driven.server.metrics();
  expect(metrics).toMatchObject([
    { opcode: 'LOOKUP', count: 2, errors: 1 },
    { opcode: 'READLINK', count: 1, errors: 0, histogram: [0, 1, 0] },
    { opcode: 'OPCODE_99', count: 1, errors: 1 },
  ]);
  for (const row of metrics) expect(row.histogram.reduce((a, b) => a + b)).toBe(row.count);
  expect(metrics[1]?.seconds).toBeGreaterThanOrEqual(0.008);
});

function initMessage(minor: number): Buffer {
  const body = Buffer.alloc(64);
  const flags = (1 << initFlags.INIT_EXT) | (1 << initFlags.MAX_PAGES);
  writers.init_in(viewOf(body), 0, { major: 7, minor, maxReadahead: 4096, flags, flags2: 8 });
  return message(opcodes.INIT.code, body, { node: 0 });
}

test('INIT is answered, and what holds is told', () => {
  const told: unknown[] = [];
  const driven = drive(
    () => ({}),
    function* () {
      const [reply] = yield initMessage(45);
      expect(reply).toMatchObject({ error: 0 });
      expect(reply?.payload.length).toBe(64);
      expect(reply?.payload.readUInt32LE(4)).toBe(45);
      expect(yield message(opcodes.DESTROY.code)).toMatchObject([{ error: 0 }]);
    },
    () => ({ onInit: (negotiated) => void told.push(negotiated) }),
  );
  expect(told).toEqual([driven.server.negotiated]);
  expect(driven.server.negotiated).toMatchObject({ minor: 45, offers: { HAS_EXPIRE_ONLY: true } });
});

test('an INIT of an old kernel is refused, and ends the loop', () => {
  const refused: Reply[] = [];
  const run = () =>
    drive(
      () => ({}),
      function* () {
        yield initMessage(12);
      },
      ({ drain }) => ({ onDestroy: () => void refused.push(...drain()) }),
    );
  expect(run).toThrow('FUSE 7.12');
  expect(refused).toMatchObject([{ error: -E.EPROTO }]);
});

test('an old INIT without a second word of flags is not read beyond its end', () => {
  const short = initMessage(45).subarray(0, HEADER + 16);
  short.writeUInt32LE(short.length, 0);
  const driven = drive(
    () => ({ LOOKUP: () => 0 }),
    function* () {
      yield lookup('\xff'.repeat(200));
      expect(yield Buffer.from(short)).toMatchObject([{ error: 0 }]);
    },
  );
  expect(driven.server.negotiated?.offers.HAS_EXPIRE_ONLY).toBe(false);
});

test('a device that is never idle does not keep messages from other threads waiting', () => {
  let served = 0;
  let woken = -1;
  const driven = drive(
    ({ server, feed }) => ({
      LOOKUP: () => {
        served++;
        const end = performance.now() + 0.3;
        while (performance.now() < end);
        if (served < 200) feed(lookup('next'));
        else server().stop();
        return -E.ENOENT;
      },
    }),
    function* () {
      yield lookup('first');
      woken = served;
      yield null;
    },
  );
  expect(driven.ending).toBe('stopped');
  expect(woken).toBeGreaterThan(0);
  expect(woken).toBeLessThan(20);
});

test('the trace has a readable line per request and per reply', () => {
  const lines: string[] = [];
  drive(
    () => ({
      LOOKUP: (r) => {
        writers.entry_out(r.replyView, PAYLOAD, {
          ...Object.fromEntries(['nodeid', 'ino'].map((name) => [name, 5])),
          mode: 0o100644,
        } as never);
        return 128;
      },
      UNLINK: () => -E.EROFS,
      READ: (r) => r.reply.write('some data', PAYLOAD),
    }),
    function* () {
      yield lookup('caf\xc3\xa9\n', { unique: 42n });
      yield message(opcodes.UNLINK.code, 'a\0', { unique: 44n, node: 3 });
      const body = Buffer.alloc(40);
      body.writeUInt32LE(4096, 16);
      yield message(opcodes.READ.code, body, { unique: 46n });
      yield message(opcodes.SYMLINK.code, 'name\0target\0', { unique: 48n });
    },
    () => ({ trace: (line) => void lines.push(line) }),
  );
  expect(lines).toEqual([
    '-> 42 LOOKUP node=1 uid=0 gid=0 pid=0 "café\\x0a"',
    '<- 42 LOOKUP nodeid=5 ino=5 mode=0100644',
    '-> 44 UNLINK node=3 uid=0 gid=0 pid=0 "a"',
    '<- 44 UNLINK EROFS',
    '-> 46 READ node=1 uid=0 gid=0 pid=0 size=4096',
    '<- 46 READ 9 bytes',
    '-> 48 SYMLINK node=1 uid=0 gid=0 pid=0 "name" "target"',
    '<- 48 SYMLINK ENOSYS',
  ]);
});

test('errors without end do not fill the log', () => {
  const requests = Array.from({ length: 60 }, () => lookup('a'));
  const { driven } = ask({ LOOKUP: () => Number.NaN }, ...requests);
  expect(driven.logged.length).toBeGreaterThanOrEqual(20);
  expect(driven.logged.length).toBeLessThan(45);
});

test('what can wait is done when nobody has asked for anything for a while', () => {
  const order: string[] = [];
  const driven = drive(
    () => ({
      LOOKUP: () => {
        order.push('asked');
        return -E.ENOENT;
      },
    }),
    function* () {},
    ({ server, feed }) => ({
      onWake: () => feed(lookup('a')),
      idle: {
        isDue: () => true,
        run: () => {
          order.push('idle');
          server().stop();
        },
      },
    }),
  );
  expect(driven.ending).toBe('stopped');
  expect(order).toEqual(['asked', 'idle']);
});

test('what other threads have to say does not put that off', () => {
  const events = eventfd();
  const times = 40;
  const say = `for i in $(seq ${times}); do sleep 0.2; printf '\\001\\0\\0\\0\\0\\0\\0\\0' >&3; done`;
  const other = spawn('sh', ['-c', say], { stdio: ['ignore', 'ignore', 'ignore', events] });
  let heard = 0;
  drive(
    () => ({}),
    function* () {},
    ({ server }) => ({
      onWake: () => {},
      eventsFd: () => events,
      onEvents: () => {
        eventfdClear(events);
        heard += 1;
      },
      idle: { isDue: () => true, run: () => server().stop() },
    }),
  );
  other.kill();
  close(events);
  expect(heard).toBeLessThan(times);
});
