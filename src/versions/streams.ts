// Contents too large to hold in memory: packing an open file into an ancestor's, and the way back.
import * as fs from 'node:fs';
import { Readable, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { E } from '../lib/errno.ts';
import { hash128Stream } from '../lib/hash.ts';
import { bytesOf, codeOf } from './files.ts';
import { DEFLATED, isDamage, PACK_HEADER, packHeader, parseHeader } from './packing.ts';

const PIECE = 256 * 1024;

/** What an open file holds, by pread: its offset stays. Each piece is a buffer of its own. */
export async function* pieces(fd: number, from = 0): AsyncGenerator<Buffer> {
  for (let at = from; ; ) {
    const piece = Buffer.allocUnsafe(PIECE);
    const length = await readAt(fd, piece, at);
    if (length === 0) return;
    at += length;
    yield piece.subarray(0, length);
  }
}

function readAt(fd: number, piece: Buffer, at: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.read(fd, piece, 0, piece.length, at, (error, length) =>
      error === null ? resolve(length) : reject(error),
    ),
  );
}

/** Packs what `fd` holds into a new file, 0600. The hash of the bytes. */
export async function packStream(fd: number, path: string): Promise<string> {
  const hash = hash128Stream();
  let length = 0;
  const tapped = async function* () {
    for await (const piece of pieces(fd)) {
      hash.update(piece);
      length += piece.length;
      yield piece;
    }
  };
  const file = await fs.promises.open(bytesOf(path), 'wx', 0o600);
  try {
    let at = PACK_HEADER;
    for await (const packed of through(tapped(), zlib.createDeflateRaw({ level: 6 }))) {
      await writeAll(file.fd, packed, at);
      at += packed.length;
    }
    await writeAll(file.fd, packHeader(DEFLATED, length), 0);
  } catch (error) {
    await fs.promises.rm(bytesOf(path), { force: true });
    throw error;
  } finally {
    await file.close();
  }
  return hash.digest();
}

/**
 * Writes the content at `path` (or `path`.raw) into `out`, from its start, and compares it with `hash`; with
 * `out` -1 it only compares. Bytes, or -ENOENT, -EUCLEAN.
 */
export async function copyOut(path: string, hash: string, out: number): Promise<number> {
  const packed = await openIfThere(path);
  const file = packed ?? (await openIfThere(`${path}.raw`));
  if (file === null) return -E.ENOENT;
  try {
    const content = packed === null ? { pieces: pieces(file.fd), length: -1 } : await unpacked(file);
    if (content === null) return -E.EUCLEAN;
    const sum = hash128Stream();
    let length = 0;
    for await (const piece of content.pieces) {
      sum.update(piece);
      if (out >= 0) await writeAll(out, piece, length);
      length += piece.length;
      if (content.length >= 0 && length > content.length) return -E.EUCLEAN;
    }
    if (content.length >= 0 && length !== content.length) return -E.EUCLEAN;
    return sum.digest() === hash ? length : -E.EUCLEAN;
  } catch (error) {
    if (isDamage(error)) return -E.EUCLEAN;
    throw error;
  } finally {
    await file.close();
  }
}

async function openIfThere(path: string): Promise<fs.promises.FileHandle | null> {
  try {
    return await fs.promises.open(bytesOf(path), 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

interface Content {
  pieces: AsyncIterable<Buffer>;
  /** As the head says; -1: there is none. */
  length: number;
}

async function unpacked(file: fs.promises.FileHandle): Promise<Content | null> {
  const start = Buffer.alloc(PACK_HEADER);
  const { bytesRead } = await file.read(start, 0, PACK_HEADER, 0);
  const head = parseHeader(start.subarray(0, bytesRead));
  if (head === null) return null;
  const body = pieces(file.fd, PACK_HEADER);
  if (head.kind !== DEFLATED) return { pieces: body, length: head.length };
  return { pieces: through(body, zlib.createInflateRaw()), length: head.length };
}

/** An error of the source ends the transform, and so the loop that reads it. */
function through(body: AsyncIterable<Buffer>, transform: Transform): AsyncIterable<Buffer> {
  const source = Readable.from(body);
  source.on('error', (error) => transform.destroy(error));
  return source.pipe(transform);
}

function writeAll(fd: number, piece: Buffer, at: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const rest = (done: number): void => {
      fs.write(fd, piece, done, piece.length - done, at + done, (error, written) => {
        if (error !== null) reject(error);
        else if (done + written < piece.length) rest(done + written);
        else resolve();
      });
    };
    rest(0);
  });
}
