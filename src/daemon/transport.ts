// How requests reach a mount: over the device itself, answered by the serving worker, or through libfuse 2 and
// fuse-native, answered by this thread.
import type { Worker } from 'node:worker_threads';
import { latencyBuckets } from '../control/metrics.ts';
import type { MountOptions } from '../control/mount-options.ts';
import { type DeviceOptions, openMount, unmount } from '../fuse/device.ts';
import { withMinor } from '../fuse/device-number.ts';
import { loadAddon } from '../fuse/native/addon.ts';
import { NativeServer } from '../fuse/native/server.ts';
import { errnoName } from '../lib/errno.ts';
import type { LogConfig } from '../lib/log.ts';
import { makeLog } from '../lib/log.ts';
import { CPU_LATENCY, openCpuLatency } from '../sys/cpu-latency.ts';
import { eventfd } from '../sys/poll.ts';
import { type Announcer, prepareAnnouncer } from './announcer.ts';
import { keepsAwake } from './cpu-latency.ts';
import type { ServingStart } from './messages.ts';
import { type Notifier, prepareNotifier } from './notifier.ts';
import { serveHere } from './serve-here.ts';
import { serveOnWorker } from './serve-on-worker.ts';
import type { ServingEnd } from './worker-link.ts';

/** A file system that is mounted, and waits to be served. */
export interface Transport {
  /** Once, and before this thread does anything else. */
  serve(start: ServingStart): ServingEnd;
  /** What tells the kernel of changes, so that it may keep things, once it is started; null: there is no such way. */
  prepareNotifier(): Notifier | null;
  /** What tells guests of changes by their own inotify, once it is started; null: there is no such way. */
  prepareAnnouncer(): Announcer | null;
  /** 0 or a negative errno. `lazy`: at once, even where it is in use. */
  unmount(lazy: boolean): Promise<number>;
  /** A sentence each: what is otherwise than a user expects. */
  notes: readonly string[];
  /** While requests are many: daemon/cpu-latency.ts. */
  keepsAwake: boolean;
}

/**
 * Mounts. `allowsOthers`: where the options do not say. `minor`: the device number that the mount is to have, if it is
 * free. `thread`: of the serving worker, which the direct transport needs. Throws FsError.
 */
export function openTransport(
  options: MountOptions,
  allowsOthers: boolean,
  minor: number | null,
  logConfig: LogConfig,
  thread: Worker | null,
): Transport {
  const { mountPoint, fsname, readOnly, suid, dev, exec, atime } = options;
  const allowOther = options.allowOther ?? allowsOthers;
  const device = { mountPoint, fsname, readOnly, suid, dev, exec, atime, allowOther };
  if (thread === null) return openNative(device, logConfig, options.debug);
  const deviceFd = minor === null ? openMount(device) : withMinor(minor, () => openMount(device));
  const wakeFd = eventfd();
  const latencyFd = keepsAwake(options) ? openCpuLatency() : -1;
  const log = makeLog(logConfig);
  return {
    serve: (start) => serveOnWorker(thread, { ...start, deviceFd, wakeFd, latencyFd }, log),
    prepareNotifier: () => prepareNotifier(deviceFd, wakeFd, log),
    prepareAnnouncer: () => prepareAnnouncer(mountPoint, wakeFd, log),
    unmount: async (lazy) => unmount(mountPoint, lazy),
    notes: latencyNotes(options, latencyFd),
    keepsAwake: latencyFd >= 0,
  };
}

/** Where nobody has asked for it, it is nobody's loss. */
function latencyNotes({ cpuLatency }: MountOptions, fd: number): string[] {
  if (cpuLatency !== 'low' || fd >= 0) return [];
  return [`processors are not kept awake: ${CPU_LATENCY} cannot be opened (${errnoName(fd)})`];
}

function openNative(device: DeviceOptions, logConfig: LogConfig, debug: boolean): Transport {
  const log = makeLog({ ...logConfig, prefix: 'serve' });
  const server = new NativeServer(loadAddon(), {
    device,
    log,
    trace: debug ? (line) => log.debug(line) : null,
    buckets: latencyBuckets,
  });
  return {
    serve: (start) => serveHere(server, start),
    prepareNotifier: () => null,
    prepareAnnouncer: () => null,
    unmount: (lazy) => server.unmount(lazy),
    keepsAwake: false,
    notes: [
      'transport fuse-native: who asks is not known, so what is made belongs to the owner of the mount; ' +
        'times have milliseconds and none before 1970 (native-notes/fuse-native.md)',
    ],
  };
}
