// Where the base has what an overlay's redirect speaks of, as overlayfs writes it: an absolute path from the root
// of the base, or a name beside the object's own.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { branchIno } from '../branch/numbers.ts';
import { hidesBeneath } from '../branch/whiteouts.ts';
import { baseName, joinPath, parentPath } from '../lib/names.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import type { DirPart, Node } from './node.ts';
import type { Union } from './union.ts';

export type ClosedPart = Omit<DirPart, 'fd' | 'watch'>;

const lowerStat = newStat();

/**
 * A renamed directory of the base (overlayfs's redirect): absolute from the root, or a name beside it. None where
 * the target has left the base: the directory is served as a plain one.
 */
export function redirectedParts(union: Union, parent: Node, redirect: string): ClosedPart[] {
  if (!redirect.startsWith('/')) return partsBeneath(union, parent.dir?.parts ?? [], redirect);
  const path = redirect.slice(1);
  const roots = union.layers.map((layer) => ({ layer: layer.index, path: '', ino: layer.rootIno }));
  // What hides something in layers beneath may lie anywhere above; a single layer has none beneath.
  const names = roots.length > 1 ? path.split('/') : [path];
  return names
    .reduce<readonly ClosedPart[]>((parts, name) => partsBeneath(union, parts, name), roots)
    .slice();
}

/** Directories of the base at a name in a directory with these parts, down to the first layer that hides the rest. */
function partsBeneath(union: Union, parts: readonly ClosedPart[], name: string): ClosedPart[] {
  const wanted: ClosedPart[] = [];
  for (const part of parts) {
    const layer = union.layers[part.layer];
    const path = joinPath(part.path, name);
    if (layer === undefined) continue;
    const parentFd = openDirectoryBeneath(layer.rootFd, parentPath(path));
    if (parentFd < 0) continue;
    const error = statAt(parentFd, baseName(path), lowerStat);
    const isDir = error === 0 && isDirectory(lowerStat.mode);
    if (isDir) wanted.push({ layer: part.layer, path, ino: branchIno(union.layers, part.layer, lowerStat) });
    const hides = (error === 0 && !isDir) || hidesBeneath(layer.marks, parentFd, baseName(path));
    close(parentFd);
    if (hides) break;
  }
  return wanted;
}
