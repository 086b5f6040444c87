// Threads of the daemon beside the one that serves: each holds little, and keeps nobody from ending. One that ends by a
// mistake of its own may be followed by another, unless that happens again and again.
import { type MessagePort, Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';

/** Far more than any of them has need of. */
const HEAP_MB = { maxOldGenerationSizeMb: 128 };
/** So many of a kind may die within a minute before there is no use in another one. */
const DEATHS = 3;
const MINUTE = 60_000;
/** Exit code by which one says that another would do no better. */
export const NO_USE = 3;

export class Deaths {
  #times: number[] = [];

  /** One more; whether another one may do better. */
  add(): boolean {
    const now = performance.now();
    this.#times = this.#times.filter((at) => now - at < MINUTE);
    this.#times.push(now);
    return this.#times.length <= DEATHS;
  }
}

export class SideThread {
  readonly #file: URL;
  readonly #name: string;
  readonly #log: Log;
  /** It has ended unasked. `worthwhile`: another one may do better. */
  readonly #died: (worthwhile: boolean) => void;
  #worker: Worker | null = null;
  #stopping = false;
  readonly #deaths = new Deaths();

  constructor(file: URL, name: string, log: Log, died: (worthwhile: boolean) => void) {
    this.#file = file;
    this.#name = name;
    this.#log = log;
    this.#died = died;
  }

  get isRunning(): boolean {
    return this.#worker !== null;
  }

  /** Where none is running. `data` is its workerData, and its port goes over to it. What it says first; null: it died. */
  start(data: { port: MessagePort }): Promise<unknown> {
    const worker = new Worker(this.#file, {
      workerData: data,
      transferList: [data.port],
      resourceLimits: HEAP_MB,
    });
    this.#worker = worker;
    worker.unref();
    worker.on('error', (error) => this.#log.error(`${this.#name}: ${error.stack ?? error.message}`));
    const first = this.#untilIt('message');
    worker.once('exit', (code) => {
      this.#worker = null;
      if (!this.#stopping) this.#died(code !== NO_USE && this.#deaths.add());
    });
    return first;
  }

  /** Says something to it; what it says next, or null: it has ended. */
  async ask(word: string): Promise<unknown> {
    if (this.#worker === null) return null;
    this.#worker.postMessage(word);
    return this.#untilIt('message');
  }

  say(word: string): void {
    this.#worker?.postMessage(word);
  }

  /** It is asked to end; when this resolves it has. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#worker === null) return;
    this.#worker.postMessage('stop');
    await this.#untilIt('exit');
  }

  #untilIt(event: 'message' | 'exit'): Promise<unknown> {
    const worker = this.#worker;
    return new Promise((resolve) => {
      worker?.once(event, resolve);
      worker?.once('exit', () => resolve(null));
    });
  }
}
