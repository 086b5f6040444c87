// Walks an overlay beneath its root, on the main thread, a directory at a time: for recovery, check, status and
// for reconciling everything.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { readNames } from '../branch/listing.ts';
import { type Metacopy, metacopyAt } from '../branch/metacopy.ts';
import { readOriginBytes } from '../branch/origin-store.ts';
import { type Overlay, redirectOf } from '../branch/overlay.ts';
import { isOpaque, isWhiteout } from '../branch/whiteouts.ts';
import { baseName, joinPath, parentPath } from '../lib/names.ts';
import { isDirectory, isRegular, newStat, type Stat } from '../lib/stat.ts';
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { close, reopen } from '../sys/file.ts';
import { decodeOrigins, type Origin } from '../versions/origin.ts';
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
  /** It carries metadata alone, and shows the content of the base; else null. */
  metacopy: Metacopy | null;
}

/** Where the base has what is at a path of the union: elsewhere beneath a directory that was renamed. */
export function basePathOf(overlay: Overlay, path: string): string {
  const parts = path.split('/');
  const name = parts.pop() ?? '';
  let at = { path: '', basePath: '' };
  for (const part of parts) {
    const fd = openDirectoryBeneath(overlay.rootFd, at.path);
    const redirect = fd < 0 ? null : redirectOf(overlay, fd, part);
    if (fd >= 0) close(fd);
    at = { path: joinPath(at.path, part), basePath: redirected(at.basePath, part, redirect) };
  }
  return joinPath(at.basePath, name);
}

function redirected(parentBase: string, name: string, redirect: string | null): string {
  return redirect?.startsWith('/') ? redirect.slice(1) : joinPath(parentBase, redirect ?? name);
}

/** What the overlay has at a path itself; null: nothing. */
export function entryAt(overlay: Overlay, path: string): OverlayEntry | null {
  const fd = openDirectoryBeneath(overlay.rootFd, parentPath(path));
  if (fd < 0) return null;
  const basePath = basePathOf(overlay, path);
  const entry = describe(overlay, fd, baseName(path), {
    path: parentPath(path),
    basePath: parentPath(basePath),
  });
  close(fd);
  return entry;
}

/** The path itself and everything beneath it; of '' all but the root. A directory before what it holds. */
export async function* walkFrom(overlay: Overlay, path: string): AsyncGenerator<OverlayEntry> {
  if (path === '') {
    yield* walkOverlay(overlay);
    return;
  }
  const entry = entryAt(overlay, path);
  if (entry === null) return;
  yield entry;
  if (entry.kind === 'dir') yield* walkOverlay(overlay, path, entry.basePath);
}

/**
 * Everything beneath `from`, which the base has at `fromBase`; a directory before what it holds. `unread` hears of
 * directories that cannot be read.
 */
export async function* walkOverlay(
  overlay: Overlay,
  from = '',
  fromBase = from,
  unread: (path: string) => void = () => {},
): AsyncGenerator<OverlayEntry> {
  const open: { path: string; basePath: string }[] = [{ path: from, basePath: fromBase }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const found = readDirectory(overlay, next);
    if (found === null) unread(next.path);
    for (const entry of found ?? []) {
      yield entry;
      if (entry.kind === 'dir') open.push({ path: entry.path, basePath: entry.basePath });
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** null: it cannot be read, or has gone. */
function readDirectory(overlay: Overlay, at: { path: string; basePath: string }): OverlayEntry[] | null {
  const pathFd = openDirectoryBeneath(overlay.rootFd, at.path);
  if (pathFd < 0) return null;
  const fd = reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  close(pathFd);
  if (fd < 0) return null;
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
  const value = dir ? -1 : readOriginBytes(overlay.origins, dirFd, name);
  const origins = typeof value === 'number' ? [] : decodeOrigins(value);
  const redirect = dir ? redirectOf(overlay, dirFd, name) : null;
  return {
    path: joinPath(at.path, name),
    basePath: redirected(at.basePath, name, redirect),
    kind: dir ? 'dir' : isWhiteout(overlay.marks, dirFd, name, stat) ? 'whiteout' : 'object',
    stat,
    origins: origins ?? [],
    originDamaged: origins === null,
    opaque: dir && isOpaque(overlay.marks, dirFd, name),
    metacopy: isRegular(stat.mode) ? metacopyAt(overlay, dirFd, name) : null,
  };
}
