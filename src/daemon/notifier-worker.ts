// The thread that writes notifications to the device, and does nothing else: the kernel may let it wait for a lock
// whose holder waits for the serving worker. It has descriptors of its own, so that a daemon which is killed while
// this thread waits lets go of all others, the watchdog's pipe among them.
import { parentPort, workerData } from 'node:worker_threads';
import { AGAIN, forEachNotification, keyOf, LATE } from '../fuse/notify.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { isPassing, PAUSE_MS, pause } from '../lib/passing.ts';
import { close, write } from '../sys/file.ts';
import { eventfdSignal } from '../sys/poll.ts';
import { failPoint } from '../union/fail-point.ts';
import type { NotifierBatch, NotifierStart, ToNotifier } from './messages.ts';
import { ownDescriptors } from './own-descriptors.ts';

/** After how long what has time is told of, at least, and at most twice as long. */
const LATE_MS = 40;
/** After how long names are told of again (kernel-view.ts, `expire`), and at most twice as long. */
const AGAIN_MS = [3, 30, 300, 3000];

/** Notifications that are written again after a while. What is added several times meanwhile is written once. */
class Later {
  readonly #write: (notification: Uint8Array) => void;
  readonly #ms: number;
  #young = new Map<string, Uint8Array>();
  #old = new Map<string, Uint8Array>();
  #timer: NodeJS.Timeout | null = null;

  constructor(ms: number, write: (notification: Uint8Array) => void) {
    this.#ms = ms;
    this.#write = write;
  }

  /** It has been written by another way. */
  drop(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }

  get isEmpty(): boolean {
    return this.#timer === null;
  }

  add(key: string, notification: Uint8Array): void {
    this.#young.set(key, notification);
    this.#timer ??= setInterval(() => this.#turn(), this.#ms);
  }

  #turn(): void {
    for (const notification of this.#old.values()) this.#write(notification);
    this.#old = this.#young;
    this.#young = new Map();
    if (this.#old.size > 0) return;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}

/** Writes a notification, however long that takes. Whether the kernel knew what it is about. */
function isKnown(deviceFd: number, bytes: Uint8Array, at: number, size: number): boolean {
  for (;;) {
    const result = write(deviceFd, bytes, at, size);
    if (result >= 0) return true;
    if (result === -E.ENOENT) return false;
    if (!isPassing(result)) throw new FsError(-result, `a notification was refused: ${errnoName(result)}`);
    pause(PAUSE_MS);
  }
}

function run(start: NotifierStart): void {
  const { deviceFd, wakeFd, port, written } = start;
  parentPort?.postMessage(ownDescriptors(deviceFd));
  const tell = (bytes: Uint8Array, at: number, size: number) => isKnown(deviceFd, bytes, at, size);
  const tellWhole = (one: Uint8Array) => void tell(one, 0, one.length);
  const again = AGAIN_MS.map((ms) => new Later(ms, tellWhole));
  const late = new Later(LATE_MS, tellWhole);
  port.on('message', (message: ToNotifier) => {
    if (typeof message === 'number') setTimeout(remind, message);
    else tellAll(message);
  });
  const remind = () => {
    Atomics.add(written, 1, 1);
    eventfdSignal(wakeFd);
  };
  const tellAll = ({ batch, number, wake }: NotifierBatch) => {
    failPoint('notify');
    forEachNotification(batch, (at, size, when) => {
      // What the kernel does not know (any more) needs no telling.
      if (when !== LATE && !tell(batch, at, size)) return;
      if (when === 0 && late.isEmpty) return;
      const one = batch.slice(at, at + size);
      const key = keyOf(one);
      if (when === 0) late.drop(key);
      for (const list of when === LATE ? [late] : when === AGAIN ? again : []) list.add(key, one);
    });
    Atomics.store(written, 0, number);
    if (wake) eventfdSignal(wakeFd);
  };
  parentPort?.on('message', () => {
    close(deviceFd);
    process.exit(0);
  });
}

if (parentPort === null) throw new TypeError('notifier-worker.ts is the entry of a worker thread');
run(workerData as NotifierStart);
