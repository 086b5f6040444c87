// The verbs of an overlay that is not mounted, under its lock. Where the base was at the last mount is known
// from the state directory; without it the history can be read, and nothing is decided. What a decision
// changes is committed by a union in this thread: no guest is there, so nobody has to be asked.
import * as fs from 'node:fs';
import * as os from 'node:os';
import { defaultMountOptions, type MountOptions } from '../control/mount-options.ts';
import { readMountInfo, superOption } from '../control/mountinfo.ts';
import type { OfflineVerbs, OpenOffline } from '../control/verbs.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { type Log, makeLog } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import { close } from '../sys/file.ts';
import { whyUnwritable } from '../union/carrying.ts';
import { commit } from '../union/commit.ts';
import { loadHardLinks } from '../union/hard-links.ts';
import { Reconciler } from '../union/reconcile.ts';
import { Union, type UnionHost } from '../union/union.ts';
import { Watches } from '../union/watches.ts';
import { JournalWriter, journalName } from '../versions/journal.ts';
import { openStore, type Store } from '../versions/store.ts';
import {
  baseDoubt,
  baseRecords,
  bytesOf,
  type OpenBranches,
  openLayers,
  openState,
  rememberedBases,
} from './branches.ts';
import type { MountContext } from './context.ts';
import { happened, recover } from './recovery.ts';
import { createVerbs } from './verbs.ts';

const NODE_BLOCK = 10_000;

export const openOffline: OpenOffline = async (overlay, { state }) => {
  const log = makeLog({ fd: 2, level: 'warn', prefix: 'kasane' });
  const stateDir = state ?? `${overlay}/.kasane`;
  if (fs.existsSync(bytesOf(`${stateDir}/format`))) return openKnown(overlay, stateDir, log);
  if (state !== null) throw new FsError(E.ENOENT, `${escapeName(state)}: holds no state of Kasane's`);
  return openUnknown(overlay, log);
};

/** An overlay that Kasane has not used, or whose state is lost: looked at with an empty state of its own. */
async function openUnknown(overlay: string, log: Log): Promise<OfflineVerbs> {
  const stateDir = fs.mkdtempSync(`${os.tmpdir()}/kasane-check-`);
  const remove = () => fs.rmSync(stateDir, { recursive: true, force: true });
  try {
    const store = await openStore({ stateDir, log });
    const refusal = new FsError(E.EBUSY, `${escapeName(overlay)}: has no state of Kasane's: mount it first`);
    const opened = await new Offline(overlay, stateDir, store, log).open(refusal);
    const closeAll = () => opened.close().finally(remove);
    const check: OfflineVerbs['verbs']['check'] = async (request, emit) => {
      const message = 'no .kasane in it: Kasane has not used it, or has lost its state, or it is no overlay';
      await emit({ severity: 'warning', code: 'no-state', path: '', message });
      const report = await opened.verbs.check(request, emit);
      return { ...report, warnings: report.warnings + 1 };
    };
    return { verbs: { ...opened.verbs, check }, close: closeAll };
  } catch (error) {
    remove();
    throw error;
  }
}

async function openKnown(overlay: string, stateDir: string, log: Log): Promise<OfflineVerbs> {
  const { overlay: opened } = openLayers({ bases: [], overlay, state: stateDir, whiteouts: 'overlayfs' });
  const options = {
    stateDir,
    log,
    happened: (record: Parameters<typeof happened>[1]) => happened(opened, record),
  };
  let store: Store;
  try {
    store = await openStore(options);
  } catch (error) {
    // On a full disk it is looked at all the same, and nothing is decided.
    if (whyUnwritable(error) === null) throw error;
    store = await openStore({ ...options, readOnly: true });
  } finally {
    close(opened.rootFd);
  }
  try {
    const opened = await new Offline(overlay, stateDir, store, log).open(null);
    store.keepReserve();
    return opened;
  } catch (error) {
    await store.close();
    throw error;
  }
}

class Offline {
  readonly #overlay: string;
  readonly #stateDir: string;
  readonly #store: Store;
  readonly #log: Log;
  #union: Union | null = null;

  constructor(overlay: string, stateDir: string, store: Store, log: Log) {
    this.#overlay = overlay;
    this.#stateDir = stateDir;
    this.#store = store;
    this.#log = log;
  }

  async open(refusal: FsError | null): Promise<OfflineVerbs> {
    const remembered = rememberedBases(this.#stateDir);
    const { bases } = remembered;
    const there = bases.length > 0 && bases.every(isDirectory);
    const { readOnly } = this.#store;
    const options = { ...defaultMountOptions(), ...remembered, overlay: this.#overlay, readOnly };
    const opened = openLayers({ ...options, state: this.#stateDir, bases: there ? bases : [] });
    // As if read-only: what lies in work/ is for `check` to tell.
    const branches = openState(opened, this.#stateDir, true);
    const notes = await recover(this.#store, branches, this.#log);
    const context = this.#contextOf(options, branches, notes);
    const against = refusal ?? usedBy(this.#overlay) ?? (there ? null : unreachable(bases));
    if (against !== null) context.refusal = against;
    return { verbs: createVerbs(context), close: () => this.#close(context) };
  }

  #contextOf(options: MountOptions, branches: OpenBranches, notes: string[]): MountContext {
    const store = this.#store;
    const { layers } = branches;
    let doubt = layers.length === 0 ? null : baseDoubt(store.bases(), layers);
    const reconciler = this.#newReconciler(options, branches, (why) => {
      doubt = why;
      reconciler.acceptance.state = 'unaccepted';
      store.events.add({ kind: 'unaccepted', path: '', detail: why });
    });
    if (doubt !== null) reconciler.acceptance.state = 'unaccepted';
    return {
      options,
      branches,
      store,
      reconciler,
      log: this.#log,
      notes,
      mounted: null,
      get doubt() {
        return doubt;
      },
      bringUpToDate: () => this.#bringUpToDate(),
      counts: async () => null,
      acceptBase: async () => {
        store.setBases(baseRecords(layers));
        if (doubt === null) return;
        doubt = null;
        await reconciler.acceptance.accept();
        store.events.add({ kind: 'accepted', path: '', detail: 'accepted by a person' });
        await store.flush();
      },
      stop: async () => {
        throw new FsError(E.ENOTCONN, `${escapeName(options.overlay)}: is not mounted`);
      },
    };
  }

  #newReconciler(options: MountOptions, branches: OpenBranches, doubt: (why: string) => void): Reconciler {
    const { overlay, layers, workFd, displacedFd, linksFd, rights, standIn, osTree } = branches;
    let temp = 0;
    return new Reconciler({
      branches: { overlay, layers, standIn },
      store: this.#store,
      shop: {
        workFd,
        overlay,
        metacopy: options.metacopy && rights.privileged,
        lenient: !rights.privileged,
        volatile: false,
        log: this.#log,
      },
      osTree,
      log: this.#log,
      displacedFd,
      linksFd,
      settleMs: options.settleMs,
      readOnly: options.readOnly,
      isOver: () => false,
      // Not emptied, so names must differ from those that a daemon has left there.
      tempName: () => `offline-${process.pid}-${temp++}`,
      caughtUp: async () => {},
      commit: async (...requests) => commit(this.#unionOf(branches), requests),
      doubt,
      otherNames: async () => [],
      verdict: () => {},
    });
  }

  /** Made when something is to be changed: it takes numbers for its nodes. */
  #unionOf(branches: OpenBranches): Union {
    if (this.#union !== null) return this.#union;
    const { overlay, layers, workFd, linksFd, stateFd, rights, osTree } = branches;
    const { privileged, actsForOthers } = rights;
    let [next, end] = [0, 0];
    this.#union = new Union({
      config: {
        privileged,
        actsForOthers,
        readOnly: false,
        volatile: false,
        mergesLive: false,
        redirectDir: true,
        metacopy: false,
        osTree,
        copyUpLimit: Number.POSITIVE_INFINITY,
        keeping: 'none',
        keepSeconds: 0,
      },
      overlay,
      layers,
      workFd,
      linksFd,
      journal: new JournalWriter(stateFd),
      mint: () => {
        if (next === end) [next, end] = this.#store.reserveNodeIds(NODE_BLOCK);
        return next++;
      },
      identity: null,
      seenLog: null,
      numbers: new Map(this.#store.numbers.known),
      watches: new Watches(null),
      host: offlineHost(this.#log),
    });
    const learnt = loadHardLinks(this.#union);
    if (learnt < 0) this.#log.error(`links/ cannot be read (${errnoName(learnt)})`);
    return this.#union;
  }

  async #bringUpToDate(): Promise<void> {
    try {
      const name = this.#union?.journal.rotate() ?? '';
      if (typeof name === 'number') {
        throw new FsError(-name, `cannot switch the journal: ${errnoName(name)}`);
      }
      if (name !== '') await this.#store.foldJournal(name);
    } catch (error) {
      this.#log.warn(`folding the journal: ${messageOf(error)}`);
    }
  }

  async #close(context: MountContext): Promise<void> {
    const { branches, reconciler } = context;
    try {
      await reconciler.idle();
      if (this.#union !== null) {
        this.#union.journal.close();
        await this.#store.foldJournal(journalName);
      }
    } finally {
      await this.#store.close();
      const { stateFd, workFd, displacedFd, linksFd, overlay, layers } = branches;
      for (const fd of [
        stateFd,
        workFd,
        displacedFd,
        linksFd,
        overlay.rootFd,
        ...layers.map((one) => one.rootFd),
      ])
        close(fd);
    }
  }
}

/** No request is served here, so nothing waits and nothing is noticed. */
function offlineHost(log: Log): UnionHost {
  const refuse = (): never => {
    throw new TypeError('an overlay that is not mounted serves nobody');
  };
  return {
    startJob: refuse,
    look: refuse,
    tell: refuse,
    noticed: () => {},
    remember: (_path, _fingerprint, fd) => void close(fd),
    keepAncestor: () => {},
    renamed: () => {},
    baseStirs: () => {},
    baseMoved: () => {},
    log,
  };
}

function isDirectory(path: string): boolean {
  return fs.statSync(bytesOf(path), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function unreachable(bases: readonly string[]): FsError {
  const names = bases.map(escapeName).join(', ') || 'nobody has noted where it was';
  return new FsError(E.EBUSY, `the base is not reachable (${names}): without it nothing can be decided`);
}

/** The kernel's overlayfs may have it mounted as its upper. */
function usedBy(overlay: string): FsError | null {
  const own = fs.statSync(bytesOf(overlay));
  for (const mount of readMountInfo()) {
    const upper = mount.type === 'overlay' ? superOption(mount, 'upperdir') : null;
    if (!upper?.startsWith('/')) continue;
    const stat = fs.statSync(bytesOf(upper), { throwIfNoEntry: false });
    if (stat?.dev === own.dev && stat.ino === own.ino) {
      const where = escapeName(mount.mountPoint);
      return new FsError(E.EBUSY, `overlay is in use as the upperdir of a kernel overlayfs on ${where}`);
    }
  }
  return null;
}
