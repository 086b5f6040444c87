// The main thread's side of the notifier: starts it, and gives the serving worker the port to it.
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import type { NotifierStart } from './messages.ts';

/** It holds little: a small heap, and a thread whose memory is not to be noticed. */
const HEAP_MB = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 };

export interface Notifier {
  /** To be given to the serving worker. */
  port: MessagePort;
  stop(): void;
}

/** Before any descriptor is opened that is not to outlive a killed daemon. */
export function startNotifier(deviceFd: number, wakeFd: number, log: Log): Notifier {
  const { port1, port2 } = new MessageChannel();
  const start: NotifierStart = { deviceFd, wakeFd, port: port2 };
  const worker = new Worker(new URL('./notifier-worker.js', import.meta.url), {
    workerData: start,
    transferList: [port2],
    resourceLimits: HEAP_MB,
  });
  worker.on('error', (error) => log.error(`notifier: ${error.stack ?? error.message}`));
  worker.unref();
  return {
    port: port1,
    stop: () => worker.postMessage('stop'),
  };
}
