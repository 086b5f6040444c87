// Contents addressed by hash: what the base had at origin, and what merges, drops and conflicts keep. A file
// per content in ancestors/xx/, 0600: HASH, packed (packing.ts), or HASH.raw, a clone that shares the blocks of
// the file it was taken from. Written beside and renamed; synced by flush(), before the index names it. What
// is read is compared with its name, so a torn file is found when it is wanted, and written again when the
// same content comes again.
import * as fs from 'node:fs';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { hash128, hash128Stream } from '../lib/hash.ts';
import {
  AT_FDCWD,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
  RENAME_NOREPLACE,
} from '../sys/constants.ts';
import { close, ficloneAsync, fsyncAsync, liesInMemory, openat, write } from '../sys/file.ts';
import { mkdirat, renameat2, unlinkat } from '../sys/names.ts';
import { bytesOf, codeOf, makeDirectory, namesIn } from './files.ts';
import { AT_ONCE, pack, packNow, unpack } from './packing.ts';
import { copyOut, packStream, pieces } from './streams.ts';

export type ReportDamage = (what: string, why: string) => void;

/** Larger ones are packed and unpacked in pieces. */
export const WHOLE_LIMIT = 8 * 1024 * 1024;
const FILE_NAME = /^([0-9a-f]{32})(\.raw)?$/;
const SYNCS_AT_ONCE = 8;
const READ_ONLY = 'nothing can be kept: the overlay is read-only';

export interface AncestorSizes {
  count: number;
  /** Allocated on disk; a clone counts in full, though it shares its blocks while the file lives. */
  bytes: number;
}

export class Ancestors {
  readonly #dir: string;
  readonly #report: ReportDamage;
  readonly #readOnly: boolean;
  /** Written, and not synced yet. */
  #unsynced = new Set<string>();
  #dirtyDirs = new Set<string>();
  /** Put, read or asked for, and when: what gc must leave, because a record that names it may be on its way. */
  readonly #recent = new Map<string, number>();
  /** Known to be whole: by this process written or read. */
  readonly #sound = new Set<string>();
  readonly #writing = new Map<string, Promise<void>>();
  #clones = true;
  /** Whether there is something to be synced to; null: nobody has looked. */
  #hasDisk: boolean | null = null;
  #counter = 0;

  /** `dir` exists. */
  constructor(dir: string, report: ReportDamage, readOnly = false) {
    this.#dir = dir;
    this.#readOnly = readOnly;
    this.#report = report;
  }

  /**
   * The hash, which the caller may know. Nothing is written where the content is there already, whole. A small one is
   * in its file when this returns, before it resolves.
   */
  async put(bytes: Uint8Array, hash = hash128(bytes)): Promise<string> {
    if (this.#putNew(bytes, hash)) return hash;
    await this.#once(hash, async () => {
      const temporary = this.#temporary();
      const options = { flag: 'wx', mode: 0o600 };
      try {
        if (bytes.length <= AT_ONCE) fs.writeFileSync(bytesOf(temporary), packNow(bytes), options);
        else await fs.promises.writeFile(bytesOf(temporary), await pack(bytes), options);
        this.#publish(temporary, hash, '');
      } catch (error) {
        fs.rmSync(bytesOf(temporary), { force: true });
        throw error;
      }
    });
    return hash;
  }

  /**
   * A small one that nobody has put before, which is what most are: four system calls. False: nothing has been done.
   * One that is there as a clone is then there twice, which does no harm.
   */
  #putNew(bytes: Uint8Array, hash: string): boolean {
    if (this.#readOnly || bytes.length > AT_ONCE || this.#sound.has(hash) || this.#writing.has(hash))
      return false;
    const temporary = this.#temporary();
    if (!writeNew(temporary, packNow(bytes))) return false;
    const path = this.#pathOf(hash);
    let error = renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE);
    if (error === -E.ENOENT && mkdirat(AT_FDCWD, this.#folderOf(hash), 0o700) === 0) {
      this.#dirtyDirs.add(this.#dir);
      error = renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE);
    }
    if (error < 0) unlinkat(AT_FDCWD, temporary, 0);
    else this.#noteNew(hash, path);
    return error === 0;
  }

  /**
   * Keeps what an open regular file holds now, from its start; its offset does not move. Where the file system
   * can, the blocks are shared. The hash is that of the bytes that were kept, whatever happens to the file
   * meanwhile. Rejects with the errors of node:fs.
   */
  async putFromFile(fd: number): Promise<string> {
    if (this.#readOnly) throw new FsError(E.EROFS, READ_ONLY);
    const cloned = this.#clones ? await this.#putClone(fd) : null;
    if (cloned !== null) return cloned;
    const { size } = await fstat(fd);
    if (size <= WHOLE_LIMIT) return this.put(await readAll(fd));
    const temporary = this.#temporary();
    const hash = await packStream(fd, temporary);
    await this.#once(hash, async () => this.#publish(temporary, hash, ''));
    await fs.promises.rm(bytesOf(temporary), { force: true });
    return hash;
  }

  async #putClone(fd: number): Promise<string | null> {
    const temporary = this.#temporary();
    const file = await fs.promises.open(bytesOf(temporary), 'wx+', 0o600);
    try {
      const error = await ficloneAsync(file.fd, fd);
      if (error < 0) {
        this.#clones = error !== -E.EOPNOTSUPP && error !== -E.EXDEV && error !== -E.ENOTTY;
        return null;
      }
      const hash = await hashOf(file.fd);
      await this.#once(hash, async () => this.#publish(temporary, hash, '.raw'));
      return hash;
    } finally {
      await file.close();
      await fs.promises.rm(bytesOf(temporary), { force: true });
    }
  }

  /** The content; null when it is missing or damaged, and the latter is reported. */
  async get(hash: string): Promise<Buffer | null> {
    this.#recent.set(hash, Date.now());
    await Promise.allSettled([this.#writing.get(hash)]);
    const bytes = await this.#read(hash);
    if (bytes === 'damaged') this.#sound.delete(hash);
    if (bytes === 'damaged') this.#report(`ancestor ${hash}`, 'does not hold what its name says');
    return typeof bytes === 'string' ? null : bytes;
  }

  async #read(hash: string): Promise<Buffer | null | 'damaged'> {
    if (!FILE_NAME.test(hash)) return null;
    for (const suffix of ['', '.raw']) {
      let file: Buffer;
      try {
        file = await fs.promises.readFile(bytesOf(this.#pathOf(hash) + suffix));
      } catch (error) {
        if (codeOf(error) === 'ENOENT') continue;
        throw error;
      }
      const bytes = suffix === '' ? await unpack(file) : file;
      return bytes !== null && hash128(bytes) === hash ? bytes : 'damaged';
    }
    return null;
  }

  /** 'whole', 'missing' or 'damaged', without holding a large one in memory. */
  async verify(hash: string): Promise<'whole' | 'missing' | 'damaged'> {
    const written = await this.writeTo(hash, -1);
    return written >= 0 ? 'whole' : written === -E.ENOENT ? 'missing' : 'damaged';
  }

  /**
   * Writes the content at the start of an open file, in pieces. Bytes, or a negative errno: ENOENT missing,
   * EUCLEAN damaged (reported; the file then holds what could be read).
   */
  async writeTo(hash: string, fd: number): Promise<number> {
    if (!FILE_NAME.test(hash)) return -E.ENOENT;
    const result = await copyOut(this.#pathOf(hash), hash, fd);
    if (result === -E.EUCLEAN) this.#sound.delete(hash);
    if (result === -E.EUCLEAN) this.#report(`ancestor ${hash}`, 'does not hold what its name says');
    return result;
  }

  /** Removes one that has not reached the disk wholly, as is to be expected of a power loss; whether it had to. */
  async dropTorn(hash: string): Promise<boolean> {
    const torn = (await copyOut(this.#pathOf(hash), hash, -1)) === -E.EUCLEAN;
    if (torn) await this.remove(hash);
    return torn;
  }

  /** Whether a file of that name is there; its content is not read. */
  has(hash: string): boolean {
    if (!FILE_NAME.test(hash)) return false;
    this.#recent.set(hash, Date.now());
    return this.#exists(hash);
  }

  #exists(hash: string): boolean {
    return ['', '.raw'].some((suffix) => fs.existsSync(bytesOf(this.#pathOf(hash) + suffix)));
  }

  /** The one content whose hash begins so (an origin holds 16 digits of the hash of its xattrs). */
  findByPrefix(prefix: string): string | null {
    if (!/^[0-9a-f]{2,32}$/.test(prefix)) return null;
    const found = namesIn(`${this.#dir}/${prefix.slice(0, 2)}`)
      .map((name) => FILE_NAME.exec(name)?.[1])
      .find((hash) => hash?.startsWith(prefix));
    return found ?? null;
  }

  /** Every hash that is there, in order. */
  *list(): Generator<string> {
    for (const folder of namesIn(this.#dir).sort()) {
      if (!/^[0-9a-f]{2}$/.test(folder)) continue;
      const hashes = namesIn(`${this.#dir}/${folder}`).map((name) => FILE_NAME.exec(name)?.[1]);
      yield* [...new Set(hashes)].filter((hash) => hash !== undefined).sort();
    }
  }

  /** Bytes that were freed. */
  async remove(hash: string): Promise<number> {
    const bytes = this.bytesOf(hash);
    this.#sound.delete(hash);
    for (const suffix of ['', '.raw']) {
      await fs.promises.rm(bytesOf(this.#pathOf(hash) + suffix), { force: true });
    }
    return bytes;
  }

  /** Put or asked for since `time` (milliseconds): perhaps no record names it yet. */
  usedSince(hash: string, time: number): boolean {
    return (this.#recent.get(hash) ?? 0) >= time;
  }

  forgetUses(before: number): void {
    for (const [hash, time] of this.#recent) if (time < before) this.#recent.delete(hash);
  }

  /** Allocated for one content. */
  bytesOf(hash: string): number {
    return ['', '.raw'].reduce((sum, suffix) => {
      const stat = fs.statSync(bytesOf(this.#pathOf(hash) + suffix), { throwIfNoEntry: false });
      return sum + (stat === undefined ? 0 : stat.blocks * 512);
    }, 0);
  }

  async sizes(): Promise<AncestorSizes> {
    const sizes = { count: 0, bytes: 0 };
    for (const hash of this.list()) {
      sizes.count += 1;
      sizes.bytes += this.bytesOf(hash);
      // Not in one piece: there may be many, and this thread has other work.
      if (sizes.count % 256 === 0) await new Promise(setImmediate);
    }
    return sizes;
  }

  /** Everything put before the call is durable when it resolves. On failure it is tried again next time. */
  async flush(): Promise<void> {
    if (this.#unsynced.size === 0 && this.#dirtyDirs.size === 0) return;
    const files = [...this.#unsynced];
    const dirs = [...this.#dirtyDirs];
    this.#unsynced = new Set();
    this.#dirtyDirs = new Set();
    this.#hasDisk ??= !isInMemory(this.#dir);
    if (!this.#hasDisk) return;
    try {
      // Together, for they share what the disk does: nothing names what has a name and no bytes yet.
      await Promise.all([eachOf(files, syncPath), eachOf(dirs, syncPath)]);
    } catch (error) {
      for (const file of files) this.#unsynced.add(file);
      for (const dir of dirs) this.#dirtyDirs.add(dir);
      throw error;
    }
  }

  /** Writes a content that is not there, or not whole; callers with the same hash wait for the first. */
  async #once(hash: string, write: () => Promise<void>): Promise<void> {
    if (this.#readOnly) throw new FsError(E.EROFS, READ_ONLY);
    this.#recent.set(hash, Date.now());
    const running = this.#writing.get(hash);
    if (running !== undefined) return running;
    const work = this.#writeUnlessWhole(hash, write).finally(() => this.#writing.delete(hash));
    this.#writing.set(hash, work);
    return work;
  }

  async #writeUnlessWhole(hash: string, write: () => Promise<void>): Promise<void> {
    const there = this.#exists(hash);
    const whole = there && (this.#sound.has(hash) || (await this.verify(hash)) === 'whole');
    if (there && !whole) await this.remove(hash);
    if (!whole) await write();
    this.#sound.add(hash);
  }

  #publish(temporary: string, hash: string, suffix: '' | '.raw'): void {
    const path = this.#pathOf(hash) + suffix;
    try {
      fs.renameSync(bytesOf(temporary), bytesOf(path));
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      makeDirectory(this.#folderOf(hash));
      this.#dirtyDirs.add(this.#dir);
      fs.renameSync(bytesOf(temporary), bytesOf(path));
    }
    this.#noteNew(hash, path);
  }

  /** It is there, and has still to be synced. */
  #noteNew(hash: string, path: string): void {
    this.#recent.set(hash, Date.now());
    this.#sound.add(hash);
    this.#unsynced.add(path);
    this.#dirtyDirs.add(this.#folderOf(hash));
  }

  #folderOf(hash: string): string {
    return `${this.#dir}/${hash.slice(0, 2)}`;
  }

  #pathOf(hash: string): string {
    return `${this.#folderOf(hash)}/${hash}`;
  }

  #temporary(): string {
    return `${this.#dir}/new-${process.pid}-${this.#counter++}`;
  }
}

/** Leftovers of a process that died while it wrote. Call under the overlay's lock only. */
export function dropTemporaries(dir: string): void {
  for (const name of namesIn(dir)) if (name.startsWith('new-')) fs.rmSync(bytesOf(`${dir}/${name}`));
}

/** The file, 0600, or nothing of it. */
function writeNew(path: string, bytes: Uint8Array): boolean {
  const fd = openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600);
  if (fd < 0) return false;
  const written = write(fd, bytes, 0, bytes.length);
  close(fd);
  if (written !== bytes.length) unlinkat(AT_FDCWD, path, 0);
  return written === bytes.length;
}

function isInMemory(dir: string): boolean {
  const fd = openat(AT_FDCWD, dir, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const result = liesInMemory(fd);
  close(fd);
  return result;
}

/** One trip through the thread pool. One that has been removed meanwhile needs no sync. */
async function syncPath(path: string): Promise<void> {
  const fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd === -E.ENOENT) return;
  const error = fd < 0 ? fd : await fsyncAsync(fd);
  if (fd >= 0) close(fd);
  if (error < 0) throw new FsError(-error, `cannot sync ${path}: ${errnoName(error)}`);
}

/** A few at a time: the journal of the file system commits them together. */
async function eachOf(paths: string[], work: (path: string) => Promise<void>): Promise<void> {
  for (let at = 0; at < paths.length; at += SYNCS_AT_ONCE) {
    await Promise.all(paths.slice(at, at + SYNCS_AT_ONCE).map(work));
  }
}

function fstat(fd: number): Promise<fs.Stats> {
  return new Promise((resolve, reject) =>
    fs.fstat(fd, (error, stats) => (error === null ? resolve(stats) : reject(error))),
  );
}

async function readAll(fd: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of pieces(fd)) parts.push(part);
  return Buffer.concat(parts);
}

async function hashOf(fd: number): Promise<string> {
  const hash = hash128Stream();
  for await (const part of pieces(fd)) hash.update(part);
  return hash.digest();
}
