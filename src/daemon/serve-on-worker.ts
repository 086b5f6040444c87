// Starts the serving worker, and wakes it for each message: it sleeps in poll(2), not in an event loop.
import { Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import { eventfdSignal } from '../sys/poll.ts';
import type { FromWorker, WorkerStart } from './messages.ts';
import type { ServingEnd } from './worker-link.ts';

/** Requests leave little behind; V8's own limit of 48 costs memory and brings nothing. */
const YOUNG_MB = 16;

export function serveOnWorker(start: WorkerStart, log: Log): ServingEnd {
  const worker = new Worker(new URL('./serve-worker.js', import.meta.url), {
    workerData: start,
    transferList: start.notifier === null ? [] : [start.notifier],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
  });
  return {
    post: (message) => {
      worker.postMessage(message);
      eventfdSignal(start.wakeFd);
    },
    listen: (take) => {
      worker.on('message', (message: FromWorker) => take(message));
      worker.on('error', (error) => {
        log.error(`serving worker: ${error.stack ?? error.message}`);
        take({ kind: 'ended', how: error.message, journal: '' });
      });
      worker.on('exit', () => take({ kind: 'ended', how: 'exited', journal: '' }));
    },
  };
}
