// Files that are open past us: the kernel reads, writes and maps them by itself, by a backing id that stands for the
// file beneath. It wants all opens of a node to be alike, so what the first one is holds until the last close: all
// past us with one id, or all by way of us. The base is reached so only on its private read-only mount, since an id
// lets the kernel open the file anew, for writing too.
//
// A file of the base that is open past us keeps its id when it is copied up. Its node goes on under its name, and
// shows the copy, as long as nobody wants to write to it (both have the same bytes). Then it is divided: copy and
// places go to a new node, and ESTALE makes the kernel look the name up anew. Who has the old one open keeps the
// bytes of before, as with overlayfs, and follows the copy in all else.
import { branchIno } from '../branch/numbers.ts';
import { E, errnoName } from '../lib/errno.ts';
import { inPlace, S_ISGID, S_ISUID, type Stat } from '../lib/stat.ts';
import {
  F_RDLCK,
  F_UNLCK,
  O_ACCMODE,
  O_CLOEXEC,
  O_DIRECT,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
  O_WRONLY,
} from '../sys/constants.ts';
import { close, openat, reopen, setLease } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import { locate } from './locate.ts';
import { type Handle, isOpenForWriting, type Node, placesOf } from './node.ts';
import type { Union } from './union.ts';

/** Smaller files of the base are read once and then kept by the kernel, which costs less than an id. */
export const WORTH = 64 * 1024;

/** A descriptor, and the layer in which the file lies whose bytes it gives; -1: the overlay. */
export interface Opened {
  fd: number;
  layer: number;
}

/** Whether the next open of a node, whose bytes lie in a layer, is to be past us. `size`: of the file. */
export function goesThrough(union: Union, node: Node, layer: number, size: number): boolean {
  if (node.handles.size > 0) return node.backing !== null;
  if (union.passthrough === null || layer < 0) return union.passthrough !== null;
  return union.passthrough.base && size > WORTH && union.layers[layer]?.isPrivate === true;
}

/**
 * Hands what is open as `fd`, for reading only, over to the kernel. The descriptor for the handle: where the kernel
 * cannot have it, one for the access that was asked for, and the file goes by way of us. Or a negative errno.
 */
export function handOver(union: Union, node: Node, opened: Opened, access: number, stat: Stat): number {
  const { fd } = opened;
  if (back(union, node, opened, stat) || access === O_RDONLY) return fd;
  const own = reopen(fd, access);
  close(fd);
  return own;
}

function back(union: Union, node: Node, { fd, layer }: Opened, stat: Stat): boolean {
  if (node.backing !== null && node.handles.size > 0) return true;
  // Of an open that came to nothing after all.
  letGoBacking(union, node);
  const id = union.passthrough?.open(fd) ?? -E.ENOSYS;
  if (id <= 0) {
    union.host.log.debug(`a file cannot be handed to the kernel (${errnoName(id)}): it goes by way of us`);
    return false;
  }
  const { size, ctimeSec, ctimeNsec } = stat;
  node.backing = { id, layer, size, ctimeSec, ctimeNsec };
  node.cachedAt = null;
  return true;
}

/** A handle for a descriptor that went through handOver, or needed not; `flags` as the kernel gave them. */
export function newHandle(union: Union, node: Node, opened: Opened, flags: number, mode: number): Handle {
  const access = flags & O_ACCMODE;
  const writable = access !== O_RDONLY;
  const through = node.backing !== null;
  const layer = node.backing?.layer ?? opened.layer;
  const kept = access | (flags & O_SYNC);
  const handle = union.table.addHandle(node, opened.fd, kept, { writable, layer, through });
  node.cachedAt ??= null;
  if (!through) return handle;
  // Set-id bits have to go when the file is written to, which takes a request. And who only writes, past the cache, takes
  // O_DIRECT off for a last piece that is no whole block (dd), of which nobody tells the file beneath.
  const onlyDirect = access === O_WRONLY && (flags & O_DIRECT) !== 0;
  handle.direct = writable && (onlyDirect || (mode & (S_ISUID | S_ISGID)) !== 0);
  // Nobody maps what cannot be read.
  if (access === O_RDWR) {
    node.mayBeMapped = true;
    // A store through a map moves its times, and tells nobody.
    union.kernel.changed(node, false);
    union.entry.keepAttributes = false;
  }
  return handle;
}

/** A handle is closed. After the last one the id goes. */
export function closeHandle(union: Union, handle: Handle): void {
  union.table.removeHandle(handle);
  if (handle.node.handles.size === 0) letGoBacking(union, handle.node);
}

function letGoBacking(union: Union, node: Node): void {
  if (node.backing === null) return;
  union.passthrough?.close(node.backing.id);
  node.backing = null;
}

/** The node shows a copy, and is open on the file of the base. */
export function isApart(node: Node): boolean {
  return node.backing !== null && node.layer < 0 && node.backing.layer >= 0;
}

/** The file of the base that a node is open on has changed since: its copy has other bytes. */
export function hasMoved(union: Union, node: Node): boolean {
  const [handle] = node.handles;
  const { backing } = node;
  const { stat } = union;
  if (handle === undefined || backing === null || fstat(handle.fd, stat) < 0) return true;
  const { size, ctimeSec, ctimeNsec } = backing;
  return stat.size !== size || stat.ctimeSec !== ctimeSec || stat.ctimeNsec !== ctimeNsec;
}

/** -ESTALE: the kernel looks the name up anew, and finds the copy under a node of its own. */
export function divide(union: Union, node: Node): number {
  const [handle] = node.handles;
  if (handle !== undefined) {
    const fresh = union.table.divide(node);
    // Others have its name in the kernel's cache; and what it shows changes by way of the new one from now on.
    for (const { parent, name } of placesOf(fresh)) union.kernel.expire(parent, name);
    union.kernel.changed(node, false);
    const { stat } = union;
    const layer = node.backing?.layer ?? handle.layer;
    if (fstat(handle.fd, stat) === 0) {
      node.ino = inPlace(branchIno(union.layers, layer, stat));
      node.btimeSec = inPlace(stat.btimeSec);
      node.btimeNsec = stat.btimeNsec;
    }
    node.layer = layer;
  }
  return -E.ESTALE;
}

/** What an open file that was divided from its object shows: its own bytes, and all else of the object. */
export function showOwnSize(node: Node, scratch: Stat, out: Stat): void {
  const [handle] = node.handles;
  if (handle === undefined || fstat(handle.fd, scratch) < 0) return;
  out.size = scratch.size;
  out.blocks = scratch.blocks;
}

/** A descriptor for writing by us, who never wait for a disk (a sync is a job); a negative errno. It is the handle's. */
export function writableFd(handle: Handle): number {
  if (!handle.through) return handle.fd;
  if (handle.writeFd < 0) handle.writeFd = reopen(handle.fd, O_RDWR);
  return handle.writeFd;
}

/** Whether what is written to a file of the overlay may escape us: by an open file, or by a map that outlives it. */
export function isWrittenUnseen(union: Union, node: Node): boolean {
  return (node.backing !== null && isOpenForWriting(node)) || isWrittenByMap(union, node);
}

/** Whether it may escape the kernel, too: it takes back what it knows after each write, and after no store by a map. */
export function isChangedUnseen(union: Union, node: Node): boolean {
  return union.passthrough?.takesBack ? isWrittenByMap(union, node) : isWrittenUnseen(union, node);
}

function isWrittenByMap(union: Union, node: Node): boolean {
  if (!node.mayBeMapped) return false;
  node.mayBeMapped = (node.backing !== null && isOpenForWriting(node)) || hasWriter(union, node);
  return node.mayBeMapped;
}

/** Asked by a read lease, which nobody can have while the file is open for writing anywhere. */
function hasWriter(union: Union, node: Node): boolean {
  const at = node.layer < 0 ? locate(union, node) : -E.ENOENT;
  if (typeof at === 'number') return false;
  const fd = openat(at.dirFd, at.name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const error = setLease(fd, F_RDLCK);
  if (error === 0) setLease(fd, F_UNLCK);
  close(fd);
  return error === -E.EAGAIN || error === -E.EBUSY;
}
