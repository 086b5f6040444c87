// Walks an overlay beneath its root, on the main thread, a directory at a time: for recovery, check, status and
// for reconciling everything.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { isOpaque, type Overlay, redirectOf } from '../branch/overlay.ts';
import { joinPath } from '../lib/names.ts';
import { isDirectory, isWhiteoutDevice, newStat, type Stat } from '../lib/stat.ts';
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { close, reopen } from '../sys/file.ts';
import { getxattr } from '../sys/xattr.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
import { readNames } from './listing.ts';
import { CONTROL_NAME } from './place.ts';

export interface OverlayEntry {
  path: string;
  /** Where the base has it: another path beneath a redirect. */
  basePath: string;
  kind: 'whiteout' | 'dir' | 'object';
  stat: Stat;
  origins: Origin[];
  /** There is an origin attribute, and it cannot be read. */
  originDamaged: boolean;
  /** Of a directory. */
  opaque: boolean;
}

/** Everything at and beneath `from` but the root itself; a directory before what it holds. */
export async function* walkOverlay(overlay: Overlay, from = ''): AsyncGenerator<OverlayEntry> {
  const open: { path: string; basePath: string }[] = [{ path: from, basePath: from }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const found = readDirectory(overlay, next);
    for (const entry of found) {
      yield entry;
      if (entry.kind === 'dir') open.push({ path: entry.path, basePath: entry.basePath });
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function readDirectory(overlay: Overlay, at: { path: string; basePath: string }): OverlayEntry[] {
  const pathFd = openDirectoryBeneath(overlay.rootFd, at.path);
  if (pathFd < 0) return [];
  const fd = reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  close(pathFd);
  if (fd < 0) return [];
  const entries: OverlayEntry[] = [];
  try {
    const names: string[] = [];
    readNames(fd, (name) => names.push(name));
    for (const name of names) {
      if (at.path === '' && name === CONTROL_NAME) continue;
      const entry = describe(overlay, fd, name, at);
      if (entry !== null) entries.push(entry);
    }
  } finally {
    close(fd);
  }
  return entries;
}

/** null: it has gone meanwhile. */
export function describe(
  overlay: Overlay,
  dirFd: number,
  name: string,
  at: { path: string; basePath: string },
): OverlayEntry | null {
  const stat = newStat();
  if (statAt(dirFd, name, stat) < 0) return null;
  const dir = isDirectory(stat.mode);
  const value = dir ? -1 : getxattr(dirFd, name, overlay.origin);
  const origins = typeof value === 'number' ? [] : decodeOrigins(value);
  const redirect = dir ? redirectOf(overlay, dirFd, name) : null;
  const beside = joinPath(at.basePath, redirect ?? name);
  return {
    path: joinPath(at.path, name),
    basePath: redirect?.startsWith('/') ? redirect.slice(1) : beside,
    kind: dir ? 'dir' : isWhiteoutDevice(stat) ? 'whiteout' : 'object',
    stat,
    origins: origins ?? [],
    originDamaged: origins === null,
    opaque: dir && isOpaque(overlay, dirFd, name),
  };
}
