// A request as handlers see it: one reused object over the message and the room for its reply, and readers for
// what the structs do not cover (names, extended attributes, groups, forgets). A handler must not keep it.
import { getU64, sizeOf } from './codec.ts';
import { FUSE_EXT_GROUPS } from './constants.ts';
import { HEADER, type OpcodeName, opcodes } from './protocol.ts';

export interface FuseRequest {
  opcode: number;
  nodeId: number;
  uid: number;
  gid: number;
  /** Of the caller, in the pid namespace of the mount; 0 if it is outside. */
  pid: number;
  /** Bytes of extensions at the end of the message. */
  extLength: number;
  /** Of the whole message. */
  length: number;
  /** The message; its body begins at HEADER. */
  buffer: Buffer;
  view: DataView;
  /** The reply; its payload begins at PAYLOAD. It still holds what the last reply had. */
  reply: Buffer;
  replyView: DataView;
  /** The longest payload, in bytes. */
  replyLimit: number;
}

/** Gives the length of the payload, a negative errno, PARK or NO_REPLY. */
export type Handler = (r: FuseRequest) => number;
/** INIT, INTERRUPT and DESTROY are the server's own. */
export type Handlers = Partial<Record<Exclude<OpcodeName, 'INIT' | 'INTERRUPT' | 'DESTROY'>, Handler>>;

/** The request has been parked by server.park() and is answered later. */
export const PARK = -1_000_001;
/** Of the opcodes that have no reply. */
export const NO_REPLY = -1_000_002;

/** The NUL-terminated name at `at`, as latin1. The next name begins at `at + name.length + 1`. */
export function readName(r: FuseRequest, at: number): string {
  const { buffer } = r;
  const limit = r.length - r.extLength;
  let end = at;
  while (end < limit && buffer[end] !== 0) end++;
  return buffer.toString('latin1', at, end);
}

export interface SetxattrRequest {
  flags: number;
  setxattrFlags: number;
  name: string;
  /** The value is buffer[valueAt … valueAt + size). */
  valueAt: number;
  size: number;
}

const SHORT_SETXATTR = 8;

/** `ext`: SETXATTR_EXT has been negotiated; without it the struct ends after its flags. */
export function readSetxattr(r: FuseRequest, ext: boolean): SetxattrRequest {
  const nameAt = HEADER + (ext ? sizeOf('setxattr_in') : SHORT_SETXATTR);
  const name = readName(r, nameAt);
  return {
    size: r.view.getUint32(HEADER, true),
    flags: r.view.getUint32(HEADER + 4, true),
    setxattrFlags: ext ? r.view.getUint32(HEADER + 8, true) : 0,
    name,
    valueAt: nameAt + name.length + 1,
  };
}

const noGroups: readonly number[] = [];

/**
 * The caller's supplementary groups, as far as a request that creates something tells them: none, or the one
 * that the parent directory has (CREATE_SUPP_GROUP).
 */
export function supplementaryGroups(r: FuseRequest): readonly number[] {
  const { view } = r;
  const headerSize = sizeOf('ext_header');
  let at = r.length - r.extLength;
  while (at + headerSize + 4 <= r.length) {
    const size = view.getUint32(at, true);
    if (view.getUint32(at + 4, true) === FUSE_EXT_GROUPS) {
      const count = view.getUint32(at + headerSize, true);
      const first = at + headerSize + 4;
      if (count === 0 || first + 4 * count > r.length) return noGroups;
      return Array.from({ length: count }, (_, i) => view.getUint32(first + 4 * i, true));
    }
    if (size < headerSize) break;
    at += Math.ceil(size / 8) * 8;
  }
  return noGroups;
}

/** Each node that a FORGET or a BATCH_FORGET names, with the number of lookups that are given back. */
export function forEachForget(r: FuseRequest, each: (nodeId: number, nlookup: number) => void): void {
  if (r.opcode === opcodes.FORGET.code) {
    each(r.nodeId, getU64(r.view, HEADER));
    return;
  }
  const one = sizeOf('forget_one');
  const first = HEADER + sizeOf('batch_forget_in');
  const count = Math.min(r.view.getUint32(HEADER, true), Math.floor((r.length - first) / one));
  for (let i = 0; i < count; i++) {
    const at = first + i * one;
    each(getU64(r.view, at), getU64(r.view, at + 8));
  }
}
