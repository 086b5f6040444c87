// A mount from its beginning to its end: opens the branches and the store, mounts, starts the serving worker,
// answers verbs, and takes everything down in order. The only place where the parts are wired.
import type { Worker } from 'node:worker_threads';
import { latencyBuckets } from '../control/metrics.ts';
import type { MountOptions, ReadyMessage } from '../control/mount-options.ts';
import {
  ensureRuntimeDir,
  newRegistration,
  removeRegistration,
  runtimePaths,
  writeRegistration,
} from '../control/registry.ts';
import { createControlServer } from '../control/server.ts';
import { createControlTree } from '../control/tree.ts';
import type { Verbs } from '../control/verbs.ts';
import { defaultWishes } from '../fuse/init.ts';
import { exportNote } from '../guest/nfs-export.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { type Log, type LogConfig, makeLog } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import { raiseMostOpenFiles } from '../sys/creds.ts';
import { close, liesInMemory } from '../sys/file.ts';
import { exitNow } from '../sys/process.ts';
import { Copies } from '../union/copies.ts';
import { readVersion } from '../union/job-runner.ts';
import type { Verdict } from '../union/node.ts';
import { Reconciler } from '../union/reconcile.ts';
import type { Witness } from '../union/witness.ts';
import { isOutOfRoom } from '../versions/files.ts';
import { openStore, type Store } from '../versions/store.ts';
import { BaseExchange } from './base-exchange.ts';
import {
  backingDepth,
  doubtNote,
  minorNotes,
  type OpenBranches,
  openLayers,
  openState,
  overlayIsGone,
  protectionNotes,
  rememberAttributes,
  rememberBases,
  rememberedMinor,
  stackNotes,
  stateDirOf,
  submountNotes,
  whiteoutNotes,
} from './branches.ts';
import { ChangeList } from './change-list.ts';
import type { MountContext } from './context.ts';
import { Folding } from './folding.ts';
import { limitNotes } from './limits.ts';
import type { ServingStart } from './messages.ts';
import { happened, neededAncestors, recover } from './recovery.ts';
import { Telling } from './telling.ts';
import { openTransport, type Transport } from './transport.ts';
import { createVerbs } from './verbs.ts';
import { WorkerLink } from './worker-link.ts';

const NODE_BLOCK = 1_000_000;
/** A verdict that holds for nothing. */
const unseen: Verdict = {
  overlayIno: 0,
  overlayCtimeSec: 0,
  overlayCtimeNsec: 0,
  fingerprint: '',
  retryMs: 0,
  writer: false,
};
/** When ancestors are looked through for those that nothing needs. */
const FIRST_SWEEP_MS = 15 * 60_000;
const SWEEP_MS = 6 * 3_600_000;

/** Ends the process when the mount ends; rejects where it cannot begin. */
export async function runDaemon(
  options: MountOptions,
  ready: (message: ReadyMessage) => void,
  logFd: number,
  thread: Worker | null,
): Promise<never> {
  const logConfig: LogConfig = { fd: logFd, level: options.debug ? 'debug' : 'info', prefix: 'main' };
  dieOfMistakes(makeLog(logConfig));
  // Also where the mount is refused: the serving thread may still be loading its modules.
  process.once('exit', exitNow);
  const session = await Session.start(options, logConfig, thread);
  ready({ ready: true, notes: session.notesAtStart });
  process.exit(await session.run());
}

/**
 * What nobody has caught on this thread ends the process at once, as by kill -9, which every mount recovers from. Node
 * alone would first wait for the serving worker, which sleeps until somebody asks it for something; and the kernel would
 * keep what it knows, with nobody to tell it of changes.
 */
function dieOfMistakes(log: Log): void {
  process.on('uncaughtException', (error) => {
    log.error(`the daemon dies of a mistake of its own: ${error.stack ?? error.message}`);
    process.kill(process.pid, 'SIGKILL');
  });
}

class Session {
  readonly #options: MountOptions;
  readonly #log: Log;
  readonly #store: Store;
  readonly #branches: OpenBranches;
  readonly #reconciler: Reconciler;
  readonly #link: WorkerLink;
  readonly #transport: Transport;
  readonly #telling: Telling;
  readonly #folding: Folding;
  readonly #base: BaseExchange;
  readonly #changes: ChangeList;
  readonly #verbs: Verbs;
  readonly notes: string[];
  readonly #looking = new Set<string>();
  readonly #copies = new Copies();
  #generation = 0;
  #readOnlyNodes = Date.now() * 1024;

  static async start(options: MountOptions, logConfig: LogConfig, thread: Worker | null): Promise<Session> {
    const log = makeLog(logConfig);
    const raised = raiseMostOpenFiles();
    if (raised < 0 && raised !== -E.EPERM) log.warn(`no more descriptors can be had: ${errnoName(raised)}`);
    const opened = openLayers(options);
    const stateDir = stateDirOf(options);
    const store = await openStore({
      stateDir,
      log,
      readOnly: options.readOnly,
      happened: (record) => happened(opened.overlay, record),
    });
    try {
      const branches = openState(opened, stateDir, options.readOnly);
      const notes = await recover(store, branches, log);
      if (!options.readOnly) {
        rememberBases(stateDir, options);
        rememberAttributes(stateDir, branches.overlay);
      }
      return await Session.#mount(options, logConfig, thread, branches, store, notes);
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  static async #mount(
    options: MountOptions,
    logConfig: LogConfig,
    thread: Worker | null,
    branches: OpenBranches,
    store: Store,
    notes: string[],
  ): Promise<Session> {
    const before = options.export === 'off' ? null : rememberedMinor(branches.stateDir);
    const transport = openTransport(options, branches.rights.actsForOthers, before, logConfig, thread);
    try {
      if (options.export !== 'off') notes.push(...minorNotes(options, branches.stateDir, before));
      const session = new Session(options, logConfig, branches, store, notes, transport);
      await session.#serve();
      return session;
    } catch (error) {
      await transport.unmount(true);
      throw error;
    }
  }

  private constructor(
    options: MountOptions,
    logConfig: LogConfig,
    branches: OpenBranches,
    store: Store,
    notes: string[],
    transport: Transport,
  ) {
    this.#options = options;
    this.#log = makeLog(logConfig);
    this.#store = store;
    this.#branches = branches;
    this.notes = notes;
    this.#transport = transport;
    this.#telling = new Telling(options, branches, transport, notes, this.#log, () => this.#link);
    notes.push(
      ...transport.notes,
      ...submountNotes(branches.layers),
      ...protectionNotes(branches.layers),
      ...whiteoutNotes(branches.overlay),
      ...stackNotes(branches),
      ...limitNotes(options, branches),
    );
    if (options.export !== 'off') notes.push(exportNote(options.export === 'nfs4'));
    this.#base = new BaseExchange({
      options,
      branches,
      store,
      log: this.#log,
      notes,
      reconciler: () => this.#reconciler,
      link: () => this.#link,
      layerComes: (fresh, old) => this.#telling.watcher?.layerComes(fresh, old),
    });
    this.#reconciler = this.#newReconciler();
    if (this.#base.doubt !== null) this.#reconciler.acceptance.state = 'unaccepted';
    this.#link = this.#newLink(logConfig);
    // What the control directory shows may be out of date then.
    const failed = () => {
      this.#generation += 1;
    };
    const ask = (settleMs: number) => this.#link.changes(settleMs);
    this.#changes = new ChangeList(store, options.settleMs, ask, this.#log);
    this.#folding = new Folding(store, () => this.#link.rotate(), failed, this.#log);
    this.#verbs = createVerbs(this.#newContext());
  }

  #newReconciler(): Reconciler {
    const { overlay, layers, workFd, displacedFd, linksFd, rights, standIn, osTree } = this.#branches;
    let temp = 0;
    return new Reconciler({
      branches: { overlay, layers, standIn },
      store: this.#store,
      shop: {
        workFd,
        overlay,
        metacopy: this.#options.metacopy && rights.privileged,
        lenient: !rights.privileged,
        volatile: this.#options.volatile,
        log: this.#log,
      },
      osTree,
      log: this.#log,
      displacedFd,
      linksFd,
      settleMs: this.#options.settleMs,
      readOnly: this.#options.readOnly,
      isOver: () => this.#link.isOver,
      tempName: () => `m-${temp++}`,
      caughtUp: () => this.#folding.fold(),
      commit: (...requests) => this.#link.commit(requests),
      doubt: (why) => this.#base.disbelieve(why),
      otherNames: (path) => this.#link.names(path),
      verdict: (path, verdict) => this.#link.send({ kind: 'verdict', path, verdict }),
    });
  }

  #newLink(logConfig: LogConfig): WorkerLink {
    const options = this.#options;
    const { overlay, layers, workFd, linksFd, stateFd, rights, osTree } = this.#branches;
    const { privileged, actsForOthers } = rights;
    const { coherence, watcher, notifier, announcer } = this.#telling;
    const start: ServingStart = {
      overlay,
      layers,
      workFd,
      linksFd,
      stateFd,
      config: {
        privileged,
        actsForOthers,
        readOnly: options.readOnly,
        volatile: options.volatile || liesInMemory(workFd),
        redirectDir: options.redirectDir,
        metacopy: options.metacopy && privileged,
        mergesLive: options.export !== 'on',
        osTree,
        copyUpLimit: options.copyUpLimit ?? Number.POSITIVE_INFINITY,
        keeping: coherence.keeping,
        keepSeconds: coherence.seconds,
      },
      log: { ...logConfig, prefix: 'serve' },
      debug: options.debug,
      owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      buckets: latencyBuckets,
      wishes: {
        ...defaultWishes,
        killPriv: true,
        exportSupport: options.export !== 'off',
        readdirplus: coherence.keeping === 'none' ? 'off' : 'always',
        locks: privileged && options.export === 'off' && !options.readOnly,
        backingDepth: privileged ? backingDepth(this.#branches) : 0,
      },
      watcher: watcher?.spec ?? null,
      manyAt: watcher?.manyAt ?? Number.POSITIVE_INFINITY,
      notifier: notifier?.end ?? null,
      announcer: announcer?.contact ?? null,
      nodes: this.#reserveNodes(),
      baseAccepted: this.#base.doubt === null,
      numbers: this.#store.numbers.known,
      exported: options.export !== 'off',
      stateDir: options.readOnly ? null : this.#branches.stateDir,
    };
    const { ancestors } = this.#store;
    const { origins } = overlay;
    const jobs = { ancestors, origins, log: this.#log, privileged, copies: this.#copies };
    return new WorkerLink(this.#transport.serve(start), jobs, {
      look: (path) => this.#look(path),
      noticed: (path) => this.#noticed(path),
      remember: (path, fingerprint, fd, witness) =>
        // Before any look at the path, which would find no ancestor.
        void this.#reconciler.exclusively(path, () => this.#remember(path, fingerprint, { fd, witness })),
      renamed: () => void this.#folding.fold(),
      announce: () => this.#telling.announcer?.start(),
      baseStirs: () => this.#changes.stirs(),
      deaf: (error) => this.#telling.deaf(error),
      manyWatches: (full) => this.#telling.watcher?.tooMany(full),
      baseMoved: (index) => void this.#base.reopen(index),
      reserveNodes: () => this.#reserveNodes(),
    });
  }

  #newContext(): MountContext {
    const base = this.#base;
    return {
      options: this.#options,
      branches: this.#branches,
      store: this.#store,
      reconciler: this.#reconciler,
      log: this.#log,
      notes: this.notes,
      mounted: { pid: process.pid, started: Date.now(), keepsAwake: this.#transport.keepsAwake },
      get doubt() {
        return base.doubt;
      },
      bringUpToDate: () => this.#folding.fold(),
      counts: () => this.#link.counts(),
      copies: this.#copies,
      coherence: () => this.#telling.coherence,
      watcher: () => this.#telling.watcher?.report() ?? null,
      acceptBase: () => base.accept(),
      stop: () => this.#stop(),
    };
  }

  #reserveNodes(): { from: number; to: number } {
    // A read-only mount cannot reserve: its numbers lie above all that are, and further up with each start.
    if (this.#store.readOnly) {
      const from = this.#readOnlyNodes;
      this.#readOnlyNodes += NODE_BLOCK;
      return { from, to: this.#readOnlyNodes };
    }
    // The kernel's root has the id 1.
    const [from, to] = this.#store.reserveNodeIds(NODE_BLOCK);
    return { from: from + 2, to: to + 2 };
  }

  async #serve(): Promise<void> {
    this.#telling.begin(await this.#link.serving);
    // An open conflict may be over by now: the next access looks.
    for (const { path } of this.#store.conflicts.all())
      this.#link.send({ kind: 'verdict', path, verdict: unseen });
    const { mountPoint } = this.#options;
    ensureRuntimeDir();
    this.#store.events.subscribe(() => {
      this.#generation += 1;
    });
    const warn = (message: string) => this.#log.warn(message);
    this.#link.setControl(
      createControlTree({
        verbs: this.#verbs,
        generation: () => this.#generation + this.#copies.changes,
        now: Date.now,
        warn,
      }),
    );
    const { bases, overlay } = this.#options;
    const server = await createControlServer({
      verbs: this.#verbs,
      socketPath: runtimePaths(mountPoint).socket,
      warn,
    });
    this.#closeServer = () => server.close();
    writeRegistration(newRegistration({ mountPoint, bases, overlay, state: this.#branches.stateDir }));
    this.#store.keepReserve();
    for (const path of this.#store.recovered.unfinished) {
      this.#noticed(path);
    }
  }

  #closeServer: () => Promise<void> = async () => {};

  /** For whoever mounts. A doubt about the base comes and goes: status adds it. */
  get notesAtStart(): string[] {
    const { doubt } = this.#base;
    return doubt === null ? this.notes : [...this.notes, doubtNote(doubt)];
  }

  /** Until the mount is gone; the process's exit code. */
  async run(): Promise<number> {
    this.#folding.startTimer();
    const places = this.#base.startTimer();
    const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
    const onSignal = (signal: NodeJS.Signals) => {
      this.#log.info(`${signal}: unmounting`);
      void this.#unmountAnyway();
    };
    for (const signal of signals) process.on(signal, onSignal);
    if (this.#base.isNewTree || this.#options.export === 'on') this.#compareAll();
    const sweeper = this.#sweepLater(FIRST_SWEEP_MS);
    const { how, journal } = await this.#link.ended;
    const orderly = how === 'unmounted' || how === 'aborted';
    this.#telling.end(orderly);
    places.stop();
    this.#changes.stop();
    sweeper.stop();
    this.#log.info(`${escapeName(this.#options.mountPoint)}: ${how}`);
    await this.#finish(journal);
    for (const signal of signals) process.removeListener(signal, onSignal);
    return orderly ? 0 : 1;
  }

  /**
   * No fingerprint of another tree is trusted: everything is compared by content, in the background. And with
   * --export nothing is looked at when it is met, so it is looked at now.
   */
  #compareAll(): void {
    this.#verbs
      .reconcile({ path: '', dryRun: false, acceptBase: false }, () => {})
      .then(
        (report) => this.#log.info(`${report.looked} copies looked at, ${report.merged} merged`),
        (error: unknown) => this.#log.error(`looking at all copies: ${messageOf(error)}`),
      );
  }

  async #dropAncestors(): Promise<void> {
    const needed = await neededAncestors(this.#store, this.#branches);
    if (needed === null) {
      this.#log.warn('ancestors are kept, needed or not: not all origins can be read');
      return;
    }
    const { removed, bytes } = await this.#store.gc(needed);
    if (removed > 0) this.#log.info(`${removed} ancestors (${bytes} bytes) were needed no more`);
  }

  /** Ancestors that nothing needs any more go, now and then. */
  #sweepLater(afterMs: number): { stop(): void } {
    let timer = setTimeout(() => void sweep(), afterMs);
    const sweep = async () => {
      try {
        await this.#dropAncestors();
      } catch (error) {
        this.#log.error(`dropping ancestors: ${messageOf(error)}`);
      }
      timer = setTimeout(() => void sweep(), SWEEP_MS);
      timer.unref();
    };
    timer.unref();
    return { stop: () => clearTimeout(timer) };
  }

  async #finish(journal: string): Promise<void> {
    await this.#closeServer();
    await this.#reconciler.idle();
    await this.#folding.stop();
    try {
      this.#store.useReserve();
      // No name comes or goes from now on: whoever removes the overlay just after unmounting would meet with it.
      if (journal !== '') await this.#foldLast(journal);
      await this.#store.close();
    } catch (error) {
      if (!overlayIsGone(this.#branches)) throw error;
      this.#log.info('the overlay was removed meanwhile');
    }
    removeRegistration(this.#options.mountPoint);
  }

  /** What there is no room for is folded at the next start. */
  async #foldLast(journal: string): Promise<void> {
    try {
      await this.#store.foldJournal(journal, true);
    } catch (error) {
      if (!isOutOfRoom(error)) throw error;
      this.#log.warn(`folding the journal: ${messageOf(error)}`);
    }
  }

  async #look(path: string): Promise<void> {
    // First what the guest has done: an older note is not to cover the record of this look, nor to follow it.
    await this.#folding.fold();
    await this.#reconciler.look(path);
  }

  #noticed(path: string): void {
    if (this.#looking.has(path)) return;
    this.#looking.add(path);
    this.#look(path)
      .catch((error: unknown) => this.#log.error(`${escapeName(path)}: ${messageOf(error)}`))
      .finally(() => this.#looking.delete(path));
  }

  /** Hashes what a whiteout hides, or what was too large to be hashed at copy-up, and keeps texts as ancestors. */
  async #remember(
    path: string,
    fingerprint: string,
    version: { fd: number; witness: Witness },
  ): Promise<void> {
    try {
      const { osTree } = this.#branches;
      const context = { ancestors: this.#store.ancestors, log: this.#log };
      // However long it takes, but nobody who unmounts waits for it.
      const wanted = () => !this.#link.isOver;
      const content = await readVersion(context, version, { path, osTree }, Number.POSITIVE_INFINITY, wanted);
      if (content === '') return;
      this.#store.hashes.set(fingerprint, content);
      this.#link.send({ kind: 'fill', path, fingerprint, content });
    } catch (error) {
      this.#log.warn(`${escapeName(path)}: what the base has there is not kept: ${messageOf(error)}`);
    } finally {
      close(version.fd);
    }
  }

  /** While the announcer is in the mount, that is in use. */
  async #unmount(): Promise<number> {
    const { announcer } = this.#telling;
    await announcer?.pause();
    const result = await this.#transport.unmount(false);
    announcer?.resume();
    return result;
  }

  async #unmountAnyway(): Promise<void> {
    if ((await this.#unmount()) < 0) await this.#transport.unmount(true);
  }

  async #stop(): Promise<void> {
    const result = await this.#unmount();
    if (result < 0) throw new FsError(-result, `cannot be unmounted (${errnoName(result)})`);
  }
}
