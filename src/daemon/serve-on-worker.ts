// Lets the serving worker serve, and wakes it for each message: it sleeps in poll(2), not in an event loop.
import { MessagePort, type Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import { eventfdSignal } from '../sys/poll.ts';
import type { FromWorker, ToWorker, WorkerStart } from './messages.ts';
import type { ServingEnd } from './worker-link.ts';

export function serveOnWorker(worker: Worker, start: WorkerStart, log: Log): ServingEnd {
  worker.postMessage(start, there(start.notifier?.port, start.announcer?.port));
  return {
    post: (message) => {
      worker.postMessage(message, portsOf(message));
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

/** What goes over to the worker. */
function portsOf(message: ToWorker): MessagePort[] {
  if (message.kind === 'notifier') return [message.end.port];
  return message.kind === 'announcer' ? there(message.contact?.port) : [];
}

function there(...ports: (MessagePort | undefined)[]): MessagePort[] {
  return ports.filter((port) => port instanceof MessagePort);
}
