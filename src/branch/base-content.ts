// Where a file of the base has its content: in itself, or, where it is a copy of metadata alone (its layer was an
// overlay once), in a layer beneath, under its own name or where a redirect says. As overlayfs goes down, for look-ups
// and for decisions alike.
import { E } from '../lib/errno.ts';
import { baseName, parentPath } from '../lib/names.ts';
import { isRegular, newStat, type Stat } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { type BaseLayer, openDirectoryBeneath, statAt } from './base.ts';
import { type Descent, descendPath, isAbsent, type LayerDir, rootsOf, targetOf } from './descent.ts';
import { isMarkedMetacopy, metacopyAt } from './metacopy.ts';
import { isNamedAway, isWhiteout } from './whiteouts.ts';

/** A place of the base; whoever has it filled in closes the descriptor if it is `mine`. */
export interface ContentPlace {
  dirFd: number;
  name: string;
  layer: number;
  mine: boolean;
  stat: Stat;
  /** Copies of metadata alone were passed on the way, which lie above it. */
  passed: boolean;
}

export const newContentPlace = (): ContentPlace => ({
  dirFd: -1,
  name: '',
  layer: -1,
  mine: false,
  stat: newStat(),
  passed: false,
});

/** Lets go of a place that is looked at no more. */
export function leaveContent({ dirFd, mine }: ContentPlace): void {
  if (mine) close(dirFd);
}

/**
 * The content of the file under a name in the directory that `dirs` make up. 0; ENODATA: there is none that could be
 * shown; another negative errno: it cannot be looked for.
 */
export function findContentBeneath(
  layers: readonly BaseLayer[],
  dirs: readonly LayerDir[],
  name: string,
  { from = 0, fdOf }: Descent,
  out: ContentPlace,
): number {
  out.passed = false;
  out.name = name;
  out.mine = fdOf === undefined;
  let list = dirs;
  for (let i = from; i < list.length; i++) {
    const dir = list[i] as LayerDir;
    const layer = layers[dir.layer] as BaseLayer;
    out.layer = dir.layer;
    out.dirFd = out.mine ? openDirectoryBeneath(layer.rootFd, dir.path) : (fdOf?.(i) ?? -1);
    const next = out.dirFd < 0 ? absentOr(out.dirFd) : lookAt(layer, out, dir.layer === layers.length - 1);
    if (next === FOUND) return 0;
    if (out.dirFd >= 0) leaveContent(out);
    if (typeof next === 'number') return next;
    if (next === ABSENT) continue;
    out.passed = true;
    if (next.redirect === null) continue;
    const target = targetOf(next.redirect);
    if (target === null) return -E.ENODATA;
    out.name = baseName(target);
    if (!next.redirect.startsWith('/')) continue;
    list = descendPath(layers, rootsOf(layers, dir.layer + 1), parentPath(target));
    out.mine = true;
    i = -1;
  }
  return -E.ENODATA;
}

const FOUND = 'found';
const ABSENT = 'absent';

function absentOr(error: number): number | typeof ABSENT {
  return isAbsent(error) ? ABSENT : error;
}

/** What a layer has there: the content, nothing, or what says where else to look. */
function lookAt(
  layer: BaseLayer,
  { dirFd, name, stat }: ContentPlace,
  isLowest: boolean,
): typeof FOUND | typeof ABSENT | number | { redirect: string | null } {
  const error = statAt(dirFd, name, stat);
  if (error < 0) return isNamedAway(layer.marks, dirFd, name) ? -E.ENODATA : absentOr(error);
  // Whatever else has the name hides what lies beneath.
  if (!isRegular(stat.mode) || isWhiteout(layer.marks, dirFd, name, stat)) return -E.ENODATA;
  const copy = isLowest || stat.size === 0 ? null : metacopyAt(layer, dirFd, name);
  if (copy === null) return FOUND;
  return copy.damaged ? -E.ENODATA : { redirect: copy.redirect };
}

/** own: its content is what it holds. beneath: a layer beneath has it. nowhere: it is said to be elsewhere, and is not. */
export type Holding = 'own' | 'beneath' | 'nowhere';

/** 512-byte blocks that attributes alone may take up. */
const ATTRIBUTES = 16;

/** Which it is for a regular file of a layer (by descriptor with '' as name, or by directory and name). */
export function holdingOf(
  layers: readonly BaseLayer[],
  layer: BaseLayer,
  dirFd: number,
  name: string,
  stat: Stat,
): Holding {
  if (liesBeneath(layers, layer, dirFd, name, stat)) return 'beneath';
  return isNowhere(layers, dirFd, name, stat) ? 'nowhere' : 'own';
}

/** Whether a layer beneath is said to have the content. */
export function liesBeneath(
  layers: readonly BaseLayer[],
  layer: BaseLayer,
  dirFd: number,
  name: string,
  { size }: Stat,
): boolean {
  return size > 0 && layer.index < layers.length - 1 && metacopyAt(layer, dirFd, name) !== null;
}

/**
 * Of what does not lie beneath: whether it is said to be elsewhere all the same. Where nothing lies beneath, and of
 * attributes that are not followed, that is asked where little is taken up.
 */
export function isNowhere(
  layers: readonly BaseLayer[],
  dirFd: number,
  name: string,
  { size, blocks }: Stat,
): boolean {
  const little = layers.length > 1 ? ATTRIBUTES : 0;
  return size > 0 && blocks <= little && isMarkedMetacopy(dirFd, name);
}
