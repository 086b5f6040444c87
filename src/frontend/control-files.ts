// The control directory `/.kasane` as the kernel sees it: nodes in a range of numbers of their own, whose
// content the main thread renders. Read with direct I/O, so that `tail -f` and a file that has grown since its
// size was asked work; never listed, but found by name.
import { type ControlEntry, type ControlStat, controlPathOf } from '../control/tree.ts';
import { writeAttr, writeStatxAt } from '../fuse/attr.ts';
import { sizeOf, writers } from '../fuse/codec.ts';
import { FOPEN_DIRECT_IO } from '../fuse/constants.ts';
import { addDirent, addNameOnly } from '../fuse/dirent.ts';
import type { Parked } from '../fuse/parked.ts';
import { PAYLOAD } from '../fuse/protocol.ts';
import type { FuseRequest } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { joinPath, parentPath } from '../lib/names.ts';
import { DT_DIR, DT_REG, O_ACCMODE, O_RDONLY } from '../sys/constants.ts';
import { getattr } from '../union/attributes.ts';
import { type ListEntry, nameOffset } from '../union/list-order.ts';
import { ROOT_ID } from '../union/node.ts';
import { CONTROL_NAME } from '../union/place.ts';
import { controlIno, controlStatOf, FIRST_CONTROL } from './control-stat.ts';
import { dropListing, type Front, parkForControl, replyEntry } from './front.ts';
import { endOffset } from './listings.ts';

export function isControl(nodeId: number): boolean {
  return nodeId >= FIRST_CONTROL;
}

/** A reply outside a handler has a buffer of its own, laid out as a request's reply. */
function payloadView(size: number): { payload: Buffer; view: DataView } {
  const payload = Buffer.alloc(size);
  return { payload, view: new DataView(payload.buffer, payload.byteOffset, payload.length) };
}

/** Path of a control node; null: there is none of this number. */
function pathOf(front: Front, id: number): string | null {
  return front.controlPaths.get(id) ?? controlPathOf(id - FIRST_CONTROL);
}

export function lookupControl(front: Front, r: FuseRequest, name: string): number {
  if (r.nodeId === ROOT_ID) return findControl(front, '');
  const within = pathOf(front, r.nodeId);
  if (within === null) return -E.ESTALE;
  if (name === '.') return findControl(front, within);
  if (name !== '..') return findControl(front, joinPath(within, name));
  if (within !== '') return findControl(front, parentPath(within));
  const { union } = front;
  const error = getattr(union, union.table.root);
  return error < 0 ? error : replyEntry(front, r);
}

function findControl(front: Front, path: string): number {
  return parkForControl(front, { op: 'stat', path }, (token, reply) => {
    const stat = reply as ControlStat;
    const id = controlIno(stat.ino);
    front.controlPaths.set(id, path);
    const { payload, view } = payloadView(sizeOf('entry_out'));
    view.setUint32(0, id % 2 ** 32, true);
    view.setUint32(4, Math.floor(id / 2 ** 32), true);
    view.setUint32(8, 1, true);
    writeAttr(view, 40, controlStatOf(stat, front.owner), id);
    front.server.answer(token, payload.length, payload);
  });
}

/** The entry of an exported mount's root: a handle of a directory is found again by reading its parent. */
export const controlEntry: ListEntry = {
  name: CONTROL_NAME,
  ino: controlIno(1),
  type: DT_DIR,
  offset: nameOffset(CONTROL_NAME),
};

function answerAttr(front: Front, token: Parked, stat: ControlStat): void {
  const { payload, view } = payloadView(sizeOf('attr_out'));
  writeAttr(view, 16, controlStatOf(stat, front.owner), controlIno(stat.ino));
  front.server.answer(token, payload.length, payload);
}

export function getattrControl(front: Front, id: number): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  return parkForControl(front, { op: 'stat', path }, (token, reply) =>
    answerAttr(front, token, reply as ControlStat),
  );
}

export function statxControl(front: Front, id: number): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  return parkForControl(front, { op: 'stat', path }, (token, reply) => {
    const stat = reply as ControlStat;
    const { payload, view } = payloadView(sizeOf('statx_out'));
    writeStatxAt(view, 0, 0, controlStatOf(stat, front.owner), controlIno(stat.ino));
    front.server.answer(token, payload.length, payload);
  });
}

/** `echo verb > control` truncates first: that changes nothing, and is no error. All else is. */
export function setattrControl(front: Front, id: number, truncates: boolean): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  return path === 'control' && truncates ? getattrControl(front, id) : -E.EPERM;
}

export function openControl(front: Front, id: number, flags: number): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  if ((flags & O_ACCMODE) !== O_RDONLY && path !== 'control') return -E.EACCES;
  return parkForControl(front, { op: 'open', path }, (token, reply) => {
    const { payload, view } = payloadView(sizeOf('open_out'));
    writers.open_out(view, 0, { fh: reply as number, openFlags: FOPEN_DIRECT_IO, backingId: 0 });
    front.server.answer(token, payload.length, payload);
  });
}

export function readControl(front: Front, handle: number, offset: number, length: number): number {
  return parkForControl(front, { op: 'read', handle, offset, length }, (token, reply) => {
    const bytes = Buffer.from(reply as Uint8Array);
    front.server.answer(token, bytes.length, bytes);
  });
}

export function writeControl(front: Front, id: number, bytes: Uint8Array): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  return parkForControl(front, { op: 'write', path, bytes: Uint8Array.from(bytes) }, (token, reply) => {
    const { payload } = payloadView(sizeOf('write_out'));
    payload.writeUInt32LE(reply as number, 0);
    front.server.answer(token, payload.length, payload);
  });
}

export function releaseControl(front: Front, handle: number): number {
  front.askControl({ op: 'close', handle }, () => {});
  return 0;
}

/** `plus`: in the form of READDIRPLUS, without nodes, for the kernel is to keep nothing of them. */
export function listControl(front: Front, id: number, offset: number, size: number, plus: boolean): number {
  const path = pathOf(front, id);
  if (path === null) return -E.ESTALE;
  return parkForControl(front, { op: 'list', path }, (token, reply) => {
    const dots = [
      { name: '.', kind: 'dir', ino: id - FIRST_CONTROL },
      { name: '..', kind: 'dir', ino: 1 },
    ] as const;
    const entries = [...dots, ...(reply as ControlEntry[])];
    const last = endOffset();
    const buffer = Buffer.alloc(PAYLOAD + size);
    const r = { reply: buffer, replyView: new DataView(buffer.buffer, buffer.byteOffset, buffer.length) };
    let length = 0;
    for (const [i, { name, kind, ino }] of entries.entries()) {
      if (i < offset) continue;
      const type = kind === 'dir' ? DT_DIR : DT_REG;
      const at = i === entries.length - 1 ? last : i + 1;
      const next = plus
        ? addNameOnly(r as FuseRequest, length, size, controlIno(ino), at, type, name)
        : addDirent(r as FuseRequest, length, size, controlIno(ino), at, type, name);
      if (next < 0) break;
      length = next;
    }
    if (length === 0) dropListing(front, id);
    front.server.answer(token, length, buffer.subarray(PAYLOAD, PAYLOAD + length));
  });
}
