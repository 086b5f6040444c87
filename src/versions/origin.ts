// The origin attribute: what the base had at a path when the guest took that path over. It lies on the
// overlay's object and is the truth; the index is rebuilt from it. Pure codec; the layout is in
// native-notes/index-format.md. 56 bytes for a file of root's: that is what a 256-byte inode of ext4 has room
// for under this name, and a byte more costs each copy a block.
import { hash128, hash128Text } from '../lib/hash.ts';

export interface Origin {
  /** pathHash of the base's path: elsewhere the origin is void. */
  path: string;
  /** st_mode of the base's object, type included. */
  mode: number;
  uid: number;
  gid: number;
  /** st_ino that the union shows for this object. */
  ino: number;
  /** hash128 of the content, or '' when it is unknown. */
  content: string;
  /** hashFingerprint of the base's object, or '' when it is unknown. */
  fingerprint: string;
  /** First 16 digits of the hash of its xattrs, or ''. */
  xattrs: string;
  /** Seconds since the epoch. */
  taken: number;
  /** The copy was taken from a file that would not stand still. */
  torn: boolean;
  /** The version of the base that an undo refused. */
  pin: { fingerprint: string; content: string } | null;
}

const VERSION = 1;
const HEADER = 3;

const HAS_CONTENT = 1;
const HAS_FINGERPRINT = 2;
const HAS_XATTRS = 4;
const TORN = 8;
const HAS_PIN = 16;
const PIN_CONTENT = 32;
const KNOWN_FLAGS = 63;

/** 16 hexadecimal digits. */
export function pathHash(path: string): string {
  if (path !== last.path) {
    const hash = isAscii.test(path) ? hash128Text(path) : hash128(Buffer.from(path, 'latin1'));
    last.hash = hash.slice(0, 16);
    last.path = path;
  }
  return last.hash;
}

const isAscii = /^[\0-\x7f]*$/;

/** What is done with a name asks for its hash several times in turn. */
const last = { path: '', hash: hash128(Buffer.alloc(0)).slice(0, 16) };

export function encodeOrigins(list: readonly Origin[]): Buffer {
  const out = Buffer.allocUnsafe(HEADER + list.length * 120);
  let at = HEADER;
  for (const origin of list) at = encodeOne(origin, out, at);
  out[0] = VERSION;
  out.writeUInt16LE(crc16(out, HEADER, at), 1);
  return out.subarray(0, at);
}

/** null: damaged, or written by a newer Kasane. */
export function decodeOrigins(bytes: Uint8Array): Origin[] | null {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (data.length < HEADER || data[0] !== VERSION) return null;
  if (data.readUInt16LE(1) !== crc16(data, HEADER, data.length)) return null;
  const reader: Reader = { data, at: HEADER, failed: false };
  const list: Origin[] = [];
  while (reader.at < data.length) {
    const origin = decodeOne(reader);
    if (origin === null) return null;
    list.push(origin);
  }
  return list;
}

function encodeOne(origin: Origin, out: Buffer, start: number): number {
  const { pin } = origin;
  let flags = origin.torn ? TORN : 0;
  if (origin.content !== '') flags |= HAS_CONTENT;
  if (origin.fingerprint !== '') flags |= HAS_FINGERPRINT;
  if (origin.xattrs !== '') flags |= HAS_XATTRS;
  if (pin !== null) flags |= pin.content === '' ? HAS_PIN : HAS_PIN | PIN_CONTENT;
  let at = out.writeUInt8(flags, start);
  at = writeHex(origin.path, 8, out, at);
  at = out.writeUInt16LE(origin.mode, at);
  at = out.writeUInt32LE(origin.taken, at);
  at = writeVarint(origin.uid, out, at);
  at = writeVarint(origin.gid, out, at);
  at = writeVarint(origin.ino, out, at);
  if (origin.content !== '') at = writeHex(origin.content, 16, out, at);
  if (origin.fingerprint !== '') at = writeHex(origin.fingerprint, 16, out, at);
  if (origin.xattrs !== '') at = writeHex(origin.xattrs, 8, out, at);
  if (pin !== null) {
    at = writeHex(pin.fingerprint, 16, out, at);
    if (pin.content !== '') at = writeHex(pin.content, 16, out, at);
  }
  return at;
}

interface Reader {
  readonly data: Buffer;
  at: number;
  failed: boolean;
}

function decodeOne(reader: Reader): Origin | null {
  const { data } = reader;
  const flags = data[reader.at] as number;
  if ((flags & ~KNOWN_FLAGS) !== 0 || reader.at + 15 > data.length) return null;
  const path = data.toString('hex', reader.at + 1, reader.at + 9);
  const mode = data.readUInt16LE(reader.at + 9);
  const taken = data.readUInt32LE(reader.at + 11);
  reader.at += 15;
  const uid = readVarint(reader);
  const gid = readVarint(reader);
  const ino = readVarint(reader);
  const content = (flags & HAS_CONTENT) !== 0 ? readHex(reader, 16) : '';
  const fingerprint = (flags & HAS_FINGERPRINT) !== 0 ? readHex(reader, 16) : '';
  const xattrs = (flags & HAS_XATTRS) !== 0 ? readHex(reader, 8) : '';
  let pin: Origin['pin'] = null;
  if ((flags & HAS_PIN) !== 0) {
    const refused = readHex(reader, 16);
    pin = { fingerprint: refused, content: (flags & PIN_CONTENT) !== 0 ? readHex(reader, 16) : '' };
  }
  if (reader.failed) return null;
  const torn = (flags & TORN) !== 0;
  return { path, mode, uid, gid, ino, content, fingerprint, xattrs, taken, torn, pin };
}

function writeHex(digits: string, bytes: number, out: Buffer, at: number): number {
  if (digits.length !== bytes * 2 || out.write(digits, at, bytes, 'hex') !== bytes) {
    throw new RangeError(`not ${bytes * 2} hexadecimal digits: ${digits}`);
  }
  return at + bytes;
}

function readHex(reader: Reader, bytes: number): string {
  const start = reader.at;
  reader.at += bytes;
  if (reader.at <= reader.data.length) return reader.data.toString('hex', start, reader.at);
  reader.failed = true;
  return '';
}

/** Seven bits a byte, low ones first; up to 2^53. */
function writeVarint(value: number, out: Buffer, start: number): number {
  let at = start;
  let rest = value;
  while (rest >= 0x80) {
    out[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  out[at++] = rest;
  return at;
}

function readVarint(reader: Reader): number {
  let value = 0;
  let unit = 1;
  for (let i = 0; i < 8; i++) {
    const byte = reader.data[reader.at++];
    if (byte === undefined) break;
    value += (byte & 0x7f) * unit;
    if (byte < 0x80) {
      if (!Number.isSafeInteger(value)) break;
      return value;
    }
    unit *= 0x80;
  }
  reader.failed = true;
  return 0;
}

/** CRC-16/CCITT: finds every run of up to 16 wrong bits, which a cut CRC-32 would not. */
const crcTable: Uint16Array = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) !== 0 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc & 0xffff;
});

function crc16(data: Uint8Array, from: number, to: number): number {
  let crc = 0xffff;
  for (let i = from; i < to; i++) {
    crc = ((crc << 8) & 0xffff) ^ (crcTable[(crc >> 8) ^ (data[i] as number)] as number);
  }
  return crc;
}
