// The small collections of the index: paths, inode numbers, hashes of contents, kept versions, and intents.
import { type Fingerprint, hashFingerprint } from '../lib/fingerprint.ts';
import { type Origin, pathHash } from './origin.ts';
import type { RecordStore } from './record-store.ts';
import { checks, keys, prefixes, rangeOf, rangesOfTree } from './records.ts';
import type { PathRecord, VersionRef } from './types.ts';

/** What is known of the paths that do not simply follow the base. */
export class PathIndex {
  /** Grows with each change of any record. */
  changes = 0;
  readonly #records: RecordStore;
  /** Paths by their pathHash; null: nobody has asked. */
  #byHash: Map<string, string> | null = null;
  #hashed: Promise<void> | null = null;

  constructor(records: RecordStore) {
    this.#records = records;
  }

  get(path: string): PathRecord | null {
    return this.#records.read<PathRecord>(keys.path(path), checks.path);
  }

  put(record: PathRecord): void {
    this.changes += 1;
    this.#byHash?.set(pathHash(record.path), record.path);
    this.#records.write(keys.path(record.path), record);
  }

  delete(path: string): void {
    this.changes += 1;
    this.#byHash?.delete(pathHash(path));
    this.#records.delete(keys.path(path));
  }

  /** The path itself and all beneath it; '' for all. In the order of the bytes. */
  async *under(path: string): AsyncGenerator<PathRecord> {
    for (const range of rangesOfTree(prefixes.path, path, '')) {
      for await (const [, record] of this.#records.scan<PathRecord>(range, checks.path)) yield record;
    }
  }

  /** Which path with a record has this pathHash, if any: many ask at a time, so from the first on all are known. */
  async ofHash(hash: string): Promise<string | null> {
    this.#hashed ??= this.#hashAll();
    await this.#hashed;
    return this.#byHash?.get(hash) ?? null;
  }

  /** What is put or deleted meanwhile is seen to by who does it; what the scan tells late of one that went is nothing. */
  async #hashAll(): Promise<void> {
    const byHash = new Map<string, string>();
    this.#byHash = byHash;
    try {
      for await (const { path } of this.under('')) byHash.set(pathHash(path), path);
    } catch (error) {
      this.#byHash = null;
      this.#hashed = null;
      throw error;
    }
  }
}

/** Inode numbers of the base that copies show, by the pathHash of where the base had the object. */
export class NumberBook {
  readonly known = new Map<number, string>();
  readonly #records: RecordStore;

  constructor(records: RecordStore) {
    this.#records = records;
  }

  async load(): Promise<void> {
    const scan = this.#records.scan<{ of: string }>(rangeOf(prefixes.number), checks.number);
    for await (const [key, { of }] of scan) this.known.set(Number.parseInt(key.slice(1), 16), of);
  }

  /** A number stays with the path: whatever the base has elsewhere by it is another object. */
  take({ ino, path }: Pick<Origin, 'ino' | 'path'>): void {
    if (ino === 0 || this.known.get(ino) === path) return;
    this.known.set(ino, path);
    this.#records.write(keys.number(ino), { of: path });
  }
}

/** Hash of the content that a fingerprint stands for, so that no base file is read twice. */
export class HashIndex {
  readonly #records: RecordStore;

  constructor(records: RecordStore) {
    this.#records = records;
  }

  contentOf(fingerprintHash: string): string | null {
    const record = this.#records.read<{ content: string }>(keys.hash(fingerprintHash), checks.hash);
    return record?.content ?? null;
  }

  /** Not for a fingerprint that is racily clean. */
  set(fingerprintHash: string, content: string): void {
    if (this.contentOf(fingerprintHash) === content) return;
    this.#records.write(keys.hash(fingerprintHash), { content, time: Date.now() });
  }

  /** set, unless the file may have changed once more within the granularity of its times. */
  learn(fingerprint: Fingerprint, takenMs: number, content: string): void {
    if (!racilyClean(fingerprint, takenMs)) this.set(hashFingerprint(fingerprint), content);
  }
}

/** Times of a file come from a clock that ticks up to 100 times a second, or in whole seconds. */
const TICK_MS = 20;
const COARSE_MS = 2000;

/** Whether the file may have changed after `takenMs` without another fingerprint (git's racily clean). */
export function racilyClean(fingerprint: Fingerprint, takenMs: number): boolean {
  const { mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = fingerprint;
  const changed = Math.max(mtimeSec * 1000 + mtimeNsec / 1e6, ctimeSec * 1000 + ctimeNsec / 1e6);
  return changed > takenMs - (mtimeNsec === 0 && ctimeNsec === 0 ? COARSE_MS : TICK_MS);
}

export interface NumberedVersion {
  path: string;
  n: number;
  ref: VersionRef;
  /** When it was kept, milliseconds. */
  time: number;
}

/** Versions of a path that are kept, numbered from 1; a number is not used again. */
export class VersionBook {
  readonly #records: RecordStore;

  constructor(records: RecordStore) {
    this.#records = records;
  }

  add(path: string, ref: VersionRef): number {
    const counter = keys.versionCount(path);
    let n = (this.#records.read<{ last: number }>(counter, checks.count)?.last ?? 0) + 1;
    // Only where the count was lost.
    while (this.#records.has(keys.version(path, n))) n += 1;
    this.#records.write(counter, { last: n });
    this.#records.write(keys.version(path, n), { ...ref, time: Date.now() });
    return n;
  }

  get(path: string, n: number): VersionRef | null {
    const found = this.#records.read<VersionRef & { time: number }>(keys.version(path, n), checks.version);
    return found === null ? null : withoutTime(found);
  }

  /** Of that very path, oldest first. */
  of(path: string): AsyncGenerator<NumberedVersion> {
    return this.#scan(rangeOf(`${prefixes.version}${path}\0`));
  }

  /** Of every path. */
  all(): AsyncGenerator<NumberedVersion> {
    return this.#scan(rangeOf(prefixes.version));
  }

  async *#scan(range: { from: string; to: string }): AsyncGenerator<NumberedVersion> {
    const found = this.#records.scan<VersionRef & { time: number }>(range, checks.version);
    for await (const [key, record] of found) {
      const [path, digits] = key.slice(1).split('\0') as [string, string];
      yield { path, n: Number.parseInt(digits, 16), ref: withoutTime(record), time: record.time };
    }
  }

  remove(path: string, n: number): void {
    this.#records.delete(keys.version(path, n));
  }
}

function withoutTime(record: VersionRef & { time: number }): VersionRef {
  const { time: _, ...ref } = record;
  return ref;
}

export interface Intent {
  path: string;
  /** As it was given. */
  data: unknown;
}

/** Merges under way: what is found here at a start was interrupted. */
export class IntentBook {
  readonly #records: RecordStore;
  readonly #flush: () => Promise<void>;

  constructor(records: RecordStore, flush: () => Promise<void>) {
    this.#records = records;
    this.#flush = flush;
  }

  /** Durable when it resolves. `data` is plain JSON; hashes in it are left by gc. */
  put(path: string, data: unknown): Promise<void> {
    this.#records.write(keys.intent(path), { path, data });
    return this.#flush();
  }

  /** Durable with the next flush, together with what the merge recorded. */
  drop(path: string): void {
    this.#records.delete(keys.intent(path));
  }

  async all(): Promise<Intent[]> {
    const found: Intent[] = [];
    const range = rangeOf(prefixes.intent);
    for await (const [, intent] of this.#records.scan<Intent>(range, checks.intent)) found.push(intent);
    return found;
  }
}
