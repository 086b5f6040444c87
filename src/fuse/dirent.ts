// Replies of READDIR and READDIRPLUS: records of variable length, each padded to eight bytes.
import { newStat, type Stat } from '../lib/stat.ts';
import { clearEntryAt, writeEntryAt } from './attr.ts';
import { putI64, putU64 } from './codec.ts';
import { PAYLOAD } from './protocol.ts';
import type { FuseRequest } from './request.ts';

const DIRENT = 24;
const ENTRY = 128;
const nothing = newStat();

/**
 * Adds an entry after `at` bytes of payload (0 at first); gives the new length, or -1 if it would exceed
 * `limit`, the size that the request asks for. `off` is where a later READDIR goes on, behind this entry;
 * `type` is a DT_ number, that is, st_mode >> 12.
 */
export function addDirent(
  r: FuseRequest,
  at: number,
  limit: number,
  ino: number,
  off: number,
  type: number,
  name: string,
): number {
  const end = at + roundUp(DIRENT + name.length);
  if (end > limit || end > r.replyLimit) return -1;
  putDirent(r, PAYLOAD + at, ino, off, type, name);
  return end;
}

/**
 * The same with attributes. A nodeId of 0 gives no node, so no lookup is counted and `stat` is not looked at;
 * any other counts one.
 */
export function addDirentPlus(
  r: FuseRequest,
  at: number,
  limit: number,
  off: number,
  type: number,
  name: string,
  nodeId: number,
  generation: number,
  entryValid: number,
  attrValid: number,
  stat: Stat,
  ino: number,
): number {
  const end = at + roundUp(ENTRY + DIRENT + name.length);
  if (end > limit || end > r.replyLimit) return -1;
  const start = PAYLOAD + at;
  if (nodeId === 0) clearEntryAt(r.replyView, start);
  else writeEntryAt(r.replyView, start, nodeId, generation, entryValid, attrValid, stat, ino);
  putDirent(r, start + ENTRY, ino, off, type, name);
  return end;
}

/** As addDirent, in the form of READDIRPLUS: no node goes with the name. */
export function addNameOnly(
  r: FuseRequest,
  at: number,
  limit: number,
  ino: number,
  off: number,
  type: number,
  name: string,
): number {
  return addDirentPlus(r, at, limit, off, type, name, 0, 0, 0, 0, nothing, ino);
}

/** Bytes of an entry of READDIRPLUS, or of READDIR. */
export function direntSize(name: string, plus: boolean): number {
  return roundUp((plus ? ENTRY + DIRENT : DIRENT) + name.length);
}

function roundUp(size: number): number {
  return (size + 7) & ~7;
}

function putDirent(r: FuseRequest, at: number, ino: number, off: number, type: number, name: string): void {
  const view = r.replyView;
  const { reply } = r;
  const { length } = name;
  putU64(view, at, ino);
  putI64(view, at + 8, off);
  view.setUint32(at + 16, length, true);
  view.setUint32(at + 20, type, true);
  const start = at + DIRENT;
  // A call into C++ costs more than a short name.
  if (length > 32) reply.write(name, start, length, 'latin1');
  else for (let i = 0; i < length; i++) reply[start + i] = name.charCodeAt(i);
  for (let i = start + length; i % 8 !== 0; i++) reply[i] = 0;
}
