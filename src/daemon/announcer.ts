// The main thread's side of the announcer, which is started when there is something to tell, and paused while the mount
// is being taken down. Should it die, the serving worker has another one started by the same way.
import { randomBytes } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import { minorOf } from '../control/mountinfo.ts';
import type { Log } from '../lib/log.ts';
import type { AnnouncerContact, AnnouncerStart } from './messages.ts';
import { SideThread } from './side-thread.ts';

/** It is in the midst of something that waits for a lock; the mount is in use then in any case. */
const PAUSE_MS = 200;

export interface Announcer {
  /** To be given to the serving worker. */
  readonly contact: AnnouncerContact;
  /** The one that the last contact is of. */
  start(): void;
  /** Set by whoever is to know that it has died, and of the contact to another one, to be started; null: none. */
  onDied: (contact: AnnouncerContact | null) => void;
  /** It has left the mount when this resolves, as a rule, and stays outside until resume(). */
  pause(): Promise<void>;
  resume(): void;
  stop(): void;
}

export function prepareAnnouncer(mountPoint: string, wakeFd: number, log: Log): Announcer {
  const minor = minorOf(mountPoint);
  const file = new URL('../daemon/announcer-worker.js', import.meta.url);
  const thread = new SideThread(file, 'announcer', log, (worthwhile) =>
    announcer.onDied(worthwhile ? prepare() : null),
  );
  let next: AnnouncerStart;
  const prepare = (): AnnouncerContact => {
    const { port1, port2 } = new MessageChannel();
    const sign = `.kasane-${randomBytes(16).toString('hex')}`;
    next = { mountPoint, minor, sign, wakeFd, port: port2 };
    return { port: port1, sign };
  };
  const announcer: Announcer = {
    contact: prepare(),
    start: () => {
      if (!thread.isRunning) void thread.start(next);
    },
    onDied: () => {},
    pause: () =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, PAUSE_MS);
        void thread.ask('pause').then(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
    resume: () => thread.say('resume'),
    stop: () => void thread.stop(),
  };
  return announcer;
}
