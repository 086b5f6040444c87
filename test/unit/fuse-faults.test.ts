// What the kernel refuses for the moment, memory above all, costs time and one request at most: no mount ends by it, no
// client waits for ever.
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test, vi } from 'vitest';
import { HEADER, PAYLOAD } from '../../src/fuse/protocol.ts';
import { type Handlers, readName } from '../../src/fuse/request.ts';
import { E } from '../../src/lib/errno.ts';
import { makeLog } from '../../src/lib/log.ts';
import type * as file from '../../src/sys/file.ts';
import { ask, drive, lookup, type Reply } from '../lib/fuse-driver.ts';

/** The device's next reads and writes; 0: as they are. */
const faults = vi.hoisted(() => ({ reads: [] as number[], writes: [] as number[] }));

vi.mock('../../src/sys/file.ts', async (original) => {
  const real = await original<typeof file>();
  // The kernel's side has other sizes: eight bytes and a mebibyte for reading, a request at least for writing.
  const isDevice = (bytes: Uint8Array) => bytes.length > 1 << 20;
  return {
    ...real,
    read: (fd: number, bytes: Uint8Array, at: number, length: number) =>
      (isDevice(bytes) && faults.reads.shift()) || real.read(fd, bytes, at, length),
    write: (fd: number, bytes: Uint8Array, at: number, length: number) =>
      (isDevice(bytes) && faults.writes.shift()) || real.write(fd, bytes, at, length),
  };
});

const hello: Handlers = { LOOKUP: (r) => r.reply.write(`hello ${readName(r, HEADER)}`, PAYLOAD) };
const answer = (error: number, text: string) => [{ error, payload: Buffer.from(text) }];

test.each(['ENOMEM', 'EINTR', 'EIO', 'ENOBUFS'] as const)(
  'a read of the device that gives %s is tried again',
  (name) => {
    faults.reads = [0, -E[name], -E[name], -E[name]];
    const { replies, driven } = ask(hello, lookup('a'), lookup('b'));
    expect(faults.reads).toEqual([]);
    expect(replies).toMatchObject([answer(0, 'hello a'), answer(0, 'hello b')]);
    expect(driven).toMatchObject({ ending: 'stopped', destroyed: 1 });
    expect(
      driven.logged.filter((line) => line.includes(`reading the FUSE device gave ${name}`)),
    ).toHaveLength(3);
  },
);

test('a read that will never succeed ends the loop, with a word why', () => {
  faults.reads = [0, -E.EBADF];
  expect(() => ask(hello, lookup('a'))).toThrow('reading the FUSE device gave EBADF');
});

test('a reply that is refused for the moment is sent again', () => {
  faults.writes = [-E.ENOMEM, -E.EAGAIN];
  const { replies, driven } = ask(hello, lookup('a'), lookup('b'));
  expect(faults.writes).toEqual([]);
  expect(replies).toMatchObject([answer(0, 'hello a'), answer(0, 'hello b')]);
  expect(driven.logged).toEqual([]);
});

test.each([
  ['again and again', Array.from({ length: 25 }, () => -E.ENOMEM)],
  ['for what it is', [-E.EINVAL]],
])('a reply that is refused %s becomes an error', (_, writes) => {
  faults.writes = [...writes];
  const { replies, driven } = ask(hello, lookup('a'), lookup('b'));
  expect(faults.writes).toEqual([]);
  expect(replies).toMatchObject([answer(-E.EIO, ''), answer(0, 'hello b')]);
  expect(driven.logged).toEqual([expect.stringMatching(/^the reply to LOOKUP, 23 bytes, was refused: E/)]);
});

test('a reply that nobody waits for any more is no error', () => {
  faults.writes = [-E.ENOENT];
  const { replies, driven } = ask(hello, lookup('gone'), lookup('b'));
  expect(replies).toMatchObject([[], answer(0, 'hello b')]);
  expect(driven.logged).toEqual([]);
});

test('what is done after a request may fail, and costs nobody an answer', () => {
  const replies: Reply[][] = [];
  const onDone = () => {
    throw new Error('no room for a batch');
  };
  const driven = drive(
    () => hello,
    function* () {
      for (const name of ['a', 'b']) replies.push(yield lookup(name));
    },
    () => ({ onDone }),
  );
  expect(replies).toMatchObject([answer(0, 'hello a'), answer(0, 'hello b')]);
  expect(driven.logged[0]).toContain('no room for a batch');
});

test('a log that cannot be written ends nothing, and says later how much is missing', () => {
  const file = path.join(os.tmpdir(), `kasane-log-${process.pid}`);
  const full = fs.openSync('/dev/full', 'w');
  const there = fs.openSync(file, 'w+');
  try {
    const config = { fd: full, level: 'info' as const, prefix: 'serve' };
    const log = makeLog(config);
    log.error('one');
    log.error('two');
    config.fd = there;
    log.error('three');
    log.error('four');
    const [first, second] = fs.readFileSync(file, 'utf8').split('\n');
    expect(first).toMatch(/error serve: three \(2 lines before this could not be written\)$/);
    expect(second).toMatch(/error serve: four$/);
  } finally {
    fs.closeSync(full);
    fs.closeSync(there);
    fs.rmSync(file);
  }
});
