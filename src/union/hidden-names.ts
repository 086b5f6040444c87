// The names of a base file with several that the guest has hidden, by a whiteout or by something else in their place:
// the base still counts them, and the union does not. For each there is a symlink in links/, named by the base's file
// and the name, which leads nowhere but tells the path: so the count is right in the next mount, too, without a walk.
// A look at a name puts right what is known of it, and the names are looked at again once the base's file has changed.
import { type BaseLayer, openBeneath } from '../branch/base.ts';
import { branchIno } from '../branch/numbers.ts';
import { E } from '../lib/errno.ts';
import { joinPath } from '../lib/names.ts';
import { isDirectory, newStat, type Stat } from '../lib/stat.ts';
import { O_NOFOLLOW, O_PATH } from '../sys/constants.ts';
import { close } from '../sys/file.ts';
import { readlinkat, symlinkat, unlinkat } from '../sys/names.ts';
import { fstat } from '../sys/stat.ts';
import { pathHash } from '../versions/origin.ts';
import type { BaseFileKey } from './base-file-key.ts';
import { type HiddenFile, hiddenFile, parseHiddenFile } from './hidden-name-table.ts';
import type { Found, Node } from './node.ts';
import { basePathAt } from './place.ts';
import type { Union } from './union.ts';

/** Who removes a tree of hard links gives up exact counts, and not an inode in links/ for each of them. */
const MOST = 4096;

/** A name that the base gives to a file with several. */
export interface BaseName extends BaseFileKey {
  /** pathHash of the base's path. */
  hash: string;
  /** In the layer. */
  path: string;
  nlink: number;
  ctimeSec: number;
  ctimeNsec: number;
}

/** Whether the base has a name of a file with several there, as union.found has it. */
export function hasSeveral({ inBase, baseStat }: Found): boolean {
  return inBase && baseStat.nlink > 1 && !isDirectory(baseStat.mode);
}

/**
 * The same, of a name that is about to be hidden; null: it has not. One that is the last by now counts, where others are
 * known to have been: so a file without a record here has never had any, or the guest has hidden none.
 */
export function severalAt(union: Union, parent: Node, name: string): BaseName | null {
  const { found } = union;
  const part = parent.dir?.parts[found.part];
  if (!found.inBase || part === undefined) return null;
  const { baseStat } = found;
  const { layer } = part;
  if (!hasSeveral(found) && !hadSeveral(union, parent, name, layer)) return null;
  const basePath = basePathAt(parent, name);
  if (basePath === null) return null;
  const { btimeSec, btimeNsec, nlink, ctimeSec, ctimeNsec } = baseStat;
  return {
    identity: union.layers[layer]?.identity ?? '',
    layer,
    ino: branchIno(union.layers, layer, baseStat),
    btimeSec,
    btimeNsec,
    hash: pathHash(basePath),
    path: joinPath(part.path, name),
    nlink,
    ctimeSec,
    ctimeNsec,
  };
}

/** A file that had several names when it was looked at is watched by itself, where anything is. */
function hadSeveral(union: Union, parent: Node, name: string, layer: number): boolean {
  const { baseStat } = union.found;
  if (isDirectory(baseStat.mode)) return false;
  return (union.table.child(parent, name)?.watch ?? -1) >= 0 || fileOf(union, layer, baseStat) !== undefined;
}

/** The guest has hidden a name, or is found to have; whether that was not known. */
export function hide(union: Union, base: BaseName): boolean {
  const { hidden } = union;
  const before = hidden.at(base.hash);
  const file = hidden.find(base.identity, base.layer, base.ino, base);
  if (before !== undefined && before === file) return false;
  // Another file had the name.
  if (before !== undefined) forget(union, before, base.hash);
  if (hidden.size >= MOST) return false;
  const now = hidden.add(base, base.hash, base.path);
  if (now.names.size === 1) {
    now.ctimeSec = base.ctimeSec;
    now.ctimeNsec = base.ctimeNsec;
  }
  // What finds no room there is known as long as the mount lasts, and again once the name is looked at.
  if (!union.config.readOnly) symlinkat(base.path, union.linksFd, hiddenFile(now, base.hash));
  return true;
}

/** What the base has under a name, as union.found has it, is in view: its pathHash if it was taken to be hidden, else null. */
export function unhide(union: Union, parent: Node, name: string): string | null {
  const { found, hidden } = union;
  const file = fileOf(union, parent.dir?.parts[found.part]?.layer ?? 0, found.baseStat);
  const basePath = file === undefined ? null : basePathAt(parent, name);
  if (file === undefined || basePath === null) return null;
  const hash = pathHash(basePath);
  if (hidden.at(hash) !== file) return null;
  forget(union, file, hash);
  return hash;
}

function forget(union: Union, file: HiddenFile, hash: string): void {
  union.hidden.delete(file, hash);
  if (!union.config.readOnly) unlinkat(union.linksFd, hiddenFile(file, hash), 0);
}

/** Of what lies in links/, at the start of a mount: whether it is for a hidden name. */
export function loadHidden(union: Union, file: string): boolean {
  const parsed = parseHiddenFile(file);
  if (parsed === null) return false;
  // Of a tree that is the base no more; none may be there just now.
  if (union.layers.length > 0 && !union.layers.some(({ identity }) => identity === parsed.key.identity)) {
    if (!union.config.readOnly) unlinkat(union.linksFd, file, 0);
    return true;
  }
  // A name is that of one file.
  if (!union.hidden.at(parsed.hash)) union.hidden.add(parsed.key, parsed.hash, '');
  return true;
}

function fileOf(union: Union, layer: number, stat: Stat): HiddenFile | undefined {
  const { hidden, layers } = union;
  if (hidden.isEmpty) return undefined;
  return hidden.find(layers[layer]?.identity ?? '', layer, branchIno(layers, layer, stat), stat);
}

const noNames: ReadonlyMap<string, string> = new Map();

/** The hidden names of a file of the base, by pathHash; `stat` tells how it is now. */
export function hiddenNames(union: Union, layer: number, stat: Stat): ReadonlyMap<string, string> {
  return fileNow(union, layer, stat)?.names ?? noNames;
}

function fileNow(union: Union, layer: number, stat: Stat): HiddenFile | undefined {
  const file = fileOf(union, layer, stat);
  const isAsBefore = file?.ctimeSec === stat.ctimeSec && file.ctimeNsec === stat.ctimeNsec;
  if (file !== undefined && !isAsBefore) lookAgain(union, file, stat);
  return file;
}

/**
 * The base may have taken some of them away, which moves the file's ctime. That a directory above one of them has been
 * renamed does not: that is found out in the next mount.
 */
function lookAgain(union: Union, file: HiddenFile, stat: Stat): void {
  for (const [hash, known] of file.names) {
    const path = known === '' ? readlinkat(union.linksFd, hiddenFile(file, hash)) : known;
    if (typeof path === 'number' || !isNameOf(union, file, path)) forget(union, file, hash);
    else file.names.set(hash, path);
  }
  file.ctimeSec = stat.ctimeSec;
  file.ctimeNsec = stat.ctimeNsec;
}

const nameStat = newStat();

/** Whether a path in a layer still leads to the file. Where that cannot be found out it is taken to. */
function isNameOf(union: Union, file: HiddenFile, path: string): boolean {
  const { rootFd } = union.layers[file.layer] as BaseLayer;
  const fd = openBeneath(rootFd, path, O_PATH | O_NOFOLLOW);
  if (fd < 0) return fd !== -E.ENOENT && fd !== -E.ENOTDIR && fd !== -E.ELOOP;
  const error = fstat(fd, nameStat);
  close(fd);
  return error < 0 || fileOf(union, file.layer, nameStat) === file;
}

/** The link count that a guest sees of an object of the base: without the names that it has hidden. */
export function baseLinks(union: Union, { layer, place, watch }: Node, stat: Stat): number {
  const { nlink } = stat;
  if (place !== null && (nlink < 2 || union.hidden.isEmpty)) return nlink;
  const file = fileNow(union, layer, stat);
  // Its only name has gone. Somebody has it open, who may ask whether it was removed: the base still has it.
  if (file === undefined) return nlink === 1 && watch < 0 ? 0 : nlink;
  if (place !== null) return Math.max(1, nlink - file.names.size);
  // Nobody is told that a file has gone which is in view under a name that only a directory's renaming has made.
  if (nlink > 0 && nlink <= file.names.size) lookAgain(union, file, stat);
  return Math.max(0, nlink - file.names.size);
}
