// What the verbs work on: one mount, or an overlay that is not mounted. daemon/session.ts and daemon/offline.ts
// make it.
import type { MountOptions } from '../control/mount-options.ts';
import type { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Copies } from '../union/copies.ts';
import type { Reconciler } from '../union/reconcile.ts';
import type { Store } from '../versions/store.ts';
import type { WatcherReport } from './base-watcher.ts';
import type { OpenBranches } from './branches.ts';
import type { Coherence } from './coherence.ts';
import type { WorkerCounts } from './messages.ts';

export interface MountContext {
  options: MountOptions;
  branches: OpenBranches;
  store: Store;
  reconciler: Reconciler;
  log: Log;
  /** One sentence each, for status. */
  notes: string[];
  /** Process that serves, since when (milliseconds), and whether it keeps processors awake; null: not mounted. */
  mounted: { pid: number; started: number; keepsAwake: boolean } | null;
  /** Why the base is not accepted, or null. */
  readonly doubt: string | null;
  /** Thrown by what would decide or write; absent: nothing stands against it. */
  refusal?: FsError;
  /** The index knows what the guest has done up to now; should that fail, which is logged, what it knows has to do. */
  bringUpToDate(): Promise<void>;
  /** How a mount stays coherent; absent where nothing serves. */
  coherence?(): Coherence;
  /** Copy-ups that are under way; absent where nothing serves. */
  copies?: Copies;
  /** What watches the base; absent where nothing does. */
  watcher?(): WatcherReport | null;
  /** null where nothing serves. */
  counts(): Promise<WorkerCounts | null>;
  /** The base is taken as it is from now on. */
  acceptBase(): Promise<void>;
  /** Unmounts; EBUSY while somebody uses it, ENOTCONN where nothing is mounted. */
  stop(): Promise<void>;
}
