// The identity log of an exported mount: which NodeIds belong to which place of the tree, so that a file handle
// of an NFS client finds its object again after the kernel, or a restart of the daemon, has forgotten it. Each
// place has the mark of the object that was meant: what lies there without that mark is another object. The
// serving worker appends before it answers; nothing is synced: after a power loss handles given out last are
// stale, for ids are never given out twice. Layout in native-notes/index-format.md.
import * as fs from 'node:fs';
import { crc32 } from 'node:zlib';
import { errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { AT_FDCWD, O_APPEND, O_CLOEXEC, O_CREAT, O_WRONLY } from '../sys/constants.ts';
import { close, ftruncate, openat, write } from '../sys/file.ts';

export interface Place {
  parent: number;
  name: string;
  /** Sixteen hexadecimal digits. */
  mark: string;
}

export type At = Pick<Place, 'parent' | 'name'>;

export interface IdentityEntry {
  /** File type bits of st_mode. */
  type: number;
  places: Place[];
}

const FILE = 'identity';
const ROOT = 1;
const LINK = 1;
const UNLINK = 2;
/** checksum, length of the name, kind, type (shifted), id, parent, mark */
const HEADER = 4 + 2 + 1 + 1 + 8 + 8 + 8;
const MOST = HEADER + 255;
const NO_MARK = '0'.repeat(16);
/** While it is in use the log is written anew when so much of it, and more than half, has gone out of date. */
const MOST_OLD = 8 * 1024 * 1024;

const keyOf = ({ parent, name }: At) => `${parent}/${name}`;
const isAt = (place: Place, { parent, name }: At) => place.parent === parent && place.name === name;
const none: readonly number[] = [];

export class IdentityLog {
  /** null: nothing is written, and all is forgotten with the process. */
  readonly #path: string | null;
  readonly #byId = new Map<number, IdentityEntry>();
  readonly #byPlace = new Map<string, number[]>();
  readonly #record = Buffer.alloc(MOST);
  #fd = -1;
  #bytes = 0;
  /** Of them, those that were needed when it was last written anew. */
  #needed = 0;

  /** Reads the log, and writes it anew without what is gone. Throws FsError, or an error of node:fs. */
  constructor(stateDir: string | null) {
    this.#path = stateDir === null ? null : `${stateDir}/${FILE}`;
    if (this.#path === null) return;
    this.#bytes = this.#load(this.#path);
    this.#open(this.#path);
    // What a crash cut off would hide all that is written after it.
    ftruncate(this.#fd, this.#bytes);
    this.#rewrite(this.#path, true);
  }

  get size(): number {
    return this.#byId.size;
  }

  /** What is known of an id; undefined: nothing, or it has no place any more. */
  get(id: number): IdentityEntry | undefined {
    return this.#byId.get(id);
  }

  /** All ids that have been given to what is at a place, the latest last. */
  at(at: At): readonly number[] {
    return this.#byPlace.get(keyOf(at)) ?? none;
  }

  markAt(id: number, at: At): string {
    return this.#byId.get(id)?.places.find((one) => isAt(one, at))?.mark ?? NO_MARK;
  }

  /** The object `id` is at this place from now on, with this mark. */
  link(id: number, type: number, place: Place): void {
    const known = this.#byId.get(id)?.places.find((one) => isAt(one, place));
    if (known?.mark === place.mark) return;
    this.#link(id, type, place);
    this.#append(LINK, id, type, place);
  }

  /**
   * What is at a place has been replaced, and whoever has a handle is led to what is there now, unless the handle
   * leads to another name of what was there.
   */
  replaced(place: Place): void {
    for (const id of [...this.at(place)]) {
      const entry = this.#byId.get(id);
      if (entry?.places.length === 1) this.link(id, entry.type, place);
      else this.unlink(id, place);
    }
  }

  unlink(id: number, at: At): void {
    if (this.#unlink(id, at)) this.#append(UNLINK, id, 0, { ...at, mark: NO_MARK });
  }

  /** Nothing of before is at this place any more. */
  vacate(at: At): void {
    for (const id of [...this.at(at)]) this.unlink(id, at);
  }

  /**
   * What is at `from` is about to come to `to`; with `swap` they change places. To be called with the outcome:
   * until then the log says both, so that a crash at any moment leaves the place that is true.
   */
  moving(from: At, to: At, swap: boolean): (done: boolean) => void {
    const coming = [...this.at(from)];
    const going = this.at(to).filter((id) => !coming.includes(id));
    this.#linkAll(coming, from, to);
    if (swap) this.#linkAll(going, to, from);
    return (done) => {
      for (const id of coming) this.unlink(id, done ? from : to);
      for (const id of going) if (done || swap) this.unlink(id, done ? to : from);
    };
  }

  #linkAll(ids: readonly number[], from: At, { parent, name }: At): void {
    for (const id of ids) {
      const entry = this.#byId.get(id);
      const place = entry?.places.find((one) => isAt(one, from));
      if (entry && place) this.link(id, entry.type, { parent, name, mark: place.mark });
    }
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  #link(id: number, type: number, place: Place): void {
    const entry = this.#byId.get(id);
    if (!entry) this.#byId.set(id, { type, places: [place] });
    else {
      const known = entry.places.findIndex((one) => isAt(one, place));
      if (known >= 0) entry.places[known] = place;
      else entry.places.push(place);
    }
    const key = keyOf(place);
    const ids = this.#byPlace.get(key);
    if (!ids) this.#byPlace.set(key, [id]);
    else if (!ids.includes(id)) ids.push(id);
  }

  /** Whether it was there. */
  #unlink(id: number, at: At): boolean {
    const entry = this.#byId.get(id);
    const known = entry?.places.findIndex((one) => isAt(one, at)) ?? -1;
    if (!entry || known < 0) return false;
    entry.places.splice(known, 1);
    if (entry.places.length === 0) this.#byId.delete(id);
    const key = keyOf(at);
    const left = this.at(at).filter((one) => one !== id);
    if (left.length > 0) this.#byPlace.set(key, left);
    else this.#byPlace.delete(key);
    return true;
  }

  /** What cannot be written is not remembered beyond this session, or is found to be wrong by its mark. */
  #append(kind: number, id: number, type: number, place: Place): void {
    if (this.#fd < 0 || this.#path === null) return;
    const length = encode(this.#record, kind, id, type, place);
    const written = write(this.#fd, this.#record, 0, length);
    if (written === length) this.#bytes += length;
    // Half a record would hide all that come after it.
    else if (written > 0) ftruncate(this.#fd, this.#bytes);
    if (this.#bytes > 2 * this.#needed + MOST_OLD) this.#rewrite(this.#path, false);
  }

  /** How many bytes of it are whole records: a torn one ends the log. */
  #load(path: string): number {
    let bytes: Buffer;
    try {
      bytes = fs.readFileSync(Buffer.from(path, 'latin1'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
      throw error;
    }
    let at = 0;
    while (at + HEADER <= bytes.length) {
      const size = HEADER + bytes.readUInt16LE(at + 4);
      if (at + size > bytes.length || crc32(bytes.subarray(at + 4, at + size)) !== bytes.readUInt32LE(at))
        break;
      const id = readNumber(bytes, at + 8);
      const place = {
        parent: readNumber(bytes, at + 16),
        mark: bytes.toString('hex', at + 24, at + 32),
        name: bytes.toString('latin1', at + HEADER, at + size),
      };
      if (bytes[at + 6] === LINK) this.#link(id, (bytes[at + 7] as number) << 12, place);
      else this.#unlink(id, place);
      at += size;
    }
    return at;
  }

  #open(path: string): void {
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
    const fd = openat(AT_FDCWD, path, flags, 0o600);
    if (fd < 0) throw new FsError(-fd, `cannot open the identity log: ${errnoName(fd)}`);
    this.close();
    this.#fd = fd;
  }

  /** Without what is gone. Where there is no room for that the log goes on as it is. */
  #rewrite(path: string, durable: boolean): void {
    const fresh = Buffer.from(`${path}.new`, 'latin1');
    const parts: Buffer[] = [];
    const record = Buffer.alloc(MOST);
    this.#dropUnreachable();
    // Older ids first, so that the latest of several at a place is the last.
    for (const [id, { type, places }] of [...this.#byId].sort(([a], [b]) => a - b)) {
      for (const place of places) {
        const length = encode(record, LINK, id, type, place);
        parts.push(Buffer.from(record.subarray(0, length)));
      }
    }
    const bytes = Buffer.concat(parts);
    this.#needed = bytes.length;
    try {
      fs.writeFileSync(fresh, bytes, { mode: 0o600, flush: durable });
      fs.renameSync(fresh, Buffer.from(path, 'latin1'));
    } catch (error) {
      if (!['ENOSPC', 'EDQUOT'].includes(String((error as NodeJS.ErrnoException).code))) throw error;
      this.#needed = this.#bytes;
      return;
    }
    this.#open(path);
    this.#bytes = bytes.length;
  }

  /** What lay beneath directories that are gone. */
  #dropUnreachable(): void {
    const beneath = new Map<number, number[]>();
    for (const [id, { places }] of this.#byId) {
      for (const { parent } of places) {
        const ids = beneath.get(parent);
        if (ids) ids.push(id);
        else beneath.set(parent, [id]);
      }
    }
    const reached = new Set([ROOT]);
    // A set gives what is added to it meanwhile, too.
    for (const id of reached) for (const child of beneath.get(id) ?? []) reached.add(child);
    for (const [id, { places }] of [...this.#byId]) {
      for (const place of [...places]) if (!reached.has(place.parent)) this.#unlink(id, place);
    }
  }
}

function encode(record: Buffer, kind: number, id: number, type: number, place: Place): number {
  const length = record.write(place.name, HEADER, 'latin1');
  record.writeUInt16LE(length, 4);
  record[6] = kind;
  record[7] = type >> 12;
  writeNumber(record, 8, id);
  writeNumber(record, 16, place.parent);
  record.write(place.mark, 24, 'hex');
  record.writeUInt32LE(crc32(record.subarray(4, HEADER + length)), 0);
  return HEADER + length;
}

function writeNumber(buffer: Buffer, at: number, value: number): void {
  buffer.writeUInt32LE(value % 2 ** 32, at);
  buffer.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readNumber(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4) * 2 ** 32;
}
