// Attributes into replies: the hot path, so written out by hand (a test holds it against the table in
// protocol.ts). Times of validity are seconds, fractions allowed. The writers of whole replies give the
// payload's length, so that a handler returns what they return.
import type { Stat } from '../lib/stat.ts';
import { putU64 } from './codec.ts';
import { PAYLOAD } from './protocol.ts';
import type { FuseRequest } from './request.ts';

const WORD = 2 ** 32;
const ENTRY = 128;
const ATTR_IN_ENTRY = 40;

/** As the kernel's new_encode_dev: how rdev travels in 32 bits. */
export function encodeDev(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

export function devMajor(rdev: number): number {
  return (rdev >>> 8) & 0xfff;
}

export function devMinor(rdev: number): number {
  return (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
}

function putSeconds(view: DataView, at: number, seconds: number): void {
  view.setUint32(at, seconds, true);
  view.setInt32(at + 4, Math.floor(seconds / WORD), true);
}

/** `seconds` and, at `nsecAt`, the fraction. The kernel takes anything beyond some years as for ever. */
function putValid(view: DataView, at: number, nsecAt: number, valid: number): void {
  const whole = Math.floor(Math.min(valid, 0x7fffffff));
  view.setUint32(at, whole, true);
  view.setUint32(at + 4, 0, true);
  view.setUint32(nsecAt, whole === valid ? 0 : Math.min(valid - whole, 0.999999999) * 1e9, true);
}

/** fuse_attr, 88 bytes. `ino` is the inode number to show. */
export function writeAttr(view: DataView, at: number, stat: Stat, ino: number): void {
  putU64(view, at, ino);
  putU64(view, at + 8, stat.size);
  putU64(view, at + 16, stat.blocks);
  putSeconds(view, at + 24, stat.atimeSec);
  putSeconds(view, at + 32, stat.mtimeSec);
  putSeconds(view, at + 40, stat.ctimeSec);
  view.setUint32(at + 48, stat.atimeNsec, true);
  view.setUint32(at + 52, stat.mtimeNsec, true);
  view.setUint32(at + 56, stat.ctimeNsec, true);
  view.setUint32(at + 60, stat.mode, true);
  view.setUint32(at + 64, stat.nlink, true);
  view.setUint32(at + 68, stat.uid, true);
  view.setUint32(at + 72, stat.gid, true);
  view.setUint32(at + 76, encodeDev(stat.rdevMajor, stat.rdevMinor), true);
  view.setUint32(at + 80, stat.blksize, true);
  view.setUint32(at + 84, 0, true);
}

/** fuse_entry_out at any place of a buffer: READDIRPLUS has many. */
export function writeEntryAt(
  view: DataView,
  at: number,
  nodeId: number,
  generation: number,
  entryValid: number,
  attrValid: number,
  stat: Stat,
  ino: number,
): void {
  putU64(view, at, nodeId);
  putU64(view, at + 8, generation);
  putValid(view, at + 16, at + 32, entryValid);
  putValid(view, at + 24, at + 36, attrValid);
  writeAttr(view, at + ATTR_IN_ENTRY, stat, ino);
}

export function clearEntryAt(view: DataView, at: number): void {
  for (let i = 0; i < ENTRY; i += 4) view.setUint32(at + i, 0, true);
}

/** Reply of LOOKUP, MKNOD, MKDIR, SYMLINK and LINK. */
export function writeEntryOut(
  r: FuseRequest,
  nodeId: number,
  generation: number,
  entryValid: number,
  attrValid: number,
  stat: Stat,
  ino: number,
): number {
  writeEntryAt(r.replyView, PAYLOAD, nodeId, generation, entryValid, attrValid, stat, ino);
  return ENTRY;
}

/** Reply of a LOOKUP that found nothing, which the kernel may remember so long. */
export function writeNegativeEntry(r: FuseRequest, entryValid: number): number {
  clearEntryAt(r.replyView, PAYLOAD);
  putValid(r.replyView, PAYLOAD + 16, PAYLOAD + 32, entryValid);
  return ENTRY;
}

function writeOpenAt(view: DataView, at: number, fh: number, openFlags: number, backingId: number): void {
  putU64(view, at, fh);
  view.setUint32(at + 8, openFlags, true);
  view.setInt32(at + 12, backingId, true);
}

/** Reply of OPEN and OPENDIR; `backingId` where the flags say PASSTHROUGH. */
export function writeOpenOut(r: FuseRequest, fh: number, openFlags: number, backingId = 0): number {
  writeOpenAt(r.replyView, PAYLOAD, fh, openFlags, backingId);
  return 16;
}

/** Reply of CREATE and TMPFILE: an entry, then what an OPEN replies. */
export function writeCreateOut(
  r: FuseRequest,
  nodeId: number,
  generation: number,
  entryValid: number,
  attrValid: number,
  stat: Stat,
  ino: number,
  fh: number,
  openFlags: number,
  backingId = 0,
): number {
  writeEntryAt(r.replyView, PAYLOAD, nodeId, generation, entryValid, attrValid, stat, ino);
  writeOpenAt(r.replyView, PAYLOAD + ENTRY, fh, openFlags, backingId);
  return ENTRY + 16;
}

/** Reply of GETATTR and SETATTR. */
export function writeAttrOut(r: FuseRequest, attrValid: number, stat: Stat, ino: number): number {
  const view = r.replyView;
  putValid(view, PAYLOAD, PAYLOAD + 8, attrValid);
  view.setUint32(PAYLOAD + 12, 0, true);
  writeAttr(view, PAYLOAD + 16, stat, ino);
  return 104;
}

/** What is always there: STATX_BASIC_STATS of statx(2), and STATX_BTIME. */
const BASIC = 0x7ff;
const BTIME = 0x800;
const STATX = 288;

function putStatxTime(view: DataView, at: number, seconds: number, nanoseconds: number): void {
  putSeconds(view, at, seconds);
  view.setUint32(at + 8, nanoseconds, true);
  view.setUint32(at + 12, 0, true);
}

/** Reply of STATX. */
export function writeStatxOut(r: FuseRequest, attrValid: number, stat: Stat, ino: number): number {
  writeStatxAt(r.replyView, PAYLOAD, attrValid, stat, ino);
  return STATX;
}

/** fuse_statx_out. Of the attributes nothing is claimed; the birth time only where the branch knows it. */
export function writeStatxAt(
  view: DataView,
  start: number,
  attrValid: number,
  stat: Stat,
  ino: number,
): void {
  const at = start + 32;
  for (let i = start; i < start + STATX; i += 4) view.setUint32(i, 0, true);
  putValid(view, start, start + 8, attrValid);
  view.setUint32(at, BASIC | (stat.mask & BTIME), true);
  view.setUint32(at + 4, stat.blksize, true);
  view.setUint32(at + 16, stat.nlink, true);
  view.setUint32(at + 20, stat.uid, true);
  view.setUint32(at + 24, stat.gid, true);
  view.setUint16(at + 28, stat.mode, true);
  putU64(view, at + 32, ino);
  putU64(view, at + 40, stat.size);
  putU64(view, at + 48, stat.blocks);
  putStatxTime(view, at + 64, stat.atimeSec, stat.atimeNsec);
  putStatxTime(view, at + 80, stat.btimeSec, stat.btimeNsec);
  putStatxTime(view, at + 96, stat.ctimeSec, stat.ctimeNsec);
  putStatxTime(view, at + 112, stat.mtimeSec, stat.mtimeNsec);
  view.setUint32(at + 128, stat.rdevMajor, true);
  view.setUint32(at + 132, stat.rdevMinor, true);
}
