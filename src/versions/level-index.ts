// The index: LevelDB, with what was written since the last commit before it in memory. Reads see both. What is
// written goes out as one synced batch, frozen first, so that the ancestors which it may name can be synced
// before it. One open per process and directory (a failed second open would release LevelDB's own lock); the
// overlay's lock is the caller's. Damage is told through `report` and read as "not there".
import * as fs from 'node:fs';
import { Level } from 'level';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { spaceAt } from './files.ts';
import type { KeyRange } from './records.ts';

type Memory = Map<string, Buffer | null>;
type Database = Level<Buffer, Buffer>;

/** Small: one daemon is to serve many mounts, and the index of a guest is a few hundred kilobytes. */
const options = {
  keyEncoding: 'buffer',
  valueEncoding: 'buffer',
  cacheSize: 2 * 1024 * 1024,
  writeBufferSize: 1024 * 1024,
  maxOpenFiles: 64,
} as const;

const CHUNK = 500;
/** What LevelDB needs to be opened again, and for a batch beside its bytes. */
const ROOM = 32 * 1024;

export class LevelIndex {
  readonly #location: string;
  readonly #report: (what: string, why: string) => void;
  #db: Database | null;
  #pending: Memory = new Map();
  #frozen: Memory | null = null;
  #broken = false;

  private constructor(location: string, db: Database | null, report: (what: string, why: string) => void) {
    this.#location = location;
    this.#db = db;
    this.#report = report;
  }

  /** Rejects when LevelDB cannot open the directory. */
  static async open(location: string, report: (what: string, why: string) => void): Promise<LevelIndex> {
    return new LevelIndex(location, await openDatabase(location), report);
  }

  /** An index in memory only, for an overlay that has none and may not be written. */
  static inMemory(report: (what: string, why: string) => void): LevelIndex {
    return new LevelIndex('', null, report);
  }

  /** Records that no commit has taken yet. */
  get pending(): number {
    return this.#pending.size;
  }

  get(key: string): Buffer | null {
    let written = this.#pending.get(key);
    if (written === undefined) written = this.#frozen?.get(key);
    if (written !== undefined) return written;
    if (this.#db === null) return null;
    if (this.#db.status !== 'open') throw new FsError(E.EIO, 'the index is not open');
    try {
      return this.#db.getSync(Buffer.from(key, 'latin1')) ?? null;
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      this.#report('the index', reason(error));
      return null;
    }
  }

  put(key: string, value: Buffer): void {
    this.#pending.set(key, value);
  }

  delete(key: string): void {
    this.#pending.set(key, null);
  }

  /** In the order of the keys; what is written meanwhile is not seen. */
  async *range(range: KeyRange): AsyncGenerator<[key: string, value: Buffer]> {
    const memory = this.#memoryOf(range);
    let at = 0;
    for await (const [key, value] of this.#stored(range)) {
      while (at < memory.length && (memory[at]?.[0] as string) < key) {
        const [first, written] = memory[at++] as [string, Buffer | null];
        if (written !== null) yield [first, written];
      }
      if (memory[at]?.[0] !== key) {
        yield [key, value];
        continue;
      }
      const written = memory[at++]?.[1];
      if (written) yield [key, written];
    }
    for (; at < memory.length; at++) {
      const [first, written] = memory[at] as [string, Buffer | null];
      if (written !== null) yield [first, written];
    }
  }

  #memoryOf(range: KeyRange): [string, Buffer | null][] {
    const all: Memory = new Map();
    for (const memory of [this.#frozen, this.#pending]) {
      if (memory === null) continue;
      for (const [key, value] of memory) if (key >= range.from && key < range.to) all.set(key, value);
    }
    return [...all].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /**
   * LevelDB skips a block that it cannot read and says so at the end, by losing the last chunk too; then the
   * rest is read again one by one.
   */
  async *#stored(range: KeyRange): AsyncGenerator<[string, Buffer]> {
    if (this.#db === null) return;
    let from = range.from;
    for (const size of [CHUNK, 1]) {
      const iterator = this.#db.iterator({
        gte: Buffer.from(from, 'latin1'),
        lt: Buffer.from(range.to, 'latin1'),
      });
      try {
        for (;;) {
          const entries = await iterator.nextv(size);
          if (entries.length === 0) return;
          for (const [key, value] of entries) {
            const name = key.toString('latin1');
            yield [name, value];
            from = `${name}\0`;
          }
        }
      } catch (error) {
        if (!isDatabaseError(error)) throw error;
        this.#report('the index', reason(error));
      } finally {
        await iterator.close();
      }
    }
  }

  /** What is pending becomes the next batch; false when there is nothing. Then `commit` or `thaw`. */
  freeze(): boolean {
    this.thaw();
    if (this.#pending.size === 0) return false;
    this.#frozen = this.#pending;
    this.#pending = new Map();
    return true;
  }

  /** Durable when it resolves. When it rejects, nothing is lost from memory and it can be tried again. */
  async commit(): Promise<void> {
    if (this.#frozen === null) return;
    try {
      if (this.#db === null) return this.thaw();
      await this.#write(this.#frozen);
      this.#frozen = null;
    } catch (error) {
      this.thaw();
      throw error;
    }
  }

  /** Puts a frozen batch back among what is pending. */
  thaw(): void {
    if (this.#frozen === null) return;
    const newer = this.#pending;
    this.#pending = this.#frozen;
    this.#frozen = null;
    for (const [key, value] of newer) this.#pending.set(key, value);
  }

  async #write(memory: Memory): Promise<void> {
    const db = this.#db as Database;
    this.#expectRoom(memory);
    // After a failed write (a full disk) LevelDB refuses every other until it is opened again.
    if (this.#broken) {
      await db.close();
      await db.open();
      this.#broken = false;
    }
    try {
      // One by one into the batch: an array of operations costs six times as much.
      const batch = db.batch();
      for (const [name, value] of memory) {
        const key = Buffer.from(name, 'latin1');
        if (value === null) batch.del(key);
        else batch.put(key, value);
      }
      await batch.write({ sync: true });
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }

  /**
   * On a full disk LevelDB is left alone, for it could not even be read any more once it had to be opened again; and a
   * write that fails in its midst takes the last room.
   */
  #expectRoom(memory: Memory): void {
    let bytes = ROOM;
    for (const [key, value] of memory) bytes += key.length + (value?.length ?? 0);
    const space = spaceAt(Buffer.from(this.#location, 'utf8'));
    // What is left for root alone is no room for others.
    const room = process.geteuid?.() === 0 ? space?.free : space?.available;
    if (room !== undefined && room < bytes) throw new FsError(E.ENOSPC, 'no space is left for the index');
  }

  /**
   * Moves what can be read into a new database, and the old one aside. For the case that LevelDB refuses to
   * write because of a table that it cannot read. Call between commits.
   */
  async renew(): Promise<void> {
    if (this.#db === null) return;
    const fresh = `${this.#location}.new`;
    fs.rmSync(fresh, { recursive: true, force: true });
    fs.mkdirSync(fresh, { mode: 0o700 });
    const target = await openDatabase(fresh);
    try {
      let batch: { type: 'put'; key: Buffer; value: Buffer }[] = [];
      for await (const [name, value] of this.#stored({ from: '', to: '\xff' })) {
        batch.push({ type: 'put', key: Buffer.from(name, 'latin1'), value });
        if (batch.length < CHUNK) continue;
        await target.batch(batch);
        batch = [];
      }
      await target.batch(batch, { sync: true });
    } finally {
      await target.close();
    }
    await this.#db.close();
    fs.renameSync(
      this.#location,
      `${this.#location}.damaged-${new Date().toISOString().replace(/[:.]/g, '')}`,
    );
    fs.renameSync(fresh, this.#location);
    await this.#db.open();
    this.#broken = false;
  }

  async close(): Promise<void> {
    await this.#db?.close();
  }
}

async function openDatabase(location: string): Promise<Database> {
  const db: Database = new Level<Buffer, Buffer>(location, options);
  await db.open();
  return db;
}

function isDatabaseError(error: unknown): boolean {
  return error instanceof Error && String((error as NodeJS.ErrnoException).code).startsWith('LEVEL_');
}

/** A file of the database cannot be understood, as opposed to a disk that is full or failing. */
export function isCorruption(error: unknown): boolean {
  return isDatabaseError(error) && /corruption/i.test(reason(error));
}

/** LevelDB's own words lie in the cause. */
export function reason(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause === undefined ? messageOf(error) : `${messageOf(error)}: ${messageOf(cause)}`;
}
