// The control socket of one mount, on the main thread of its daemon. It knows the language (protocol.ts) and
// hands every verb to the functions it was given; what they throw becomes an answer, never the daemon's end.
import * as fs from 'node:fs';
import * as net from 'node:net';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import {
  decodeRequest,
  encodeLine,
  errorReply,
  isStreaming,
  LINE_LIMIT,
  type Reply,
  takesRequest,
} from './protocol.ts';
import type { Emit, Verbs } from './verbs.ts';

export interface ControlServerConfig {
  verbs: Verbs;
  /** Its directory exists and is ours alone (registry.ts, ensureRuntimeDir). A socket left there is replaced. */
  socketPath: string;
  /** One line for the log: what went wrong beside an answer, such as a caller that went away. */
  warn(message: string): void;
}

export interface ControlServer {
  /** Takes no more callers, ends the streams of those there are, removes the socket. */
  close(): Promise<void>;
}

export async function createControlServer(config: ControlServerConfig): Promise<ControlServer> {
  const callers = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    callers.add(socket);
    socket.on('close', () => callers.delete(socket));
    socket.on('error', (error) => config.warn(`control socket: ${error.message}`));
    serve(socket, config.verbs).catch((error: unknown) => {
      if (!socket.destroyed) config.warn(`control socket: ${messageOf(error)}`);
      socket.destroy();
    });
  });
  fs.rmSync(config.socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.socketPath, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
  server.on('error', (error) => config.warn(`control socket: ${error.message}`));
  fs.chmodSync(config.socketPath, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of callers) socket.destroy();
      }),
  };
}

async function serve(socket: net.Socket, verbs: Verbs): Promise<void> {
  let reply: Reply;
  try {
    const line = await readLine(socket);
    if (line === null) return void socket.end();
    // From here on nothing is read but the caller's going away, which a stream wants to know.
    socket.resume();
    reply = { result: await dispatch(line, verbs, (item) => send(socket, { item })) };
  } catch (error) {
    if (socket.destroyed) return;
    reply = errorReply(error);
  }
  await send(socket, reply);
  socket.end();
}

async function dispatch(line: string, verbs: Verbs, emit: Emit<unknown>): Promise<unknown> {
  const { verb, request } = decodeRequest(line);
  const run = verbs[verb] as (...args: unknown[]) => Promise<unknown>;
  if (isStreaming(verb)) return run.call(verbs, request, emit);
  if (takesRequest(verb)) return run.call(verbs, request);
  return run.call(verbs);
}

/** Writes one line; returns when there is room for more. EPIPE once the caller has gone. */
function send(socket: net.Socket, reply: Reply): Promise<void> {
  const gone = () => new FsError(E.EPIPE, 'the caller has gone');
  if (socket.destroyed || socket.writableEnded) return Promise.reject(gone());
  if (socket.write(encodeLine(reply))) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const drained = () => {
      socket.removeListener('close', closed);
      resolve();
    };
    const closed = () => {
      socket.removeListener('drain', drained);
      reject(gone());
    };
    socket.once('drain', drained);
    socket.once('close', closed);
  });
}

/** The first line; null if the caller says nothing. */
function readLine(socket: net.Socket): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let length = 0;
    const finish = (settle: () => void) => {
      socket.removeAllListeners('data');
      socket.removeListener('end', ended);
      socket.removeListener('close', ended);
      settle();
    };
    const ended = () => finish(() => resolve(null));
    socket.on('data', (chunk: Buffer) => {
      const newline = chunk.indexOf(10);
      const part = newline < 0 ? chunk : chunk.subarray(0, newline);
      parts.push(part);
      length += part.length;
      if (length > LINE_LIMIT) finish(() => reject(new FsError(E.EFBIG, 'request is too large')));
      else if (newline >= 0) finish(() => resolve(Buffer.concat(parts).toString('utf8')));
    });
    socket.on('end', ended);
    socket.on('close', ended);
  });
}
