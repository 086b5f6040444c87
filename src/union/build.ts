// Builds an object in work/, whole and synced, for the last step to rename into place. Main thread.
import { openDirectoryBeneath } from '../branch/base.ts';
import { setMetacopy } from '../branch/metacopy.ts';
import { unlinkReleasing, writeOriginBytes } from '../branch/origin-store.ts';
import type { Overlay } from '../branch/overlay.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isDirectory, isRegular, isSymlink } from '../lib/stat.ts';
import {
  AT_REMOVEDIR,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_RDWR,
} from '../sys/constants.ts';
import { close, fsyncAsync, ftruncate, openat, pwriteAsync, reopen } from '../sys/file.ts';
import { linkat, mkdirat, mknodat, symlinkat, unlinkat } from '../sys/names.ts';
import { fchmodat, fchownat, utimensat } from '../sys/stat.ts';
import { setxattr } from '../sys/xattr.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import { copyData } from './job-runner.ts';
import type { XattrSet } from './xattr-set.ts';

export interface Blueprint {
  /** st_mode, type included. */
  mode: number;
  uid: number;
  gid: number;
  xattrs: XattrSet;
  mtimeSec: number;
  mtimeNsec: number;
  /** Of a regular file: bytes, a descriptor to copy from with its size, or the size of what stays in the base. */
  content: Buffer | { fd: number; size: number } | { leftOfSize: number } | null;
  /** Of a symlink. */
  target: string;
  rdevMajor: number;
  rdevMinor: number;
  origins: readonly Origin[];
}

export interface Workshop {
  workFd: number;
  overlay: Overlay;
  /** Copies of metadata alone may be made. */
  metacopy: boolean;
  /** Unprivileged: owners and some attributes cannot be set. */
  lenient: boolean;
  volatile: boolean;
  log: Log;
}

function check(result: number, what: string, allowed: readonly number[] = []): void {
  if (result < 0 && !allowed.includes(-result)) {
    throw new FsError(-result, `cannot ${what} in work/: ${errnoName(result)}`);
  }
}

/** Makes work/TEMP; throws FsError (ENOSPC, EDQUOT, EROFS, EIO), and leaves nothing then. */
export async function build(shop: Workshop, temp: string, plan: Blueprint): Promise<void> {
  await onDisk(shop, temp, await buildAndSync(shop, temp, plan));
}

/** Waits for it; throws FsError, and leaves nothing then. */
export async function onDisk(shop: Workshop, temp: string, { synced }: Built): Promise<void> {
  const error = await synced;
  if (error === null) return;
  discard(shop, temp);
  throw error;
}

/** What is whole, and may take a name once it is on the disk, too. */
export interface Built {
  /** null, or why it is not: then it is to be discarded. Never rejects. */
  synced: Promise<FsError | null>;
}

/** The same for who has something else to be synced meanwhile. */
export async function buildAndSync(shop: Workshop, temp: string, plan: Blueprint): Promise<Built> {
  try {
    if (isRegular(plan.mode)) return await buildFile(shop, temp, plan);
    buildSpecial(shop, temp, plan);
    return { synced: Promise.resolve(null) };
  } catch (error) {
    discard(shop, temp);
    throw error;
  }
}

/** Another name for what was built; throws FsError. */
export function linkBuilt(shop: Workshop, temp: string, other: string): void {
  check(linkat(shop.workFd, temp, shop.workFd, other, 0), 'make a link');
}

/** Takes away what was built and is not used. */
export function discard(shop: Workshop, temp: string): void {
  const error = unlinkReleasing(shop.overlay.origins, shop.workFd, temp, 0);
  if (error === -E.EISDIR || error === -E.EPERM) unlinkat(shop.workFd, temp, AT_REMOVEDIR);
}

/**
 * A rename in a directory of the overlay reaches the disk: some file systems would keep the index, which is
 * synced next, and not the name.
 */
export async function syncNames(shop: Workshop, overlay: Overlay, path: string): Promise<void> {
  if (shop.volatile) return;
  const pathFd = openDirectoryBeneath(overlay.rootFd, path);
  const fd = pathFd < 0 ? pathFd : reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (pathFd >= 0) close(pathFd);
  if (fd < 0) return;
  const error = await fsyncAsync(fd);
  close(fd);
  // It has happened, and must be recorded; the flush that follows meets the same disk.
  if (error < 0) shop.log.warn(`${path}: the directory could not be synced (${errnoName(error)})`);
}

async function buildFile(shop: Workshop, temp: string, plan: Blueprint): Promise<Built> {
  const fd = openat(shop.workFd, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600);
  check(fd, 'make a file');
  try {
    const { content } = plan;
    if (Buffer.isBuffer(content)) {
      for (let at = 0; at < content.length; ) {
        const put = await pwriteAsync(fd, content, at, content.length - at, at);
        check(put, 'write a file');
        at += put;
      }
    } else if (content !== null && 'leftOfSize' in content) {
      check(ftruncate(fd, content.leftOfSize), 'make a file');
      check(setMetacopy(shop.overlay, fd, ''), 'mark a file');
    } else if (content !== null) {
      check(await copyData(content.fd, fd, content.size), 'copy a file');
    }
    dress(shop, fd, '', plan);
  } catch (error) {
    close(fd);
    throw error;
  }
  return { synced: syncAndClose(shop, fd) };
}

async function syncAndClose({ volatile }: Workshop, fd: number): Promise<FsError | null> {
  const error = volatile ? 0 : await fsyncAsync(fd);
  close(fd);
  return error < 0 ? new FsError(-error, `cannot sync a file in work/: ${errnoName(error)}`) : null;
}

function buildSpecial(shop: Workshop, temp: string, plan: Blueprint): void {
  if (isSymlink(plan.mode)) check(symlinkat(plan.target, shop.workFd, temp), 'make a symlink');
  else if (isDirectory(plan.mode)) check(mkdirat(shop.workFd, temp, 0o700), 'make a directory');
  else check(mknodat(shop.workFd, temp, plan.mode, plan.rdevMajor, plan.rdevMinor), 'make a device');
  dress(shop, shop.workFd, temp, plan);
}

/** Owner, attributes, mode, origin, times: in the order in which none takes another away. */
function dress(shop: Workshop, dirFd: number, name: string, plan: Blueprint): void {
  const lenient = shop.lenient ? [E.EPERM, E.EOPNOTSUPP, E.EINVAL] : [];
  check(fchownat(dirFd, name, plan.uid, plan.gid), 'set an owner', lenient);
  for (const [attr, value] of plan.xattrs) {
    check(setxattr(dirFd, name, attr, value, 0), `set ${attr}`, lenient);
  }
  if (!isSymlink(plan.mode)) check(fchmodat(dirFd, name, plan.mode & 0o7777), 'set a mode');
  if (plan.origins.length > 0) {
    check(writeOriginBytes(shop.overlay.origins, dirFd, name, encodeOrigins(plan.origins)), 'set an origin');
  }
  const { mtimeSec, mtimeNsec } = plan;
  check(utimensat(dirFd, name, mtimeSec, mtimeNsec, mtimeSec, mtimeNsec), 'set times');
}
