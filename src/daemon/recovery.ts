// What the last daemon left undone, finished or taken back before anybody is served: an index that was lost is
// rebuilt from the origins in the overlay, and merges that a crash cut off are recorded if their file is there.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { recordName, tidyRecords, writeOriginBytes } from '../branch/origin-store.ts';
import { type Overlay, placeWhiteout, probeOverlay } from '../branch/overlay.ts';
import { errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { baseName, escapeName, parentPath } from '../lib/names.ts';
import { newStat } from '../lib/stat.ts';
import { RENAME_NOREPLACE } from '../sys/constants.ts';
import { close } from '../sys/file.ts';
import { renameat2, unlinkat } from '../sys/names.ts';
import type { Intent } from '../union/carrying.ts';
import { failPoint } from '../union/fail-point.ts';
import { keepNumbers } from '../union/numbering.ts';
import { originFor } from '../union/origin-list.ts';
import { entryAt, type OverlayEntry, walkOverlay } from '../union/walk-overlay.ts';
import type { JournalRecord } from '../versions/journal.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import { needsRebuild, type Store } from '../versions/store.ts';
import type { PathRecord } from '../versions/types.ts';
import type { OpenBranches } from './branches.ts';
import { retakeAncestor } from './retake.ts';
import { applyRuling, hasHappened, isRuling, leftAside, type Ruling } from './ruling.ts';
import { fingerprintAt } from './survey.ts';

/** Whether what the journal announced has come true. */
export function happened(overlay: Overlay, { kind, path, origin, from, moved, ino }: JournalRecord): boolean {
  const entry = entryAt(overlay, path);
  switch (kind) {
    case 'whiteout':
      return entry === null ? moved === true : entry.kind === 'whiteout';
    case 'copy-up':
    case 'taken':
      // The walk does not read the origins of directories; before one came there lay something else.
      return entry?.kind === 'dir' || (entry?.kind === 'object' && isTaken(entry.origins, origin));
    case 'renamed':
      return entry?.kind === 'dir' && (from === undefined || entryAt(overlay, from)?.kind !== 'dir');
    case 'exchanged':
      return entry?.stat.ino === ino;
    case 'removed':
      return entry === null;
    case 'added':
    case 'content':
      return true;
  }
}

/**
 * Directories change places with a whiteout that lies where they go; it is taken away in a second step. The
 * base has nothing at the name that was left, else there would be a note of a whiteout, too.
 */
function dropStrayWhiteouts(overlay: Overlay, records: readonly JournalRecord[]): void {
  for (const { kind, from } of records) {
    if (kind !== 'renamed' || from === undefined) continue;
    const wanted = records.some((one) => one.kind === 'whiteout' && one.path === from);
    if (wanted || entryAt(overlay, from)?.kind !== 'whiteout') continue;
    const dirFd = openDirectoryBeneath(overlay.rootFd, parentPath(from));
    if (dirFd < 0) continue;
    unlinkat(dirFd, baseName(from), 0);
    close(dirFd);
  }
}

function isTaken(origins: readonly Origin[], origin: Origin | undefined): boolean {
  return origins.some((one) => one.path === origin?.path);
}

/**
 * Where a rename cannot leave its whiteout itself, that follows in a second step. Of the last note alone: after any other
 * one something else may have gone from there.
 */
function placeWhiteoutLeft(
  { overlay, workFd }: Pick<OpenBranches, 'overlay' | 'workFd'>,
  records: readonly JournalRecord[],
  log: Log,
): void {
  const last = records.at(-1);
  if (last?.kind !== 'whiteout' || last.moved !== true || entryAt(overlay, last.path) !== null) return;
  const dirFd = openDirectoryBeneath(overlay.rootFd, parentPath(last.path));
  if (dirFd < 0) return;
  let error: number;
  try {
    // A verb without a mount has not asked yet in what form whiteouts can be had.
    probeOverlay(overlay, workFd);
    error = placeWhiteout(overlay, dirFd, baseName(last.path));
  } catch (refusal) {
    if (!(refusal instanceof FsError)) throw refusal;
    error = -refusal.errno;
  } finally {
    close(dirFd);
  }
  if (error < 0)
    log.warn(
      `${escapeName(last.path)}: has been renamed, and its whiteout cannot be made (${errnoName(error)}): what the base has is in view again`,
    );
}

/** A whiteout that a rename left behind gets its origin in a second step, which its note has in full. */
function completeWhiteouts(overlay: Overlay, records: readonly JournalRecord[]): void {
  for (const { kind, path, origin } of records) {
    if (kind !== 'whiteout' || origin === undefined) continue;
    const entry = entryAt(overlay, path);
    if (entry?.kind !== 'whiteout' || entry.origins.length > 0) continue;
    const dirFd = openDirectoryBeneath(overlay.rootFd, parentPath(path));
    if (dirFd < 0) continue;
    writeOriginBytes(overlay.origins, dirFd, baseName(path), encodeOrigins([origin]));
    close(dirFd);
  }
}

function whyRebuild({ uncleanBoot, cutOff, torn }: Store['recovered']): string {
  if (uncleanBoot) return 'the machine went down with the mount';
  if (cutOff) return 'the last start did not come to its end';
  return torn ? 'the journal is damaged or gone' : '';
}

/** One sentence for each thing that was done; for the user. */
export async function recover(store: Store, branches: OpenBranches, log: Log): Promise<string[]> {
  const notes: string[] = [];
  if (store.readOnly) return notes;
  const { recovered } = store;
  failPoint('recovery');
  if (recovered.formatDamaged) notes.push('the format file was damaged and has been written anew');
  for (const line of recovered.indexDamaged) notes.push(line);
  placeWhiteoutLeft(branches, recovered.lastRecords, log);
  completeWhiteouts(branches.overlay, recovered.lastRecords);
  dropStrayWhiteouts(branches.overlay, recovered.lastRecords);
  if (needsRebuild(recovered)) {
    const why = whyRebuild(recovered);
    if (why !== '') log.warn(`${why}: looking through the origins in the overlay`);
    const count = await rebuild(store, branches, log);
    store.rebuildDone();
    if (recovered.indexMissing || (recovered.created && count > 0)) {
      notes.push(`the index was missing and has been rebuilt from ${count} origins in the overlay`);
      store.events.add({ kind: 'rebuilt', path: '', detail: `${count} origins` });
    }
  } else {
    for (const path of recovered.paths) {
      const entry = entryAt(branches.overlay, path);
      if (entry !== null) await retakeAncestor(store, branches, entry, log);
    }
  }
  if (!recovered.clean) {
    await tidyOriginRecords(branches, log);
    await renewRecords(store, branches);
  }
  const finished = await finishIntents(store, branches, log);
  if (finished > 0) log.info(`${finished} merges that were cut off are recorded now`);
  // Else the next start finds it all undone, as this one has.
  if (await store.flushIfRoom()) store.recoveryDone();
  return notes;
}

/**
 * A record for each origin of what is no directory, and none for what is not there; one that agrees with what lies
 * there stays.
 */
async function rebuild(store: Store, branches: OpenBranches, log: Log): Promise<number> {
  const found = new Map<string, OverlayEntry['kind']>();
  let count = 0;
  for await (const entry of walkOverlay(branches.overlay)) {
    const { path, kind, origins } = entry;
    found.set(path, kind);
    if (kind === 'dir' || origins.length === 0) continue;
    count += 1;
    store.rebuild(path, origins, kind === 'whiteout');
    await retakeAncestor(store, branches, entry, log);
  }
  const wrong: string[] = [];
  for await (const { path, state } of store.paths.under('')) {
    const kind = found.get(path);
    if (kind === undefined || (kind === 'whiteout') !== (state === 'W')) wrong.push(path);
  }
  for (const path of wrong) store.paths.delete(path);
  return count;
}

/** The origin of what is up to date again is written at once, the record up to a second later: a crash came between. */
async function renewRecords(store: Store, branches: OpenBranches): Promise<void> {
  const renewed: PathRecord[] = [];
  for await (const record of store.paths.under('')) {
    if (record.state !== 'P' && record.state !== 'K') continue;
    const entry = entryAt(branches.overlay, record.path);
    const origin = entry === null ? null : originFor(entry.origins, entry.basePath);
    if (entry === null || origin === null || origin.torn || origin.pin !== null) continue;
    const { fingerprint } = origin;
    if (fingerprintAt(branches, entry.basePath) !== fingerprint) continue;
    renewed.push({ ...record, state: 'C', detail: '', baseSeen: fingerprint });
  }
  for (const record of renewed) store.paths.put(record);
}

/** Where objects of the overlay lie. */
type Kept = Pick<OpenBranches, 'overlay' | 'linksFd' | 'displacedFd'>;

/**
 * For all that lies in the overlay, and what has no name there: copies that only names of the base lead to, and what was
 * put aside. Whether all of it could be read.
 */
async function forAll(
  { overlay, linksFd, displacedFd }: Kept,
  take: (entry: OverlayEntry) => void,
): Promise<boolean> {
  let whole = true;
  for (const rootFd of [overlay.rootFd, linksFd, displacedFd]) {
    const entries = walkOverlay({ ...overlay, rootFd }, '', '', () => {
      whole = false;
    });
    for await (const entry of entries) take(entry);
  }
  return whole;
}

/** Records of origins that a crash left without their objects. Those of what lay in work/ have gone with it. */
async function tidyOriginRecords(kept: Kept, log: Log): Promise<void> {
  const { origins } = kept.overlay;
  if (origins.used[0] === 0) return;
  const living = new Set<string>();
  if (!(await forAll(kept, ({ stat }) => living.add(recordName(stat))))) return;
  const removed = tidyRecords(origins, living);
  if (removed > 0) log.info(`${removed} origins were without their objects`);
}

/**
 * Of a ruling that puts a directory aside for something else, or the other way round, a crash came between: the one that
 * is left comes to the name. What was ruled is as if it had never been then, or is done.
 * 0 or a negative errno: nothing lies there, or something else at the name.
 */
function returnDisplaced({ overlay, displacedFd }: OpenBranches, path: string, id: number): number {
  const dirFd = openDirectoryBeneath(overlay.rootFd, parentPath(path));
  if (dirFd < 0) return dirFd;
  const error = renameat2(displacedFd, String(id), dirFd, baseName(path), RENAME_NOREPLACE);
  close(dirFd);
  return error;
}

/** What a resolution that has not happened has put aside; of an undo it is where it was before, and can come back yet. */
function staysDisplaced({ displacedFd }: OpenBranches, { ruling, displaced = 0 }: Ruling): boolean {
  return ruling === 'resolution' && displaced > 0 && statAt(displacedFd, String(displaced), newStat()) === 0;
}

/** A merge whose file came to its name is a merge; one whose file did not has never been. */
async function finishIntents(store: Store, branches: OpenBranches, log: Log): Promise<number> {
  let finished = 0;
  for (const { path, data } of await store.intents.all()) {
    if (isRuling(data)) {
      const { displaced = 0 } = data;
      const back = displaced > 0 ? returnDisplaced(branches, path, displaced) : 0;
      if (await hasHappened(branches, path, data)) {
        applyRuling(store, path, data);
        finished += 1;
      } else {
        if (back < 0 && staysDisplaced(branches, data)) log.warn(leftAside(store, path, displaced, back));
        store.intents.drop(path);
      }
      continue;
    }
    const intent = data as Intent;
    const entry = entryAt(branches.overlay, path);
    const dropped = intent.what === 'drop';
    const done = dropped
      ? entry === null
      : entry?.kind === 'object' && encodeOrigins(entry.origins).toString('base64') === intent.origins;
    if (done) {
      recordIntent(store, path, intent, entry?.origins ?? []);
      finished += 1;
    } else store.recovered.unfinished.push(path);
    store.intents.drop(path);
  }
  return finished;
}

function recordIntent(store: Store, path: string, intent: Intent, origins: readonly Origin[]): void {
  const kind = intent.what === 'drop' ? 'dropped' : 'merged';
  const seq = store.events.add({ ...intent.event, kind, detail: 'recorded after a crash' });
  const open = store.conflicts.of(path);
  if (open !== null) store.conflicts.close(open.id, { how: 'reconciled', take: '', seq });
  if (kind === 'dropped') {
    store.paths.delete(path);
    store.numbers.take({ ino: intent.left ?? 0, path: '' });
    return;
  }
  keepNumbers(store, origins);
  const before = store.paths.get(path);
  store.paths.put({
    path,
    state: 'C',
    detail: '',
    fingerprint: before?.fingerprint ?? null,
    baseSeen: intent.base,
    overlaySig: '',
    lastMerges: [...(before?.lastMerges ?? []), Date.now()].slice(-16),
    lastSeq: seq,
    needs: origins.map((one) => one.content).filter((hash) => hash !== ''),
  });
}

/**
 * Hashes of all contents that origins in the overlay name: they are the truth, whatever the index knows. null: not all of
 * them could be read, so nobody knows.
 */
export async function neededAncestors(store: Store, branches: Kept): Promise<Set<string> | null> {
  const needed = new Set<string>();
  let damaged = false;
  const whole = await forAll(branches, ({ origins, originDamaged }) => {
    damaged ||= originDamaged;
    for (const origin of origins) {
      needed.add(origin.content);
      if (origin.pin !== null) needed.add(origin.pin.content);
      if (origin.xattrs !== '') needed.add(store.ancestors.findByPrefix(origin.xattrs) ?? '');
    }
  });
  return whole && !damaged ? needed : null;
}
