// Operations on names: LOOKUP, the makers, the removers, RENAME, LINK, READLINK, FORGET.
import { devMajor, devMinor, writeCreateOut, writeNegativeEntry } from '../fuse/attr.ts';
import { readers, sizeOf } from '../fuse/codec.ts';
import { HEADER, PAYLOAD } from '../fuse/protocol.ts';
import { type FuseRequest, forEachForget, type Handlers, NO_REPLY, readName } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { S_IFDIR, S_IFLNK, S_IFREG } from '../lib/stat.ts';
import { O_EXCL } from '../sys/constants.ts';
import { getattr } from '../union/attributes.ts';
import { createFile, createUnnamed, link, makeObject, type NewObject, newObject } from '../union/create.ts';
import { isReplaced } from '../union/dir-fds.ts';
import { readTarget } from '../union/locate.ts';
import { lookup } from '../union/lookup.ts';
import { ROOT_ID } from '../union/node.ts';
import { isControlName } from '../union/place.ts';
import { rmdir, unlink } from '../union/remove.ts';
import { rename } from '../union/rename.ts';
import { revive } from '../union/revive.ts';
import { keepsNames } from '../union/validity.ts';
import { isControl, lookupControl } from './control-files.ts';
import {
  backingOf,
  callerOf,
  type Front,
  nodeOf,
  openFlagsOf,
  replyEntry,
  resultOf,
  validFor,
} from './front.ts';

export function nameHandlers(front: Front): Handlers {
  return {
    LOOKUP: (r) => doLookup(front, r),
    FORGET: (r) => forget(front, r),
    BATCH_FORGET: (r) => forget(front, r),
    READLINK: (r) => readlink(front, r),
    MKNOD: (r) => mknod(front, r),
    MKDIR: (r) => mkdir(front, r),
    SYMLINK: (r) => symlink(front, r),
    CREATE: (r) => create(front, r, false),
    TMPFILE: (r) => create(front, r, true),
    LINK: (r) => doLink(front, r),
    UNLINK: (r) => remove(front, r, false),
    RMDIR: (r) => remove(front, r, true),
    RENAME: (r) => doRename(front, r, readers.rename_in(r.view, HEADER).newdir, 0, sizeOf('rename_in')),
    RENAME2: (r) => {
      const { newdir, flags } = readers.rename2_in(r.view, HEADER);
      return doRename(front, r, newdir, flags, sizeOf('rename2_in'));
    },
  };
}

/** What is the control directory's, or its own name. */
function isReserved(dir: number, name: string): boolean {
  return isControl(dir) || isControlName(dir, name);
}

function doLookup(front: Front, r: FuseRequest): number {
  const name = readName(r, HEADER);
  if (isReserved(r.nodeId, name)) return lookupControl(front, r, name);
  if (name === '.' || name === '..') return lookupAgain(front, r, name);
  const parent = nodeOf(front, r.nodeId);
  if (!parent) return -E.ESTALE;
  front.allowances.asked(parent);
  const error = lookup(front.union, parent, name);
  if (error !== -E.ENOENT) return error < 0 ? error : replyEntry(front, r);
  const { union } = front;
  if (isReplaced(union, parent)) return -E.ESTALE;
  const kept = union.kernel.keeps && keepsNames(union, parent) && union.kernel.keepAbsent(parent, name);
  return kept ? writeNegativeEntry(r, front.keepSeconds) : error;
}

/** LOOKUP of "." and "..": a server of NFS has a handle whose node the kernel has forgotten. */
function lookupAgain(front: Front, r: FuseRequest, name: '.' | '..'): number {
  const { union } = front;
  if (name === '.') {
    const node = nodeOf(front, r.nodeId);
    const error = node ? getattr(union, node) : revive(union, r.nodeId);
    return error < 0 ? -E.ESTALE : replyEntry(front, r, r.nodeId);
  }
  const node = nodeOf(front, r.nodeId);
  const parent = node?.place?.parent ?? (node?.id === ROOT_ID ? node : undefined);
  if (!parent) return -E.ESTALE;
  const error = getattr(union, parent);
  return error < 0 ? error : replyEntry(front, r);
}

function forget(front: Front, r: FuseRequest): number {
  forEachForget(r, (id, count) => {
    if (!isControl(id)) front.union.table.forget(id, count);
  });
  return NO_REPLY;
}

function readlink(front: Front, r: FuseRequest): number {
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  const target = readTarget(front.union, node);
  return typeof target === 'number' ? target : r.reply.write(target, PAYLOAD, 'latin1');
}

function make(front: Front, r: FuseRequest, name: string, object: NewObject, umask: number): number {
  if (isControl(r.nodeId)) return -E.EPERM;
  const parent = nodeOf(front, r.nodeId);
  if (!parent) return -E.ESTALE;
  const result = makeObject(front.union, parent, name, object, callerOf(r, umask));
  return result < 0 ? resultOf(front, result, [parent.id]) : replyEntry(front, r);
}

function mknod(front: Front, r: FuseRequest): number {
  const { mode, rdev, umask } = readers.mknod_in(r.view, HEADER);
  const name = readName(r, HEADER + sizeOf('mknod_in'));
  const object = newObject(mode, { rdevMajor: devMajor(rdev), rdevMinor: devMinor(rdev) });
  return make(front, r, name, object, umask);
}

function mkdir(front: Front, r: FuseRequest): number {
  const { mode, umask } = readers.mkdir_in(r.view, HEADER);
  return make(
    front,
    r,
    readName(r, HEADER + sizeOf('mkdir_in')),
    newObject(S_IFDIR | (mode & 0o7777)),
    umask,
  );
}

function symlink(front: Front, r: FuseRequest): number {
  const name = readName(r, HEADER);
  const target = readName(r, HEADER + name.length + 1);
  return make(front, r, name, newObject(S_IFLNK | 0o777, { target }), 0);
}

function create(front: Front, r: FuseRequest, unnamed: boolean): number {
  if (isControl(r.nodeId)) return -E.EPERM;
  const parent = nodeOf(front, r.nodeId);
  if (!parent) return -E.ESTALE;
  const { flags, mode, umask } = readers.create_in(r.view, HEADER);
  const name = readName(r, HEADER + sizeOf('create_in'));
  const object = newObject(S_IFREG | (mode & 0o7777), { flags });
  const caller = callerOf(r, umask);
  const handle = unnamed
    ? createUnnamed(front.union, parent, object, caller)
    : createFile(front.union, parent, name, object, caller);
  // The base has made it since the kernel looked: that looks the name up anew, and opens what is there.
  if (handle === -E.EEXIST && (flags & O_EXCL) === 0) return -E.ESTALE;
  if (typeof handle === 'number') return resultOf(front, handle, [parent.id]);
  const { node, stat, ino, keepName, keepAttributes } = front.union.entry;
  node.lookups += 1;
  return writeCreateOut(
    r,
    node.id,
    1,
    validFor(front, keepName),
    validFor(front, keepAttributes),
    stat,
    ino,
    handle.id,
    openFlagsOf(handle),
    backingOf(handle),
  );
}

function doLink(front: Front, r: FuseRequest): number {
  const { oldnodeid } = readers.link_in(r.view, HEADER);
  if (isControl(r.nodeId) || isControl(oldnodeid)) return -E.EPERM;
  const parent = nodeOf(front, r.nodeId);
  const node = nodeOf(front, oldnodeid);
  if (!parent || !node) return -E.ESTALE;
  const result = link(front.union, node, parent, readName(r, HEADER + sizeOf('link_in')), r.pid);
  return result < 0 ? resultOf(front, result, [parent.id]) : replyEntry(front, r);
}

function remove(front: Front, r: FuseRequest, directory: boolean): number {
  const name = readName(r, HEADER);
  if (isReserved(r.nodeId, name)) return -E.EPERM;
  const parent = nodeOf(front, r.nodeId);
  if (!parent) return -E.ESTALE;
  const result = directory
    ? rmdir(front.union, parent, name, r.pid)
    : unlink(front.union, parent, name, r.pid);
  return resultOf(front, result, [parent.id]);
}

function doRename(front: Front, r: FuseRequest, newdir: number, flags: number, size: number): number {
  const fromName = readName(r, HEADER + size);
  const toName = readName(r, HEADER + size + fromName.length + 1);
  if (isReserved(r.nodeId, fromName) || isReserved(newdir, toName)) return -E.EPERM;
  const from = nodeOf(front, r.nodeId);
  const to = nodeOf(front, newdir);
  if (!from || !to) return -E.ESTALE;
  const { union } = front;
  const result = rename(union, { parent: from, name: fromName }, { parent: to, name: toName }, flags, r.pid);
  return resultOf(front, result, [from.id, to.id]);
}
