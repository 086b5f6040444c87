// Listings of merged directories. The offset of an entry is a function of its name, not of an open: 52 bits
// of hash, so that NFS servers and seekdir in a new open find their place, whatever was added or
// removed meanwhile. Entries come in the order of their offsets; names with equal offsets (a collision) are
// never parted between two answers.

import { type BaseLayer, statAt } from '../branch/base.ts';
import { isAbsent } from '../branch/descent.ts';
import { readNames } from '../branch/listing.ts';
import { listedInos } from '../branch/numbers.ts';
import { isImpure, redirectOf } from '../branch/overlay.ts';
import { isOpaque, listsWhiteouts, takenName } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { DT_DIR, DT_REG, O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { close, reopen } from '../sys/file.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { linkedIno } from './hard-links.ts';
import { baseIno, ownIno } from './identity.ts';
import { type DirPart, type Node, ROOT_ID } from './node.ts';
import { readOrigins } from './origins.ts';
import { CONTROL_NAME } from './place.ts';
import { redirectedParts } from './redirect.ts';
import type { Union } from './union.ts';

export interface ListEntry {
  name: string;
  /** d_ino, equal to st_ino. */
  ino: number;
  /** d_type: file type bits shifted down by 12. */
  type: number;
  /** Above 2; an answer that ends with this entry is continued from here. */
  offset: number;
}

/** Offsets 1 and 2 are those of `.` and `..`. */
const FIRST_OFFSET = 3;

/** FNV-1a over the bytes of the name, from two starting points; 52 bits, so that a safe integer holds them. */
export function nameOffset(name: string): number {
  let a = 0x811c9dc5;
  let b = 0x01000193;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    a = Math.imul(a ^ c, 0x01000193);
    b = Math.imul(b ^ c, 0x85ebca6b) ^ (b >>> 13);
  }
  const high = (a ^ (a >>> 15)) & 0xfffff;
  const low = (b ^ (b >>> 16)) >>> 0;
  return high * 2 ** 32 + low + FIRST_OFFSET;
}

/** Reads a directory known by an O_PATH descriptor; 0 or a negative errno. */
function readBeneath(pathFd: number, each: (name: string, ino: number, type: number) => void): number {
  const fd = reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const error = readNames(fd, each);
  close(fd);
  return error;
}

/** The union's entries of a directory, sorted by offset; a negative errno if a branch cannot be read. */
export function listDirectory(union: Union, node: Node): ListEntry[] | number {
  const dir = node.dir;
  if (dir === null) return -E.ENOTDIR;
  const entries = new Map<string, ListEntry>();
  const hidden = new Set<string>();
  const merged = new Map<string, number>();
  const own: string[] = [];
  const pathFd = dir.hasOverlay ? overlayDirFd(union, node) : -1;
  if (dir.hasOverlay) {
    if (pathFd < 0) return pathFd;
    const isNone = listsWhiteouts(union.overlay.marks, pathFd);
    const error = readBeneath(pathFd, (name, ino, type) => {
      if (isNone(name, type)) {
        hidden.add(name);
        return;
      }
      entries.set(name, { name, ino: ownIno(union.numbers, ino), type, offset: nameOffset(name) });
      own.push(name);
    });
    if (error < 0) return error;
  }
  for (const part of dir.opaque ? [] : dir.parts) {
    const fd = partFd(union, node, part);
    if (isAbsent(fd)) continue;
    if (fd < 0) return fd;
    const layer = union.layers[part.layer] as BaseLayer;
    const { marks } = layer;
    const isNone = listsWhiteouts(marks, fd);
    const inoOf = listedInos(layer, fd);
    // A whiteout beside a name hides what the layers beneath have of it, not what its own has.
    const taken: string[] = [];
    const error = readBeneath(fd, (name, ino, type) => {
      const gone = takenName(marks, name);
      if (gone !== null) taken.push(gone);
      if (hidden.has(name)) return;
      const known = entries.get(name);
      if (known === undefined) {
        if (isNone(name, type)) hidden.add(name);
        else
          entries.set(name, {
            name,
            ino: listedIno(union, node, part, fd, { name, ino: inoOf(name, ino, type), type }),
            type,
            offset: nameOffset(name),
          });
      } else if (known.type === DT_DIR && type === DT_DIR && !merged.has(name)) {
        merged.set(name, baseIno(union, part.layer, inoOf(name, ino, type), node, name));
      }
    });
    if (error < 0) return error;
    for (const name of taken) hidden.add(name);
  }
  // Nowhere else can an object show a number that is not its own.
  const copied = own.length > 0 && (dir.parts.length > 0 || isImpure(union.overlay, pathFd));
  for (const name of copied ? own : []) {
    const entry = entries.get(name) as ListEntry;
    entry.ino = copiedIno(union, node, pathFd, entry, merged.get(name)) ?? entry.ino;
  }
  if (node.id === ROOT_ID) entries.delete(CONTROL_NAME);
  return [...entries.values()].sort((a, b) => a.offset - b.offset || (a.name < b.name ? -1 : 1));
}

const listedStat = newStat();

/** The number that an entry of the base shows: its own, or that of the copy which the name leads to. */
function listedIno(
  union: Union,
  node: Node,
  { layer }: DirPart,
  fd: number,
  { name, ino, type }: { name: string; ino: number; type: number },
): number {
  if (type === DT_REG && union.hardLinks.hasNumber(ino) && statAt(fd, name, listedStat) === 0) {
    const shown = linkedIno(union, layer, listedStat);
    if (shown !== 0) return shown;
  }
  return baseIno(union, layer, ino, node, name);
}

/** The number that an entry of the overlay shows because the base has, or had, the object; else undefined. */
function copiedIno(
  union: Union,
  parent: Node,
  dirFd: number,
  { name, type }: ListEntry,
  merged: number | undefined,
): number | undefined {
  if (type !== DT_DIR) return readOrigins(union, dirFd, name).find((origin) => origin.ino !== 0)?.ino;
  const redirect = redirectOf(union.overlay, dirFd, name);
  if (redirect !== null) {
    const parts = redirectedParts(union, parent, redirect);
    const part = typeof parts === 'number' ? undefined : parts[0];
    return part && baseIno(union, part.layer, part.ino, parent, name);
  }
  return merged === undefined || isOpaque(union.overlay.marks, dirFd, name) ? undefined : merged;
}

/** Index of the first entry whose offset is above `offset`. */
export function indexAfter(entries: readonly ListEntry[], offset: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((entries[middle] as ListEntry).offset > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}
