// Records over the index: typed reads that skip what is damaged and tell it once, and writes that let the
// store know that something waits to be committed.
import type { Log } from '../lib/log.ts';
import type { LevelIndex } from './level-index.ts';
import { decodeRecord, describeKey, encodeRecord, type KeyRange } from './records.ts';

type Check = (value: Record<string, unknown>) => string;

/** Damage is told once per thing, to the log and to whoever asks. */
export class DamageList {
  readonly #log: Log;
  readonly #seen = new Set<string>();

  constructor(log: Log) {
    this.#log = log;
  }

  report = (what: string, why: string): void => {
    const line = `${what}: ${why}`;
    if (this.#seen.has(line)) return;
    this.#seen.add(line);
    this.#log.warn(`damaged: ${line}`);
  };

  get lines(): readonly string[] {
    return [...this.#seen];
  }
}

export class RecordStore {
  readonly index: LevelIndex;
  readonly damage: DamageList;
  readonly #written: () => void;

  constructor(index: LevelIndex, damage: DamageList, written: () => void) {
    this.index = index;
    this.damage = damage;
    this.#written = written;
  }

  /** null: not there, or damaged. */
  read<T>(key: string, check: Check): T | null {
    const bytes = this.index.get(key);
    return bytes === null ? null : this.#decode<T>(key, bytes, check);
  }

  has(key: string): boolean {
    return this.index.get(key) !== null;
  }

  write(key: string, value: object): void {
    this.index.put(key, encodeRecord(key, value));
    this.#written();
  }

  delete(key: string): void {
    this.index.delete(key);
    this.#written();
  }

  async *scan<T>(range: KeyRange, check: Check): AsyncGenerator<[key: string, value: T]> {
    for await (const [key, bytes] of this.index.range(range)) {
      const value = this.#decode<T>(key, bytes, check);
      if (value !== null) yield [key, value];
    }
  }

  #decode<T>(key: string, bytes: Buffer, check: Check): T | null {
    const decoded = decodeRecord<T>(key, bytes, check);
    if ('value' in decoded) return decoded.value;
    this.damage.report(`record of ${describeKey(key)}`, decoded.damage);
    return null;
  }
}
