// Operations on a node's attributes: GETATTR, SETATTR, extended attributes, STATFS.
import { writeAttrOut, writeStatxOut } from '../fuse/attr.ts';
import { readers, sizeOf, writers } from '../fuse/codec.ts';
import {
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_FH,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_LOCKOWNER,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_SETXATTR_ACL_KILL_SGID,
} from '../fuse/constants.ts';
import { HEADER, PAYLOAD } from '../fuse/protocol.ts';
import { type FuseRequest, type Handlers, readName, readSetxattr } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { UTIME_NOW, UTIME_OMIT } from '../sys/constants.ts';
import { fstatfs, newStatfs } from '../sys/file.ts';
import { type Change, dropSetid, getattr, setattr } from '../union/attributes.ts';
import type { Node } from '../union/node.ts';
import { revisit } from '../union/revive.ts';
import { getAttribute, listAttributes, removeAttribute, setAttribute } from '../union/xattrs.ts';
import { getattrControl, isControl, setattrControl, statxControl } from './control-files.ts';
import { type Front, nodeOf, resultOf, tellAttributes } from './front.ts';

export function attributeHandlers(front: Front): Handlers {
  return {
    GETATTR: (r) => doGetattr(front, r),
    STATX: (r) => doStatx(front, r),
    SETATTR: (r) => doSetattr(front, r),
    GETXATTR: (r) =>
      withNode(front, r, -E.ENODATA, (node) => {
        const { size } = readers.getxattr_in(r.view, HEADER);
        const name = readName(r, HEADER + sizeOf('getxattr_in'));
        return sized(r, size, getAttribute(front.union, node, name));
      }),
    LISTXATTR: (r) =>
      withNode(front, r, -E.EOPNOTSUPP, (node) => {
        const { size } = readers.getxattr_in(r.view, HEADER);
        return sized(r, size, listAttributes(front.union, node, r.uid === 0));
      }),
    SETXATTR: (r) => withNode(front, r, -E.EOPNOTSUPP, (node) => doSetxattr(front, r, node)),
    REMOVEXATTR: (r) =>
      withNode(front, r, -E.EOPNOTSUPP, (node) =>
        resultOf(front, removeAttribute(front.union, node, readName(r, HEADER), r.pid)),
      ),
    STATFS: (r) => statfs(front, r),
  };
}

/**
 * Control files have no extended attributes. To get one is ENODATA: any other error the kernel, which asks for the ACL
 * when somebody else than the owner comes, would hand to him.
 */
function withNode(front: Front, r: FuseRequest, ofControl: number, work: (node: Node) => number): number {
  if (isControl(r.nodeId)) return ofControl;
  const node = nodeOf(front, r.nodeId);
  return node ? work(node) : -E.ESTALE;
}

function doGetattr(front: Front, r: FuseRequest): number {
  if (isControl(r.nodeId)) return getattrControl(front, r.nodeId);
  const error = fillAttributes(front, r);
  return error < 0 ? error : replyAttributes(front, r);
}

/** What asks for the birth time; else the kernel sends GETATTR. */
function doStatx(front: Front, r: FuseRequest): number {
  if (isControl(r.nodeId)) return statxControl(front, r.nodeId);
  const error = fillAttributes(front, r);
  if (error < 0) return error;
  const { stat, ino } = front.union.entry;
  return writeStatxOut(r, tellAttributes(front), stat, ino);
}

function fillAttributes(front: Front, r: FuseRequest): number {
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  return front.exported ? revisit(front.union, node) : getattr(front.union, node);
}

function doSetattr(front: Front, r: FuseRequest): number {
  const s = readers.setattr_in(r.view, HEADER);
  const has = (bit: number) => (s.valid & bit) !== 0;
  if (isControl(r.nodeId)) return setattrControl(front, r.nodeId, has(FATTR_SIZE) && s.size === 0);
  const node = nodeOf(front, r.nodeId);
  if (!node) return -E.ESTALE;
  const nothing = (s.valid & ~(FATTR_FH | FATTR_LOCKOWNER)) === 0;
  const change: Change = {
    mode: has(FATTR_MODE) ? s.mode : null,
    uid: has(FATTR_UID) ? s.uid : null,
    gid: has(FATTR_GID) ? s.gid : null,
    size: has(FATTR_SIZE) ? s.size : null,
    atimeSec: s.atime,
    atimeNsec: has(FATTR_ATIME_NOW) ? UTIME_NOW : has(FATTR_ATIME) ? s.atimensec : UTIME_OMIT,
    mtimeSec: s.mtime,
    mtimeNsec: has(FATTR_MTIME_NOW) ? UTIME_NOW : has(FATTR_MTIME) ? s.mtimensec : UTIME_OMIT,
    killSetid: has(FATTR_KILL_SUIDGID) || nothing,
    handle: has(FATTR_FH) ? (front.union.table.handle(s.fh) ?? null) : null,
  };
  const result = nothing
    ? dropSetid(front.union, node, change, r)
    : setattr(front.union, node, change, r.pid);
  return result < 0 ? resultOf(front, result) : replyAttributes(front, r);
}

function replyAttributes(front: Front, r: FuseRequest): number {
  const { stat, ino } = front.union.entry;
  return writeAttrOut(r, tellAttributes(front), stat, ino);
}

function doSetxattr(front: Front, r: FuseRequest, node: Node): number {
  const ext = front.server.negotiated?.uses.SETXATTR_EXT ?? false;
  const { name, flags, setxattrFlags, valueAt, size } = readSetxattr(r, ext);
  const value = r.buffer.subarray(valueAt, valueAt + size);
  const dropSetgid = (setxattrFlags & FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
  return resultOf(front, setAttribute(front.union, node, name, value, flags, dropSetgid, r.pid));
}

/** The value, or with a size of 0 how long it is. */
function sized(r: FuseRequest, size: number, value: Buffer | number): number {
  if (typeof value === 'number') return value;
  if (size === 0) return writers.getxattr_out(r.replyView, PAYLOAD, { size: value.length });
  if (value.length > size) return -E.ERANGE;
  value.copy(r.reply, PAYLOAD);
  return value.length;
}

const space = newStatfs();

function statfs(front: Front, r: FuseRequest): number {
  const error = fstatfs(front.union.overlay.rootFd, space);
  if (error < 0) return error;
  const { blocks, bfree, bavail, files, ffree, bsize, frsize } = space;
  const out = { blocks, bfree, bavail, files, ffree, bsize, namelen: 255, frsize };
  return writers.statfs_out(r.replyView, PAYLOAD, out);
}
