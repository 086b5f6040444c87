// What main thread and serving worker say to each other: plain data. The worker drains its port when it is
// woken by the eventfd; the main thread hears of messages by its event loop.
import type { MessagePort } from 'node:worker_threads';
import type { BaseLayer } from '../branch/base.ts';
import type { Overlay } from '../branch/overlay.ts';
import type { ControlReply, ControlRequest } from '../frontend/front.ts';
import type { OpcodeCounters } from '../fuse/counters.ts';
import type { InitWishes, Negotiated } from '../fuse/init.ts';
import type { LogConfig } from '../lib/log.ts';
import type { Announcement } from '../union/announce.ts';
import type { Settled } from '../union/base-changes.ts';
import type { CommitRequest } from '../union/commit.ts';
import type { SourceSpec } from '../union/event-sources.ts';
import type { JobArgs, JobResult } from '../union/jobs.ts';
import type { Verdict } from '../union/node.ts';
import type { UnionConfig } from '../union/union.ts';
import type { Witness } from '../union/witness.ts';
import type { Kept } from './keep-batch.ts';

/** Given to the serving side when it starts. */
export interface ServingStart {
  overlay: Overlay;
  layers: BaseLayer[];
  workFd: number;
  linksFd: number;
  stateFd: number;
  config: UnionConfig;
  log: LogConfig;
  debug: boolean;
  owner: { uid: number; gid: number };
  buckets: readonly number[];
  wishes: InitWishes;
  /** What tells of changes of the base; null: nothing does. `manyAt`: at so many watches it is not to stay that one. */
  watcher: SourceSpec | null;
  manyAt: number;
  /** The port to the notifier; null: the kernel keeps nothing. */
  notifier: NotifierEnd | null;
  /** null: guests hear nothing of the base. */
  announcer: AnnouncerContact | null;
  /** NodeIds from..to-1 may be given out. */
  nodes: { from: number; to: number };
  baseAccepted: boolean;
  /** Inode numbers that copies show, by the pathHash of where the base had the object. */
  numbers: Map<number, string>;
  /** For an NFS server. */
  exported: boolean;
  /** Directory of its identity log; null: handles need not survive a restart. */
  stateDir: string | null;
}

/** The same for the serving worker. */
export interface WorkerStart extends ServingStart {
  deviceFd: number;
  wakeFd: number;
  /** Of sys/cpu-latency.ts, or -1. */
  latencyFd: number;
}

export interface WorkerCounts {
  opcodes: OpcodeCounters[];
  nodes: number;
  handles: number;
  directoryFds: number;
  pending: number;
  /** Watches on the base, and how often one was refused for the user's limit. */
  watches: number;
  watchesRefused: number;
}

/** Either end of the way from the serving worker to the notifier. */
export interface NotifierEnd {
  /** It takes ToNotifier. */
  port: MessagePort;
  /** In it is the number of the last batch that was written, and how often it has reminded us. */
  written: Int32Array;
}

/** Given to the notifier when it starts. */
export interface NotifierStart extends NotifierEnd {
  deviceFd: number;
  /** The serving worker's. */
  wakeFd: number;
}

/** What is to be written, or in how many milliseconds the serving worker is to be reminded. */
export type ToNotifier = NotifierBatch | number;

export interface NotifierBatch {
  /** fuse/notify.ts */
  batch: Uint8Array;
  number: number;
  /** Somebody waits until it is written. */
  wake: boolean;
}

/** By which the serving worker knows an announcer: the port to it, and what it will look up first. */
export interface AnnouncerContact {
  port: MessagePort;
  sign: string;
}

/** Given to the announcer when it starts. */
export interface AnnouncerStart {
  mountPoint: string;
  /** Of the mount's st_dev. */
  minor: number;
  sign: string;
  /** The serving worker's. */
  wakeFd: number;
  port: MessagePort;
}

/** From the serving worker: there is something; or what was asked for by 'next'. */
export type ToAnnouncer = 'stir' | Announcement[];

/** Back: more is wanted; or nobody was listening at that time. */
export type FromAnnouncer = 'next' | number;

export type ToWorker =
  | { kind: 'job-done'; id: number; result: JobResult }
  | { kind: 'look-done'; id: number }
  | { kind: 'control'; id: number; reply: ControlReply }
  | { kind: 'verdict'; path: string; verdict: Verdict | null }
  | { kind: 'commit'; id: number; requests: readonly CommitRequest[] }
  | { kind: 'rotate'; id: number }
  | { kind: 'counts'; id: number }
  | { kind: 'names'; id: number; path: string }
  | { kind: 'changes'; id: number; settleMs: number }
  | { kind: 'fill'; path: string; fingerprint: string; content: string }
  | { kind: 'layer'; layer: BaseLayer }
  /** Something else watches the base from now on. */
  | { kind: 'watcher'; watcher: SourceSpec; manyAt: number }
  /** Some of what the former watches is to be carried over. */
  | { kind: 'carry'; id: number }
  | { kind: 'accepted'; accepted: boolean }
  | { kind: 'nodes'; from: number; to: number }
  /** The notifier has died, and another one is in its place. */
  | { kind: 'notifier'; end: NotifierEnd }
  /** The announcer has died; null: and there will be no other. */
  | { kind: 'announcer'; contact: AnnouncerContact | null }
  /** Nobody tells the kernel of changes any more. */
  | { kind: 'unheard' };

export type FromWorker =
  /** `negotiated`: null where libfuse has done so. */
  | { kind: 'serving'; negotiated: Negotiated | null }
  | { kind: 'job'; id: number; args: JobArgs }
  | { kind: 'look'; id: number; path: string }
  | { kind: 'noticed'; path: string }
  | { kind: 'keep'; kept: Kept }
  | { kind: 'remember'; path: string; fingerprint: string; fd: number; witness: Witness }
  | { kind: 'control'; id: number; request: ControlRequest }
  | { kind: 'renamed' }
  | { kind: 'base-moved'; layer: number }
  | { kind: 'base-stirs' }
  /** Changes of the base are not to be heard any more. */
  | { kind: 'deaf'; error: number }
  /** `full`: no more can be had. */
  | { kind: 'many-watches'; full: boolean }
  /** `more`: the former watches something still. */
  | { kind: 'carried'; id: number; more: boolean }
  /** There is something to tell: the announcer is to be started. */
  | { kind: 'announce' }
  | { kind: 'changed'; id: number; settled: Settled }
  | { kind: 'committed'; id: number; result: number }
  | { kind: 'rotated'; id: number; name: string | number }
  | { kind: 'named'; id: number; paths: string[] }
  | { kind: 'counted'; id: number; counts: WorkerCounts }
  | { kind: 'nodes-low' }
  /** `journal`: the file that the worker closed last, '' for none. */
  | { kind: 'ended'; how: string; journal: string };
