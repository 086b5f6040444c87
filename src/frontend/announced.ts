// Requests of the announcer (union/announcements.ts): they are there for the events that the kernel raises by them,
// and change nothing, whatever they ask for. They never wait, so that no lock that the announcer has been given in
// the kernel is held longer than it takes to answer.
import { writeEntryOut, writeOpenOut } from '../fuse/attr.ts';
import { readers, sizeOf } from '../fuse/codec.ts';
import { FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE } from '../fuse/constants.ts';
import { HEADER } from '../fuse/protocol.ts';
import { type FuseRequest, type Handler, type Handlers, readName } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { copyStat, newStat, S_IFDIR, S_IFLNK, S_IFMT } from '../lib/stat.ts';
import type { Pretence } from '../union/announcements.ts';
import { statNode } from '../union/locate.ts';
import { find } from '../union/lookup.ts';
import { NONE, type Node, ROOT_ID } from '../union/node.ts';
import type { NodeTable } from '../union/table.ts';
import type { Front } from './front.ts';

/** No handle has it. */
const NO_HANDLE = 0;

/** The same handlers, but that what the announcer asks is answered here. */
export function withAnnouncer(front: Front, handlers: Handlers): Handlers {
  const { announcements } = front.union;
  const all: Handlers = { ...handlers };
  const set = (opcode: keyof Handlers, answer: Handler) => {
    const others = handlers[opcode] as Handler;
    all[opcode] = (r) => (r.pid === announcements.announcer ? answer(r) : others(r));
  };
  const others = handlers.LOOKUP as Handler;
  all.LOOKUP = (r) => {
    if (r.pid === announcements.announcer) return lookupAnnounced(front, r) ?? others(r);
    return announcements.sign !== '' && isSign(front, r) ? -E.ENOENT : others(r);
  };
  set('FALLOCATE', () => 0);
  set('SETXATTR', () => 0);
  set('OPEN', (r) => open(front, r));
  set('MKNOD', (r) =>
    made(front, r, readers.mknod_in(r.view, HEADER).mode, readName(r, HEADER + sizeOf('mknod_in'))),
  );
  set('MKDIR', (r) => made(front, r, S_IFDIR, readName(r, HEADER + sizeOf('mkdir_in'))));
  set('SYMLINK', (r) => made(front, r, S_IFLNK, readName(r, HEADER)));
  set('UNLINK', (r) => removed(front, r));
  set('RMDIR', (r) => removed(front, r));
  for (const opcode of changing) set(opcode, () => -E.EPERM);
  return all;
}

/** Nothing that it does comes to these; and so they would change nothing. */
const changing = [
  // Its answer would be applied whatever has come in between, the size too.
  'SETATTR',
  'CREATE',
  'TMPFILE',
  'LINK',
  'RENAME',
  'RENAME2',
  'WRITE',
  'COPY_FILE_RANGE',
  'REMOVEXATTR',
] as const;

/** By its first look-up the announcer is known: as the kernel names it, whatever it calls itself. */
function isSign(front: Front, r: FuseRequest): boolean {
  const { announcements } = front.union;
  if (r.nodeId !== ROOT_ID || r.pid === 0 || readName(r, HEADER) !== announcements.sign) return false;
  announcements.announcer = r.pid;
  announcements.sign = '';
  return true;
}

/** undefined: it finds what there is. */
function lookupAnnounced(front: Front, r: FuseRequest): number | undefined {
  const { announcements, table } = front.union;
  const name = readName(r, HEADER);
  const pretence = announcements.pretenceOf(r.nodeId, name);
  const parent = table.get(r.nodeId);
  if (pretence === undefined || !parent) return undefined;
  if (pretence.gone)
    return find(front.union, parent, name) === 0 && isAbsent(front) ? ghost(front, r, pretence) : undefined;
  // What the kernel may have been told of cannot be made: it would let go of what is mounted there.
  return table.child(parent, name) === undefined ? -E.ENOENT : undefined;
}

function isAbsent(front: Front): boolean {
  return front.union.found.state === NONE;
}

const shown = newStat();
const nothing = newStat();

/** What has gone is found once more, for the kernel to remove it: its own node where that is known. */
function ghost(front: Front, r: FuseRequest, pretence: Pretence): number {
  const { table } = front.union;
  const known = table.get(pretence.id);
  const node: Node =
    known && known.place === null && known.successor === null ? known : table.createUnnamed(pretence.type);
  // Who has it open goes on with its size and all.
  if (node.handles.size === 0 || statNode(front.union, node, shown) < 0) return replyGhost(r, table, node);
  return replyShown(r, table, node);
}

function replyGhost(r: FuseRequest, table: NodeTable, node: Node): number {
  copyStat(nothing, shown);
  shown.mode = node.type | 0o600;
  return replyShown(r, table, node);
}

function replyShown(r: FuseRequest, table: NodeTable, node: Node): number {
  shown.nlink = 1;
  table.refer(node, node.id);
  return writeEntryOut(r, node.id, 1, 0, 0, shown, node.id);
}

/** For a moment, and without a look at the file. What the kernel writes by itself it would open for writing. */
function open(front: Front, r: FuseRequest): number {
  const node = front.union.table.get(r.nodeId);
  if (!node || node.backing !== null) return -E.EAGAIN;
  return writeOpenOut(r, NO_HANDLE, FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE);
}

/**
 * A node of its own, which nobody comes to use: the kernel looks the name up anew. Were it the object's, the kernel
 * would apply these attributes to it, whatever has come in between.
 */
function made(front: Front, r: FuseRequest, mode: number, name: string): number {
  const { union } = front;
  const type = mode & S_IFMT;
  const parent = union.table.get(r.nodeId);
  if (!parent || union.announcements.pretenceOf(r.nodeId, name)?.gone !== false) return -E.EAGAIN;
  if (find(union, parent, name) < 0 || isAbsent(front)) return -E.EAGAIN;
  union.announcements.made(r.nodeId, name);
  return replyGhost(r, union.table, union.table.createUnnamed(type));
}

function removed(front: Front, r: FuseRequest): number {
  const { union } = front;
  const name = readName(r, HEADER);
  const parent = union.table.get(r.nodeId);
  if (!parent || union.announcements.pretenceOf(r.nodeId, name) === undefined) return -E.EAGAIN;
  return find(union, parent, name) === 0 && isAbsent(front) ? 0 : -E.EAGAIN;
}
