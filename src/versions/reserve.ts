// Room that is kept for a start and an end on a full disk: files in `reserve/` that hold nothing. A start needs a new
// format file, journal and index log before anybody is served, and a guest whose disk is full can only make room through
// its mount. So they give their space up before that, and take it back once it is over; what the guest frees meanwhile is
// the guest's. Several files, for inodes can run out, too.
import * as fs from 'node:fs';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { fallocate } from '../sys/file.ts';
import { bytesOf, isOutOfRoom, makeDirectory, type Space, spaceAt } from './files.ts';

const FOLDER = 'reserve';
const PARTS = 32;
/** LevelDB's log is written into a table when it is opened: at most its write buffer, packed. */
const MOST = 1024 * 1024;
/** Of a small file system no more than this part. */
const SHARE = 16;
const FEW_INODES = 64;
const LEAST = 4096;

export class Reserve {
  readonly #stateDir: string;
  /** It was given up, and is to be taken back whatever room is left. */
  #owed = false;

  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  /** Gives it up where there is little room. */
  releaseIfLow(): void {
    if (this.#isLow()) this.release();
  }

  /** Whether there was any. */
  release(): boolean {
    const given = this.#files().filter((file) => isThere(file));
    for (const file of given) fs.rmSync(file, { force: true });
    this.#owed ||= given.length > 0;
    return given.length > 0;
  }

  /** The same at the end of a session, when no name may come or go any more. */
  emptyIfLow(): void {
    if (!this.#isLow()) return;
    for (const file of this.#files()) if (isThere(file)) fs.truncateSync(file, 0);
  }

  /** Writes something small, with the room of the reserve where there is no other. Throws what `write` does. */
  lend(write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!isOutOfRoom(error) || !this.release()) throw error;
      try {
        write();
      } finally {
        this.keep(false);
      }
    }
  }

  /** Takes back what was given up, as far as there is room. What never was is made (`anew`) where there is plenty. */
  keep(anew: boolean): void {
    const space = this.#space();
    if (space === null) return;
    const bytes = bytesOn(space);
    const make = this.#owed || (anew && space.available >= 4 * bytes);
    try {
      if (make) makeDirectory(`${this.#stateDir}/${FOLDER}`);
      for (const file of this.#files()) {
        if (make || isThere(file)) fill(file, Math.floor(bytes / PARTS));
      }
      this.#owed = false;
    } catch (error) {
      // It is there for those who have no room, and cannot be had where there is none.
      if (!isOutOfRoom(error)) throw error;
    }
  }

  #files(): Buffer[] {
    return Array.from({ length: PARTS }, (_, i) => bytesOf(`${this.#stateDir}/${FOLDER}/${i + 1}`));
  }

  #space(): Space | null {
    return spaceAt(bytesOf(this.#stateDir));
  }

  #isLow(): boolean {
    const space = this.#space();
    return space !== null && (space.available < 2 * bytesOn(space) || space.inodes < FEW_INODES);
  }
}

function bytesOn({ all }: Space): number {
  return Math.min(MOST, Math.floor(all / SHARE));
}

function isThere(file: Buffer): boolean {
  return fs.statSync(file, { throwIfNoEntry: false }) !== undefined;
}

/** Throws FsError, or errors of node:fs; where there is no room what could be had stays. */
function fill(file: Buffer, bytes: number): void {
  const has = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (has >= bytes) return;
  const fd = fs.openSync(file, 'a', 0o600);
  try {
    const error = allocate(fd, bytes);
    // Some give all or nothing: then a half, and so on.
    for (let less = bytes / 2; error < 0 && less >= LEAST; less /= 2) {
      if (less > has && allocate(fd, Math.floor(less)) === 0) break;
    }
    if (error < 0) throw new FsError(-error, `the reserve cannot be kept: ${errnoName(error)}`);
  } finally {
    fs.closeSync(fd);
  }
}

/** 0 or a negative errno. */
function allocate(fd: number, bytes: number): number {
  const error = fallocate(fd, 0, 0, bytes);
  if (error !== -E.EOPNOTSUPP) return error;
  fs.writeFileSync(fd, Buffer.alloc(bytes));
  return 0;
}
