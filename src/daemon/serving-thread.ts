// The thread of the serving worker, begun before there is anything to serve: loading its modules takes as long as
// all that the main thread does until the mount is made, and needs nothing from it. Imports next to nothing.
import { Worker } from 'node:worker_threads';

/** Waits for a WorkerStart as its first message. */
export function beginServingThread(): Worker {
  return new Worker(new URL('../daemon/serve-worker.js', import.meta.url));
}
