// The file `format` in the state directory: the version of everything beside it, and what must survive the
// loss of the index. Numbers that are never used twice (nodeids, ids of conflicts, sequence numbers) are
// handed out from blocks whose end is durable here before the first of them is used; a start goes on at the
// end, so an unclean one skips the rest. Every write is synchronous and synced: it happens once a block.
import * as fs from 'node:fs';
import { crc32 } from 'node:zlib';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { bytesOf, exchangeFile, namesIn, readIfThere, replaceFile } from './files.ts';
import { Reserve } from './reserve.ts';
import type { BaseRecord } from './types.ts';

export const FORMAT_VERSION = 1;

export interface Format {
  version: number;
  /** Milliseconds. */
  created: number;
  /** Numbers below have been handed out, or may have been. */
  nodeBlockEnd: number;
  conflictBlockEnd: number;
  seqBlockEnd: number;
  epoch: number;
  bases: BaseRecord[];
  /** Of the kernel that ran at the last opening. */
  bootId: string;
  /** The last session closed the store. */
  clean: boolean;
  /** Marks the index that belongs here: another one is another overlay's, or an old copy. */
  indexId: string;
}

type Counter = 'nodeBlockEnd' | 'conflictBlockEnd' | 'seqBlockEnd';

export interface ReadFormat {
  format: Format;
  /** new: nothing else is there either; damaged: it cannot be read; lost: it is gone, the index is not. */
  found: 'whole' | 'new' | 'damaged' | 'lost';
}

const fileName = 'format';
const spareName = 'format.end';

/** Throws FsError EUCLEAN for a newer version. Writes nothing. */
export function readFormat(dir: string): ReadFormat {
  const bytes = readIfThere(`${dir}/${fileName}`);
  if (bytes === null && namesIn(`${dir}/index`).length === 0) return { format: newFormat(2), found: 'new' };
  const format = bytes === null ? null : parseFormat(bytes.toString('utf8'));
  if (format !== null) return { format, found: 'whole' };
  // Nothing is known of the numbers that were used. Milliseconds run ahead of any count of nodes, seconds of
  // any count of events.
  const floor = newFormat(Date.now());
  floor.seqBlockEnd = Math.floor(Date.now() / 1000);
  floor.conflictBlockEnd = floor.seqBlockEnd;
  floor.epoch = floor.seqBlockEnd;
  floor.clean = false;
  return { format: floor, found: bytes === null ? 'lost' : 'damaged' };
}

function newFormat(firstNode: number): Format {
  return {
    version: FORMAT_VERSION,
    created: Date.now(),
    nodeBlockEnd: firstNode,
    conflictBlockEnd: 1,
    seqBlockEnd: 1,
    epoch: 1,
    bases: [],
    bootId: '',
    clean: true,
    indexId: '',
  };
}

/** null: not a format file, or damaged. Fields that this version does not know are kept. */
function parseFormat(text: string): Format | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { check, ...fields } = value as Record<string, unknown>;
  const version = fields.version;
  if (typeof version === 'number' && version > FORMAT_VERSION) {
    throw new FsError(E.EUCLEAN, `written by a newer Kasane (format ${version}): use that`);
  }
  if (check !== checkOf(fields)) return null;
  const model = newFormat(2);
  for (const [name, sample] of Object.entries(model)) {
    if (typeof fields[name] !== typeof sample) return null;
  }
  return Array.isArray(fields.bases) ? (fields as unknown as Format) : null;
}

function textOf(format: Format): string {
  return `${JSON.stringify({ ...format, check: checkOf(format) }, null, 1)}\n`;
}

function checkOf(fields: object): string {
  return crc32(Buffer.from(JSON.stringify(fields), 'utf8'))
    .toString(16)
    .padStart(8, '0');
}

export class FormatFile {
  readonly #dir: string;
  readonly #writable: boolean;
  readonly #reserve: Reserve;
  #format: Format;

  /** Read only, numbers are handed out from memory and nothing is written. */
  constructor(dir: string, format: Format, writable: boolean, reserve = new Reserve(dir)) {
    this.#dir = dir;
    this.#reserve = reserve;
    this.#format = format;
    this.#writable = writable;
  }

  get now(): Readonly<Format> {
    return this.#format;
  }

  /** Durable when it returns. On failure nothing has changed. */
  write(patch: Partial<Format>): void {
    const next = { ...this.#format, ...patch };
    if (this.#writable) {
      this.#reserve.lend(() => replaceFile(this.#dir, fileName, textOf(next)));
    }
    this.#format = next;
  }

  /** Makes the file that finish() will need. */
  prepareFinish(): void {
    if (this.#writable) fs.writeFileSync(bytesOf(`${this.#dir}/${spareName}`), '', { mode: 0o600 });
  }

  /**
   * The last write of a session. An overlay is often removed as soon as it is unmounted, and whoever does that
   * must not be met by names that come or go.
   */
  finish(patch: Partial<Format>): void {
    if (!this.#writable) return;
    const next = { ...this.#format, ...patch };
    exchangeFile(this.#dir, spareName, fileName, textOf(next));
    this.#format = next;
  }

  /** [from, to): never handed out before, in this session or another. */
  reserve(counter: Counter, count: number): [from: number, to: number] {
    const from = this.#format[counter];
    this.write({ [counter]: from + count });
    return [from, from + count];
  }
}

/** Hands out the numbers of a counter one by one. */
export class NumberBlock {
  readonly #file: FormatFile;
  readonly #counter: Counter;
  readonly #size: number;
  #next: number;
  #end: number;

  constructor(file: FormatFile, counter: Counter, size: number) {
    this.#file = file;
    this.#counter = counter;
    this.#size = size;
    this.#next = file.now[counter];
    this.#end = this.#next;
  }

  /** The next `count` numbers are reserved when it returns; throws where that cannot be written. */
  ensure(count: number): void {
    if (this.#end - this.#next >= count) return;
    // Blocks follow each other: nobody else reserves from this counter.
    this.#end = this.#file.reserve(this.#counter, Math.max(this.#size, count))[1];
  }

  take(): number {
    this.ensure(1);
    return this.#next++;
  }

  /** The number that comes next, for a clean close. */
  get next(): number {
    return this.#next;
  }
}

/** Puts what cannot be used out of the way, for a person to look at. Returns the new name. */
export function moveAside(dir: string, name: string): string {
  const aside = `${name}.damaged-${new Date().toISOString().replace(/[:.]/g, '')}`;
  fs.renameSync(bytesOf(`${dir}/${name}`), bytesOf(`${dir}/${aside}`));
  return aside;
}

/** Of the running kernel; '' where it cannot be known. */
export function bootId(): string {
  return readIfThere('/proc/sys/kernel/random/boot_id')?.toString('latin1').trim() ?? '';
}
