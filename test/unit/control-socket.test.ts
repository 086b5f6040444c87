import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { type ControlServer, createControlServer } from '../../src/control/server.ts';
import type { ReconcileItem } from '../../src/control/verbs.ts';
import { E } from '../../src/lib/errno.ts';
import { addConflict, type Stub, stubVerbs } from '../lib/stub-verbs.ts';

let dir: string;
let socketPath: string;
let stub: Stub;
let server: ControlServer;

beforeEach(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-socket-'));
  socketPath = path.join(dir, 'x.sock');
  stub = stubVerbs();
  server = await createControlServer({ verbs: stub.verbs, socketPath, warn: () => {} });
});

afterEach(async () => {
  await server.close();
  fs.rmSync(dir, { recursive: true });
});

/** The lines that the server answers to raw bytes. */
function raw(bytes: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let out = '';
    const socket = net.connect(socketPath, () => socket.write(bytes));
    socket.on('data', (chunk) => (out += String(chunk)));
    socket.on('error', reject);
    socket.on('close', () => resolve(out.split('\n').filter((line) => line !== '')));
  });
}

describe('the control socket', () => {
  test('is for its owner alone', () => {
    expect(fs.statSync(socketPath).mode & 0o777).toBe(0o600);
  });

  test('carries a request and its result, with names that are no UTF-8', async () => {
    stub.conflicts = [{ id: 1, rev: 1, kind: 'text', path: 'caf\xe9 \u0085', since: 5 }];
    const verbs = connectVerbs(socketPath);
    expect(await verbs.conflicts()).toEqual(stub.conflicts);
    expect(await verbs.status()).toEqual(stub.status);
  });

  test('carries items before the result, in order', async () => {
    addConflict(stub);
    const big = Buffer.alloc(3_000_000, 'content of a side ');
    const request = { target: { id: 17 }, what: { side: 'overlay' } } as const;
    stub.contents.set(JSON.stringify(request), big);
    const parts: Buffer[] = [];
    const report = await connectVerbs(socketPath).show(request, async ({ data }) => {
      parts.push(Buffer.from(data, 'base64'));
    });
    expect(report.size).toBe(big.length);
    expect(Buffer.concat(parts).equals(big)).toBe(true);
    const items: ReconcileItem[] = [];
    const asked = { path: 'etc', dryRun: true, acceptBase: false };
    expect((await connectVerbs(socketPath).reconcile(asked, (item) => void items.push(item))).merged).toBe(1);
    expect(items.map((item) => item.outcome)).toEqual(['merged']);
  });

  test('carries errors with their errno, and lives on', async () => {
    const verbs = connectVerbs(socketPath);
    await expect(verbs.conflict({ id: 9 })).rejects.toMatchObject({
      errno: E.ENOKEY,
      message: 'no such conflict',
    });
    await expect(verbs.hold()).rejects.toMatchObject({ errno: E.EOPNOTSUPP });
    stub.verbs.status = () => Promise.reject(new TypeError('boom'));
    await expect(verbs.status()).rejects.toMatchObject({ errno: E.EIO, message: 'boom' });
    expect(await verbs.conflicts()).toEqual([]);
  });

  test('answers nonsense with an error', async () => {
    const error = async (bytes: string) => JSON.parse((await raw(bytes))[0] ?? '{}').error;
    expect(await error('hello\n')).toEqual({ errno: E.EINVAL, message: 'request is not JSON' });
    expect(await error('{"kasane":1,"verb":"constructor"}\n')).toMatchObject({ errno: E.EINVAL });
    expect(await error('{"kasane":1,"verb":"undo"}\n')).toMatchObject({ errno: E.EINVAL });
    expect(await error('{"kasane":2,"verb":"status"}\n')).toMatchObject({ errno: E.EPROTO });
  });

  test('a caller that goes away ends its stream, not the daemon', async () => {
    const ended = new Promise<unknown>((resolve) => {
      stub.verbs.events = async (_request, emit) => {
        try {
          for (let seq = 1; ; seq++) {
            await emit({ seq, epoch: 0, time: 0, kind: 'merged', path: 'x'.repeat(1000) });
            await new Promise((again) => setImmediate(again));
          }
        } catch (error) {
          resolve(error);
          throw error;
        }
      };
    });
    let seen = 0;
    const stream = connectVerbs(socketPath).events({ from: 1, follow: true }, () => {
      seen += 1;
      if (seen === 3) throw new Error('enough');
    });
    await expect(stream).rejects.toThrow('enough');
    expect(await ended).toMatchObject({ errno: E.EPIPE });
    expect(await connectVerbs(socketPath).status()).toEqual(stub.status);
  });

  test('a daemon that is gone, dies while asked, or hangs is told apart from an answer', async () => {
    stub.verbs.status = () => new Promise(() => {});
    const hung = connectVerbs(socketPath, { timeoutMs: 50 }).status();
    await expect(hung).rejects.toMatchObject({ errno: E.ETIMEDOUT });
    const asked = connectVerbs(socketPath).status();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await server.close();
    await expect(asked).rejects.toMatchObject({ errno: E.ENOTCONN });
    await expect(connectVerbs(socketPath).status()).rejects.toMatchObject({ errno: E.ENOTCONN });
    server = await createControlServer({ verbs: stub.verbs, socketPath, warn: () => {} });
  });

  test('takes over a socket that a killed daemon has left', async () => {
    const left = path.join(dir, 'left.sock');
    fs.writeFileSync(left, '');
    const second = await createControlServer({ verbs: stub.verbs, socketPath: left, warn: () => {} });
    expect(await connectVerbs(left).conflicts()).toEqual([]);
    await second.close();
    expect(fs.existsSync(left)).toBe(false);
  });
});
