// What the decision part of merge/ knows of one side of a path: plain facts, gathered by whoever calls, so that
// nothing in here needs a disk. A whiteout is no Side (the caller has W for it, see states.ts).
import { S_IFBLK, S_IFCHR, S_IFLNK, S_IFREG } from '../lib/stat.ts';

/** The same words as in control/verbs.ts, which this layer may not import; a unit test compares them. */
export const conflictKinds = [
  'text',
  'record',
  'binary',
  'type',
  'metadata',
  'deleted',
  'added',
  'no-ancestor',
  'undone',
] as const;
export type ConflictKind = (typeof conflictKinds)[number];

export interface Side {
  /** The S_IFMT bits of the mode. */
  type: number;
  /** The other bits, 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Of a device: its number, in any form that is equal for equal devices; else 0. */
  rdev: number;
  /** hash128 of the bytes, or of a symlink's target; null: not known, or the type has none. */
  content: string | null;
  /** Hash of the extended attributes that a guest can see, ACLs and capabilities among them; '': none. */
  xattrs: string;
}

export type XattrMap = ReadonlyMap<string, Buffer>;

export interface XattrSides {
  /** null: there is no ancestor, or its attributes were not kept. */
  ancestor: XattrMap | null;
  overlay: XattrMap;
  base: XattrMap;
}

export function hasContent(side: Side): boolean {
  return side.type === S_IFREG || side.type === S_IFLNK;
}

/** Of one type and of one content; false where a content is not known. Directories are equal to each other. */
export function sameBody(a: Side, b: Side): boolean {
  if (a.type !== b.type) return false;
  if (hasContent(a)) return a.content !== null && a.content === b.content;
  if (a.type === S_IFCHR || a.type === S_IFBLK) return a.rdev === b.rdev;
  return true;
}

export function sameMetadata(a: Side, b: Side): boolean {
  return a.mode === b.mode && a.uid === b.uid && a.gid === b.gid && a.xattrs === b.xattrs;
}

export function sameSide(a: Side, b: Side): boolean {
  return sameBody(a, b) && sameMetadata(a, b);
}
