// The main thread's side of the announcer, which is started when there is something to tell, and paused while the mount
// is being taken down.
import { randomBytes } from 'node:crypto';
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import { readMountInfo } from '../control/mountinfo.ts';
import type { Log } from '../lib/log.ts';
import type { AnnouncerStart } from './messages.ts';
import { startSideThread } from './side-thread.ts';

/** It is in the midst of something that waits for a lock; the mount is in use then in any case. */
const PAUSE_MS = 200;

export interface Announcer {
  /** To be given to the serving worker: the port, and what the announcer will look up first. */
  contact: { port: MessagePort; sign: string };
  /** Once. `gone`: it has ended. */
  start(gone: () => void): void;
  /** It has left the mount when this resolves, as a rule, and stays outside until resume(). */
  pause(): Promise<void>;
  resume(): void;
  stop(): void;
}

export function prepareAnnouncer(mountPoint: string, wakeFd: number, log: Log): Announcer {
  const { port1, port2 } = new MessageChannel();
  const sign = `.kasane-${randomBytes(16).toString('hex')}`;
  let worker: Worker | null = null;
  const start = (gone: () => void): void => {
    if (worker !== null) return;
    const minor = readMountInfo().findLast((mount) => mount.mountPoint === mountPoint)?.minor ?? -1;
    const data: AnnouncerStart = { mountPoint, minor, sign, wakeFd, port: port2 };
    worker = startSideThread(new URL('./announcer-worker.js', import.meta.url), 'announcer', data, log);
    worker.once('exit', () => {
      worker = null;
      gone();
    });
  };
  const pause = (): Promise<void> =>
    new Promise((resolve) => {
      if (worker === null) return resolve();
      const timer = setTimeout(resolve, PAUSE_MS);
      worker.once('message', () => {
        clearTimeout(timer);
        resolve();
      });
      worker.postMessage('pause');
    });
  return {
    contact: { port: port1, sign },
    start,
    pause,
    resume: () => worker?.postMessage('resume'),
    stop: () => worker?.postMessage('stop'),
  };
}
