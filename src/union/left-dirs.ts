// Directories that the overlay has for what lies in them, and that the base has removed. Such a one goes once nothing
// of the guest's is in it, so what lies in it is looked at first. Main thread.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { readBeneath } from '../branch/listing.ts';
import { redirectOf } from '../branch/overlay.ts';
import { FsError } from '../lib/errors.ts';
import { baseName, parentPath } from '../lib/names.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import type { DirectoryFacts } from '../merge/decide.ts';
import { close } from '../sys/file.ts';
import { originFor } from './origin-list.ts';
import { type BaseSide, type Branches, isOpaqueAt, linkedDirectory, readBase, readOverlay } from './sides.ts';
import { describe, type OverlayEntry } from './walk-overlay.ts';

export interface Place {
  path: string;
  basePath: string;
}

/** Whether the overlay has a directory there that was the base's once, and is in the base no more. */
export function isLeft(branches: Branches, place: Place): boolean {
  try {
    return wasBrought(branches, place) && readBase(branches, place.basePath).object === null;
  } catch (error) {
    // The look itself is going to say so.
    if (error instanceof FsError) return false;
    throw error;
  }
}

function wasBrought(branches: Branches, { path, basePath }: Place): boolean {
  const dirFd = openDirectoryBeneath(branches.overlay.rootFd, parentPath(path));
  if (dirFd < 0) return false;
  const stat = newStat();
  const found = path !== '' && statAt(dirFd, baseName(path), stat) === 0 && isDirectory(stat.mode);
  const renamed = found && redirectOf(branches.overlay, dirFd, baseName(path)) !== null;
  close(dirFd);
  if (!found || renamed || isOpaqueAt(branches.overlay, path)) return false;
  const { origin, underOpaque } = readOverlay(branches, path, basePath);
  return origin !== null && isDirectory(origin.mode) && !underOpaque;
}

/** What lies in such a directory; null: something that stays whatever the base does, so that the directory does. */
export function followersIn(branches: Branches, dir: Place): OverlayEntry[] | null {
  const { overlay } = branches;
  const dirFd = openDirectoryBeneath(overlay.rootFd, dir.path);
  if (dirFd < 0) return null;
  const followers: OverlayEntry[] = [];
  let stays = false;
  for (const name of namesIn(dirFd)) {
    const entry = describe(overlay, dirFd, name, dir);
    if (entry === null) continue;
    stays = !follows(branches, entry);
    if (stays) break;
    followers.push(entry);
  }
  close(dirFd);
  return stays ? null : followers;
}

function follows(branches: Branches, entry: OverlayEntry): boolean {
  if (entry.kind === 'dir') return isLeft(branches, entry);
  return entry.kind === 'object' && originFor(entry.origins, entry.basePath) !== null;
}

function namesIn(dirFd: number): string[] {
  const names: string[] = [];
  readBeneath(dirFd, (name) => names.push(name));
  return names;
}

export function directoryFacts(
  branches: Branches,
  view: { path: string; base: BaseSide; emptied: boolean },
): DirectoryFacts {
  const { overlay } = branches;
  const target = linkedDirectory(branches, view);
  const link = view.base.object?.target ?? null;
  const dirFd = openDirectoryBeneath(overlay.rootFd, view.path);
  const facts: DirectoryFacts = {
    opaque: isOpaqueAt(overlay, view.path),
    renamed: dirFd >= 0 && redirectOf(overlay, dirFd, '') !== null,
    empty: view.emptied || (dirFd >= 0 && namesIn(dirFd).length === 0),
    baseLink: link === null ? null : target === null ? 'other' : 'directory',
  };
  if (dirFd >= 0) close(dirFd);
  return facts;
}
