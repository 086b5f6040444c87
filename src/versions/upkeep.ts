// What looks at all of the index at once: which ancestors are needed, what is damaged, how large it is, and
// erasing the history of a path.
import * as fs from 'node:fs';
import { hashFingerprint } from '../lib/fingerprint.ts';
import type { Ancestors } from './ancestors.ts';
import type { HashIndex, IntentBook, NumberBook, PathIndex, VersionBook } from './books.ts';
import type { ConflictBook } from './conflicts.ts';
import type { EventLog } from './events.ts';
import { bytesOf, namesIn } from './files.ts';
import type { Format } from './format.ts';
import type { RecordStore } from './record-store.ts';
import { decodeAny, describeKey, pathOfKey, prefixes, rangeOf } from './records.ts';
import type { ConflictRecord, SideRef, StoreCheckItem, StoredEvent, VersionRef } from './types.ts';

export interface Books {
  records: RecordStore;
  events: EventLog;
  paths: PathIndex;
  numbers: NumberBook;
  hashes: HashIndex;
  conflicts: ConflictBook;
  versions: VersionBook;
  intents: IntentBook;
  ancestors: Ancestors;
}

export type EmitItem = (item: StoreCheckItem) => void | Promise<void>;

const HASH = /\b[0-9a-f]{32}\b/g;

/** Hashes that a conflict needs: its sides, its proposal, and what its origin names. */
function hashesOfConflict(record: ConflictRecord): string[] {
  const sides = [record.ancestor, record.overlay, record.base].map(contentOfSide);
  const origin = record.origin;
  return [...sides, record.merged?.content, origin?.content, origin?.pin?.content].filter(isHash);
}

function contentOfSide(side: SideRef): string | null {
  return side === null || side === 'unknown' ? null : side.content;
}

function isHash(value: string | null | undefined): value is string {
  return value !== null && value !== undefined && value !== '';
}

/** What is live: what paths, open conflicts and intents need. */
async function liveHashes(books: Books): Promise<Set<string>> {
  const live = new Set<string>();
  const add = (hashes: Iterable<string>) => {
    for (const hash of hashes) live.add(hash);
  };
  for await (const record of books.paths.under('')) {
    add(record.needs);
    const known = record.fingerprint && books.hashes.contentOf(hashFingerprint(record.fingerprint));
    if (known) live.add(known);
  }
  for (const conflict of books.conflicts.all()) add(hashesOfConflict(conflict));
  for (const intent of await books.intents.all()) add(JSON.stringify(intent.data ?? null).match(HASH) ?? []);
  return live;
}

/** What the history needs: versions, closed conflicts, pins of what can be undone. */
async function historyHashes(books: Books): Promise<Set<string>> {
  const past = new Set<string>();
  for await (const { ref } of books.versions.all()) if (ref.content !== null) past.add(ref.content);
  for await (const conflict of books.conflicts.history()) {
    if (conflict.closed !== null) for (const hash of hashesOfConflict(conflict)) past.add(hash);
  }
  for await (const event of books.events.from(0)) {
    const pinned = event.undo?.pin?.content;
    if (isHash(pinned)) past.add(pinned);
  }
  return past;
}

export interface GcResult {
  removed: number;
  bytes: number;
  /** Why nothing was dropped, or ''. */
  skipped: string;
}

/** Drops ancestors that nothing names. With a record that cannot be read nothing is dropped at all. */
export async function collectAncestors(
  books: Books,
  extra: ReadonlySet<string>,
  minAgeMs: number,
): Promise<GcResult> {
  const oldest = Date.now() - minAgeMs;
  const before = books.records.damage.lines.length;
  // Contents that are there now: what comes while the records are read is not looked at.
  const there = [...books.ancestors.list()];
  const live = await liveHashes(books);
  const past = await historyHashes(books);
  const result: GcResult = { removed: 0, bytes: 0, skipped: '' };
  if (books.records.damage.lines.length > before || (await damagedRecords(books.records)) > 0) {
    return { ...result, skipped: 'the index has damaged records: they may name any ancestor' };
  }
  for (const hash of there) {
    if (live.has(hash) || past.has(hash) || extra.has(hash)) continue;
    if (books.ancestors.usedSince(hash, oldest)) continue;
    result.bytes += await books.ancestors.remove(hash);
    result.removed += 1;
  }
  books.ancestors.forgetUses(oldest);
  return result;
}

/**
 * After the machine went down: what no record names had perhaps not reached the disk. What did not is dropped,
 * so that it is taken again. Call before the journals are replayed: they may name contents that were not synced.
 */
export async function dropTornAncestors(books: Books): Promise<number> {
  const named = await liveHashes(books);
  for (const hash of await historyHashes(books)) named.add(hash);
  let torn = 0;
  for (const hash of [...books.ancestors.list()]) {
    if (!named.has(hash) && (await books.ancestors.dropTorn(hash))) torn += 1;
  }
  return torn;
}

async function damagedRecords(records: RecordStore): Promise<number> {
  let damaged = 0;
  for await (const [key, bytes] of records.index.range({ from: '', to: '\xff' })) {
    if ('damage' in decodeAny(key, bytes)) damaged += 1;
  }
  return damaged;
}

export interface CheckCounts {
  records: number;
  ancestors: number;
}

/** Reads everything. Tells what is wrong; changes nothing. */
export async function checkBooks(books: Books, format: Format, emit: EmitItem): Promise<CheckCounts> {
  const counts = { records: 0, ancestors: 0 };
  const needed = new Map<string, StoreCheckItem>();
  for await (const [key, bytes] of books.records.index.range({ from: '', to: '\xff' })) {
    counts.records += 1;
    const decoded = decodeAny(key, bytes);
    const path = pathOfKey(key);
    if ('damage' in decoded) {
      const message = `record of ${describeKey(key)}: ${decoded.damage}`;
      await emit({ severity: 'damage', code: 'index-record', path, message });
      continue;
    }
    noteNeeds(key, decoded.value, path, needed);
    const beyond = numberBeyond(key, format);
    if (beyond !== '') await emit({ severity: 'damage', code: 'format', path: '', message: beyond });
  }
  for (const line of books.records.damage.lines) {
    if (!line.startsWith('the index')) continue;
    await emit({ severity: 'damage', code: 'index-unreadable', path: '', message: line });
  }
  const there = new Set(books.ancestors.list());
  for (const hash of there) {
    counts.ancestors += 1;
    if ((await books.ancestors.verify(hash)) !== 'damaged') continue;
    const path = needed.get(hash)?.path ?? '';
    const message = `ancestor ${hash} does not hold what its name says`;
    await emit({ severity: 'damage', code: 'ancestor-hash', path, message });
  }
  for (const [hash, item] of needed) if (!there.has(hash)) await emit(item);
  return counts;
}

/** Which contents must be there. Of what is never merged a path's record has the hash alone. */
function noteNeeds(
  key: string,
  value: Record<string, unknown>,
  path: string,
  needed: Map<string, StoreCheckItem>,
): void {
  const note = (hash: string, about: string, where: string) => {
    const message = `ancestor ${hash} is missing: ${describeKey(key)} ${about}`;
    needed.set(hash, { severity: 'damage', code: 'ancestor-missing', path: where, message });
  };
  if (key.startsWith(prefixes.version)) {
    const { content } = value as unknown as VersionRef;
    if (content !== null) note(content, 'cannot be shown', path);
  } else if (key.startsWith(prefixes.conflict)) {
    const conflict = value as unknown as ConflictRecord;
    if (conflict.closed !== null) return;
    const sides = [conflict.ancestor, conflict.overlay, conflict.base].map(contentOfSide);
    const hashes = [...sides, conflict.merged?.content].filter(isHash);
    for (const hash of hashes) note(hash, 'lacks a side', conflict.path);
  }
}

function numberBeyond(key: string, format: Format): string {
  const number = Number.parseInt(key.slice(1), 16);
  if (key.startsWith(prefixes.event) && number >= format.seqBlockEnd) {
    return `event ${number} is past the numbers that were reserved (${format.seqBlockEnd})`;
  }
  if (key.startsWith(prefixes.conflict) && number >= format.conflictBlockEnd) {
    return `conflict ${number} is past the numbers that were reserved (${format.conflictBlockEnd})`;
  }
  return '';
}

export interface StoreSizes {
  index: number;
  /** All of them. */
  ancestors: number;
  /** Those that only the history needs. */
  history: number;
}

export async function sizesOf(books: Books, indexDir: string): Promise<StoreSizes> {
  let index = 0;
  for (const name of namesIn(indexDir)) {
    index += fs.statSync(bytesOf(`${indexDir}/${name}`), { throwIfNoEntry: false })?.size ?? 0;
  }
  const { bytes } = await books.ancestors.sizes();
  const live = await liveHashes(books);
  let history = 0;
  for (const hash of await historyHashes(books))
    if (!live.has(hash)) history += books.ancestors.bytesOf(hash);
  return { index, ancestors: bytes, history };
}

/** Erases versions, closed conflicts and events of that very path; ancestors go with the next gc. */
export async function forgetHistory(books: Books, path: string): Promise<{ versions: number }> {
  let versions = 0;
  for await (const { n } of books.versions.of(path)) {
    books.versions.remove(path, n);
    versions += 1;
  }
  for await (const conflict of books.conflicts.history()) {
    if (conflict.path === path && conflict.closed !== null) books.conflicts.remove(conflict.id);
  }
  const events: StoredEvent[] = [];
  for await (const event of books.events.of(path)) if (event.path === path) events.push(event);
  for (const event of events) books.events.remove(event);
  const record = books.paths.get(path);
  if (record !== null) books.paths.put({ ...record, lastSeq: 0 });
  return { versions };
}

/** Erases hashes of base files that no path record and no conflict asks for any more, once they are old. */
export async function dropOldHashes(books: Books, olderThan: number): Promise<void> {
  const used = new Set<string>();
  for await (const record of books.paths.under('')) {
    used.add(record.baseSeen);
    if (record.fingerprint !== null) used.add(hashFingerprint(record.fingerprint));
  }
  for (const conflict of books.conflicts.all()) used.add(conflict.baseFingerprint);
  for await (const [key, bytes] of books.records.index.range(rangeOf(prefixes.hash))) {
    const decoded = decodeAny(key, bytes);
    if ('value' in decoded && (decoded.value.time as number) < olderThan && !used.has(key.slice(1))) {
      books.records.delete(key);
    }
  }
}
