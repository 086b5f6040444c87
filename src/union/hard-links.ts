// A base file with several names that has been copied up stays one file under all of its names. Its overlay
// object has a link in links/, named by the base's object; whoever comes to another of the names finds a link to
// the same object there, made on the spot without any copying. When the overlay has all the names, the link in
// links/ goes. A merge takes those names along that are in the overlay already, and parts them from the rest.
import { readNames } from '../branch/listing.ts';
import { branchIno } from '../branch/numbers.ts';
import { E } from '../lib/errno.ts';
import { isRegular, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_RDONLY, RENAME_NOREPLACE } from '../sys/constants.ts';
import { close, reopen } from '../sys/file.ts';
import { linkat, renameat2, unlinkat } from '../sys/names.ts';
import { statx } from '../sys/stat.ts';
import { type Origin, pathHash } from '../versions/origin.ts';
import { overlayDirFd } from './dir-fds.ts';
import type { HardLink } from './hard-link-table.ts';
import { standsFor } from './identity.ts';
import type { Node } from './node.ts';
import { readOrigins, writeOrigins } from './origins.ts';
import { ensureOverlayDir, keepingTimes } from './overlay-dir.ts';
import { basePathAt, pathAt } from './place.ts';
import { publish } from './publish.ts';
import type { Union } from './union.ts';

/** Names a base object of this very tree. */
function keyOf(union: Union, layer: number, stat: Stat): string {
  return `${union.layers[layer]?.identity ?? ''}-${layer}-${branchIno(union.layers, layer, stat)}-${stat.btimeSec}.${stat.btimeNsec}`;
}

/** Names of the base's object that have an origin here: taken over, or taken over once. */
function taken(origins: readonly Origin[], ino: number): number {
  return origins.filter((origin) => origin.ino === ino).length;
}

/** Learns what links/ holds, at the start of a mount; 0 or a negative errno. */
export function loadHardLinks(union: Union): number {
  const fd = reopen(union.linksFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const error = readNames(fd, (file) => {
    const [key, count] = file.split('+');
    if (key === undefined || count === undefined) return;
    if (statx(fd, file, AT_SYMLINK_NOFOLLOW, union.stat) < 0) return;
    const origins = readOrigins(union, fd, file);
    const nlink = Number(count);
    const shown = origins.find((origin) => origin.ino !== 0)?.ino ?? 0;
    const remaining = Math.max(0, nlink - taken(origins, shown));
    union.hardLinks.set(key, { file, ino: union.stat.ino, remaining, nlink });
  });
  close(fd);
  return error;
}

/** A file in work/ is about to be published, whose base object has several names: those will find it. */
export function keepHardLink(union: Union, layer: number, base: Stat, temp: string): number {
  const key = keyOf(union, layer, base);
  const file = `${key}+${base.nlink}`;
  let error = linkat(union.workFd, temp, union.linksFd, file, 0);
  if (error === -E.EEXIST) {
    // Left over from a copy-up that was not finished.
    unlinkat(union.linksFd, file, 0);
    error = linkat(union.workFd, temp, union.linksFd, file, 0);
  }
  if (error < 0) return error;
  const known = statx(union.linksFd, file, AT_SYMLINK_NOFOLLOW, union.stat);
  if (known < 0) return known;
  union.hardLinks.set(key, { file, ino: union.stat.ino, remaining: base.nlink - 1, nlink: base.nlink });
  return 0;
}

/**
 * A name of the base whose object has been copied up under another name becomes one of the overlay: 1. 0: it has
 * not been; or a negative errno.
 */
export function followHardLink(union: Union, parent: Node, name: string, layer: number, base: Stat): number {
  if (base.nlink < 2 || !isRegular(base.mode) || union.config.readOnly) return 0;
  const key = keyOf(union, layer, base);
  const link = union.hardLinks.get(key);
  const basePath = basePathAt(parent, name);
  const unionPath = pathAt(parent, name);
  if (!link || basePath === null || unionPath === null) return 0;
  const above = ensureOverlayDir(union, parent);
  if (above < 0) return above;
  const dirFd = overlayDirFd(union, parent);
  if (dirFd < 0) return dirFd;
  const origins = readOrigins(union, union.linksFd, link.file);
  const number = branchIno(union.layers, layer, base);
  const first = origins.find((origin) => standsFor(origin.ino, layer, number));
  if (!first) return 0;
  const origin = { ...first, path: pathHash(basePath) };
  const known = origins.some(({ path }) => path === origin.path);
  const written = known ? 0 : writeOrigins(union, union.linksFd, link.file, [...origins, origin]);
  if (written < 0) return written;
  const temp = union.tempName();
  const made = linkat(union.linksFd, link.file, union.workFd, temp, 0);
  if (made < 0) return made;
  const note = { kind: 'copy-up', path: unionPath, time: Date.now(), origin } as const;
  const error = publish(union, 'hard-link', [note], () =>
    keepingTimes(dirFd, () => renameat2(union.workFd, temp, dirFd, name, RENAME_NOREPLACE)),
  );
  if (error < 0) {
    unlinkat(union.workFd, temp, 0);
    return error;
  }
  settle(union, key, link, base, known ? 0 : 1);
  return 1;
}

/** Counts a name as taken over; the last one makes the link in links/ needless. */
function settle(union: Union, key: string, link: HardLink, base: Stat, more: number): void {
  link.remaining = Math.max(0, link.remaining - more + (base.nlink - link.nlink));
  if (link.remaining === 0) {
    unlinkat(union.linksFd, link.file, 0);
    union.hardLinks.delete(key);
  } else if (base.nlink !== link.nlink) {
    const file = `${key}+${base.nlink}`;
    if (renameat2(union.linksFd, link.file, union.linksFd, file, 0) === 0) link.file = file;
    link.nlink = base.nlink;
  }
}

/** The link count that a guest sees of an overlay object: without ours, with the base's names that show it. */
export function shownLinks(union: Union, stat: Stat): number {
  const link = union.hardLinks.of(stat.ino);
  return link === undefined ? stat.nlink : stat.nlink - 1 + link.remaining;
}

/** A merge replaces or drops a name of the object: its names part, and the others are led there no more. */
export function partNames(union: Union, ino: number): void {
  const key = union.hardLinks.keyOf(ino);
  const link = key === undefined ? undefined : union.hardLinks.get(key);
  if (key === undefined || !link) return;
  unlinkat(union.linksFd, link.file, 0);
  union.hardLinks.delete(key);
}

/** Whether the base's object has been copied up under another name meanwhile. */
export function hasHardLink(union: Union, layer: number, base: Stat): boolean {
  return base.nlink > 1 && union.hardLinks.get(keyOf(union, layer, base)) !== undefined;
}
