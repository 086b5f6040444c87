// The store of one overlay: everything that Kasane remembers beside the overlay's own files. Main thread only;
// one per state directory and process, under the overlay's lock. Writes are in memory first; flush() makes
// them durable together, ancestors before the records that name them, and runs by itself about once a second.
// Nothing here throws because of damaged data: what cannot be read is told once, and is not there.
import { FsError, messageOf } from '../lib/errors.ts';
import { hashFingerprint } from '../lib/fingerprint.ts';
import type { Log } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import { Ancestors, dropTemporaries } from './ancestors.ts';
import { HashIndex, IntentBook, NumberBook, PathIndex, VersionBook } from './books.ts';
import { ConflictBook } from './conflicts.ts';
import { EventLog } from './events.ts';
import { errnoOf, isOutOfRoom, makeDirectory, readIfThere } from './files.ts';
import {
  closeJournal,
  dropJournalFile,
  type FoldResult,
  foldFile,
  foldRecords,
  journalFiles,
} from './fold.ts';
import { bootId, FormatFile, moveAside, NumberBlock, readFormat } from './format.ts';
import { GroupCommit } from './group-commit.ts';
import type { JournalRecord } from './journal.ts';
import { lockStore, type StoreLock } from './lock.ts';
import { type Origin, pathHash } from './origin.ts';
import { DamageList, RecordStore } from './record-store.ts';
import { markIndex, type OpenedIndex, openIndex, openIndexReadOnly } from './recover.ts';
import { Reserve } from './reserve.ts';
import type { BaseRecord, PathRecord } from './types.ts';
import {
  type Books,
  type CheckCounts,
  checkBooks,
  collectAncestors,
  dropOldHashes,
  dropTornAncestors,
  type EmitItem,
  forgetHistory,
  type GcResult,
  type StoreSizes,
  sizesOf,
} from './upkeep.ts';

export interface StoreOptions {
  /** Absolute, latin1. Its parent exists. */
  stateDir: string;
  log: Log;
  /** Writes nothing to the overlay: changes stay in memory and end with the store. */
  readOnly?: boolean;
  /**
   * Whether what a record of a journal tells has come true. Records are written before what they tell of, so
   * the last ones are asked about when a journal was left behind; without it they are believed.
   */
  happened?: (record: JournalRecord) => boolean;
}

/** A single operation notes at most so many records. */
const NOTES_AT_ONCE = 3;

export interface Recovered {
  /** There was no format file: the overlay is new to Kasane, or has lost its state directory. */
  created: boolean;
  /** The last session closed the store. */
  clean: boolean;
  /** The last session did not, and the machine has been started anew since: recovery reads the origins. */
  uncleanBoot: boolean;
  /** Records that were replayed. */
  journal: number;
  /** What they were about. */
  paths: string[];
  /** The last of them, as far as they have come true. */
  lastRecords: readonly JournalRecord[];
  /** Paths of merges that a crash cut off before they came true: of their sets others may have. */
  unfinished: string[];
  /** A journal was damaged, or gone: what it told must be learnt from the origins. */
  torn: boolean;
  /** The start before did not come to recoveryDone(): as if torn. */
  cutOff: boolean;
  /** The index was gone or unusable, or has not been rebuilt since: rebuild() every origin, then rebuildDone(). */
  indexMissing: boolean;
  /** One line each. */
  indexDamaged: string[];
  formatDamaged: boolean;
}

/** Whether all is to be learnt from the origins in the overlay. */
export function needsRebuild(recovered: Recovered): boolean {
  const { created, indexMissing, uncleanBoot, torn, formatDamaged } = recovered;
  return created || indexMissing || uncleanBoot || torn || formatDamaged;
}

const NO_ROOM = ': make room in its file system, or mount it with -o ro';
const SEQ_BLOCK = 1024;
const CONFLICT_BLOCK = 32;
const GC_MIN_AGE_MS = 10 * 60 * 1000;
const HASH_MAX_AGE_MS = 30 * 24 * 3600 * 1000;
const folders = ['work', 'index', 'ancestors', 'origins', 'links', 'displaced'];

interface Parts {
  options: StoreOptions;
  lock: StoreLock;
  reserve: Reserve;
  format: FormatFile;
  opened: OpenedIndex;
  damage: DamageList;
  recovered: Recovered;
}

export class Store {
  readonly stateDir: string;
  readonly readOnly: boolean;
  readonly recovered: Recovered;
  readonly events: EventLog;
  readonly paths: PathIndex;
  readonly numbers: NumberBook;
  readonly hashes: HashIndex;
  readonly versions: VersionBook;
  readonly intents: IntentBook;
  readonly ancestors: Ancestors;
  readonly #log: Log;
  readonly #parts: Parts;
  readonly #records: RecordStore;
  readonly #commits: GroupCommit;
  readonly #seqs: NumberBlock;
  readonly #conflictIds: NumberBlock;
  #conflicts: ConflictBook | null = null;
  #folding: Promise<unknown> = Promise.resolve();
  /** Journals of the last session. */
  #replayed: readonly string[] = [];
  /** recoveryDone() is still to be called. */
  #isUndone = false;
  #closed = false;

  /** Use openStore. */
  constructor(parts: Parts) {
    const { options, format, opened, damage } = parts;
    this.#parts = parts;
    this.#log = options.log;
    this.stateDir = options.stateDir;
    this.readOnly = options.readOnly === true;
    this.recovered = parts.recovered;
    this.#records = new RecordStore(opened.index, damage, () => this.#commits.written());
    this.#seqs = new NumberBlock(format, 'seqBlockEnd', SEQ_BLOCK);
    this.#conflictIds = new NumberBlock(format, 'conflictBlockEnd', CONFLICT_BLOCK);
    this.events = new EventLog(this.#records, format, this.#seqs);
    this.paths = new PathIndex(this.#records);
    this.numbers = new NumberBook(this.#records);
    this.hashes = new HashIndex(this.#records);
    this.versions = new VersionBook(this.#records);
    this.intents = new IntentBook(this.#records, () => this.flush());
    this.ancestors = new Ancestors(`${options.stateDir}/ancestors`, damage.report, this.readOnly);
    const { ancestors, readOnly } = this;
    this.#commits = new GroupCommit({ index: opened.index, ancestors, damage, log: options.log, readOnly });
  }

  get conflicts(): ConflictBook {
    if (this.#conflicts === null) throw new TypeError('the store is not loaded yet');
    return this.#conflicts;
  }

  /** One line for each damaged thing that was met so far. */
  get damage(): readonly string[] {
    return this.#parts.damage.lines;
  }

  get #books(): Books {
    const { events, paths, numbers, hashes, conflicts, versions, intents, ancestors } = this;
    const records = this.#records;
    return { records, events, paths, numbers, hashes, conflicts, versions, intents, ancestors };
  }

  /** Loads conflicts and numbers, and replays the journals; part of openStore. */
  async load(): Promise<void> {
    this.#conflicts = await ConflictBook.load(this.#records, this.#conflictIds);
    await this.numbers.load();
    if (this.recovered.uncleanBoot && !this.readOnly) await dropTornAncestors(this.#books);
    if (!this.readOnly) closeJournal(this.stateDir);
    const names = journalFiles(this.stateDir);
    const filled = names.filter((name) => readIfThere(`${this.stateDir}/${name}`)?.length);
    const { recovered } = this;
    const replayed: string[] = [];
    const over: string[] = [];
    for (const name of names) {
      const sift = name === filled.at(-1) ? this.#believe : undefined;
      // A session that came to its end has left nothing undone, and others may have had the overlay since.
      const folded = await foldFile(this.#books, this.stateDir, name, sift, !recovered.clean);
      const { count, torn, paths, again, named } = folded;
      recovered.journal += count;
      recovered.paths.push(...paths);
      // One that was folded before is left by a start that died before it had done all that it had to.
      recovered.cutOff ||= again && !recovered.clean;
      recovered.torn ||= torn || recovered.cutOff;
      // What would be folded anew does not stay either: it is torn, and all is learnt from the origins, at the next start, too.
      (!named || (again && recovered.clean) ? over : replayed).push(name);
    }
    // A session begins with one, so that none is left by a crash of the machine, or by somebody's hand.
    recovered.torn ||= !recovered.clean && filled.length === 0;
    if (!this.readOnly) {
      // What the end of the session will need is made now.
      this.#seqs.ensure(1);
      this.#parts.format.prepareFinish();
    }
    const lasting = await this.flushIfRoom();
    if (this.readOnly) return;
    if (lasting) for (const name of over) dropJournalFile(this.stateDir, name);
    this.#replayed = replayed;
    this.#isUndone = replayed.length > 0 || needsRebuild(recovered) || !lasting;
  }

  /** Leaves out the notes of an operation that a crash cut off. */
  readonly #believe = (records: JournalRecord[]): JournalRecord[] => {
    const { happened } = this.#parts.options;
    if (happened === undefined) return records;
    let end = records.length;
    const first = Math.max(0, end - NOTES_AT_ONCE);
    while (end > first && !happened(records[end - 1] as JournalRecord)) end -= 1;
    this.recovered.lastRecords = records.slice(first, end);
    return records.slice(0, end);
  };

  // ---- identity of the overlay ----

  /** [from, to): nodeids that were never given out. Durable when it returns. */
  reserveNodeIds(count: number): [from: number, to: number] {
    return this.#parts.format.reserve('nodeBlockEnd', count);
  }

  bases(): BaseRecord[] {
    return this.#parts.format.now.bases;
  }

  /** Durable when it returns. */
  setBases(bases: BaseRecord[]): void {
    this.#parts.format.write({ bases });
  }

  // ---- recovery ----

  /** All that was left undone has been finished or taken back: until then each start finds the journals that tell of it. */
  recoveryDone(): void {
    for (const name of this.#replayed) dropJournalFile(this.stateDir, name);
    this.#replayed = [];
    this.#isUndone = false;
    if (this.recovered.uncleanBoot) this.#parts.format.write({ bootId: bootId() });
  }

  /**
   * Puts back what an object's origins tell of the path: for an index that was lost. Of several origins the
   * one of this very path counts, else the first. A record that agrees with it stays (after an unclean boot).
   * The caller's next look at the path decides the rest.
   */
  rebuild(path: string, origins: readonly Origin[], whiteout: boolean): void {
    const own = pathHash(path);
    const origin = origins.find((candidate) => candidate.path === own) ?? origins[0];
    if (origin === undefined) return;
    for (const one of origins) this.#retakeNumber(one, own);
    const old = this.paths.get(path);
    if (old !== null && agrees(old, origin, whiteout)) return;
    const needs = [origin.content, origin.pin?.content].filter((hash) => hash !== undefined && hash !== '');
    this.paths.put({
      path,
      state: whiteout ? 'W' : origin.pin !== null ? 'U' : 'P',
      detail: '',
      fingerprint: null,
      baseSeen: origin.fingerprint,
      overlaySig: '',
      lastMerges: [],
      lastSeq: 0,
      needs: needs as string[],
    });
  }

  /** A number is a path's where the object that shows it lies there, and has not left it to others under other names. */
  #retakeNumber({ ino, path }: Origin, own: string): void {
    const known = this.numbers.known.get(ino);
    if (known === undefined) this.numbers.take({ ino, path: path === own ? own : '' });
    else if (known !== '' && path === own) this.numbers.take({ ino, path });
  }

  /** Every origin has been put back: until this is durable, each opening says `indexMissing`. */
  rebuildDone(): void {
    markIndex(this.#records.index, this.#parts.format.now.indexId, true);
    this.#commits.written();
  }

  /** Buffered like every write. */
  fold(records: readonly JournalRecord[]): Promise<FoldResult> {
    return foldRecords(this.#books, records);
  }

  /**
   * Folds a journal file that the worker has closed, and unlinks it once that is durable, unless it is to be
   * kept (the next start drops it). Calls go one after another.
   */
  foldJournal(name: string, keep = false): Promise<FoldResult> {
    const fold = () => this.#foldFile(name, keep);
    const folding = this.#folding.then(fold, fold);
    this.#folding = folding;
    return folding;
  }

  async #foldFile(name: string, keep: boolean): Promise<FoldResult> {
    const { torn, ...result } = await foldFile(this.#books, this.stateDir, name);
    if (torn) this.#log.warn(`${name}: a part of it could not be read`);
    await this.flush();
    if (keep) return result;
    try {
      dropJournalFile(this.stateDir, name);
    } catch (error) {
      // Its id is in the index: the next start does not fold it again.
      this.#log.warn(`cannot remove ${name}: ${messageOf(error)}`);
    }
    return result;
  }

  // ---- durability ----

  /**
   * Everything written before the call is durable when it resolves; callers meanwhile share the next sync.
   * Rejects with FsError when that failed: nothing is lost from memory, and it is tried again.
   */
  flush(): Promise<void> {
    return this.#commits.flush();
  }

  /**
   * Whether it is durable: on a full disk it is not, and what a session that ends so has left is found by the next start,
   * in the journals and origins.
   */
  async flushIfRoom(): Promise<boolean> {
    try {
      await this.flush();
      return true;
    } catch (error) {
      if (!isOutOfRoom(error)) throw error;
      this.#log.warn(messageOf(error));
      return false;
    }
  }

  // ---- room on a full disk ----

  /** The start is over: what it has left of the reserve, if it needed it, is kept for the end, and for the next one. */
  keepReserve(): void {
    if (!this.readOnly) this.#keepReserve(true);
  }

  #keepReserve(anew: boolean): void {
    try {
      this.#parts.reserve.keep(anew);
    } catch (error) {
      this.#log.warn(`no room is kept for a full disk: ${messageOf(error)}`);
    }
  }

  /** The session is about to end, and what it has to write is to find room. */
  useReserve(): void {
    if (!this.readOnly) this.#parts.reserve.emptyIfLow();
  }

  // ---- upkeep ----

  /** Drops ancestors that neither the index nor `extra` names. Those put within minAgeMs stay. */
  async gc(extra: ReadonlySet<string>, options: { minAgeMs?: number } = {}): Promise<GcResult> {
    await dropOldHashes(this.#books, Date.now() - HASH_MAX_AGE_MS);
    // A record that no longer names an ancestor has to be durable before the ancestor goes.
    await this.flush();
    this.keepReserve();
    return collectAncestors(this.#books, extra, options.minAgeMs ?? GC_MIN_AGE_MS);
  }

  check(emit: EmitItem): Promise<CheckCounts> {
    return checkBooks(this.#books, this.#parts.format.now, emit);
  }

  sizes(): Promise<StoreSizes> {
    return sizesOf(this.#books, this.#parts.opened.dir);
  }

  /** Erases the history of that very path; its contents go with the next gc. */
  forget(path: string): Promise<{ versions: number }> {
    return forgetHistory(this.#books, path);
  }

  /**
   * Flushes, closes, unlocks. Rejects with what the flush said, but lets go of everything first. On a full disk it does
   * not reject: the session has not come to its end, and the next start learns what it has done as after a crash.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#commits.stop();
    const { opened, lock } = this.#parts;
    try {
      this.useReserve();
      const lasting = await this.flushIfRoom();
      await opened.index.close();
      if (!this.readOnly) this.#finish(lasting);
    } finally {
      await opened.index.close();
      opened.cleanUp();
      lock.release();
    }
  }

  #finish(lasting: boolean): void {
    const [seqBlockEnd, conflictBlockEnd] = [this.#seqs.next, this.#conflictIds.next];
    try {
      if (lasting) this.#parts.format.finish({ clean: !this.#isUndone, seqBlockEnd, conflictBlockEnd });
    } catch (error) {
      // Then the session has not come to its end.
      if (!isOutOfRoom(error)) throw error;
      this.#log.warn(`the session is not recorded as ended: ${messageOf(error)}`);
    }
    this.#keepReserve(false);
  }
}

/**
 * Throws FsError: EBUSY, the overlay is in use; EUCLEAN, written by a newer Kasane; else the errno of what
 * failed. Damage is no failure: see `recovered`.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  try {
    return await openInRoom(options);
  } catch (error) {
    if (error instanceof FsError) throw error;
    throw new FsError(
      errnoOf(error),
      `cannot open ${escapeName(options.stateDir)}: ${messageOf(error)}${isOutOfRoom(error) ? NO_ROOM : ''}`,
      error,
    );
  }
}

/** A quota that is used up is not seen beforehand. */
async function openInRoom(options: StoreOptions): Promise<Store> {
  const reserve = new Reserve(options.stateDir);
  try {
    return await openLocked(options, reserve);
  } catch (error) {
    if (options.readOnly || !isOutOfRoom(error) || !reserve.release()) throw error;
    return openLocked(options, reserve);
  }
}

async function openLocked(options: StoreOptions, reserve: Reserve): Promise<Store> {
  const { stateDir, log } = options;
  const readOnly = options.readOnly === true;
  if (!readOnly) makeDirectory(stateDir);
  const lock = lockStore(stateDir, readOnly);
  let opened: OpenedIndex | null = null;
  try {
    const damage = new DamageList(log);
    const { format: read, found } = readFormat(stateDir);
    const format = new FormatFile(stateDir, read, !readOnly, reserve);
    const boot = bootId();
    const recovered: Recovered = {
      created: found === 'new',
      clean: read.clean,
      uncleanBoot: found === 'whole' && !read.clean && read.bootId !== boot,
      journal: 0,
      paths: [],
      lastRecords: [],
      unfinished: [],
      torn: false,
      cutOff: false,
      indexMissing: false,
      indexDamaged: [],
      formatDamaged: found === 'damaged' || found === 'lost',
    };
    if (!readOnly) {
      reserve.releaseIfLow();
      if (found === 'damaged') damage.report('the format file', `moved to ${moveAside(stateDir, 'format')}`);
      for (const folder of folders) makeDirectory(`${stateDir}/${folder}`);
      dropTemporaries(`${stateDir}/ancestors`);
      // The other boot's stays until recoveryDone(), for a start that dies before it.
      format.write({ clean: false, bootId: recovered.uncleanBoot ? read.bootId : boot });
    }
    opened = readOnly
      ? await openIndexReadOnly(stateDir, damage)
      : await openIndex(stateDir, format, damage, found === 'new');
    recovered.indexMissing = opened.missing;
    recovered.indexDamaged = opened.damaged;
    for (const line of opened.damaged) log.warn(line);
    const store = new Store({ options, lock, reserve, format, opened, damage, recovered });
    await store.load();
    return store;
  } catch (error) {
    await opened?.index.close();
    opened?.cleanUp();
    lock.release();
    throw error;
  }
}

/** Whether a record says nothing that the origin contradicts. */
function agrees(record: PathRecord, origin: Origin, whiteout: boolean): boolean {
  const { state, fingerprint, baseSeen } = record;
  if ((state === 'W') !== whiteout || (state === 'U') !== (origin.pin !== null)) return false;
  if (fingerprint !== null) return hashFingerprint(fingerprint) === origin.fingerprint;
  return state !== 'C' || baseSeen === origin.fingerprint;
}
