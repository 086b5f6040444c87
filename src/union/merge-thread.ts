// Long texts are merged on a thread of their own, so that the main thread goes on with jobs and verbs: one at a time,
// and each within a limit. A short merge takes less time than to start a thread.
import { Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import { mergeText, type TextMerge } from '../merge/index.ts';
import type { MergeInput } from './merge-worker.ts';

/** Bytes of all three sides together. */
const LONG_TEXT = 64 * 1024;
const LIMIT_MS = 30_000;
const MEMORY_MB = 1024;

/** Whether it is worth a thread. */
export function isLong({ ancestor, overlay, base }: MergeInput): boolean {
  return ancestor.length + overlay.length + base.length > LONG_TEXT;
}

export class MergeThread {
  readonly #log: Log;
  readonly #limitMs: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(log: Log, limitMs = LIMIT_MS) {
    this.#log = log;
    this.#limitMs = limitMs;
  }

  /** As mergeText; what takes too long is refused as an input that is no text is: a conflict without markers. */
  merge(input: MergeInput): Promise<TextMerge> {
    if (!isLong(input)) return Promise.resolve(mergeText(input.ancestor, input.overlay, input.base));
    const run = this.#last.then(() => this.#onThread(input));
    this.#last = run;
    return run;
  }

  async #onThread(input: MergeInput): Promise<TextMerge> {
    const worker = new Worker(new URL('../union/merge-worker.js', import.meta.url), {
      workerData: input,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    });
    const result = await this.#resultOf(worker);
    await worker.terminate();
    if (typeof result !== 'string') {
      this.#log.debug(`${result.out.length} bytes were merged on a thread of their own`);
      return { conflict: result.conflict, out: Buffer.from(result.out) };
    }
    this.#log.warn(`a merge of ${input.overlay.length} bytes was given up: ${result}`);
    return { conflict: true, out: Buffer.from(input.overlay) };
  }

  /** The merge, or why there is none. */
  #resultOf(worker: Worker): Promise<TextMerge | string> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(`it took more than ${this.#limitMs / 1000} s`), this.#limitMs);
      const settle = (result: TextMerge | string) => {
        clearTimeout(timer);
        resolve(result);
      };
      worker.once('message', settle);
      worker.once('error', (error) => settle(error.message));
      worker.once('exit', (code) => settle(`its thread ended with ${code}`));
    });
  }
}
