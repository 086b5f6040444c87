// How a content lies in its file among the ancestors: one byte that tells the packing, six with the length,
// then the bytes, deflated where that is smaller. Never throws on damage.
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';

export const PACK_HEADER = 7;
export const PLAIN = 0x50;
export const DEFLATED = 0x5a;

/** Small ones are done at once: a trip through the thread pool costs more. */
export const AT_ONCE = 32_768;
/** What fits into a block of most file systems takes up no less when it is smaller. */
const BLOCK = 4096;
const LEVEL = { level: 6 };
/** On the main thread: half the time of the other for a twentieth more bytes, of which most blocks have room. */
const LEVEL_AT_ONCE = { level: 3 };

const deflate = promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.deflateRaw);
const inflate = promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.inflateRaw);

export function packHeader(kind: number, length: number): Buffer {
  const header = Buffer.alloc(PACK_HEADER);
  header[0] = kind;
  header.writeUIntLE(length, 1, 6);
  return header;
}

export async function pack(bytes: Uint8Array): Promise<Buffer> {
  return bytes.length <= AT_ONCE ? packNow(bytes) : packed(bytes, await deflate(bytes, LEVEL));
}

/** For what is small. */
export function packNow(bytes: Uint8Array): Buffer {
  return bytes.length + PACK_HEADER <= BLOCK
    ? packed(bytes, bytes)
    : packed(bytes, zlib.deflateRawSync(bytes, LEVEL_AT_ONCE));
}

function packed(bytes: Uint8Array, deflated: Uint8Array): Buffer {
  const smaller = deflated.length < bytes.length;
  return Buffer.concat([packHeader(smaller ? DEFLATED : PLAIN, bytes.length), smaller ? deflated : bytes]);
}

/** null: damaged. The caller compares the hash. */
export async function unpack(file: Buffer): Promise<Buffer | null> {
  const head = parseHeader(file);
  if (head === null) return null;
  const body = file.subarray(PACK_HEADER);
  if (head.kind === PLAIN) return body.length === head.length ? body : null;
  const options = { maxOutputLength: Math.max(head.length, 1) };
  try {
    const bytes = body.length <= AT_ONCE ? zlib.inflateRawSync(body, options) : await inflate(body, options);
    return bytes.length === head.length ? bytes : null;
  } catch (error) {
    if (isDamage(error)) return null;
    throw error;
  }
}

export function parseHeader(file: Buffer): { kind: number; length: number } | null {
  const kind = file[0];
  if (file.length < PACK_HEADER || (kind !== PLAIN && kind !== DEFLATED)) return null;
  return { kind, length: file.readUIntLE(1, 6) };
}

/** What zlib says of bytes that are none of its own, or too many, or (for the stated length) out of range. */
export function isDamage(error: unknown): boolean {
  const code = String((error as NodeJS.ErrnoException | null)?.code);
  return code.startsWith('Z_') || code === 'ERR_BUFFER_TOO_LARGE' || code === 'ERR_OUT_OF_RANGE';
}
