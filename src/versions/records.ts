// Keys and values of the index. A key is a letter and what it is about, in latin1, so that ranges come in the
// order of the bytes; a value is eight digits of checksum over key and text, then JSON with its version. See
// native-notes/index-format.md. Pure: a record that cannot be read is a result, not an exception.
import { crc32 } from 'node:zlib';
import { messageOf } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import type { ConflictRecord, PathRecord, StoredEvent, VersionRef } from './types.ts';
import { pathStates } from './types.ts';

export const RECORD_VERSION = 1;

export type Decoded<T> = { value: T } | { damage: string };

export const prefixes = {
  conflict: 'c',
  number: 'd',
  event: 'e',
  hash: 'h',
  intent: 'i',
  eventOfPath: 'l',
  meta: 'm',
  versionCount: 'n',
  path: 'p',
  version: 'v',
} as const;

/** Sorts as numbers do, up to 2^53. */
export function hexNumber(n: number): string {
  return n.toString(16).padStart(14, '0');
}

export const keys = {
  conflict: (id: number) => `c${hexNumber(id)}`,
  event: (seq: number) => `e${hexNumber(seq)}`,
  number: (ino: number) => `d${hexNumber(ino)}`,
  eventOfPath: (path: string, seq: number) => `l${path}\0${hexNumber(seq)}`,
  hash: (fingerprintHash: string) => `h${fingerprintHash}`,
  intent: (path: string) => `i${path}`,
  meta: (name: string) => `m${name}`,
  path: (path: string) => `p${path}`,
  version: (path: string, n: number) => `v${path}\0${hexNumber(n)}`,
  versionCount: (path: string) => `n${path}`,
};

/** Keys from `from`, below `to`. */
export interface KeyRange {
  from: string;
  to: string;
}

export function rangeOf(prefix: string): KeyRange {
  const last = prefix.length - 1;
  return { from: prefix, to: prefix.slice(0, last) + String.fromCharCode(prefix.charCodeAt(last) + 1) };
}

/** The path itself and everything beneath it; '' is everything. `end`: what follows the path in a key. */
export function rangesOfTree(prefix: string, path: string, end: '' | '\0'): KeyRange[] {
  if (path === '') return [rangeOf(prefix)];
  const start = `${prefix}${path}`;
  const itself = { from: start + end, to: end === '' ? `${start}\0` : `${start}\x01` };
  return [itself, { from: `${start}/`, to: `${start}0` }];
}

/** For a person: what a record is about. */
export function describeKey(key: string): string {
  const names: Record<string, string> = {
    c: 'conflict',
    d: 'inode number',
    e: 'event',
    h: 'hash of',
    i: 'intent of',
    l: 'event of path',
    m: 'state',
    n: 'version count of',
    p: 'path',
    v: 'version of',
  };
  const kind = names[key.charAt(0)] ?? 'unknown';
  const rest = key.slice(1).replace('\0', ' ');
  return `${kind} ${/^[cde]/.test(key) ? Number.parseInt(rest, 16) : escapeName(rest)}`;
}

/** The path that a record is about, '' where it is about none. */
export function pathOfKey(key: string): string {
  return /^[ilnpv]/.test(key) ? (key.slice(1).split('\0')[0] as string) : '';
}

export function encodeRecord(key: string, value: object): Buffer {
  const fields = JSON.stringify(value);
  const text = `{"v":${RECORD_VERSION}${fields === '{}' ? '' : ','}${fields.slice(1)}`;
  const out = Buffer.allocUnsafe(8 + Buffer.byteLength(text, 'utf8'));
  out.write(text, 8, 'utf8');
  out.write(checksum(key, out.subarray(8)), 0, 8, 'latin1');
  return out;
}

/** `check` says what is wrong with the fields, or ''. */
export function decodeRecord<T>(
  key: string,
  bytes: Uint8Array,
  check: (value: Record<string, unknown>) => string,
): Decoded<T> {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (data.length < 10) return { damage: 'cut short' };
  const text = data.subarray(8);
  if (data.toString('latin1', 0, 8) !== checksum(key, text)) return { damage: 'wrong checksum' };
  let value: unknown;
  try {
    value = JSON.parse(text.toString('utf8'));
  } catch (error) {
    return { damage: messageOf(error) };
  }
  if (typeof value !== 'object' || value === null) return { damage: 'not an object' };
  const { v, ...fields } = value as Record<string, unknown>;
  if (v !== RECORD_VERSION) return { damage: `of version ${String(v)}` };
  const wrong = check(fields);
  return wrong === '' ? { value: fields as T } : { damage: wrong };
}

function checksum(key: string, text: Buffer): string {
  return crc32(text, crc32(Buffer.from(key, 'latin1')))
    .toString(16)
    .padStart(8, '0');
}

// ---- shapes ----

type FieldType =
  | 'number'
  | 'string'
  | 'array'
  | 'object'
  | 'object?'
  | 'number?'
  | 'string?'
  | 'string or nothing'
  | 'side';

function isSide(value: unknown): boolean {
  if (value === null || value === 'unknown') return true;
  return typeof value === 'object' && checks.version(value as Record<string, unknown>) === '';
}

const holds: Record<FieldType, (value: unknown) => boolean> = {
  number: (value) => typeof value === 'number',
  string: (value) => typeof value === 'string',
  array: Array.isArray,
  object: (value) => typeof value === 'object' && value !== null,
  'object?': (value) => typeof value === 'object',
  'number?': (value) => value === null || typeof value === 'number',
  'string?': (value) => value === null || typeof value === 'string',
  'string or nothing': (value) => value === undefined || typeof value === 'string',
  side: isSide,
};

function shape(fields: Record<string, FieldType>): (value: Record<string, unknown>) => string {
  const list = Object.entries(fields);
  return (value) => {
    const wrong = list.find(([name, type]) => !holds[type](value[name]));
    return wrong === undefined ? '' : `field ${wrong[0]} is missing or wrong`;
  };
}

const pathShape = shape({
  path: 'string',
  state: 'string',
  detail: 'string',
  fingerprint: 'object?',
  baseSeen: 'string',
  overlaySig: 'string',
  lastMerges: 'array',
  lastSeq: 'number',
  needs: 'array',
} satisfies Record<keyof PathRecord, FieldType>);

const known: ReadonlySet<unknown> = new Set(pathStates);

export const checks = {
  path: (value: Record<string, unknown>) =>
    known.has(value.state) ? pathShape(value) : `unknown state ${String(value.state)}`,
  event: shape({
    seq: 'number',
    epoch: 'number',
    time: 'number',
    kind: 'string',
    path: 'string',
    detail: 'string',
    conflict: 'number?',
    version: 'number?',
    sides: 'object?',
    undo: 'object?',
    undone: 'number',
    from: 'string or nothing',
  } satisfies Record<keyof StoredEvent, FieldType>),
  conflict: shape({
    id: 'number',
    rev: 'number',
    kind: 'string',
    path: 'string',
    since: 'number',
    reason: 'string',
    ancestor: 'side',
    overlay: 'side',
    base: 'side',
    merged: 'object?',
    origin: 'object?',
    baseFingerprint: 'string',
    closed: 'object?',
  } satisfies Record<keyof ConflictRecord, FieldType>),
  version: shape({
    content: 'string?',
    mode: 'number',
    uid: 'number',
    gid: 'number',
    size: 'number',
    mtime: 'number',
    target: 'string?',
    xattrs: 'array',
  } satisfies Record<Exclude<keyof VersionRef, 'origin' | 'rdev' | 'metadataOnly'>, FieldType>),
  number: shape({ of: 'string' }),
  hash: shape({ content: 'string', time: 'number' }),
  count: shape({ last: 'number' }),
  intent: shape({ path: 'string' }),
  meta: () => '',
};

const checkOfPrefix: Record<string, (value: Record<string, unknown>) => string> = {
  [prefixes.conflict]: checks.conflict,
  [prefixes.event]: checks.event,
  [prefixes.number]: checks.number,
  [prefixes.hash]: checks.hash,
  [prefixes.intent]: checks.intent,
  [prefixes.eventOfPath]: checks.meta,
  [prefixes.meta]: checks.meta,
  [prefixes.versionCount]: checks.count,
  [prefixes.path]: checks.path,
  [prefixes.version]: checks.version,
};

/** Any record, by its key. */
export function decodeAny(key: string, bytes: Uint8Array): Decoded<Record<string, unknown>> {
  const check = checkOfPrefix[key.charAt(0)];
  return check === undefined ? { damage: 'of an unknown kind' } : decodeRecord(key, bytes, check);
}
