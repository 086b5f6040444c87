// Threads of the daemon beside the one that serves: each holds little, and keeps nobody from ending.
import { type MessagePort, Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';

/** Far more than any of them has need of. */
const HEAP_MB = { maxOldGenerationSizeMb: 128 };

/** `start` is its workerData, and its port goes over to it. */
export function startSideThread(file: URL, name: string, start: { port: MessagePort }, log: Log): Worker {
  const worker = new Worker(file, {
    workerData: start,
    transferList: [start.port],
    resourceLimits: HEAP_MB,
  });
  worker.on('error', (error) => log.error(`${name}: ${error.stack ?? error.message}`));
  worker.unref();
  return worker;
}
