// State of one union, owned by the thread that serves it. The operations are functions in the files beside
// this one; each takes the Union first and returns 0 or a count, a negative errno, or WAIT: then the request
// waits for `union.waiting` and is run again from the start, so nothing may have been changed before.

import type { BaseLayer } from '../branch/base.ts';
import { branchIno } from '../branch/numbers.ts';
import type { Overlay } from '../branch/overlay.ts';
import type { Log } from '../lib/log.ts';
import { newStat, type Stat } from '../lib/stat.ts';
import type { IdentityLog } from '../versions/identity-log.ts';
import type { JournalWriter } from '../versions/journal.ts';
import type { SeenLog } from '../versions/seen-log.ts';
import { Announcements } from './announcements.ts';
import { BaseChanges } from './base-changes.ts';
import { FdCache } from './fd-cache.ts';
import { HardLinks } from './hard-link-table.ts';
import { HiddenNames } from './hidden-name-table.ts';
import { Holdings } from './holdings.ts';
import type { JobArgs, JobResult } from './jobs.ts';
import { type Keeping, KernelView } from './kernel-view.ts';
import type { Covered, Found, LockWaiter, Node, PendingWork, Verdict } from './node.ts';
import { NONE, type Print } from './node.ts';
import { SeenVersions } from './seen.ts';
import { type MintNodeId, NodeTable, partsFor } from './table.ts';
import type { Watches } from './watches.ts';
import type { Witness } from './witness.ts';

export interface UnionConfig {
  privileged: boolean;
  /** What a guest's user makes is made as that user. */
  actsForOthers: boolean;
  readOnly: boolean;
  /** No sync of data at publication: it is not wanted, or there is no disk. */
  volatile: boolean;
  /** Stale objects are looked at when they are met. An NFSv3 client writes without having opened: then not. */
  mergesLive: boolean;
  /** Directories of the base may be renamed, with a redirect. */
  redirectDir: boolean;
  /** A change of metadata alone copies no content. Never so for ordinary users: see native-notes/overlay-format.md. */
  metacopy: boolean;
  /** The base has an os-release: the scope of merges is narrower. */
  osTree: boolean;
  /** Largest file that is copied up, in bytes; EFBIG beyond. Infinity: no limit. */
  copyUpLimit: number;
  /** What the kernel may keep, and for how many seconds. */
  keeping: Keeping;
  keepSeconds: number;
}

/** What the union asks of the process it runs in. */
export interface UnionHost {
  /** Starts work on another thread; `finished` runs here when it is done, before waiting requests go on. */
  startJob(args: JobArgs, finished: (result: JobResult) => number): PendingWork;
  /** Has a stale object looked at; whoever opens it waits for the result, with a limit kept by the host. */
  look(path: string): PendingWork;
  /** A stale object was met: have it looked at. Nobody waits. */
  noticed(path: string): void;
  /** What a whiteout hides: have its content hashed in the background. The descriptor is given away. */
  remember(path: string, fingerprint: string, fd: number, witness: Witness): void;
  /** Bytes that a later merge may want, and their hash: to be put away. They are copied. */
  keepAncestor(bytes: Uint8Array, hash: string): void;
  /** A directory has another path, and so has what is recorded beneath it: the journal says which. */
  renamed(): void;
  /** Has the kernel told of all that has changed by now. */
  tell(): PendingWork;
  /** The base has changed something in use: what has settled of it is to be asked for (base-changes.ts). */
  baseStirs(): void;
  /** The base's path names another tree, or nothing (errno): have it opened anew. */
  baseMoved(layer: number): void;
  log: Log;
}

/** How the kernel is given files to read and write by itself (passthrough.ts). */
export interface Passthrough {
  /** Those of the base, too. */
  readonly base: boolean;
  /** The kernel takes back what it knows of a file's attributes whenever it has written to it by itself. */
  readonly takesBack: boolean;
  /** An id for what is open as `fd`; a negative errno. */
  open(fd: number): number;
  close(id: number): void;
}

/** Where operations are noted for the index. */
export type Journal = Pick<JournalWriter, 'append' | 'takeBack' | 'size' | 'rotate' | 'close'>;

/** What an operation found or made; one object is reused by all of them. */
export interface Entry {
  node: Node;
  stat: Stat;
  /** st_ino as the union shows it. */
  ino: number;
  /** The kernel may keep that the name leads here, and the attributes. */
  keepName: boolean;
  keepAttributes: boolean;
}

export class Union {
  readonly config: UnionConfig;
  readonly overlay: Overlay;
  readonly layers: BaseLayer[];
  readonly workFd: number;
  readonly linksFd: number;
  readonly hardLinks = new HardLinks();
  readonly hidden = new HiddenNames();
  /** Copies of metadata alone whose times have been put back since somebody looked at them. */
  readonly timesBack = new Set<Node>();
  /** Inode numbers that copies show, by the pathHash of where the base had the object. */
  readonly numbers: Map<number, string>;
  readonly journal: Journal;
  readonly host: UnionHost;
  readonly table: NodeTable;
  readonly fds: FdCache;
  readonly seen: SeenVersions;
  readonly kernel: KernelView;
  readonly watches: Watches;
  readonly changes: BaseChanges;
  readonly announcements = new Announcements();
  /** What was decided of stale objects, by path: spares a new look as long as neither side moves. */
  readonly verdicts = new Map<string, Verdict & { until: number }>();
  /** Of directories that overlay and base make up together, whose links somebody has asked for. */
  readonly covered = new Map<Node, Covered>();
  /** Content hashes of versions of the base, by the hash of their fingerprint: what jobs have found out. */
  readonly contents = new Map<string, string>();
  /** Where files of the base have their contents. */
  readonly holdings = new Holdings();
  /** Paths of which it has been said that their content is nowhere. */
  readonly contentless = new Set<string>();
  /** Requests for locks that others hold, of all files. */
  readonly lockWaiters = new Set<LockWaiter>();
  /** Work that the operation which just returned WAIT waits for. */
  waiting: PendingWork | null = null;
  readonly found: Found = {
    state: NONE,
    stat: newStat(),
    inBase: false,
    part: 0,
    baseStat: newStat(),
    parent: null,
    name: '',
    lookedAt: Number.NEGATIVE_INFINITY,
    goodFor: -1,
    origins: null,
  };
  readonly entry: Entry;
  /** So often origins have been written. */
  originsWritten = 0;
  /** What baseFingerprint was asked for last. */
  printed: Print | null = null;
  /** Scratch for statx, good until the next call. */
  readonly stat: Stat = newStat();
  baseAccepted = true;
  /** null: by way of us goes everything. Known once INIT has been answered. */
  passthrough: Passthrough | null = null;
  /** performance.now() of the last look at where the base's paths lead. */
  baseChecked = Number.NEGATIVE_INFINITY;
  #tempCounter = 0;

  constructor(parts: {
    config: UnionConfig;
    overlay: Overlay;
    layers: BaseLayer[];
    workFd: number;
    linksFd: number;
    journal: Journal;
    mint: MintNodeId;
    /** null: what is read is forgotten with the process. */
    seenLog: SeenLog | null;
    /** Inode numbers that copies show, by the pathHash of where the base had the object. */
    numbers: Map<number, string>;
    /** Of an exported mount. */
    identity: IdentityLog | null;
    watches: Watches;
    host: UnionHost;
  }) {
    this.config = parts.config;
    this.overlay = parts.overlay;
    this.layers = parts.layers;
    this.workFd = parts.workFd;
    this.linksFd = parts.linksFd;
    this.journal = parts.journal;
    this.numbers = parts.numbers;
    this.host = parts.host;
    this.table = new NodeTable(
      parts.mint,
      (layer, stat) => branchIno(this.layers, layer, stat),
      parts.identity,
    );
    this.entry = { node: this.table.root, stat: newStat(), ino: 0, keepName: false, keepAttributes: false };
    this.fds = new FdCache(parts.layers.length + 1);
    this.seen = new SeenVersions(parts.seenLog);
    this.kernel = new KernelView(parts.config.keeping, parts.config.keepSeconds);
    this.watches = parts.watches;
    this.changes = new BaseChanges(() => this.host.baseStirs());
    this.table.onDrop = (node) => {
      this.watches.drop(node);
      this.kernel.forgetAbsent(node);
      this.fds.gone(node);
      this.covered.delete(node);
    };
    this.resetRoot();
  }

  /** The root's parts from the layers as they are open now. */
  resetRoot(): void {
    const root = this.table.root.dir;
    if (root === null) return;
    root.hasOverlay = true;
    // Nobody asks for it: it stays the same directory.
    root.overlayIno = 0;
    root.parts = partsFor(
      this.layers.map(({ index, rootIno }) => ({ layer: index, path: '', ino: rootIno })),
    );
    root.watched = false;
  }

  /** Something has changed, here or in the base, without a look at the name: what was found serves no other request. */
  forgetFound(): void {
    this.found.goodFor = -1;
  }

  /** A name in work/ that is not in use: by this process only, for recovery empties work/ at every start. */
  tempName(): string {
    return `${process.pid.toString(36)}-${(this.#tempCounter++).toString(36)}`;
  }
}

/** Returned by an operation whose answer must wait for `union.waiting`; it is then run again from the start. */
export const WAIT = -2_000_000;

export function waitFor(union: Union, work: PendingWork): number {
  union.waiting = work;
  return WAIT;
}
