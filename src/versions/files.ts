// Files of the state directory on the main thread: node:fs with latin1 paths, and the one way in which a file
// is replaced so that a crash leaves the old or the new one.
import * as fs from 'node:fs';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { newStat } from '../lib/stat.ts';
import { AT_FDCWD, RENAME_EXCHANGE } from '../sys/constants.ts';
import { renameat2 } from '../sys/names.ts';
import { statx, utimensat } from '../sys/stat.ts';

/** A latin1 path as node:fs wants it. */
export function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

export function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException | null)?.code);
}

/** The errno of an error of node:fs or LevelDB (which says it in words only), EIO for any other. */
export function errnoOf(error: unknown): number {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { errno } = at as NodeJS.ErrnoException;
    if (typeof errno === 'number') return Math.abs(errno);
    if (at.message.includes('No space left on device')) return E.ENOSPC;
    if (at.message.includes('Disk quota exceeded')) return E.EDQUOT;
    if (at.message.includes('Read-only file system')) return E.EROFS;
  }
  return E.EIO;
}

/** Nothing failed but that the disk, or a quota, is full. */
export function isOutOfRoom(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === E.ENOSPC || errno === E.EDQUOT;
}

export interface Space {
  /** Bytes of the whole file system, free ones, and those of them that everybody may use. */
  all: number;
  free: number;
  available: number;
  /** Inodes; Infinity where nobody counts them. */
  inodes: number;
}

/** Of the file system beneath a directory; null: it has been removed. */
export function spaceAt(path: Buffer): Space | null {
  try {
    const { blocks, bfree, bavail, bsize, files, ffree } = fs.statfsSync(path);
    const inodes = files === 0 ? Number.POSITIVE_INFINITY : ffree;
    return { all: blocks * bsize, free: bfree * bsize, available: bavail * bsize, inodes };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

/** The content, or null when there is no such file. */
export function readIfThere(path: string): Buffer | null {
  try {
    return fs.readFileSync(bytesOf(path));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

export function syncDirectory(path: string): void {
  const fd = fs.openSync(bytesOf(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Durable when it returns; mode 0600. `name` is in `dir`. */
export function replaceFile(dir: string, name: string, content: string | Uint8Array): void {
  const temporary = bytesOf(`${dir}/${name}.new`);
  fs.rmSync(temporary, { force: true });
  const fd = fs.openSync(temporary, 'wx', 0o600);
  try {
    fs.writeFileSync(fd, content);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(temporary, bytesOf(`${dir}/${name}`));
  syncDirectory(dir);
}

/** As replaceFile, by way of a file that is there and stays; both must be there, else nothing happens. */
export function exchangeFile(dir: string, spare: string, name: string, content: string): void {
  let fd: number;
  try {
    fd = fs.openSync(bytesOf(`${dir}/${spare}`), fs.constants.O_WRONLY | fs.constants.O_TRUNC);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    fs.writeFileSync(fd, content);
    fs.fsyncSync(fd);
    const error = renameat2(AT_FDCWD, `${dir}/${spare}`, AT_FDCWD, `${dir}/${name}`, RENAME_EXCHANGE);
    if (error < 0 && error !== -E.ENOENT) throw new FsError(-error, `cannot write ${escapeName(name)}`);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes a directory of the state, 0700; one that is there is taken as it is. The directory above keeps its times,
 * for it may be the overlay's root, which the guest sees.
 */
export function makeDirectory(path: string): void {
  const above = path.slice(0, path.lastIndexOf('/')) || '/';
  const stat = newStat();
  const known = statx(AT_FDCWD, above, 0, stat);
  try {
    fs.mkdirSync(bytesOf(path), { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    return;
  }
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = stat;
  if (known === 0) utimensat(AT_FDCWD, above, atimeSec, atimeNsec, mtimeSec, mtimeNsec);
}

/** Names in a directory, latin1; none when it is not there. */
export function namesIn(path: string): string[] {
  try {
    return fs.readdirSync(bytesOf(path), { encoding: 'latin1' });
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
