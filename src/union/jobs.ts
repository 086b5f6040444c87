// Work that may wait for a disk, as plain data: made on the serving worker, done on a pool thread at the
// daemon's request (job-runner.ts), finished on the serving worker. Descriptors are numbers, which all threads
// of the process share; those in a job belong to it until it is done.
import type { Origin } from '../versions/origin.ts';
import type { Witness } from './witness.ts';

/** A version that the guest had read, and a descriptor that may still give its bytes; closed by the job. */
export interface SeenSource {
  fingerprint: string;
  content: string;
  fd: number;
  witness: Witness | null;
  mode: number;
  uid: number;
  gid: number;
  xattrs: string;
}

export interface CopyUpJob {
  kind: 'copy-up';
  /** Directory for temporary files, and the name of this one there. */
  workFd: number;
  temp: string;
  /** O_RDONLY of the base's file; closed by the job. */
  sourceFd: number;
  /** O_RDONLY of what has the metadata, where `sourceFd` is of its content alone; else -1. Closed by the job. */
  topFd: number;
  /** Identity of the layer of the base's file, for its fingerprint. */
  layer: string;
  /** The same of its content, where that is another's. */
  contentLayer: string;
  /** Leave the content away: the guest truncates it. */
  truncate: boolean;
  /** The version that the guest had read, which is the origin if it is not the one that is copied. */
  seen: SeenSource | null;
  basePath: string;
  /** Path in the union, for the policy. */
  path: string;
  /** st_ino that the union goes on showing. */
  ino: number;
  sync: boolean;
  osTree: boolean;
}

/** The content of a copy of metadata alone, into its file. All descriptors are closed by the job. */
export interface CompleteJob {
  kind: 'complete';
  /** O_RDWR of the overlay's file. */
  fd: number;
  /** O_RDONLY of the content; -1: there is none any more, and it is thrown away anyway. */
  sourceFd: number;
  /** O_RDONLY of the base's file, where that is itself a copy of metadata alone; else -1. */
  topFd: number;
  /** Identity of the layer in which the base's file lies, and of that in which its content does. */
  layer: string;
  contentLayer: string;
  truncate: boolean;
  seen: SeenSource | null;
  path: string;
  /** null: the content is not the one of this place, so the origin stays as it is. */
  basePath: string | null;
  /** The origin until now. */
  before: Origin | null;
  sync: boolean;
  osTree: boolean;
}

/** The base's object under a name that is taken (rename over it, link): hash and ancestor, and a sync. */
export interface TakeJob {
  kind: 'take';
  /** O_RDONLY of the version whose content is wanted, -1: none; closed by the job. */
  baseFd: number;
  /** Without it the bytes that are read are not the version's. */
  witness: Witness | null;
  path: string;
  /** O_RDONLY of the new file whose data must reach the disk first, -1: none; closed by the job. */
  syncFd: number;
  osTree: boolean;
}

export interface SyncJob {
  kind: 'sync';
  fd: number;
  dataOnly: boolean;
}

export interface AllocateJob {
  kind: 'allocate';
  fd: number;
  mode: number;
  offset: number;
  length: number;
  /** Whether it has to be on the disk, too: the guest has the file open with O_DSYNC. */
  synced: boolean;
}

export interface CopyRangeJob {
  kind: 'copy-range';
  fdIn: number;
  offIn: number;
  fdOut: number;
  offOut: number;
  length: number;
  synced: boolean;
}

export interface TruncateJob {
  kind: 'truncate';
  fd: number;
  size: number;
}

export type JobArgs = CopyUpJob | CompleteJob | TakeJob | SyncJob | AllocateJob | CopyRangeJob | TruncateJob;

export interface JobResult {
  /** 0 or more: done; negative errno. */
  result: number;
  /** Content hash of what was read; '' where it was not. */
  content: string;
  /** Of copy-up: the hash of the fingerprint. */
  fingerprint: string;
  /** The source moved while it was copied, three times. */
  torn: boolean;
  /** Encoded origins as they were written, in base64. */
  origin: string;
}
