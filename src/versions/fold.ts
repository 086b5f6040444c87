// From the journal into the index: events, path records and hashes of what the serving worker did. All of it
// goes out in the batch of the next flush, together with the id of the journal file, so that a file which was
// folded but not unlinked is not folded again.
import * as fs from 'node:fs';
import { hashFingerprint } from '../lib/fingerprint.ts';
import { escapeName } from '../lib/names.ts';
import type { HashIndex, NumberBook, PathIndex } from './books.ts';
import type { ConflictBook } from './conflicts.ts';
import type { EventLog } from './events.ts';
import { bytesOf, namesIn, readIfThere } from './files.ts';
import { type JournalRecord, journalName, readJournal } from './journal.ts';
import type { RecordStore } from './record-store.ts';
import { checks, keys } from './records.ts';
import type { EventKind, PathRecord, PathState, StoredEvent } from './types.ts';

export interface FoldTarget {
  records: RecordStore;
  events: EventLog;
  paths: PathIndex;
  numbers: NumberBook;
  hashes: HashIndex;
  conflicts: ConflictBook;
}

export interface FoldResult {
  events: StoredEvent[];
  /** Every path that a record was about, once. */
  paths: string[];
}

const YIELD_EVERY = 256;

/** Buffered: durable with the next flush. */
export async function foldRecords(
  target: FoldTarget,
  records: readonly JournalRecord[],
): Promise<FoldResult> {
  const events: StoredEvent[] = [];
  // On a full disk it fails here, before anything is written, and not halfway.
  target.events.ensure(2 * records.length);
  for (const [at, record] of records.entries()) {
    // Not in one piece: this thread has other work.
    if (at % YIELD_EVERY === YIELD_EVERY - 1) await new Promise(setImmediate);
    const kind = eventOf[record.kind];
    const event =
      kind === null
        ? null
        : target.events.record({
            kind,
            path: record.path,
            detail: detailOf(record),
            time: record.time,
            ...comingFrom(record),
          });
    if (event !== null) events.push(event);
    if (record.kind === 'exchanged' && record.from !== undefined) {
      const back = { ...record, path: record.from, from: record.path };
      events.push(
        target.events.record({
          kind: 'added',
          path: back.path,
          detail: detailOf(back),
          time: back.time,
          ...comingFrom(back),
        }),
      );
    }
    await foldOne(target, record, event?.seq ?? 0);
    if (record.kind === 'whiteout' || record.kind === 'removed') closeRemoved(target, record.path, events);
    if (record.kind === 'exchanged')
      for (const path of [record.path, record.from ?? '']) closeRemoved(target, path, events);
  }
  return { events, paths: [...new Set(records.map((record) => record.path))] };
}

const eventOf: Record<JournalRecord['kind'], EventKind | null> = {
  'copy-up': 'copy-up',
  taken: 'copy-up',
  whiteout: 'whiteout',
  added: 'added',
  renamed: 'added',
  exchanged: 'added',
  removed: null,
  content: null,
};

/** Who removes what is in conflict has decided. One about what was displaced never had an object. */
function closeRemoved({ conflicts, events }: FoldTarget, path: string, told: StoredEvent[]): void {
  const open = conflicts.of(path);
  if (open === null || open.overlay === null) return;
  const detail = 'the guest has removed the file';
  const event = events.record({ kind: 'resolved', path, conflict: open.id, detail });
  conflicts.close(open.id, { how: 'removed', take: '', seq: event.seq });
  told.push(event);
}

/** Of directories alone: what else is renamed is new at its new name. */
function comingFrom({ kind, from }: JournalRecord): { from?: string } {
  return (kind === 'renamed' || kind === 'exchanged') && from !== undefined ? { from } : {};
}

function detailOf(record: JournalRecord): string {
  if (record.kind === 'taken') return 'the name was taken by another object';
  if (record.kind === 'renamed' || record.kind === 'exchanged')
    return `renamed from ${escapeName(record.from ?? '')}`;
  return '';
}

async function foldOne(target: FoldTarget, record: JournalRecord, seq: number): Promise<void> {
  const { paths, hashes, numbers } = target;
  const { kind, path, fingerprint, content } = record;
  if (fingerprint !== undefined && content !== undefined) hashes.learn(fingerprint, record.time, content);
  if (record.origin !== undefined) numbers.take(record.origin);
  const old = paths.get(path);
  // Of a directory that went, or was replaced, whiteouts lay beneath at most.
  const mayHold = (kind === 'removed' || kind === 'whiteout') && record.leaf !== true;
  if (mayHold || kind === 'renamed') await dropBeneath(paths, path);
  if (kind === 'removed') return paths.delete(path);
  if (kind === 'content') {
    if (old === null || content === undefined || old.needs.includes(content)) return;
    const same =
      fingerprint !== undefined &&
      old.fingerprint !== null &&
      hashFingerprint(fingerprint) === hashFingerprint(old.fingerprint);
    if (same) paths.put({ ...old, needs: [...old.needs, content] });
    return;
  }
  if (kind === 'renamed' && record.from !== undefined) {
    // What was decided of a directory that the base has removed was about its place.
    if (/[KPU]/.test(paths.get(record.from)?.state ?? '')) paths.delete(record.from);
    await moveBeneath(target, record.from, path);
  }
  if (kind === 'exchanged' && record.from !== undefined) await exchangeBeneath(target, record.from, path);
  // An object without an origin is the overlay's own: there is nothing to reconcile.
  if (record.origin === undefined && fingerprint === undefined && kind !== 'whiteout') {
    return old === null ? undefined : paths.delete(path);
  }
  paths.put(recordOf(record, old, seq));
}

function recordOf(record: JournalRecord, old: PathRecord | null, seq: number): PathRecord {
  const { origin, fingerprint } = record;
  const needs = [origin?.content, record.content, origin?.pin?.content].filter(
    (hash): hash is string => hash !== undefined && hash !== '',
  );
  const seen = fingerprint === undefined ? (origin?.fingerprint ?? '') : hashFingerprint(fingerprint);
  return {
    path: record.path,
    state: stateAfter(record, old),
    detail: '',
    fingerprint: fingerprint ?? null,
    baseSeen: seen,
    overlaySig: '',
    lastMerges: old?.lastMerges ?? [],
    lastSeq: seq,
    needs: [...new Set(origin === undefined ? [...(old?.needs ?? []), ...needs] : needs)],
  };
}

/** What had no decision yet keeps waiting for one; everything is looked at again in any case. */
function stateAfter(record: JournalRecord, old: PathRecord | null): PathState {
  if (record.kind === 'whiteout') return 'W';
  if (record.origin?.pin) return 'U';
  if (record.origin?.torn) return 'P';
  if (record.kind === 'taken' && old !== null && old.state !== 'W') return old.state;
  return 'C';
}

async function dropBeneath(paths: PathIndex, path: string): Promise<void> {
  for await (const record of paths.under(path)) if (record.path !== path) paths.delete(record.path);
}

/** What lies beneath a directory goes with it; the directory's own record stays with its name. */
async function moveBeneath(target: FoldTarget, from: string, to: string): Promise<void> {
  await moveAll(target, [[from, to]]);
}

/** What lies beneath either goes with it. Who comes to have a record at the places themselves has a note of its own. */
async function exchangeBeneath(target: FoldTarget, from: string, to: string): Promise<void> {
  for (const path of [from, to]) target.paths.delete(path);
  await moveAll(target, [
    [from, to],
    [to, from],
  ]);
}

async function moveAll({ paths, conflicts }: FoldTarget, ways: [from: string, to: string][]): Promise<void> {
  const records: PathRecord[] = [];
  const open: [id: number, path: string][] = [];
  for (const [from, to] of ways) {
    const moved = (path: string) => to + path.slice(from.length);
    for await (const record of paths.under(from)) {
      if (record.path === from) continue;
      paths.delete(record.path);
      records.push({ ...record, path: moved(record.path) });
    }
    for (const { id, path } of conflicts.under(from)) if (path !== from) open.push([id, moved(path)]);
  }
  for (const record of records) paths.put(record);
  for (const [id, path] of open) conflicts.update(id, { path }, false);
}

const FOLDED_KEPT = 32;

export interface FoldedFile extends FoldResult {
  /** Records that were folded; none where that had been done before. */
  count: number;
  torn: boolean;
  /** It was folded before. */
  again: boolean;
  /** It can be known again. */
  named: boolean;
}

/**
 * Buffered. The id is noted last: should a part be committed alone, the file is folded again. `sift` takes out
 * what is not to be folded; with `asksAgain` it is asked of a file that was folded before, too.
 */
export async function foldFile(
  target: FoldTarget,
  stateDir: string,
  name: string,
  sift: (records: JournalRecord[]) => JournalRecord[] = (records) => records,
  asksAgain = false,
): Promise<FoldedFile> {
  const bytes = readIfThere(`${stateDir}/${name}`);
  const nothing = { events: [], paths: [], count: 0, torn: false, again: false, named: true };
  if (bytes === null) return nothing;
  const { records: found, id, torn } = readJournal(bytes);
  const key = keys.meta('folded');
  const folded = target.records.read<{ ids?: unknown }>(key, checks.meta)?.ids;
  const ids = Array.isArray(folded) ? (folded as string[]) : [];
  if (ids.includes(id)) {
    if (asksAgain) sift(found);
    return { ...nothing, again: true };
  }
  const records = sift(found);
  const result = await foldRecords(target, records);
  if (id !== '') target.records.write(key, { ids: [...ids, id].slice(-FOLDED_KEPT) });
  return { ...result, count: records.length, torn, again: false, named: id !== '' };
}

/** After the batch is durable. Throws the errors of node:fs. */
export function dropJournalFile(stateDir: string, name: string): void {
  fs.rmSync(bytesOf(`${stateDir}/${name}`), { force: true });
}

/** Renames the current one, so that the next session begins one of its own. Throws the errors of node:fs. */
export function closeJournal(stateDir: string): void {
  const names = journalFiles(stateDir);
  if (names.at(-1) !== journalName) return;
  const last = Number(names.at(-2)?.slice(journalName.length + 1) ?? 0);
  fs.renameSync(bytesOf(`${stateDir}/${journalName}`), bytesOf(`${stateDir}/${journalName}.${last + 1}`));
}

/** Closed ones in order, the current one last. */
export function journalFiles(stateDir: string): string[] {
  const names = namesIn(stateDir);
  const closed = names
    .map((name) => /^journal\.(\d+)$/.exec(name)?.[1])
    .filter((number) => number !== undefined)
    .sort((a, b) => Number(a) - Number(b));
  return [
    ...closed.map((number) => `${journalName}.${number}`),
    ...names.filter((name) => name === journalName),
  ];
}
