// Objects as the verbs show them: what is known of a side, its bytes in pieces, and what the union has at a path.
import * as fs from 'node:fs';
import * as os from 'node:os';
import type { Emit, ShowItem, SideInfo } from '../control/verbs.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { hash128, hash128Stream } from '../lib/hash.ts';
import { escapeName, parentPath } from '../lib/names.ts';
import { isDirectory, isRegular, isSymlink } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import type { AssessContext } from '../union/assess.ts';
import { type Found, readBase, readOverlay, sizeOf } from '../union/sides.ts';
import { basePathOf } from '../union/walk-overlay.ts';
import { WHOLE_LIMIT } from '../versions/ancestors.ts';
import type { Store } from '../versions/store.ts';
import { pieces } from '../versions/streams.ts';
import type { SideRef, VersionRef } from '../versions/types.ts';
import type { MountContext } from './context.ts';

/** Bytes of content in one item. */
const PIECE = 256 * 1024;

function nothing(type: 'absent' | 'unknown'): SideInfo {
  return { type, mode: 0, uid: 0, gid: 0, size: 0, mtime: 0, hash: null, target: null };
}

export const absentSide: SideInfo = nothing('absent');
export const unknownSide: SideInfo = nothing('unknown');

export function typeOf(mode: number): SideInfo['type'] {
  if (isRegular(mode)) return 'file';
  if (isDirectory(mode)) return 'dir';
  return isSymlink(mode) ? 'symlink' : 'other';
}

export function infoOfFound(found: Found | null): SideInfo {
  if (found === null) return absentSide;
  const { stat } = found;
  return {
    type: typeOf(stat.mode),
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: isDirectory(stat.mode) ? 0 : sizeOf(found),
    mtime: stat.mtimeSec * 1000 + Math.floor(stat.mtimeNsec / 1e6),
    hash: isRegular(stat.mode) ? found.content : null,
    target: found.target,
  };
}

export function infoOfVersion(ref: VersionRef): SideInfo {
  return {
    type: typeOf(ref.mode),
    mode: ref.mode & 0o7777,
    uid: ref.uid,
    gid: ref.gid,
    size: isDirectory(ref.mode) ? 0 : ref.size,
    mtime: Math.floor(ref.mtime),
    hash: ref.content,
    target: ref.target,
  };
}

/** A side of a conflict; one whose bytes are not kept is 'unknown', for they cannot be shown. */
export function infoOfSide(store: Store, side: SideRef): SideInfo {
  if (side === null) return absentSide;
  if (side === 'unknown') return unknownSide;
  const lacks = isRegular(side.mode) && (side.content === null || !store.ancestors.has(side.content));
  if (lacks || (isSymlink(side.mode) && side.target === null)) return unknownSide;
  return infoOfVersion(side);
}

/** Emits a target or other short content. */
export async function emitBytes(bytes: Uint8Array, emit: Emit<ShowItem>): Promise<void> {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < whole.length; at += PIECE) {
    await emit({ data: whole.subarray(at, at + PIECE).toString('base64') });
  }
}

/** Emits what an open file holds, and closes it. Bytes and hash of what was emitted. */
export async function emitFile(fd: number, emit: Emit<ShowItem>): Promise<{ size: number; hash: string }> {
  if (fd < 0) throw new FsError(-fd, `cannot be read (${errnoName(fd)})`);
  const hash = hash128Stream();
  let size = 0;
  try {
    for await (const piece of pieces(fd)) {
      hash.update(piece);
      size += piece.length;
      await emit({ data: piece.toString('base64') });
    }
  } finally {
    close(fd);
  }
  return { size, hash: hash.digest() };
}

/** Emits a kept content. ENOENT where it is not kept, EUCLEAN where it is damaged. */
export async function emitKept(
  store: Store,
  hash: string,
  size: number,
  emit: Emit<ShowItem>,
): Promise<number> {
  if (!store.ancestors.has(hash)) throw new FsError(E.ENOENT, 'its content is not kept');
  if (size <= WHOLE_LIMIT) {
    const bytes = await store.ancestors.get(hash);
    if (bytes === null) throw new FsError(E.EUCLEAN, 'its content is damaged: see kasane check');
    await emitBytes(bytes, emit);
    return bytes.length;
  }
  // Not held in memory: unpacked into a file without a name.
  const file = fs.openSync(`${os.tmpdir()}/kasane-show-${process.pid}-${hash}`, 'wx+', 0o600);
  try {
    fs.unlinkSync(`${os.tmpdir()}/kasane-show-${process.pid}-${hash}`);
    const written = await store.ancestors.writeTo(hash, file);
    if (written < 0) throw new FsError(E.EUCLEAN, 'its content is damaged: see kasane check');
    for await (const piece of pieces(file)) await emit({ data: piece.toString('base64') });
    return written;
  } finally {
    fs.closeSync(file);
  }
}

/** Emits what a kept version holds; the size that it turned out to have. */
export async function emitVersion(store: Store, ref: VersionRef, emit: Emit<ShowItem>): Promise<number> {
  if (isSymlink(ref.mode) && ref.target !== null) {
    const bytes = Buffer.from(ref.target, 'latin1');
    await emitBytes(bytes, emit);
    return bytes.length;
  }
  if (!isRegular(ref.mode)) return 0;
  if (ref.content === null) throw new FsError(E.ENOENT, 'its content is not kept');
  return emitKept(store, ref.content, ref.size, emit);
}

/** Hash of a version's content or target as `Found.content` has it; null: none. */
export function contentOfVersion(ref: VersionRef): string | null {
  return ref.target === null ? ref.content : hash128(Buffer.from(ref.target, 'latin1'));
}

export function assessContext(context: MountContext): AssessContext {
  const { branches, store, osTree, isOver } = context.reconciler.context;
  return { branches, store, osTree, isOver };
}

/** What the union has at a path. */
export function kindInUnion(context: MountContext, path: string): 'none' | 'dir' | 'other' {
  if (path === '') return 'dir';
  const { branches } = context.reconciler.context;
  const basePath = basePathOf(branches.overlay, path);
  const overlay = readOverlay(branches, path, basePath);
  const kind = (mode: number) => (isDirectory(mode) ? 'dir' : 'other');
  if (overlay.object !== null) return kind(overlay.object.stat.mode);
  if (overlay.state === 'whiteout' || overlay.underOpaque) return 'none';
  for (let above = parentPath(path); above !== ''; above = parentPath(above)) {
    const { state, object } = readOverlay(branches, above, above);
    if (state === 'whiteout' || (object !== null && !isDirectory(object.stat.mode))) return 'none';
  }
  const base = readBase(branches, basePath).object;
  return base === null ? 'none' : kind(base.stat.mode);
}

/** Throws FsError ENOENT where neither branch, nor the history, knows the path. */
export async function expectPath(context: MountContext, path: string): Promise<void> {
  if (kindInUnion(context, path) !== 'none' || context.store.paths.get(path) !== null) return;
  for await (const _ of context.store.events.of(path)) return;
  throw new FsError(E.ENOENT, `${escapeName(path)}: no such file or directory`);
}
