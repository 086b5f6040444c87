// The main thread's side of what serves: does its jobs, and asks it for what only the serving side may do (the last
// step of a merge, a new journal file, counters). Where that side runs is not known here.
import type { ControlEntry, ControlHandle, ControlStat, ControlTree } from '../control/tree.ts';
import type { ControlReply, ControlRequest } from '../frontend/front.ts';
import type { Negotiated } from '../fuse/init.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Settled } from '../union/base-changes.ts';
import type { CommitRequest } from '../union/commit.ts';
import { failPoint } from '../union/fail-point.ts';
import { type JobContext, putAway, runJob } from '../union/job-runner.ts';
import type { Witness } from '../union/witness.ts';
import { eachKept } from './keep-batch.ts';
import type { FromWorker, ToWorker, WorkerCounts } from './messages.ts';

/** The serving side, as it is reached from here: the two talk in plain data, as if on two threads. */
export interface ServingEnd {
  post(message: ToWorker): void;
  /** Called once. Whatever happens to the serving side, an `ended` is the last that it is told. */
  listen(take: (message: FromWorker) => void): void;
}

/** What its messages lead to. */
export interface LinkEvents {
  look(path: string): Promise<void>;
  noticed(path: string): void;
  remember(path: string, fingerprint: string, fd: number, witness: Witness): void;
  renamed(): void;
  baseMoved(layer: number): void;
  baseStirs(): void;
  deaf(error: number): void;
  manyWatches(full: boolean): void;
  announce(): void;
  reserveNodes(): { from: number; to: number };
}

/**
 * How long an OPEN waits for a merge that is being computed; then the guest's own file answers. Tests have it wait
 * longer, for a machine may be slow.
 */
const LOOK_LIMIT_MS = Number(process.env.KASANE_LOOK_LIMIT_MS) || 2000;

export class WorkerLink {
  readonly #end: ServingEnd;
  readonly #jobs: JobContext;
  readonly #events: LinkEvents;
  readonly #log: Log;
  readonly #waiting = new Map<number, (value: never) => void>();
  readonly #handles = new Map<number, ControlHandle>();
  #control: ControlTree | null = null;
  #next = 1;
  #ended = false;
  readonly serving: Promise<Negotiated | null>;
  /** How the loop ended, and the last journal file; jobs that were under way are done by then. */
  readonly ended: Promise<{ how: string; journal: string }>;
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(serving: ServingEnd, jobs: JobContext, events: LinkEvents) {
    this.#end = serving;
    this.#jobs = jobs;
    this.#log = jobs.log;
    this.#events = events;
    let served: (negotiated: Negotiated | null) => void = () => {};
    let refused: (error: Error) => void = () => {};
    this.serving = new Promise((resolve, reject) => {
      served = resolve;
      refused = reject;
    });
    this.ended = new Promise((resolve) => {
      const over = (how: string, journal: string) => {
        if (this.#ended) return;
        this.#ended = true;
        refused(new FsError(E.EIO, `the mount ended before it served: ${how}`));
        this.#failWaiting();
        void Promise.allSettled(this.#underWay).then(() => resolve({ how, journal }));
      };
      serving.listen((message) => {
        failPoint(`message-${message.kind}`);
        if (message.kind === 'serving') served(message.negotiated);
        else if (message.kind === 'ended') over(message.how, message.journal);
        else this.#take(message);
      });
    });
  }

  get isOver(): boolean {
    return this.#ended;
  }

  setControl(tree: ControlTree): void {
    this.#control = tree;
  }

  send(message: ToWorker): void {
    if (!this.#ended) this.#end.post(message);
  }

  /** The last step of a merge; -ESHUTDOWN once the mount has ended. */
  commit(requests: readonly CommitRequest[]): Promise<number> {
    if (this.#ended) return Promise.resolve(-E.ESHUTDOWN);
    return this.#ask((id) => ({ kind: 'commit', id, requests }));
  }

  /** Name of a journal file that the worker has closed; '' nothing was written; a negative errno. */
  rotate(): Promise<string | number> {
    if (this.#ended) return Promise.resolve('');
    return this.#ask((id) => ({ kind: 'rotate', id }));
  }

  /** What the worker knows of the names of the object at a path. */
  async names(path: string): Promise<readonly string[]> {
    if (this.#ended) return [];
    const paths = await this.#ask<string[] | number>((id) => ({ kind: 'names', id, path }));
    return typeof paths === 'number' ? [] : paths;
  }

  /** Changes of the base that are older than that; null once the mount has ended. */
  async changes(settleMs: number): Promise<Settled | null> {
    if (this.#ended) return null;
    const settled = await this.#ask<Settled | number>((id) => ({ kind: 'changes', id, settleMs }));
    return typeof settled === 'number' ? null : settled;
  }

  /** Some of what the former watcher watches is carried over; false: that was all. */
  async carryWatches(): Promise<boolean> {
    if (this.#ended) return false;
    return (await this.#ask<boolean | number>((id) => ({ kind: 'carry', id }))) === true;
  }

  /** null once the mount has ended. */
  async counts(): Promise<WorkerCounts | null> {
    if (this.#ended) return null;
    const counts = await this.#ask<WorkerCounts | number>((id) => ({ kind: 'counts', id }));
    return typeof counts === 'number' ? null : counts;
  }

  #ask<T>(message: (id: number) => ToWorker): Promise<T> {
    return new Promise((resolve) => {
      const id = this.#next++;
      this.#waiting.set(id, resolve as (value: never) => void);
      this.send(message(id));
    });
  }

  #answered(id: number, value: unknown): void {
    const resolve = this.#waiting.get(id);
    this.#waiting.delete(id);
    resolve?.(value as never);
  }

  #failWaiting(): void {
    for (const resolve of this.#waiting.values()) resolve(-E.ESHUTDOWN as never);
    this.#waiting.clear();
  }

  #take(message: Exclude<FromWorker, { kind: 'serving' | 'ended' }>): void {
    switch (message.kind) {
      case 'job':
        this.#track(
          runJob(this.#jobs, message.args).then((result) =>
            this.send({ kind: 'job-done', id: message.id, result }),
          ),
        );
        return;
      case 'look':
        this.#track(this.#look(message.id, message.path));
        return;
      case 'noticed':
        this.#events.noticed(message.path);
        return;
      case 'remember':
        this.#events.remember(message.path, message.fingerprint, message.fd, message.witness);
        return;
      case 'keep':
        for (const [hash, bytes] of eachKept(message.kept)) putAway(this.#jobs, bytes, hash);
        return;
      case 'control':
        this.#track(this.#askControl(message.id, message.request));
        return;
      case 'renamed':
        this.#events.renamed();
        return;
      case 'base-moved':
        this.#events.baseMoved(message.layer);
        return;
      case 'base-stirs':
        this.#events.baseStirs();
        return;
      case 'deaf':
        this.#events.deaf(message.error);
        return;
      case 'many-watches':
        this.#events.manyWatches(message.full);
        return;
      case 'announce':
        this.#events.announce();
        return;
      case 'carried':
        this.#answered(message.id, message.more);
        return;
      case 'changed':
        this.#answered(message.id, message.settled);
        return;
      case 'committed':
        this.#answered(message.id, message.result);
        return;
      case 'rotated':
        this.#answered(message.id, message.name);
        return;
      case 'named':
        this.#answered(message.id, message.paths);
        return;
      case 'counted':
        this.#answered(message.id, message.counts);
        return;
      case 'nodes-low':
        this.send({ kind: 'nodes', ...this.#events.reserveNodes() });
        return;
    }
  }

  #track(work: Promise<unknown>): void {
    const settled = work.catch((error: unknown) => {
      this.#log.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
    });
    this.#underWay.add(settled);
    void settled.then(() => this.#underWay.delete(settled));
  }

  async #look(id: number, path: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LOOK_LIMIT_MS);
    });
    await Promise.race([this.#events.look(path), limit]);
    clearTimeout(timer);
    this.send({ kind: 'look-done', id });
  }

  async #askControl(id: number, request: ControlRequest): Promise<void> {
    this.send({ kind: 'control', id, reply: await this.#controlReply(request) });
  }

  async #controlReply(request: ControlRequest): Promise<ControlReply> {
    const control = this.#control;
    if (control === null) return -E.EAGAIN;
    switch (request.op) {
      case 'stat':
        return (await control.stat(request.path)) as ControlStat | number;
      case 'list':
        return (await control.list(request.path)) as ControlEntry[] | number;
      case 'open': {
        const handle = await control.open(request.path);
        if (typeof handle === 'number') return handle;
        const id = this.#next++;
        this.#handles.set(id, handle);
        return id;
      }
      case 'read': {
        const handle = this.#handles.get(request.handle);
        return handle ? handle.read(request.offset, request.length) : -E.EBADF;
      }
      case 'close':
        this.#handles.delete(request.handle);
        return 0;
      case 'write':
        return control.write(request.path, request.bytes);
    }
  }
}
