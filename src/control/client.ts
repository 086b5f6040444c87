// The caller's end of the control socket: Verbs whose functions ask the daemon. A daemon that cannot be
// reached, or goes away before it answered, is ENOTCONN; what it refuses is FsError with its own errno.
import * as net from 'node:net';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { decodeReply, encodeLine, isStreaming, PROTOCOL, takesRequest } from './protocol.ts';
import type { Emit, VerbName, Verbs } from './verbs.ts';

export interface ClientOptions {
  /** Give up (ETIMEDOUT) when nothing was heard for so long, in milliseconds; 0: wait for ever. */
  timeoutMs: number;
}

/** Verbs over the socket at `socketPath`; each call is a connection of its own. */
export function connectVerbs(socketPath: string, options: ClientOptions = { timeoutMs: 0 }): Verbs {
  const bare = (verb: VerbName) => () => ask(socketPath, options, verb, undefined, null);
  const plain = (verb: VerbName) => (request: unknown) => ask(socketPath, options, verb, request, null);
  const stream = (verb: VerbName) => (request: unknown, emit: Emit<unknown>) =>
    ask(socketPath, options, verb, request, emit);
  const names: Record<VerbName, true> = {
    status: true,
    conflicts: true,
    conflict: true,
    diff: true,
    log: true,
    show: true,
    resolve: true,
    undo: true,
    reconcile: true,
    check: true,
    events: true,
    metrics: true,
    stop: true,
    prune: true,
    exportConfig: true,
    hold: true,
    release: true,
  };
  const verbs: Record<string, unknown> = {};
  for (const verb of Object.keys(names) as VerbName[]) {
    verbs[verb] = isStreaming(verb) ? stream(verb) : takesRequest(verb) ? plain(verb) : bare(verb);
  }
  return verbs as unknown as Verbs;
}

async function ask(
  socketPath: string,
  options: ClientOptions,
  verb: VerbName,
  request: unknown,
  emit: Emit<unknown> | null,
): Promise<unknown> {
  const socket = await connect(socketPath);
  try {
    socket.setTimeout(options.timeoutMs, () => {
      socket.destroy(new FsError(E.ETIMEDOUT, `daemon has not answered for ${options.timeoutMs / 1000} s`));
    });
    socket.write(
      encodeLine(request === undefined ? { kasane: PROTOCOL, verb } : { kasane: PROTOCOL, verb, request }),
    );
    for await (const line of lines(socket)) {
      const reply = decodeReply(line);
      if ('item' in reply) await emit?.(reply.item);
      else if ('result' in reply) return reply.result;
      else throw new FsError(reply.error.errno, reply.error.message);
    }
  } catch (error) {
    if (error instanceof FsError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EPIPE' && code !== 'ECONNRESET') throw error;
  } finally {
    socket.destroy();
  }
  throw new FsError(E.ENOTCONN, 'daemon went away before it answered');
}

function connect(socketPath: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketPath);
    socket.once('connect', () => {
      socket.removeListener('error', failed);
      resolve(socket);
    });
    const failed = (error: NodeJS.ErrnoException) => {
      const denied = error.code === 'EACCES' || error.code === 'EPERM';
      const message = denied ? 'its daemon is not yours to ask' : 'its daemon does not answer';
      reject(new FsError(denied ? E.EACCES : E.ENOTCONN, message, error));
    };
    socket.once('error', failed);
  });
}

async function* lines(socket: net.Socket): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    let start = 0;
    for (let newline = chunk.indexOf(10); newline >= 0; newline = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, newline));
      yield Buffer.concat(parts).toString('utf8');
      parts = [];
      start = newline + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
}
