// The main thread's side of the notifier: has it, and starts another one should it die. The serving worker is given the
// port to it.
import { MessageChannel } from 'node:worker_threads';
import { FsError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { close, dup } from '../sys/file.ts';
import type { NotifierEnd, NotifierStart } from './messages.ts';
import { SideThread } from './side-thread.ts';

export interface Notifier {
  /** To be given to the serving worker. */
  readonly end: NotifierEnd;
  /** Starts it, once; what it is given before lies in its port. Whether it has got descriptors of its own. */
  start(): Promise<boolean>;
  /**
   * Set by whoever is to know that another one, with this end, is in the place of one that has died. What that had
   * been given and not written is lost. `last`: so many have died that there will be no other.
   */
  onReplaced: (end: NotifierEnd, last: boolean) => void;
  stop(): void;
}

/** Not started: its thread would take the processor from what a mount waits for until it answers. */
export function prepareNotifier(deviceFd: number, wakeFd: number, log: Log): Notifier {
  const written = new Int32Array(new SharedArrayBuffer(8));
  // The serving worker closes its own, whose number may be another file's by the time that a notifier is started.
  const ownFd = dup(deviceFd);
  if (ownFd < 0) throw new FsError(-ownFd, 'no descriptor for the notifier');
  let last = false;
  const file = new URL('../daemon/notifier-worker.js', import.meta.url);
  const thread = new SideThread(file, 'notifier', log, (worthwhile) => {
    if (last) return;
    last = !worthwhile;
    const end = prepare();
    void start();
    notifier.onReplaced(end, last);
  });
  let next: NotifierStart;
  const prepare = (): NotifierEnd => {
    const { port1, port2 } = new MessageChannel();
    next = { deviceFd: ownFd, wakeFd, port: port2, written };
    return { port: port1, written };
  };
  const start = () => thread.start(next).then((error) => error === 0);
  const notifier: Notifier = {
    end: prepare(),
    start,
    onReplaced: () => {},
    stop: () => void thread.stop().then(() => close(ownFd)),
  };
  return notifier;
}
