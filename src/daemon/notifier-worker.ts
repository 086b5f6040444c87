// The thread that writes notifications to the device, and does nothing else: the kernel may let it wait for a lock
// whose holder waits for the serving worker. It has descriptors of its own, so that a daemon which is killed while
// this thread waits lets go of all others, the watchdog's pipe among them.
import * as fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { forEachNotification } from '../fuse/notify.ts';
import { unshareDescriptors } from '../sys/creds.ts';
import { close, write } from '../sys/file.ts';
import { eventfdSignal } from '../sys/poll.ts';
import type { NotifierStart, ToNotifier } from './messages.ts';

/**
 * A look-up that revalidates a name does so without the directory's lock: its answer, given before the change, can
 * reach the kernel's cache after the notification. So names are expired again.
 */
const AGAIN_MS = [20, 500];

function run(start: NotifierStart): void {
  const { deviceFd, wakeFd, port } = start;
  if (unshareDescriptors() === 0) closeOthers(deviceFd);
  parentPort?.postMessage('ready');
  port.on('message', ({ batch, confirm }: ToNotifier) => {
    const known = writeAll(deviceFd, batch, () => true);
    if (confirm !== 0) {
      port.postMessage(confirm);
      eventfdSignal(wakeFd);
    }
    if (known.size === 0) return;
    for (const ms of AGAIN_MS) {
      setTimeout(() => void writeAll(deviceFd, batch, (at) => known.has(at)), ms);
    }
  });
  parentPort?.on('message', () => {
    close(deviceFd);
    process.exit(0);
  });
}

/** The places of names that the kernel knew. What it does not know (any more) needs no telling. */
function writeAll(deviceFd: number, batch: Uint8Array, wanted: (at: number) => boolean): Set<number> {
  const known = new Set<number>();
  forEachNotification(batch, (at, size, isEntry) => {
    if (wanted(at) && write(deviceFd, batch, at, size) >= 0 && isEntry) known.add(at);
  });
  return known;
}

/** Files and directories of the daemon's would be held by this thread's descriptors, too. */
function closeOthers(deviceFd: number): void {
  const dir = '/proc/thread-self/fd';
  for (const name of fs.readdirSync(dir)) {
    const fd = Number(name);
    if (fd <= 2 || fd === deviceFd) continue;
    try {
      const target = fs.readlinkSync(`${dir}/${name}`);
      if (target.startsWith('/') || target.startsWith('socket:')) close(fd);
    } catch (error) {
      // The descriptor by which the directory was read.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

if (parentPort === null) throw new TypeError('notifier-worker.ts is the entry of a worker thread');
run(workerData as NotifierStart);
