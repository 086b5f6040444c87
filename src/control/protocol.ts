// The language of the control socket: one line of JSON each way. The caller sends one Request; the answer is
// any number of { item } lines (streaming verbs: progress, events, content) and then one { result } or
// { error }, after which the server closes. Sockets are 0600: who may connect may ask anything.
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import type { VerbName } from './verbs.ts';

/** Raised when lines change in a way that an older peer would misread. */
export const PROTOCOL = 1;

export interface Request {
  kasane: number;
  verb: VerbName;
  /** The request object of the verb; absent where it takes none. */
  request?: unknown;
}

export type Reply = { item: unknown } | { result: unknown } | { error: { errno: number; message: string } };

/** Longest line that is read: a resolution's content of 256 MiB in base64 and some more. */
export const LINE_LIMIT = 360 * 1024 * 1024;

/** Verbs whose function takes no request. */
const bare: ReadonlySet<VerbName> = new Set([
  'status',
  'conflicts',
  'metrics',
  'stop',
  'exportConfig',
  'hold',
  'release',
]);
/** Verbs that take a request and no emitter. */
const plain: ReadonlySet<VerbName> = new Set(['conflict', 'resolve', 'undo', 'prune']);
/** Verbs that emit items on the way. */
const streaming: ReadonlySet<VerbName> = new Set(['diff', 'log', 'show', 'reconcile', 'check', 'events']);

export function isVerb(name: unknown): name is VerbName {
  return bare.has(name as VerbName) || plain.has(name as VerbName) || streaming.has(name as VerbName);
}

export function takesRequest(verb: VerbName): boolean {
  return !bare.has(verb);
}

export function isStreaming(verb: VerbName): boolean {
  return streaming.has(verb);
}

export function encodeLine(value: Request | Reply): string {
  return `${JSON.stringify(value)}\n`;
}

/** The request of a line; throws FsError EINVAL for what is none. */
export function decodeRequest(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new FsError(E.EINVAL, 'request is not JSON', error);
  }
  if (typeof value !== 'object' || value === null) throw new FsError(E.EINVAL, 'request is not an object');
  const { kasane, verb, request } = value as Partial<Request>;
  if (kasane !== PROTOCOL) throw new FsError(E.EPROTO, `protocol ${String(kasane)} is not ${PROTOCOL}`);
  if (!isVerb(verb)) throw new FsError(E.EINVAL, `unknown verb ${String(verb)}`);
  if (takesRequest(verb) && (typeof request !== 'object' || request === null)) {
    throw new FsError(E.EINVAL, `${verb} needs a request`);
  }
  return { kasane, verb, ...(request === undefined ? {} : { request }) };
}

export function decodeReply(line: string): Reply {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new FsError(E.EPROTO, 'answer of the daemon is not JSON', error);
  }
  if (
    typeof value === 'object' &&
    value !== null &&
    ('item' in value || 'result' in value || 'error' in value)
  ) {
    return value as Reply;
  }
  throw new FsError(E.EPROTO, 'answer of the daemon is neither item, result nor error');
}

/** What is told of anything thrown: FsError as it is, everything else as EIO. */
export function errorReply(error: unknown): Reply {
  if (error instanceof FsError) return { error: { errno: error.errno, message: error.message } };
  return { error: { errno: E.EIO, message: messageOf(error) } };
}

/** For a verb that an implementation does not have. */
export function notThereYet(what: string): FsError {
  return new FsError(E.EOPNOTSUPP, `${what}: not there yet`);
}
