// Listings of merged directories: what each branch has there, less what the ones above it hide.
import { type BaseLayer, statAt } from '../branch/base.ts';
import { isAbsent } from '../branch/descent.ts';
import { readBeneath } from '../branch/listing.ts';
import { listedInos } from '../branch/numbers.ts';
import { isImpure, redirectOf } from '../branch/overlay.ts';
import { isOpaque, listsWhiteouts, takenName } from '../branch/whiteouts.ts';
import { E } from '../lib/errno.ts';
import { newStat } from '../lib/stat.ts';
import { DT_DIR, DT_REG } from '../sys/constants.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { linkedIno } from './hard-links.ts';
import { baseIno, ownIno } from './identity.ts';
import { type ListEntry, nameOffset, sortEntries } from './list-order.ts';
import { type DirPart, type Node, ROOT_ID } from './node.ts';
import { numberIn } from './origin-list.ts';
import { readOrigins } from './origins.ts';
import { CONTROL_NAME } from './place.ts';
import { redirectedParts } from './redirect.ts';
import type { Union } from './union.ts';

/**
 * The union's entries of a directory, sorted by offset; a negative errno if a branch cannot be read. A part of the base
 * that was removed meanwhile has nothing; ENOENT, as of any directory that was removed: there is nothing else, either.
 */
export function listDirectory(union: Union, node: Node): ListEntry[] | number {
  const dir = node.dir;
  if (dir === null) return -E.ENOTDIR;
  const { hasOverlay } = dir;
  const parts = dir.opaque ? [] : dir.parts;
  const entries: ListEntry[] = [];
  // Where one directory is all that there is, no name comes twice (but for a rename meanwhile, as anywhere).
  const several = parts.length + (hasOverlay ? 1 : 0) > 1;
  const known = new Map<string, ListEntry>();
  const hidden = new Set<string>();
  const merged = new Map<string, number>();
  const add = (name: string, ino: number, type: number) => {
    const entry = { name, ino, type, offset: nameOffset(name) };
    entries.push(entry);
    if (several) known.set(name, entry);
  };
  const pathFd = hasOverlay ? overlayDirFd(union, node) : -1;
  if (hasOverlay) {
    if (pathFd < 0) return pathFd;
    const isNone = listsWhiteouts(union.overlay.marks, pathFd);
    const error = readBeneath(pathFd, (name, ino, type) => {
      if (isNone(name, type)) hidden.add(name);
      else add(name, ownIno(union.numbers, ino), type);
    });
    if (error < 0) return error;
  }
  const own = entries.length;
  let present = hasOverlay;
  for (const part of parts) {
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
      const above = several ? known.get(name) : undefined;
      if (above === undefined && isNone(name, type)) hidden.add(name);
      else if (above === undefined)
        add(name, entryIno(union, node, part, fd, { name, ino: inoOf(name, ino, type), type }), type);
      else if (above.type === DT_DIR && type === DT_DIR && !merged.has(name))
        merged.set(name, baseIno(union, part.layer, inoOf(name, ino, type), node, name));
    });
    // It is open still, and has been removed.
    if (isAbsent(error)) continue;
    if (error < 0) return error;
    present = true;
    for (const name of taken) hidden.add(name);
  }
  if (!present) return -E.ENOENT;
  // Nowhere else can an object show a number that is not its own.
  const copied = own > 0 && (dir.parts.length > 0 || isImpure(union.overlay, pathFd));
  for (let i = 0; copied && i < own; i++) {
    const entry = entries[i] as ListEntry;
    entry.ino = copiedIno(union, node, pathFd, entry, merged.get(entry.name)) ?? entry.ino;
  }
  return sortEntries(node.id === ROOT_ID ? entries.filter(({ name }) => name !== CONTROL_NAME) : entries);
}

const listedStat = newStat();

/** The number that an entry of the base shows: its own, or that of the copy which the name leads to. */
function entryIno(
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
  if (type !== DT_DIR) return numberIn(readOrigins(union, dirFd, name)) || undefined;
  const dir = union.table.child(parent, name)?.dir;
  const known = dir?.hasOverlay && dir.ctimeSec !== -1 ? dir : null;
  const redirect = known === null ? redirectOf(union.overlay, dirFd, name) : known.redirect;
  if (redirect !== null) {
    const parts = redirectedParts(union, parent, redirect);
    const part = typeof parts === 'number' ? undefined : parts[0];
    return part && baseIno(union, part.layer, part.ino, parent, name);
  }
  if (merged === undefined) return undefined;
  return (known === null ? isOpaque(union.overlay.marks, dirFd, name) : known.ownOpaque) ? undefined : merged;
}
