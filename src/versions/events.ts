// The history of an overlay: numbered events, found by number and by path. Numbers come from a durable block
// and are never used twice, whatever becomes of the index.
import type { FormatFile, NumberBlock } from './format.ts';
import type { RecordStore } from './record-store.ts';
import { checks, keys, prefixes, rangesOfTree } from './records.ts';
import type { NewEvent, StoredEvent } from './types.ts';

/** So many of what is told and not kept can still be read, at least; half of twice as many goes at once. */
const TOLD = 10_000;
/** Changes of the base within this time belong together. */
const EPOCH_MS = 1000;

export class EventLog {
  #bumped = Number.NEGATIVE_INFINITY;
  readonly #records: RecordStore;
  readonly #format: FormatFile;
  readonly #numbers: NumberBlock;
  readonly #listeners = new Set<(event: StoredEvent) => void>();
  #last = 0;
  /** What the base did: in memory, for the index is not to grow with that. */
  #told: StoredEvent[] = [];

  constructor(records: RecordStore, format: FormatFile, numbers: NumberBlock) {
    this.#records = records;
    this.#format = format;
    this.#numbers = numbers;
    this.#last = numbers.next - 1;
  }

  /** Newest number that was given out, 0 for none. */
  get last(): number {
    return this.#last;
  }

  get epoch(): number {
    return this.#format.now.epoch;
  }

  /** The new epoch; durable when it returns. */
  bumpEpoch(): number {
    const now = performance.now();
    // One update of the base changes many files: that is one epoch, and one write to the disk.
    if (now - this.#bumped > EPOCH_MS) {
      this.#format.write({ epoch: this.#format.now.epoch + 1 });
      this.#bumped = now;
    }
    return this.#format.now.epoch;
  }

  /** Its number. Throws where a new block of numbers cannot be written (a full disk). */
  add(event: NewEvent): number {
    return this.record(event).seq;
  }

  /** After it returns the next `count` calls of add do not throw. */
  ensure(count: number): void {
    this.#numbers.ensure(count);
  }

  /** add, for those who want the event as it is stored. */
  record(event: NewEvent): StoredEvent {
    const stored = this.#next(event);
    this.#records.write(keys.event(stored.seq), stored);
    if (stored.path !== '') this.#records.write(keys.eventOfPath(stored.path, stored.seq), {});
    this.#announce(stored);
    return stored;
  }

  /** An event that is among the others as long as the newest are remembered, and in no history. Throws as add. */
  tell(event: NewEvent): void {
    const told = this.#next(event);
    this.#told.push(told);
    if (this.#told.length >= 2 * TOLD) {
      this.#told = this.#told.slice(-TOLD);
      const first = this.#told[0] as StoredEvent;
      this.#told[0] = { ...first, kind: 'base-lost', path: '' };
    }
    this.#announce(told);
  }

  #next(event: NewEvent): StoredEvent {
    const stored: StoredEvent = {
      seq: this.#numbers.take(),
      epoch: this.epoch,
      time: event.time ?? Date.now(),
      kind: event.kind,
      path: event.path,
      detail: event.detail ?? '',
      conflict: event.conflict ?? null,
      version: event.version ?? null,
      sides: event.sides ?? null,
      undo: event.undo ?? null,
      undone: 0,
      ...(event.from === undefined ? {} : { from: event.from }),
    };
    this.#last = stored.seq;
    return stored;
  }

  #announce(event: StoredEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  get(seq: number): StoredEvent | null {
    return this.#records.read<StoredEvent>(keys.event(seq), checks.event);
  }

  /** In order, from that number on, with what was told; events that come meanwhile are not among them. */
  async *from(seq: number): AsyncGenerator<StoredEvent> {
    const told = this.#told.filter((event) => event.seq >= seq);
    let at = 0;
    for await (const event of this.#kept(seq)) {
      for (; at < told.length && (told[at] as StoredEvent).seq < event.seq; at += 1)
        yield told[at] as StoredEvent;
      yield event;
    }
    yield* told.slice(at);
  }

  async *#kept(seq: number): AsyncGenerator<StoredEvent> {
    const range = { from: keys.event(Math.max(seq, 0)), to: 'f' };
    for await (const [, event] of this.#records.scan<StoredEvent>(range, checks.event)) yield event;
  }

  /** Of the path and all beneath it, in order; '' for all. */
  async *of(path: string): AsyncGenerator<StoredEvent> {
    if (path === '') return yield* this.#kept(0);
    const found: string[] = [];
    for (const range of rangesOfTree(prefixes.eventOfPath, path, '\0')) {
      for await (const [key] of this.#records.index.range(range)) found.push(key.slice(-14));
    }
    for (const digits of found.sort()) {
      const event = this.get(Number.parseInt(digits, 16));
      if (event !== null) yield event;
    }
  }

  /** Of the path itself, in order. */
  async *at(path: string): AsyncGenerator<StoredEvent> {
    const [itself] = rangesOfTree(prefixes.eventOfPath, path, '\0');
    if (itself === undefined) return;
    for await (const [key] of this.#records.index.range(itself)) {
      const event = this.get(Number.parseInt(key.slice(-14), 16));
      if (event !== null) yield event;
    }
  }

  /** `by`: the event that took it back. */
  markUndone(seq: number, by: number): void {
    const event = this.get(seq);
    if (event !== null) this.#records.write(keys.event(seq), { ...event, undone: by });
  }

  remove(event: StoredEvent): void {
    this.#records.delete(keys.event(event.seq));
    this.#records.delete(keys.eventOfPath(event.path, event.seq));
  }

  /** Called for every event from now on, at once; returns how to stop it. A listener must not throw. */
  subscribe(listener: (event: StoredEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
