// The way down through the layers of a base, a name at a time: which directories of the layers make up one of the base.
// A layer that was an overlayfs's upper directory once says by redirects where the layers beneath it have what lies in
// it: at a name beside, or at a path from their roots. As overlayfs does it, for look-ups and for decisions alike.

import { E } from '../lib/errno.ts';
import { baseName, joinPath, parentPath } from '../lib/names.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { getxattr } from '../sys/xattr.ts';
import { type BaseLayer, openDirectoryBeneath, statAt } from './base.ts';
import { branchIno } from './numbers.ts';
import { hidesBeneath, isNamedAway } from './whiteouts.ts';

/** A directory of a layer, with the number that the union shows. */
export interface LayerDir {
  layer: number;
  path: string;
  ino: number;
}

export interface Descent {
  /** The first of the directories that is looked into. */
  from?: number;
  /** Descriptor of one of them, which stays open; without it they are opened by their paths. */
  fdOf?: (index: number) => number;
  /** Hears of what cannot be read, which else counts as absent. */
  unreadable?: (error: number) => void;
}

const stat = newStat();

export function isAbsent(error: number): boolean {
  return error === -E.ENOENT || error === -E.ENOTDIR || error === -E.ELOOP || error === -E.EXDEV;
}

/** What is found on a way down, or the first errno of what could not be read there. */
export function readably(way: (unreadable: (error: number) => void) => LayerDir[]): LayerDir[] | number {
  let failed = 0;
  const found = way((error) => {
    failed ||= error;
  });
  return failed < 0 ? failed : found;
}

/** The roots of the layers, or of those from one on. */
export function rootsOf(layers: readonly BaseLayer[], from = 0): LayerDir[] {
  return layers.slice(from).map(({ index, rootIno }) => ({ layer: index, path: '', ino: rootIno }));
}

/** The directories that make up the one at a path from these: of a single layer it may turn out not to be there. */
export function descendPath(
  layers: readonly BaseLayer[],
  dirs: LayerDir[],
  path: string,
  descent: Pick<Descent, 'unreadable'> = {},
): LayerDir[] {
  if (path === '') return dirs;
  // What hides something in layers beneath may lie anywhere above; a single layer has none beneath.
  const names = layers.length > 1 ? path.split('/') : [path];
  return names.reduce((above, name) => descend(layers, above, name, descent), dirs);
}

/**
 * Those at a name in the directory that `dirs` make up, topmost first, down to the first layer that hides the rest:
 * by an opaque directory, a whiteout, or anything else under the name.
 */
export function descend(
  layers: readonly BaseLayer[],
  dirs: readonly LayerDir[],
  name: string,
  { from = 0, fdOf, unreadable }: Descent = {},
): LayerDir[] {
  const found: LayerDir[] = [];
  let called = name;
  for (let i = from; i < dirs.length; i++) {
    const dir = dirs[i] as LayerDir;
    const layer = layers[dir.layer] as BaseLayer;
    const path = joinPath(dir.path, called);
    const dirFd = fdOf ? fdOf(i) : openDirectoryBeneath(layer.rootFd, parentPath(path));
    const here = dirFd < 0 ? dirFd : lookAt(layers, layer, dirFd, fdOf ? called : baseName(path));
    if (!fdOf && dirFd >= 0) close(dirFd);
    if (typeof here === 'number') {
      if (!isAbsent(here)) unreadable?.(here);
      continue;
    }
    if (here.ino !== null) found.push({ layer: dir.layer, path, ino: here.ino });
    if (here.ends) return found;
    if (here.redirect === null) continue;
    const next = targetOf(here.redirect);
    if (next === null) return found;
    if (here.redirect.startsWith('/')) {
      const roots = rootsOf(layers, dir.layer + 1);
      return [...found, ...descendPath(layers, roots, next, unreadable ? { unreadable } : {})];
    }
    called = next;
  }
  return found;
}

interface Here {
  /** Of the directory; null: there is none. */
  ino: number | null;
  /** Nothing of the layers beneath is seen. */
  ends: boolean;
  redirect: string | null;
}

/** What a layer has under a name; a negative errno. */
function lookAt(layers: readonly BaseLayer[], layer: BaseLayer, dirFd: number, name: string): Here | number {
  const error = statAt(dirFd, name, stat);
  const lowest = layer.index === layers.length - 1;
  if (error < 0) {
    if (!isAbsent(error) || lowest || !isNamedAway(layer.marks, dirFd, name)) return error;
    return { ino: null, ends: true, redirect: null };
  }
  if (!isDirectory(stat.mode)) return { ino: null, ends: true, redirect: null };
  const ino = branchIno(layers, layer.index, stat);
  const ends = lowest || hidesBeneath(layer.marks, dirFd, name);
  return { ino, ends, redirect: ends ? null : redirectAt(layer, dirFd, name) };
}

function redirectAt(layer: BaseLayer, dirFd: number, name: string): string | null {
  const value = getxattr(dirFd, name, layer.redirect);
  return typeof value === 'number' || value.length === 0 ? null : value.toString('latin1');
}

/** A path or a name; null: it is none that overlayfs would follow. */
export function targetOf(redirect: string): string | null {
  const absolute = redirect.startsWith('/');
  const names = (absolute ? redirect.slice(1) : redirect).split('/');
  if (!absolute && names.length > 1) return null;
  return names.some((name) => name === '' || name === '.' || name === '..') ? null : names.join('/');
}
