// The main thread's side of the notifier: starts it, and gives the serving worker the port to it.
import { MessageChannel } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import type { NotifierEnd, NotifierStart } from './messages.ts';
import { startSideThread } from './side-thread.ts';

export interface Notifier {
  /** To be given to the serving worker. */
  end: NotifierEnd;
  /** It has descriptors of its own by then. */
  ready: Promise<void>;
  /** It has ended: asked to, or by a mistake of its own. */
  gone: Promise<void>;
  stop(): void;
}

export function startNotifier(deviceFd: number, wakeFd: number, log: Log): Notifier {
  const { port1, port2 } = new MessageChannel();
  const written = new Int32Array(new SharedArrayBuffer(4));
  const start: NotifierStart = { deviceFd, wakeFd, port: port2, written };
  const worker = startSideThread(new URL('./notifier-worker.js', import.meta.url), 'notifier', start, log);
  const gone = new Promise<void>((resolve) => {
    worker.once('exit', () => resolve());
  });
  const first = new Promise<void>((resolve) => {
    worker.once('message', () => resolve());
  });
  const ready = Promise.race([first, gone]);
  return {
    end: { port: port1, written },
    ready,
    gone,
    stop: () => worker.postMessage('stop'),
  };
}
