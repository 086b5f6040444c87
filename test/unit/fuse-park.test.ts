// Requests that are answered later: parked, run again, interrupted, dropped.
import { expect, test } from 'vitest';
import type { Parked } from '../../src/fuse/parked.ts';
import { HEADER, opcodes, PAYLOAD } from '../../src/fuse/protocol.ts';
import { PARK, readName } from '../../src/fuse/request.ts';
import { E } from '../../src/lib/errno.ts';
import { drive, lookup, message } from '../lib/fuse-driver.ts';

test('a parked request is run again with its own message, may be parked again, and is answered once', () => {
  const tokens: Parked[] = [];
  let ready = false;
  const { server, logged } = drive(
    ({ server }) => ({
      LOOKUP: (r) => {
        const name = readName(r, HEADER);
        if (name === 'slow' && !ready) {
          tokens.push(server().park());
          return PARK;
        }
        return r.reply.write(`found ${name}`, PAYLOAD);
      },
    }),
    function* ({ server }) {
      const first = lookup('slow', { unique: 1000n });
      expect(yield first).toEqual([]);
      expect(yield lookup('other name that is longer')).toMatchObject([
        { payload: Buffer.from('found other name that is longer') },
      ]);
      const [token] = tokens as [Parked];
      expect(token).toMatchObject({ opcode: 1, nodeId: 1, length: first.length, open: true });
      expect(token.message.length).toBe(first.length);
      server().rerun(token);
      expect(tokens).toEqual([token, token]);
      expect(tokens[1]).toBe(token);
      expect(yield null).toEqual([]);
      ready = true;
      server().rerun(token);
      server().rerun(token);
      server().answer(token, -E.EIO);
      expect(yield null).toMatchObject([{ error: 0, unique: 1000n, payload: Buffer.from('found slow') }]);
      expect(token.open).toBe(false);
    },
  );
  expect(logged).toEqual([]);
  expect(server.metrics()).toMatchObject([{ opcode: 'LOOKUP', count: 2, errors: 0 }]);
});

test('a parked request is answered with a payload, an error, or nothing but success', () => {
  const tokens: Parked[] = [];
  drive(
    ({ server }) => ({
      LOOKUP: () => {
        tokens.push(server().park());
        return PARK;
      },
    }),
    function* ({ server }) {
      for (const unique of [10n, 12n, 14n, 16n]) expect(yield lookup('a', { unique })).toEqual([]);
      const [a, b, c, d] = tokens as [Parked, Parked, Parked, Parked];
      server().answer(a, 0, Buffer.from('late'));
      server().answer(b, -E.EINTR, Buffer.from('not sent'));
      server().answer(c, 0);
      server().answer(d, -9999);
      const replies = yield null;
      expect(replies.map(({ error, unique, payload }) => [error, unique, payload.toString()])).toEqual([
        [0, 10n, 'late'],
        [-E.EINTR, 12n, ''],
        [0, 14n, ''],
        [-E.EIO, 16n, ''],
      ]);
    },
  );
});

test('a handler that parks and then answers after all answers once', () => {
  const tokens: Parked[] = [];
  drive(
    ({ server }) => ({
      LOOKUP: () => {
        tokens.push(server().park());
        return -E.ENOENT;
      },
      READLINK: () => {
        const token = server().park();
        server().answer(token, -E.EINVAL);
        return PARK;
      },
      STATFS: () => {
        server().answer(server().park(), -E.EACCES);
        return 0;
      },
    }),
    function* ({ server }) {
      expect(yield lookup('a')).toMatchObject([{ error: -E.ENOENT }]);
      server().answer(tokens[0] as Parked, 0);
      expect(yield message(opcodes.READLINK.code)).toMatchObject([{ error: -E.EINVAL }]);
      expect(yield message(opcodes.STATFS.code)).toMatchObject([{ error: -E.EACCES }]);
      expect(yield null).toEqual([]);
    },
  );
});

test('park() outside a handler is refused', () => {
  drive(
    () => ({}),
    function* ({ server }) {
      expect(() => server().park()).toThrow('outside a handler');
      yield null;
    },
  );
});

test('inside a handler others are run again only after it, and answered without touching its reply', () => {
  const order: string[] = [];
  const tokens: Parked[] = [];
  let open = false;
  drive(
    ({ server }) => ({
      LOOKUP: (r) => {
        const name = readName(r, HEADER);
        order.push(name);
        if (name === 'release') {
          open = true;
          const length = r.reply.write('half and ', PAYLOAD);
          server().rerun(tokens[0] as Parked);
          server().answer(tokens[1] as Parked, 0, Buffer.from('answered at once'));
          return length + r.reply.write('half', PAYLOAD + length);
        }
        if (!open) {
          tokens.push(server().park());
          return PARK;
        }
        return r.reply.write(name, PAYLOAD);
      },
    }),
    function* () {
      yield lookup('one');
      yield lookup('two');
      const replies = yield lookup('release');
      const texts = replies.map(({ payload }) => payload.toString());
      expect(texts).toEqual(['answered at once', 'half and half', 'one']);
      expect(order).toEqual(['one', 'two', 'release', 'one']);
    },
  );
});

test('an interrupt finds the parked request that it names, and any other is dropped', () => {
  const told: bigint[] = [];
  const interrupt = (unique: bigint) => {
    const body = Buffer.alloc(8);
    body.writeBigUInt64LE(unique);
    return message(opcodes.INTERRUPT.code, body, { unique: unique + 1n });
  };
  const far = 2n ** 60n;
  const driven = drive(
    ({ server }) => ({
      LOOKUP: (r) => {
        if (readName(r, HEADER) === 'quick') return -E.ENOENT;
        server().park();
        return PARK;
      },
    }),
    function* () {
      yield lookup('a', { unique: 100n });
      yield lookup('b', { unique: far });
      yield lookup('quick', { unique: 104n });
      expect(yield interrupt(104n)).toEqual([]);
      expect(yield interrupt(102n)).toEqual([]);
      expect(yield interrupt(far)).toMatchObject([{ error: -E.EINTR, unique: far }]);
      expect(yield interrupt(far)).toEqual([]);
    },
    ({ server }) => ({
      onInterrupt: (request) => {
        told.push(request.message.readBigUInt64LE(8));
        server().answer(request, -E.EINTR);
      },
    }),
  );
  expect(told).toEqual([far]);
  expect(driven.logged).toEqual([]);
});

test('an interrupt may run its request again', () => {
  let interrupted = false;
  const body = Buffer.alloc(8);
  body.writeBigUInt64LE(100n);
  drive(
    ({ server }) => ({
      LOOKUP: () => {
        if (interrupted) return -E.EINTR;
        server().park();
        return PARK;
      },
    }),
    function* () {
      yield lookup('a', { unique: 100n });
      expect(yield message(opcodes.INTERRUPT.code, body)).toMatchObject([{ error: -E.EINTR, unique: 100n }]);
    },
    ({ server }) => ({
      onInterrupt: (request) => {
        interrupted = true;
        server().rerun(request);
      },
    }),
  );
});

test('requests that are parked when the loop ends are dropped', () => {
  let token: Parked | null = null;
  const driven = drive(
    ({ server }) => ({
      LOOKUP: () => {
        token = server().park();
        return PARK;
      },
    }),
    function* () {
      yield lookup('a');
    },
  );
  expect((token as Parked | null)?.open).toBe(false);
  driven.server.answer(token as unknown as Parked, 0);
  expect(driven.destroyed).toBe(1);
});
