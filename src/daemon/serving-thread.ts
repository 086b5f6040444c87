// The thread of the serving worker, begun before there is anything to serve: loading its modules takes as long as
// all that the main thread does until the mount is made, and needs nothing from it. Imports next to nothing.
import { Worker } from 'node:worker_threads';

/** Requests leave little behind; V8's own limit of 48 costs memory and brings nothing. */
const YOUNG_MB = 16;

/** Waits for a WorkerStart as its first message. */
export function beginServingThread(): Worker {
  return new Worker(new URL('./serve-worker.js', import.meta.url), {
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
  });
}
