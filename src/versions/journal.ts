// The journal: what the serving worker did to the overlay, for the main thread to fold into the index. The
// worker alone appends, one write(2) a record, and alone switches to a new file; nothing is synced, for the
// origins are the truth. The layout is in native-notes/index-format.md. Nothing here loads LevelDB.
import * as crypto from 'node:crypto';
import { crc32 } from 'node:zlib';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Fingerprint } from '../lib/fingerprint.ts';
import { newStat } from '../lib/stat.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  O_APPEND,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_WRONLY,
  RENAME_NOREPLACE,
} from '../sys/constants.ts';
import { close, fallocate, ftruncate, openat, write } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import { fstat } from '../sys/stat.ts';
import type { Origin } from './origin.ts';

export interface JournalRecord {
  /** copy-up: content or metadata were copied; taken: a name of the base got another object; removed: an
   *  object of the overlay alone went; renamed: a directory has; exchanged: a directory and something else have
   *  changed places; content: the hash of what `fingerprint` describes became known. */
  kind: 'copy-up' | 'whiteout' | 'added' | 'taken' | 'removed' | 'renamed' | 'exchanged' | 'content';
  path: string;
  /** Milliseconds since the epoch. */
  time: number;
  origin?: Origin | undefined;
  /** Of the base's object at origin. */
  fingerprint?: Fingerprint | undefined;
  /** renamed, exchanged: the path of before. */
  from?: string | undefined;
  /** hash128. */
  content?: string | undefined;
  /** whiteout, removed: what went was no directory, so nothing is recorded beneath. */
  leaf?: boolean | undefined;
  /** whiteout: what lay there is moved in the same operation, and may be gone before the whiteout is there. */
  moved?: boolean | undefined;
  /** exchanged: inode number of what comes to `path`, in the overlay. */
  ino?: number | undefined;
}

/** A note of now. All that come often are of one shape, or what reads them would be compiled anew for each. */
export function newRecord(
  kind: JournalRecord['kind'],
  path: string,
  origin: Origin | null,
  leaf = false,
): JournalRecord {
  return {
    kind,
    path,
    time: Date.now(),
    origin: origin ?? undefined,
    fingerprint: undefined,
    from: undefined,
    content: undefined,
    leaf: leaf || undefined,
    moved: undefined,
    ino: undefined,
  };
}

export const journalName = 'journal';
const FILE_MAGIC = Buffer.from('KASJRNL1', 'latin1');
const FILE_HEADER = 16;
const FRAME_MAGIC = 0xd74b;
const FRAME_HEADER = 10;
/** Two paths of 4096 bytes, all of them escaped, and the rest. */
const MAX_PAYLOAD = 65_536;
/** Bytes that are allocated before they are needed. */
const AHEAD = 16 * 1024;

const kinds: ReadonlySet<unknown> = new Set([
  'copy-up',
  'whiteout',
  'added',
  'taken',
  'removed',
  'renamed',
  'exchanged',
  'content',
]);

export class JournalWriter {
  readonly #dirFd: number;
  #fd: number;
  #size: number;
  #next = 1;
  readonly #frame = Buffer.alloc(FRAME_HEADER + MAX_PAYLOAD);

  /** `stateDirFd`: the state directory, not O_PATH; it stays the caller's. Throws FsError. */
  constructor(stateDirFd: number) {
    this.#dirFd = stateDirFd;
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
    const fd = openat(stateDirFd, journalName, flags, 0o600);
    if (fd < 0) throw new FsError(-fd, `cannot open the journal: ${errnoName(fd)}`);
    const stat = newStat();
    let error = fstat(fd, stat);
    if (error >= 0 && stat.size === 0) error = writeHeader(fd);
    if (error < 0) {
      close(fd);
      throw new FsError(-error, `cannot write the journal: ${errnoName(error)}`);
    }
    this.#fd = fd;
    this.#size = Math.max(stat.size, FILE_HEADER);
    reserveRoom(fd, this.#size);
  }

  /** Bytes in the current file. */
  get size(): number {
    return this.#size;
  }

  /**
   * 0 or a negative errno (ENOSPC, EIO, EMSGSIZE); after an error nothing of the record is left in the file.
   * Strings of the record are latin1.
   */
  append(record: JournalRecord): number {
    const json = jsonOf(record);
    const length = json.length;
    if (length > MAX_PAYLOAD) return -E.EMSGSIZE;
    const frame = this.#frame;
    frame.write(json, FRAME_HEADER, length, 'latin1');
    frame.writeUInt16LE(FRAME_MAGIC, 0);
    frame.writeUInt32LE(length, 2);
    const total = FRAME_HEADER + length;
    frame.writeUInt32LE(crc32(frame.subarray(FRAME_HEADER, total)), 6);
    const written = write(this.#fd, frame, 0, total);
    if (written === total) {
      this.#size += total;
      return 0;
    }
    // A part of a frame that stays is skipped by the reader, so a truncate that fails does no harm.
    if (written > 0 && ftruncate(this.#fd, this.#size) < 0) this.#size += written;
    return written < 0 ? written : -E.ENOSPC;
  }

  /** Forgets what was appended since the file had that size: it has not come true. */
  takeBack(size: number): void {
    if (size >= this.#size) return;
    // Should it fail, the note stays, and tells of something that lies in the overlay no more than before.
    if (ftruncate(this.#fd, size) < 0) return;
    this.#size = size;
    // What is allocated past the end has gone with it.
    reserveRoom(this.#fd, size);
  }

  /**
   * Closes the current file and goes on in a new one. Returns the name of the closed one, '' when it holds
   * nothing, or a negative errno; then the current one goes on.
   */
  rotate(): string | number {
    if (this.#size <= FILE_HEADER) return '';
    let name = '';
    let error = -E.EEXIST;
    while (error === -E.EEXIST) {
      name = `${journalName}.${this.#next++}`;
      error = renameat2(this.#dirFd, journalName, this.#dirFd, name, RENAME_NOREPLACE);
    }
    if (error < 0) return error;
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC;
    const fd = openat(this.#dirFd, journalName, flags, 0o600);
    const failed = fd < 0 ? fd : writeHeader(fd);
    if (failed < 0) {
      if (fd >= 0) {
        close(fd);
        unlinkat(this.#dirFd, journalName, 0);
      }
      // Should this fail too, records go on into the renamed file, which is read at the next start.
      renameat2(this.#dirFd, name, this.#dirFd, journalName, RENAME_NOREPLACE);
      return failed;
    }
    close(this.#fd);
    reserveRoom(fd, FILE_HEADER);
    this.#fd = fd;
    this.#size = FILE_HEADER;
    return name;
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }
}

/** As JSON.stringify, at a fourth of its cost: one is written for each change of the overlay. */
function jsonOf(record: JournalRecord): string {
  const { kind, path, time, origin, fingerprint, from, content, leaf, moved, ino } = record;
  let json = `{"kind":"${kind}","path":${quoted(path)},"time":${time}`;
  if (origin !== undefined) json += `,"origin":${jsonOfOrigin(origin)}`;
  if (fingerprint !== undefined) json += `,"fingerprint":${JSON.stringify(fingerprint)}`;
  if (from !== undefined) json += `,"from":${quoted(from)}`;
  if (content !== undefined) json += `,"content":"${content}"`;
  if (leaf !== undefined) json += `,"leaf":${leaf}`;
  if (moved !== undefined) json += `,"moved":${moved}`;
  if (ino !== undefined) json += `,"ino":${ino}`;
  return `${json}}`;
}

/** All its strings are hexadecimal. */
function jsonOfOrigin(origin: Origin): string {
  const { path, mode, uid, gid, ino, content, fingerprint, xattrs, taken, torn, pin } = origin;
  const ids = `"path":"${path}","mode":${mode},"uid":${uid},"gid":${gid},"ino":${ino}`;
  const hashes = `"content":"${content}","fingerprint":"${fingerprint}","xattrs":"${xattrs}"`;
  return `{${ids},${hashes},"taken":${taken},"torn":${torn},"pin":${pin === null ? 'null' : JSON.stringify(pin)}}`;
}

const needsNoEscape = /^[ !#-[\]-~]*$/;

function quoted(text: string): string {
  return needsNoEscape.test(text) ? `"${text}"` : JSON.stringify(text);
}

/**
 * Who removes something from a full disk finds room for the note of it. Where the file system cannot do that, the rest of
 * the last block must do.
 */
function reserveRoom(fd: number, size: number): void {
  fallocate(fd, FALLOC_FL_KEEP_SIZE, size, AHEAD);
}

/** Each file has an id of its own, by which the index knows what it has folded already. */
function writeHeader(fd: number): number {
  const header = Buffer.concat([FILE_MAGIC, crypto.randomBytes(FILE_HEADER - FILE_MAGIC.length)]);
  const written = write(fd, header, 0, header.length);
  if (written === header.length) return 0;
  return written < 0 ? written : -E.ENOSPC;
}

export interface JournalContents {
  records: JournalRecord[];
  /** 16 hexadecimal digits, or '' where the head of the file is damaged or missing. */
  id: string;
  /** Something was skipped: a torn tail, or damage. */
  torn: boolean;
  /** Bytes before the first damage. */
  validLength: number;
}

/** Everything that can be read; never throws. Behind damage it goes on at the next whole frame. */
export function readJournal(bytes: Uint8Array): JournalContents {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: JournalContents = { records: [], id: '', torn: false, validLength: 0 };
  if (data.length === 0) return found;
  let at = 0;
  if (data.length >= FILE_HEADER && data.subarray(0, FILE_MAGIC.length).equals(FILE_MAGIC)) {
    found.id = data.toString('hex', FILE_MAGIC.length, FILE_HEADER);
    found.validLength = FILE_HEADER;
    at = FILE_HEADER;
  } else {
    found.torn = true;
  }
  while (at < data.length) {
    const end = frameEnd(data, at);
    const record = end < 0 ? null : parseRecord(data.toString('latin1', at + FRAME_HEADER, end));
    if (record !== null) {
      found.records.push(record);
      at = end;
      if (!found.torn) found.validLength = at;
      continue;
    }
    found.torn = true;
    at = nextMagic(data, at + 1);
  }
  return found;
}

/** Where the frame at `at` ends, or -1 when there is no whole one. */
function frameEnd(data: Buffer, at: number): number {
  if (at + FRAME_HEADER > data.length || data.readUInt16LE(at) !== FRAME_MAGIC) return -1;
  const length = data.readUInt32LE(at + 2);
  const end = at + FRAME_HEADER + length;
  if (length > MAX_PAYLOAD || end > data.length) return -1;
  return crc32(data.subarray(at + FRAME_HEADER, end)) === data.readUInt32LE(at + 6) ? end : -1;
}

function nextMagic(data: Buffer, from: number): number {
  const found = data.indexOf(Buffer.from([FRAME_MAGIC & 0xff, FRAME_MAGIC >> 8]), from);
  return found < 0 ? data.length : found;
}

function parseRecord(json: string): JournalRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { kind, path, time, origin, fingerprint, from, content, leaf, moved, ino } = value as JournalRecord;
  if (!kinds.has(kind) || typeof path !== 'string' || typeof time !== 'number') return null;
  // All of one shape, or what folds them would be compiled anew for each.
  return { kind, path, time, origin, fingerprint, from, content, leaf, moved, ino } as JournalRecord;
}
