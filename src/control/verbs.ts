// What can be asked of a mount: one function per verb, called alike by the socket, the control file and the
// command line (for an overlay that is not mounted). daemon/ implements Verbs; nothing here does anything.
//
// Every request, item and result is plain JSON. Paths are inner names (latin1, one character one byte),
// relative to the union's root, root ''; host paths are latin1 too, absolute. Times are milliseconds since
// the epoch. Bytes are base64. A verb fails by rejecting with FsError: errno decides the exit code
// (exit-codes.ts), the message is one line for a person and holds paths already escaped.

export const conflictKinds = [
  'text',
  'record',
  'binary',
  'type',
  'metadata',
  'deleted',
  'added',
  'no-ancestor',
  'undone',
] as const;
export type ConflictKind = (typeof conflictKinds)[number];

export const sides = ['ancestor', 'overlay', 'base', 'merged'] as const;
export type Side = (typeof sides)[number];

/** What a resolution puts in place; 'file' is content that the caller sends along. */
export const takes = ['overlay', 'base', 'merged'] as const;
export type Take = (typeof takes)[number];

/** Gets each item of a streaming verb in order; a verb waits for it before it makes the next (backpressure). */
export type Emit<Item> = (item: Item) => void | Promise<void>;

// ---- status ----

export interface StatusCounts {
  /** Objects of the overlay that have an origin and hide something of the base. */
  copies: number;
  whiteouts: number;
  /** Names of the base hidden by opaque directories. */
  hidden: number;
  /** Copies whose base has moved since their origin, whatever became of that. */
  stale: number;
  pending: number;
  kept: number;
  conflicts: number;
  /** Undone and pinned. */
  undone: number;
  /** Copies of metadata alone: their content is the base's. */
  metadataOnly: number;
  /** Those among them whose content is gone from the base: reading them fails. */
  withoutContent: number;
}

export interface StatusReport {
  /** Version of Kasane. */
  version: string;
  mountPoint: string;
  /** Topmost first. */
  bases: string[];
  overlay: string;
  /** Directory of Kasane's own state, usually OVERLAY/.kasane. */
  state: string;
  /** Process id of the daemon; 0 where the overlay is not mounted. */
  pid: number;
  /** When the daemon began to serve; 0 where the overlay is not mounted. */
  started: number;
  /** Grows with each settled change of the base. */
  epoch: number;
  /** accepted; unaccepted: another release or an empty tree, nothing is merged; held: under `kasane hold`;
   *  absent: not reachable now. */
  base: 'accepted' | 'unaccepted' | 'held' | 'absent';
  /** check, notify or ttl=SECONDS. */
  coherence: string;
  /** Seconds after which a change of the base shows at the latest; with notify, one that raises no event. */
  bound: number;
  /** Directories and files of the base that are watched. */
  watches: number;
  /** What watches them, and why it does. */
  watcher: 'inotify' | 'fanotify' | 'none';
  watcherReason: string;
  readOnly: boolean;
  /** Copy-ups of large files that are under way, and how far, in bytes. */
  copying: { path: string; done: number; size: number }[];
  counts: StatusCounts;
  bytes: { overlay: number; ancestors: number; history: number; index: number };
  /** Effective mount options by their names on the command line, e.g. { settle: '2', volatile: 'off' }. */
  options: Record<string, string>;
  /** Options with which kernel overlayfs shows this overlay the same way. */
  overlayfsOptions: string;
  /** One sentence each: submounts not entered, an index that was rebuilt, limits that were met. */
  notes: string[];
}

// ---- conflicts ----

export interface Conflict {
  id: number;
  rev: number;
  kind: ConflictKind;
  path: string;
  since: number;
}

/** What is known of one side. Fields but `type` are 0, '' or null where type is 'absent' or 'unknown'. */
export interface SideInfo {
  type: 'file' | 'dir' | 'symlink' | 'other' | 'absent' | 'unknown';
  /** Permission bits, without the type. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: number;
  /** 32 hex digits; null: not known, or no content. */
  hash: string | null;
  /** Target of a symlink, inner name. */
  target: string | null;
}

export interface ConflictDetail extends Conflict {
  /** One sentence: why nobody could decide. */
  reason: string;
  ancestor: SideInfo;
  overlay: SideInfo;
  base: SideInfo;
  /** null: there is no proposal (binary, deleted, type …). */
  merged: { size: number; markers: boolean } | null;
}

// ---- reading ----

export interface PathRequest {
  path: string;
}

/** A conflict by its id, or the open conflict of a path. */
export type ConflictTarget = { id: number } | { path: string };

export interface ShowRequest {
  target: ConflictTarget;
  /** A side now, or version N of the path's history (numbers as in LogEntry.version). */
  what: { side: Side } | { version: number };
}

/** A piece of the content, base64, at most 256 KiB of it. A symlink's content is its target. */
export interface ShowItem {
  data: string;
}

export interface ShowReport extends SideInfo {
  path: string;
}

export interface DiffSide extends SideInfo {
  /** base64; null where the type has none, the content is binary (a NUL byte) or above 4 MiB. */
  content: string | null;
  /** Of an ancestor: there was a content, and nobody has its bytes any more; size is 0. */
  unkept: boolean;
}

/** One object that differs from its ancestor, or whose base does. */
export interface DiffItem {
  path: string;
  ancestor: DiffSide;
  overlay: DiffSide;
  base: DiffSide;
  /** It came and went each time it was looked at: all sides are unknown. */
  changing: boolean;
}

export interface DiffReport {
  /** Objects that were looked at. */
  looked: number;
}

/** Kinds as they stand in events and logs. More may come: treat unknown ones as text. */
export const eventKinds = [
  'copy-up',
  'whiteout',
  'added',
  'adopted',
  'merged',
  'dropped',
  'kept',
  'pending',
  'conflict',
  'withdrawn',
  'resolved',
  'undone',
  'pin-lifted',
  'epoch',
  'unaccepted',
  'accepted',
  'hold',
  'release',
  'rebuilt',
  'damaged',
  'failed',
  'base-added',
  'base-changed',
  'base-replaced',
  'base-removed',
  'base-lost',
] as const;
export type EventKind = (typeof eventKinds)[number];

export interface EventRecord {
  /** Grows, never used again in this overlay; what `undo SEQ` takes. */
  seq: number;
  epoch: number;
  time: number;
  kind: EventKind;
  /** '' for what concerns the whole overlay. */
  path: string;
}

export interface LogEntry extends EventRecord {
  /** One sentence for a person, or ''. */
  detail: string;
  /** The conflict it concerns. */
  conflict: number | null;
  /** A version of the path's content kept by this event, for `show --version`. */
  version: number | null;
  /** `undo` could take it back now. */
  undoable: boolean;
}

export interface EventsRequest {
  /** First sequence number wanted. */
  from: number;
  /** Go on with what comes, until the caller goes away. */
  follow: boolean;
}

// ---- deciding ----

export interface ResolveRequest {
  /** Of a directory's path with `recursive`: every open conflict beneath it. */
  target: ConflictTarget;
  /** Refuse (ESTALE) unless the conflict stands at this revision; null: whatever it is. */
  rev: number | null;
  /** A side, or the new content in base64 (at most 256 MiB of it). */
  take: Take | { content: string };
  recursive: boolean;
  /** Closed by the very same take at the very same rev counts as done, and is not EALREADY (control file). */
  repeatOk: boolean;
}

export interface ResolveReport {
  resolved: { id: number; rev: number; path: string; already: boolean }[];
}

export interface UndoRequest {
  target: { path: string } | { seq: number };
  /** The guest has changed the file since: keep today's bytes as a version, then undo. */
  force: boolean;
  /** That SEQ was undone already counts as done (control file). */
  repeatOk: boolean;
}

export interface UndoReport {
  /** The event that was taken back. */
  seq: number;
  kind: EventKind;
  path: string;
  /** Conflict that is open again. */
  reopened: number | null;
  /** Version under which the bytes of before the undo were kept. */
  keptVersion: number | null;
  already: boolean;
}

export type ReconcileOutcome =
  | 'current'
  | 'merged'
  | 'dropped'
  | 'adopted'
  | 'kept'
  | 'pending'
  | 'conflict'
  | 'failed';

export interface ReconcileRequest {
  /** '' for everything; naming a path exactly lifts its pin. */
  path: string;
  /** Say what would happen, change nothing. */
  dryRun: boolean;
  acceptBase: boolean;
}

/** One object was looked at, or (outcome null) is being waited for. */
export interface ReconcileItem {
  done: number;
  total: number;
  path: string;
  outcome: ReconcileOutcome | null;
  /** Why it is kept, pending, in conflict or failed; else ''. */
  detail: string;
}

export interface ReconcileReport {
  dryRun: boolean;
  looked: number;
  merged: number;
  dropped: number;
  adopted: number;
  kept: number;
  pending: number;
  failed: number;
  /** Of those that pend, the ones that the overlay has no room for. */
  full: number;
  /** Those that are open beneath `path` afterwards (with dryRun: those that would be). */
  conflicts: Conflict[];
  baseAccepted: boolean;
}

// ---- upkeep ----

/** Something `check` found wrong. */
export interface CheckItem {
  severity: 'damage' | 'warning';
  /** Stable short name, e.g. index-record, origin-unreadable, ancestor-hash, orphan-work, orphan-displaced. */
  code: string;
  /** '' where it concerns the whole overlay. */
  path: string;
  message: string;
}

export interface CheckRequest {
  /** Not there yet: EOPNOTSUPP. */
  repair: boolean;
}

export interface CheckReport {
  objects: number;
  origins: number;
  ancestors: number;
  records: number;
  damage: number;
  warnings: number;
}

export interface PruneRequest {
  dryRun: boolean;
  forget: string | null;
}

export interface PruneReport {
  versions: number;
  bytes: number;
}

export interface ExportReport {
  text: string;
}

// ---- metrics ----

export interface OpcodeCounters {
  /** Name as in linux/fuse.h without the prefix: LOOKUP, GETATTR … */
  opcode: string;
  count: number;
  errors: number;
  /** Sum of the time spent, in seconds. */
  seconds: number;
  /** Requests that took at most buckets[i] (metrics.ts, latencyBuckets), not cumulative; one more at the end
   *  for the rest. */
  histogram: number[];
}

export interface Gauge {
  /** Without the prefix kasane_, e.g. nodes, pending, rss_bytes. */
  name: string;
  help: string;
  type: 'gauge' | 'counter';
  value: number;
}

export interface MetricsReport {
  opcodes: OpcodeCounters[];
  gauges: Gauge[];
}

export interface Done {
  done: true;
}

/**
 * Errnos that verbs use on purpose: ENOENT no such path in the union; ENOKEY no such conflict, version or
 * sequence number; EALREADY the conflict is closed; ENODATA the path has no conflict, or nothing to undo;
 * ESTALE a side has moved since REV; EISDIR a directory without `recursive`; EBADMSG merged still has
 * markers; EBUSY the guest has changed the file since, or the mount is busy; EROFS; EUCLEAN damage;
 * EOPNOTSUPP not there yet; EINVAL what makes no sense.
 */
export interface Verbs {
  status(): Promise<StatusReport>;
  conflicts(): Promise<Conflict[]>;
  conflict(target: ConflictTarget): Promise<ConflictDetail>;
  /** An item for each object at or beneath path that the guest changed; nothing for what follows the base. */
  diff(request: PathRequest, emit: Emit<DiffItem>): Promise<DiffReport>;
  /** Oldest first; '' for the whole overlay. */
  log(request: PathRequest, emit: Emit<LogEntry>): Promise<Done>;
  /** Content in pieces, then what it belongs to. Of a missing side: ENOENT. */
  show(request: ShowRequest, emit: Emit<ShowItem>): Promise<ShowReport>;
  resolve(request: ResolveRequest): Promise<ResolveReport>;
  undo(request: UndoRequest): Promise<UndoReport>;
  reconcile(request: ReconcileRequest, emit: Emit<ReconcileItem>): Promise<ReconcileReport>;
  check(request: CheckRequest, emit: Emit<CheckItem>): Promise<CheckReport>;
  /** Returns when there are no more, or, with follow, when the caller has gone (emit rejects). */
  events(request: EventsRequest, emit: Emit<EventRecord>): Promise<Done>;
  metrics(): Promise<MetricsReport>;
  /** Unmounts cleanly; answers before the daemon ends. EBUSY while somebody uses the mount. */
  stop(): Promise<Done>;
  prune(request: PruneRequest): Promise<PruneReport>;
  exportConfig(): Promise<ExportReport>;
  hold(): Promise<Done>;
  release(): Promise<Done>;
}

export type VerbName = keyof Verbs;

/** The verbs of an overlay that is not mounted, under the overlay's lock. daemon/offline.ts makes it. */
export interface OfflineVerbs {
  verbs: Verbs;
  /** Gives the lock back. */
  close(): Promise<void>;
}

/** daemon/offline.ts exports `openOffline` of this type; EBUSY where the overlay is in use, EUCLEAN damage. */
export type OpenOffline = (overlay: string, options: { state: string | null }) => Promise<OfflineVerbs>;
