// Reconciling: what is stale is looked at, by path, one look at a time for each path (or set of paths), on the
// main thread. Decisions are merge/decide.ts's, what follows from them is carry-out.ts's.
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isDirectory, type Stat } from '../lib/stat.ts';
import { type Conditions, decideSet, writes } from '../merge/decide.ts';
import { type SetKind, setOf } from '../merge/policy.ts';
import { F_RDLCK, F_UNLCK } from '../sys/constants.ts';
import { close, setLease } from '../sys/file.ts';
import { decodeOrigins, pathHash } from '../versions/origin.ts';
import type { StoredEvent } from '../versions/types.ts';
import { type Assessed, assess, isCurrent, loadContents, type View, viewOf } from './assess.ts';
import { carryOut, carryOutTogether, type Decided, noteHidden, renewOrigin } from './carry-out.ts';
import {
  AGAIN,
  base64,
  type CarryContext,
  closeConflict,
  failed,
  type Outcome,
  outcome,
  record,
  stepOf,
} from './carrying.ts';
import { followersIn, isLeft, type Place } from './left-dirs.ts';
import { MergeThread } from './merge-thread.ts';
import type { Verdict } from './node.ts';
import { isPinned, originFor, pinOf } from './origin-list.ts';
import { Settling } from './settling.ts';
import { isGone, openBase, openOverlayFile, readBase } from './sides.ts';
import { basePathOf as basePathIn, walkOverlay } from './walk-overlay.ts';

export interface ReconcilerParts extends CarryContext {
  settleMs: number;
  readOnly: boolean;
  /** The base may not be the right one: nothing is merged from now on, until a person accepts it. */
  doubt(why: string): void;
  /** Paths that the serving thread knows of the file at a path, itself among them. */
  otherNames(path: string): Promise<readonly string[]>;
  /** Tells the serving thread what came of a look; null: forget what was told. */
  verdict(path: string, verdict: Verdict | null): void;
}

export interface LookOptions {
  /** Decide, and change nothing. */
  dryRun: boolean;
  /** With dryRun: as if the base were accepted. */
  accepted?: boolean;
  /** With dryRun: as if nothing had been undone at this path. */
  unpinned?: string;
  /** By a person: what was kept of the guest's for what lay in it is judged anew. */
  asked?: boolean;
}

/** What has come of what lies in a directory that the base has removed. */
interface Beneath {
  /** None of it stays, or (dryRun) would. */
  emptied: boolean;
  /** Some of it waits: for so long, in milliseconds; 0: none. */
  waitMs: number;
}

/** Of the known origins, so many at least and so large a part must be gone for the base to be doubted. */
const VANISHED_LEAST = 100;
const VANISHED_PART = 0.1;
const VANISHED_CHECK_MS = 1000;
/** Events after which it no longer counts what the guest had before an earlier merge. */
const decisive: ReadonlySet<string> = new Set(['merged', 'dropped', 'resolved', 'undone', 'pin-lifted']);
const TRIES = 4;
const RETRY_MOVING_MS = 250;
const RETRY_FAILED_MS = 1000;

export class Reconciler {
  readonly context: CarryContext;
  readonly #parts: ReconcilerParts;
  readonly #log: Log;
  readonly #settling: Settling;
  readonly #merger: MergeThread;
  /** The last look of each path or set that is under way. */
  readonly #queues = new Map<string, Promise<unknown>>();
  /** Looks at directories whose content comes first. */
  readonly #preparing = new Set<Promise<unknown>>();
  baseState: Conditions['baseState'] = 'accepted';
  #vanishedChecked = Number.NEGATIVE_INFINITY;
  /** While it is found out whether many are gone. */
  #vanishing: Promise<void> | null = null;
  /** Had gone from the base when a person accepted it. */
  readonly #excused = new Set<string>();

  constructor(parts: ReconcilerParts) {
    this.context = parts;
    this.#parts = parts;
    this.#log = parts.log;
    this.#settling = new Settling(parts.settleMs);
    this.#merger = new MergeThread(parts.log);
  }

  /** Runs `work` when no other look at the path (or its set) is under way. */
  exclusively<T>(path: string, work: () => Promise<T>): Promise<T> {
    const key = setOf(path)?.id ?? path;
    const before = this.#queues.get(key) ?? Promise.resolve();
    const run = before.then(work, work);
    this.#queues.set(key, run);
    const done = () => {
      if (this.#queues.get(key) === run) this.#queues.delete(key);
    };
    run.then(done, done);
    return run;
  }

  /** Looks at a path, with its set; the outcome of the path itself. Never rejects: failures are outcomes. */
  look(path: string, basePath: string, options: LookOptions = { dryRun: false }): Promise<Outcome> {
    const place = { path, basePath };
    if (!isLeft(this.#parts.branches, place)) return this.#lookAlone(place, options, null);
    const look = this.#lookInto(place, options).then((beneath) => this.#lookAlone(place, options, beneath));
    this.#preparing.add(look);
    return look.finally(() => this.#preparing.delete(look));
  }

  /** A directory that the base has removed: what lies in it comes first, and not while it is itself looked at. */
  async #lookInto(dir: Place, options: LookOptions): Promise<Beneath> {
    const stays = { emptied: false, waitMs: 0 };
    const followers = this.#isKept(dir.path, '', options) ? null : followersIn(this.#parts.branches, dir);
    if (followers === null) return stays;
    let waitMs = 0;
    for (const entry of followers) {
      const done = await this.look(entry.path, entry.basePath, options);
      if (done.outcome === 'pending') waitMs = Math.max(waitMs, done.retryMs ?? RETRY_FAILED_MS);
      else if (done.outcome !== 'dropped') return stays;
    }
    return { emptied: true, waitMs };
  }

  /** The guest had something in it when the base removed it: it does not go when the guest takes that away. */
  #isKept(path: string, fingerprint: string, { asked = false }: LookOptions): boolean {
    const record = this.#parts.store.paths.get(path);
    return !asked && record?.state === 'K' && record.baseSeen === fingerprint;
  }

  /** `beneath`: of a directory that the base has removed, else null. */
  #lookAlone(place: Place, options: LookOptions, beneath: Beneath | null): Promise<Outcome> {
    const { path, basePath } = place;
    return this.exclusively(path, async () => {
      try {
        const set = beneath === null ? setOf(path) : null;
        const members = set === null ? [] : (set.members ?? (await this.#beneath(set.id)));
        if (set !== null && members.length > 1) {
          return await this.#lookAtSet(path, basePath, set.kind, members, options);
        }
        return await this.#lookAt(place, options, beneath);
      } catch (error) {
        const detail = messageOf(error);
        this.#log.error(`${path}: ${error instanceof FsError ? detail : (error as Error).stack}`);
        if (!options.dryRun) this.#tell(path, null, { retryMs: RETRY_FAILED_MS });
        return { outcome: 'failed', detail, retryMs: null };
      }
    });
  }

  /** All that waits for looks is done. */
  async idle(): Promise<void> {
    while (this.#queues.size + this.#preparing.size > 0)
      await Promise.allSettled([...this.#queues.values(), ...this.#preparing]);
  }

  async #lookAt(place: Place, options: LookOptions, beneath: Beneath | null): Promise<Outcome> {
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const done = await unlessMoving(() => this.#lookOnce(place, options, beneath));
      if (done !== AGAIN) return done;
    }
    return this.#keepsChanging(place.path);
  }

  async #lookOnce(
    { path, basePath }: Place,
    options: LookOptions,
    beneath: Beneath | null,
  ): Promise<Outcome | typeof AGAIN> {
    const view = await viewOf(this.#assessContext, path, basePath);
    if (view.overlay.state !== 'object') return this.#absent(view, options);
    if (view.base.object === null && view.overlay.origin !== null) await this.#doubtIfVanished(view.path);
    if (!options.dryRun && (await this.#pinIfPutBack(view))) return AGAIN;
    view.emptied = options.dryRun && beneath?.emptied === true;
    const done =
      (await this.#lookAtDirectory(view, options)) ??
      (isCurrent(view)
        ? await this.#keep(view, options)
        : await this.#decide(view, options, beneath?.waitMs ?? 0));
    if (done !== AGAIN && !options.dryRun) await this.#settled(view, done);
    return done;
  }

  /** Directories of overlay and base are one, and the guest's own is nobody's business; null: anything else. */
  async #lookAtDirectory(view: View, options: LookOptions): Promise<Outcome | typeof AGAIN | null> {
    const { path, base, overlay } = view;
    if (overlay.object === null || !isDirectory(overlay.object.stat.mode)) return null;
    if (base.object !== null) {
      return isDirectory(base.object.stat.mode) ? this.#follow(view, options) : null;
    }
    const { store } = this.#parts;
    if (this.#isKept(path, base.fingerprint, options)) return outcome('kept', store.paths.get(path)?.detail);
    if (overlay.origin !== null || overlay.foreignCopy || store.conflicts.of(path) !== null) return null;
    if (!options.dryRun) store.paths.delete(path);
    return outcome('current');
  }

  /** The base has the directory again, if it ever was gone: what was decided then is over. */
  async #follow(view: View, { dryRun }: LookOptions): Promise<Outcome | typeof AGAIN> {
    const { store } = this.#parts;
    if (dryRun) return outcome('current');
    const { origin, origins } = view.overlay;
    if (origin !== null && origin.pin !== null) {
      const list = origins.map((one) => (one === origin ? { ...origin, pin: null } : one));
      const result = await this.context.commit(stepOf(view, 'origins', { origins: base64(list) }));
      if (result < 0) return failed(this.context, view, result);
    }
    if (store.conflicts.of(view.path)?.overlay !== null) closeConflict(this.context, view, 'withdrawn');
    store.paths.delete(view.path);
    return outcome('current');
  }

  /** Once whoever writes to it has closed it, it is looked at again without further waiting. */
  #keepsChanging(path: string): Outcome {
    const found: Outcome = {
      outcome: 'pending',
      detail: 'it keeps changing',
      retryMs: RETRY_MOVING_MS,
      writer: true,
    };
    this.#tell(path, null, found);
    return found;
  }

  /** Nothing has moved, whatever was thought of it before. */
  async #keep(view: View, options: LookOptions): Promise<Outcome | typeof AGAIN> {
    if (options.dryRun) return { outcome: 'current', detail: '', retryMs: null };
    return renewOrigin(this.context, view, 'current');
  }

  async #decide(view: View, options: LookOptions, beneathMs: number): Promise<Outcome | typeof AGAIN> {
    const { assessed, waitMs } = await this.#assess(view, options, beneathMs);
    if (options.dryRun) return planned(assessed);
    const others = writes(assessed.decision) ? await this.#otherNames(view) : [];
    if (others.length === 0) return carryOut(this.context, assessed, waitMs);
    const decided = [{ assessed, waitMs }];
    for (const other of others) {
      const one = await this.#assess(other, options);
      if (one.assessed.decision.do === assessed.decision.do) decided.push(one);
    }
    const [own = AGAIN, ...rest] = await carryOutTogether(this.context, decided, true);
    for (const [i, done] of rest.entries()) {
      const { assessed: one } = decided[i + 1] as Decided;
      if (done !== AGAIN) await this.#settled(one.view, done);
    }
    return own;
  }

  /** The names that are one file with this one, whose base objects were one and are one. */
  async #otherNames(view: View): Promise<View[]> {
    const { overlay } = this.#parts.branches;
    const { object, origin, origins } = view.overlay;
    if (object === null || origin === null || origins.length < 2 || object.stat.nlink < 2) return [];
    const hashes = new Set(origins.map((one) => one.path));
    const names = new Set(await this.#parts.otherNames(view.path));
    for await (const { path } of this.#parts.store.paths.under('')) {
      if (hashes.has(pathHash(path))) names.add(path);
    }
    names.delete(view.path);
    const found: View[] = [];
    for (const name of names) {
      const other = await viewOf(this.#assessContext, name, basePathIn(overlay, name));
      const one = other.overlay.object?.stat.ino === object.stat.ino;
      const was = other.overlay.origin?.fingerprint === origin.fingerprint;
      if (one && was && other.base.fingerprint === view.base.fingerprint) found.push(other);
    }
    return found;
  }

  /** Wholly or not at all. */
  async #lookAtSet(
    path: string,
    basePath: string,
    kind: SetKind,
    members: readonly string[],
    options: LookOptions,
  ): Promise<Outcome> {
    let own: Outcome = { outcome: 'current', detail: '', retryMs: null };
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const views = await this.#viewsOf(members, path, basePath);
      const absent = views.filter((view) => view.overlay.state !== 'object');
      for (const view of absent) if (view.path === path) own = this.#absent(view, options);
      const present = views.filter((view) => view.overlay.state === 'object');
      if (present.every(isCurrent)) {
        for (const view of present) await this.#keep(view, options);
        return own;
      }
      const found: { assessed: Assessed; waitMs: number }[] = [];
      for (const view of present) {
        const one = await unlessMoving(() => this.#assess(view, options));
        if (one !== AGAIN) found.push(one);
      }
      if (found.length < present.length) continue;
      const decisions = decideSet(
        kind,
        found.map(({ assessed }) => assessed.look),
        absent.some((view) => view.overlay.state === 'whiteout'),
      );
      const decided = found.map((one, i) => ({
        ...one,
        assessed: { ...one.assessed, decision: decisions[i] ?? one.assessed.decision },
      }));
      const outcomes = options.dryRun
        ? decided.map(({ assessed }) => planned(assessed))
        : await unlessMoving(() => carryOutTogether(this.context, decided));
      if (outcomes === AGAIN) continue;
      let again = false;
      for (const [i, { assessed }] of decided.entries()) {
        const done = outcomes[i] ?? AGAIN;
        if (done === AGAIN) {
          again = true;
          continue;
        }
        if (!options.dryRun) await this.#settled(assessed.view, done);
        if (assessed.view.path === path) own = done;
      }
      if (!again) return own;
    }
    return this.#keepsChanging(path);
  }

  async #viewsOf(members: readonly string[], path: string, basePath: string): Promise<View[]> {
    const views: View[] = [];
    for (const member of members) {
      views.push(await viewOf(this.#assessContext, member, basePathOf(member, path, basePath)));
    }
    return views;
  }

  /**
   * A base file is gone. When the base itself is, or many at once, this is no update but the wrong base (or none,
   * between umount and mount): nothing is taken for deleted then. Looks that meet while it is found out wait.
   */
  async #doubtIfVanished(missed: string): Promise<void> {
    if (this.baseState !== 'accepted' || this.#excused.has(missed)) return;
    this.#vanishing ??= this.#lookForVanished().finally(() => {
      this.#vanishing = null;
    });
    await this.#vanishing;
  }

  async #lookForVanished(): Promise<void> {
    const { branches } = this.#parts;
    const now = performance.now();
    let known = 0;
    let gone = 0;
    if (now - this.#vanishedChecked >= VANISHED_CHECK_MS) {
      this.#vanishedChecked = now;
      for await (const path of this.#knownPaths()) {
        if (this.#excused.has(path)) continue;
        known += 1;
        if (readBase(branches, path).object === null) gone += 1;
      }
    }
    const many = gone >= VANISHED_LEAST && gone > known * VANISHED_PART;
    if (many) this.#parts.doubt(`${gone} of ${known} known files have gone from it at once`);
    else if (branches.layers.some((layer) => isGone(layer))) this.#parts.doubt('it is gone or empty');
  }

  /** A person takes the base as it is: what has gone from it by now, has. */
  async acceptBase(): Promise<void> {
    this.#excused.clear();
    for await (const path of this.#knownPaths()) {
      if (readBase(this.#parts.branches, path).object === null) this.#excused.add(path);
    }
    this.baseState = 'accepted';
  }

  /** What the base had when it was last looked at. */
  async *#knownPaths(): AsyncGenerator<string> {
    for await (const record of this.#parts.store.paths.under('')) {
      if (record.baseSeen !== '') yield record.path;
    }
  }

  /** What the overlay has beneath a directory, for a set that is all of it. */
  async #beneath(dir: string): Promise<string[]> {
    const paths: string[] = [];
    for await (const entry of walkOverlay(this.#parts.branches.overlay, dir)) {
      if (entry.kind === 'object') paths.push(entry.path);
    }
    return paths;
  }

  get #assessContext() {
    const { branches, store, osTree } = this.#parts;
    return { branches, store, osTree };
  }

  /** `beneathMs`: what lies in it waits so long. */
  async #assess(view: View, options: LookOptions, beneathMs = 0): Promise<Decided> {
    const { store } = this.#parts;
    const lastMerges = store.paths.get(view.path)?.lastMerges ?? [];
    const open = () => openBase(this.#parts.branches, view.basePath);
    const ownMs = this.#settling.wait(view.path, view.base, lastMerges, open);
    const waitMs = Math.max(ownMs, beneathMs);
    const conditions: Conditions = {
      baseState: options.accepted ? 'accepted' : this.baseState,
      settled: waitMs === 0,
      writer: this.#hasWriter(view),
      setReady: true,
      overlayWritable: this.#parts.readOnly ? 'read-only' : 'yes',
      underOpaque: view.overlay.underOpaque,
      locked: false,
    };
    const pinned = options.unpinned === view.path ? null : await this.#pinned(view);
    return { assessed: await assess(this.#assessContext, view, conditions, pinned, this.#merger), waitMs };
  }

  /** The serving thread asks again in the last step; this spares the work. */
  #hasWriter(view: View): boolean {
    const fd = openOverlayFile(this.#parts.branches, view.path);
    if (fd < 0) return false;
    const lease = setLease(fd, F_RDLCK);
    if (lease === 0) setLease(fd, F_UNLCK);
    close(fd);
    return lease === -E.EAGAIN || lease === -E.EBUSY;
  }

  /** Was something undone here, by a person or by a guest that put the bytes of before a merge back? */
  async #pinned(view: View): Promise<'at-pin' | 'past-pin' | null> {
    const { origin } = view.overlay;
    if (origin === null) return null;
    const pin = origin.pin ?? (await this.#putBack(view))?.undo?.pin ?? null;
    if (pin === null) return null;
    if (isPinned(pin, view.base.fingerprint)) return 'at-pin';
    await loadContents(this.#assessContext, view);
    const content = view.base.object?.content ?? null;
    return content !== null && content === pin.content ? 'at-pin' : 'past-pin';
  }

  /**
   * The last merge, if the guest has put back exactly the bytes that it had before. A writer that had not seen the
   * merge has set the origin back, and undoes nothing.
   */
  async #putBack(view: View): Promise<StoredEvent | null> {
    const { store } = this.#parts;
    if ((store.paths.get(view.path)?.lastMerges.length ?? 0) === 0) return null;
    let last: StoredEvent | null = null;
    for await (const event of store.events.of(view.path)) {
      if (event.path === view.path && decisive.has(event.kind)) last = event;
    }
    if (last?.kind !== 'merged' || last.undone !== 0 || last.undo?.version == null) return null;
    if (view.overlay.origin?.content !== last.undo.pin?.content) return null;
    const before = store.versions.get(view.path, last.undo.version);
    if (before?.content == null || last.undo.after.startsWith(before.content)) return null;
    await loadContents(this.#assessContext, view);
    return view.overlay.object?.content === before.content ? last : null;
  }

  /** What a guest has undone by itself is undone: the origin of before, and the pin. Whether that was so. */
  async #pinIfPutBack(view: View): Promise<boolean> {
    const { origin, origins } = view.overlay;
    const last = origin === null || origin.pin !== null ? null : await this.#putBack(view);
    if (last === null || last.undo?.pin == null || last.undo.origin === null) return false;
    const list = decodeOrigins(Buffer.from(last.undo.origin, 'base64')) ?? [];
    const own = originFor(list, view.basePath);
    if (own === null) return false;
    const { fingerprint, content } = last.undo.pin;
    const pinned = { ...own, ino: origin?.ino ?? 0, pin: pinOf(fingerprint, content) };
    const others = origins.filter((one) => one !== origin);
    const step = stepOf(view, 'origins', { base: null, origins: base64([...others, pinned]) });
    if ((await this.context.commit(step)) < 0) return false;
    const detail = `the guest has put back what it had before event ${last.seq} (merged)`;
    const seq = this.#parts.store.events.add({ kind: 'undone', path: view.path, detail });
    this.#parts.store.events.markUndone(last.seq, seq);
    record(this.context, view, 'U', detail, seq, false);
    return true;
  }

  /** The guest has removed the object; a conflict about it is over. */
  #absent(view: View, options: LookOptions): Outcome {
    const { store } = this.#parts;
    if (view.overlay.state === 'whiteout' && !options.dryRun && this.baseState === 'accepted') {
      noteHidden(this.context, view);
    }
    const open = store.conflicts.of(view.path);
    // One about what was displaced never had an object.
    if (open !== null && open.overlay !== null && !options.dryRun) {
      const detail = 'the guest has removed the file';
      const seq = store.events.add({ kind: 'resolved', path: view.path, conflict: open.id, detail });
      store.conflicts.close(open.id, { how: 'removed', take: '', seq });
    }
    return { outcome: 'current', detail: '', retryMs: null };
  }

  /** Remembers that this version of the base was looked at, and tells the serving thread. */
  async #settled(view: View, done: Outcome): Promise<void> {
    const { store } = this.#parts;
    const base = view.base.object;
    if (done.outcome !== 'pending' && base !== null && base.content !== null) {
      const { ctimeSec, ctimeNsec } = base.stat;
      // A fingerprint as young as the clock's granularity may hide a later change; and while it was read, the file
      // may have come to be another.
      const still = readBase(this.#parts.branches, view.basePath).fingerprint === view.base.fingerprint;
      if (still && Date.now() - (ctimeSec * 1000 + ctimeNsec / 1e6) > 100) {
        store.hashes.set(view.base.fingerprint, base.content);
      }
    }
    if (done.outcome !== 'pending' && done.outcome !== 'kept' && done.outcome !== 'conflict') {
      this.#parts.verdict(view.path, null);
      return;
    }
    const now = await viewOf(this.#assessContext, view.path, view.basePath);
    const stat = now.overlay.object?.stat ?? null;
    if (stat === null) this.#parts.verdict(view.path, null);
    else this.#tell(view.path, stat, done, view.base.fingerprint);
  }

  /** Tells the serving thread what holds until either side moves or the time has come; without sides, for that time. */
  #tell(
    path: string,
    stat: Pick<Stat, 'ino' | 'ctimeSec' | 'ctimeNsec'> | null,
    { retryMs, writer = false }: Pick<Outcome, 'retryMs' | 'writer'>,
    fingerprint = '',
  ): void {
    this.#parts.verdict(path, {
      overlayIno: stat?.ino ?? 0,
      overlayCtimeSec: stat?.ctimeSec ?? 0,
      overlayCtimeNsec: stat?.ctimeNsec ?? 0,
      fingerprint,
      retryMs: retryMs ?? Number.POSITIVE_INFINITY,
      writer,
    });
  }
}

/** AGAIN where a side has moved while it was read. */
async function unlessMoving<T>(work: () => Promise<T>): Promise<T | typeof AGAIN> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof FsError && error.errno === E.EAGAIN) return AGAIN;
    throw error;
  }
}

/** The base's path of a member of the set that `path` is in: a redirect can only lie above both. */
function basePathOf(member: string, path: string, basePath: string): string {
  let tail = 0;
  while (tail < path.length && tail < basePath.length && path.at(-1 - tail) === basePath.at(-1 - tail))
    tail += 1;
  const above = path.slice(0, path.length - tail);
  return member.startsWith(above)
    ? basePath.slice(0, basePath.length - tail) + member.slice(above.length)
    : member;
}

/** What carrying a decision out would come to. */
function planned(assessed: Assessed): Outcome {
  const { decision } = assessed;
  const detail =
    decision.do === 'conflict' || decision.do === 'pending'
      ? decision.reason
      : decision.do === 'kept'
        ? decision.detail
        : '';
  const outcomes = {
    current: 'current',
    pinned: 'current',
    pending: 'pending',
    kept: 'kept',
    drop: 'dropped',
    adopt: 'adopted',
    'take-base': 'merged',
    'merge-text': 'merged',
    metadata: 'merged',
    displace: 'conflict',
    conflict: 'conflict',
  } as const;
  const kind = decision.do === 'conflict' ? decision.kind : decision.do === 'displace' ? 'type' : null;
  return { outcome: outcomes[decision.do], detail, retryMs: null, ...(kind === null ? {} : { kind }) };
}
