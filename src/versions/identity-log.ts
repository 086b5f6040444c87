// The identity log of an exported mount: which NodeId belongs to which place of the tree, so that a file handle
// of an NFS client finds its object again after the kernel, or a restart of the daemon, has forgotten it. The
// serving worker appends before it answers; nothing is synced: after a power loss handles given out last are
// stale, for ids are never given out twice. Layout in native-notes/index-format.md.
import * as fs from 'node:fs';
import { crc32 } from 'node:zlib';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { AT_FDCWD, O_APPEND, O_CLOEXEC, O_CREAT, O_WRONLY } from '../sys/constants.ts';
import { close, openat, write } from '../sys/file.ts';

export interface Place {
  parent: number;
  name: string;
}

export interface IdentityEntry {
  /** File type bits of st_mode. */
  type: number;
  places: Place[];
}

const FILE = 'identity';
const LINK = 1;
const UNLINK = 2;
/** checksum, length of the name, kind, type (shifted), id, parent */
const HEADER = 4 + 2 + 1 + 1 + 8 + 8;
const MOST = HEADER + 255;

const placeKey = (parent: number, name: string) => `${parent}/${name}`;

export class IdentityLog {
  readonly #path: string;
  readonly #byId = new Map<number, IdentityEntry>();
  readonly #atPlace = new Map<string, number>();
  readonly #record = Buffer.alloc(MOST);
  #fd = -1;

  /** Reads the log, writes it anew without what is gone, and opens it. Throws FsError. */
  constructor(stateDir: string) {
    this.#path = `${stateDir}/${FILE}`;
    this.#load();
    this.#rewrite();
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
    this.#fd = openat(AT_FDCWD, this.#path, flags, 0o600);
    if (this.#fd < 0) throw new FsError(-this.#fd, `cannot open the identity log: ${errnoName(this.#fd)}`);
  }

  get size(): number {
    return this.#byId.size;
  }

  /** What is known of an id; undefined: nothing, or it has no place any more. */
  get(id: number): IdentityEntry | undefined {
    return this.#byId.get(id);
  }

  /** The id of what lies at a place, if it is of this type; 0: it has none yet. */
  at(parent: number, name: string, type: number): number {
    const id = this.#atPlace.get(placeKey(parent, name)) ?? 0;
    return id !== 0 && this.#byId.get(id)?.type === type ? id : 0;
  }

  /** The object `id` is at this place from now on; 0 or a negative errno (then it is not remembered). */
  link(id: number, type: number, parent: number, name: string): number {
    if (this.#atPlace.get(placeKey(parent, name)) === id) return 0;
    this.#link(id, type, parent, name);
    return this.#append(LINK, id, type, parent, name);
  }

  /** The object `id` has left this place. */
  unlink(id: number, parent: number, name: string): number {
    if (!this.#byId.has(id)) return 0;
    this.#unlink(id, parent, name);
    return this.#append(UNLINK, id, 0, parent, name);
  }

  /** Nothing of before is at this place any more, whoever it was. */
  vacate(parent: number, name: string): number {
    const id = this.#atPlace.get(placeKey(parent, name));
    return id === undefined ? 0 : this.unlink(id, parent, name);
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  #link(id: number, type: number, parent: number, name: string): void {
    const entry = this.#byId.get(id);
    const place = { parent, name };
    if (entry) entry.places.push(place);
    else this.#byId.set(id, { type, places: [place] });
    // Whoever was there keeps the place: the base has replaced the object, and old handles lead to the new one.
    this.#atPlace.set(placeKey(parent, name), id);
  }

  #unlink(id: number, parent: number, name: string): void {
    const key = placeKey(parent, name);
    if (this.#atPlace.get(key) === id) this.#atPlace.delete(key);
    const entry = this.#byId.get(id);
    if (!entry) return;
    const at = entry.places.findIndex((place) => place.parent === parent && place.name === name);
    if (at >= 0) entry.places.splice(at, 1);
    if (entry.places.length === 0) this.#byId.delete(id);
  }

  #append(kind: number, id: number, type: number, parent: number, name: string): number {
    const length = encode(this.#record, kind, id, type, parent, name);
    const written = write(this.#fd, this.#record, 0, length);
    return written === length ? 0 : written < 0 ? written : -E.ENOSPC;
  }

  #load(): void {
    let bytes: Buffer;
    try {
      bytes = fs.readFileSync(Buffer.from(this.#path, 'latin1'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    for (let at = 0; at + HEADER <= bytes.length; ) {
      const size = HEADER + bytes.readUInt16LE(at + 4);
      // A torn record ends the log: a write that a crash cut off.
      if (at + size > bytes.length || crc32(bytes.subarray(at + 4, at + size)) !== bytes.readUInt32LE(at))
        return;
      const id = readNumber(bytes, at + 8);
      const parent = readNumber(bytes, at + 16);
      const name = bytes.toString('latin1', at + HEADER, at + size);
      if (bytes[at + 6] === LINK) this.#link(id, (bytes[at + 7] as number) << 12, parent, name);
      else this.#unlink(id, parent, name);
      at += size;
    }
  }

  #rewrite(): void {
    const fresh = Buffer.from(`${this.#path}.new`, 'latin1');
    const parts: Buffer[] = [];
    const record = Buffer.alloc(MOST);
    // Older ids first, so that the last of several at a place is the one that lies there.
    for (const [id, { type, places }] of [...this.#byId].sort(([a], [b]) => a - b)) {
      for (const { parent, name } of places) {
        const length = encode(record, LINK, id, type, parent, name);
        parts.push(Buffer.from(record.subarray(0, length)));
      }
    }
    fs.writeFileSync(fresh, Buffer.concat(parts), { mode: 0o600, flush: true });
    fs.renameSync(fresh, Buffer.from(this.#path, 'latin1'));
  }
}

function encode(
  record: Buffer,
  kind: number,
  id: number,
  type: number,
  parent: number,
  name: string,
): number {
  const length = record.write(name, HEADER, 'latin1');
  record.writeUInt16LE(length, 4);
  record[6] = kind;
  record[7] = type >> 12;
  writeNumber(record, 8, id);
  writeNumber(record, 16, parent);
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
