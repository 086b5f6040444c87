// The union's host: hands work to the main thread, and lets go on what waits for it. It lives on the thread that
// serves; what becomes of its messages is the affair of whoever gives it `send`.
import { baseMoved } from '../branch/base.ts';
import type { AskControl, ControlReply } from '../frontend/front.ts';
import { E } from '../lib/errno.ts';
import { stackOf } from '../lib/errors.ts';
import { makeLog } from '../lib/log.ts';
import type { JobResult } from '../union/jobs.ts';
import type { PendingWork } from '../union/node.ts';
import type { UnionHost } from '../union/union.ts';
import { KeepBatch } from './keep-batch.ts';
import type { FromWorker, ServingStart } from './messages.ts';

const emptyResult: JobResult = { result: 0, content: '', fingerprint: '', torn: false, origin: '' };

interface Running {
  work: PendingWork;
  finished: ((result: JobResult) => number) | null;
}

/** The serving side of everything that is done for it elsewhere. */
export class Host implements UnionHost {
  readonly log;
  readonly #post: (message: FromWorker) => void;
  readonly #kept = new KeepBatch();
  readonly #running = new Map<number, Running>();
  readonly #looks = new Map<string, PendingWork>();
  readonly #asked = new Map<number, (reply: ControlReply) => void>();
  readonly #layers: () => ServingStart['layers'];
  readonly #moving = new Set<number>();
  #next = 1;

  constructor(start: ServingStart, post: (message: FromWorker) => void) {
    this.#post = post;
    this.#layers = () => start.layers;
    this.log = makeLog(start.log);
  }

  get pending(): number {
    return this.#running.size;
  }

  send(message: FromWorker): void {
    this.flush();
    this.#post(message);
  }

  get hasCollected(): boolean {
    return !this.#kept.isEmpty;
  }

  /** What has been collected goes out. It does so before any other message, which may ask for what is in it. */
  flush(): void {
    if (!this.#kept.isEmpty) this.#post({ kind: 'keep', kept: this.#kept.take() });
  }

  /** Something has been collected. Set where nobody flushes now and then. */
  onCollected: () => void = () => {};

  #begin(kind: string, finished: Running['finished']): PendingWork {
    const work: PendingWork = { id: this.#next++, kind, result: undefined, waiting: [] };
    this.#running.set(work.id, { work, finished });
    return work;
  }

  startJob: UnionHost['startJob'] = (args, finished) => {
    const work = this.#begin(args.kind, finished);
    this.send({ kind: 'job', id: work.id, args });
    return work;
  };

  look: UnionHost['look'] = (path) => {
    const known = this.#looks.get(path);
    if (known) return known;
    const work = this.#begin(`look at ${path}`, () => {
      this.#looks.delete(path);
      return 0;
    });
    this.#looks.set(path, work);
    this.send({ kind: 'look', id: work.id, path });
    return work;
  };

  noticed: UnionHost['noticed'] = (path) => {
    if (!this.#looks.has(path)) this.send({ kind: 'noticed', path });
  };

  remember: UnionHost['remember'] = (path, fingerprint, fd, witness) => {
    this.send({ kind: 'remember', path, fingerprint, fd, witness });
  };

  keepAncestor: UnionHost['keepAncestor'] = (bytes, hash) => {
    const first = this.#kept.isEmpty;
    this.#kept.add(bytes, hash);
    if (this.#kept.isFull) this.flush();
    else if (first) this.onCollected();
  };

  renamed: UnionHost['renamed'] = () => {
    this.send({ kind: 'renamed' });
  };

  baseStirs: UnionHost['baseStirs'] = () => {
    this.send({ kind: 'base-stirs' });
  };

  baseMoved: UnionHost['baseMoved'] = (index) => {
    const layer = this.#layers()[index];
    if (!layer || this.#moving.has(index) || baseMoved(layer) === 0) return;
    this.#moving.add(index);
    this.send({ kind: 'base-moved', layer: index });
  };

  /** Calls back when the kernel has been told of all by now. Set where there is somebody to tell it. */
  whenTold: (done: () => void) => void = (done) => done();

  tell: UnionHost['tell'] = () => {
    const work = this.#begin('telling the kernel', () => 0);
    this.whenTold(() => this.finish(work.id, null));
    return work;
  };

  baseSettled(index: number): void {
    this.#moving.delete(index);
  }

  askControl: AskControl = (request, done) => {
    const id = this.#next++;
    this.#asked.set(id, done);
    this.send({ kind: 'control', id, request });
  };

  controlReply(id: number, reply: ControlReply): void {
    const done = this.#asked.get(id);
    this.#asked.delete(id);
    done?.(reply);
  }

  /** A mistake of ours costs whoever waits an error, and never the answer. */
  orEio(what: string, work: () => number): number {
    try {
      return work();
    } catch (error) {
      this.log.error(`${what}: ${stackOf(error)}`);
      return -E.EIO;
    }
  }

  finish(id: number, result: JobResult | null): void {
    const running = this.#running.get(id);
    if (!running) return;
    this.#running.delete(id);
    const { work, finished } = running;
    work.result = finished === null ? 0 : this.orEio(work.kind, () => finished(result ?? emptyResult));
    for (const waiting of work.waiting.splice(0)) waiting(work.result);
  }
}
