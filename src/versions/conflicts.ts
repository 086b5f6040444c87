// Conflicts. The open ones are in memory, for they are asked for all the time; closed ones stay in the index,
// so that a repeated resolution can be told from a new one, and an undo can open the same conflict again.
import type { NumberBlock } from './format.ts';
import type { RecordStore } from './record-store.ts';
import { checks, keys, prefixes, rangeOf } from './records.ts';
import type { Closing, ConflictRecord } from './types.ts';

export type NewConflict = Omit<ConflictRecord, 'id' | 'rev' | 'closed'>;

export class ConflictBook {
  readonly #records: RecordStore;
  readonly #numbers: NumberBlock;
  readonly #open = new Map<number, ConflictRecord>();
  readonly #byPath = new Map<string, number>();

  private constructor(records: RecordStore, numbers: NumberBlock) {
    this.#records = records;
    this.#numbers = numbers;
  }

  static async load(records: RecordStore, numbers: NumberBlock): Promise<ConflictBook> {
    const book = new ConflictBook(records, numbers);
    for await (const record of book.history()) if (record.closed === null) book.#remember(record);
    return book;
  }

  /** The id is new for ever; rev is 1. An open conflict of the same path must have been closed before. */
  open(fields: NewConflict): ConflictRecord {
    return this.#store({ ...fields, id: this.#numbers.take(), rev: 1, closed: null });
  }

  /** null: no such conflict is open. */
  update(id: number, patch: Partial<NewConflict>, bumpRev: boolean): ConflictRecord | null {
    const old = this.#open.get(id);
    if (old === undefined) return null;
    this.#forget(old);
    return this.#store({ ...old, ...patch, rev: bumpRev ? old.rev + 1 : old.rev });
  }

  /** `rev` is the conflict's, `at` now unless given. null: no such conflict is open. */
  close(id: number, closing: Omit<Closing, 'rev' | 'at'> & { at?: number }): ConflictRecord | null {
    const old = this.#open.get(id);
    if (old === undefined) return null;
    this.#forget(old);
    const { how, take, seq } = closing;
    return this.#store({ ...old, closed: { how, take, seq, rev: old.rev, at: closing.at ?? Date.now() } });
  }

  /** Opens a closed one again, at the next rev. null: unknown, or open. */
  reopen(id: number, patch: Partial<NewConflict>): ConflictRecord | null {
    const old = this.get(id);
    if (old === null || old.closed === null) return null;
    return this.#store({ ...old, ...patch, rev: old.rev + 1, closed: null });
  }

  /** Open or closed. */
  get(id: number): ConflictRecord | null {
    return this.#open.get(id) ?? this.#records.read<ConflictRecord>(keys.conflict(id), checks.conflict);
  }

  /** The open ones, by id. */
  all(): ConflictRecord[] {
    return [...this.#open.values()].sort((a, b) => a.id - b.id);
  }

  /** The open one of this very path. */
  of(path: string): ConflictRecord | null {
    const id = this.#byPath.get(path);
    return id === undefined ? null : (this.#open.get(id) ?? null);
  }

  /** The open ones of the path and beneath it, by id. */
  under(path: string): ConflictRecord[] {
    if (path === '') return this.all();
    return this.all().filter((record) => record.path === path || record.path.startsWith(`${path}/`));
  }

  /** Every one that is in the index, by id. */
  async *history(): AsyncGenerator<ConflictRecord> {
    const range = rangeOf(prefixes.conflict);
    for await (const [, record] of this.#records.scan<ConflictRecord>(range, checks.conflict)) yield record;
  }

  /** Erases a closed one. */
  remove(id: number): void {
    if (!this.#open.has(id)) this.#records.delete(keys.conflict(id));
  }

  #store(record: ConflictRecord): ConflictRecord {
    this.#records.write(keys.conflict(record.id), record);
    if (record.closed === null) this.#remember(record);
    return record;
  }

  #remember(record: ConflictRecord): void {
    this.#open.set(record.id, record);
    this.#byPath.set(record.path, record.id);
  }

  #forget(record: ConflictRecord): void {
    this.#open.delete(record.id);
    if (this.#byPath.get(record.path) === record.id) this.#byPath.delete(record.path);
  }
}
