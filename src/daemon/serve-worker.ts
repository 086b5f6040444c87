// The serving worker: owns union and FUSE server, and answers the kernel. It never waits for another thread nor
// for a disk; what may, it sends to the main thread as a job and goes on.
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { Ahead } from '../frontend/ahead.ts';
import { Allowances } from '../frontend/allowance.ts';
import { listingEnded } from '../frontend/directories.ts';
import { type Front, interrupted } from '../frontend/front.ts';
import { handlersOf } from '../frontend/index.ts';
import { Listings } from '../frontend/listings.ts';
import type { Negotiated } from '../fuse/init.ts';
import { createServer } from '../fuse/server.ts';
import { messageOf } from '../lib/errors.ts';
import { closeBacking, openBacking } from '../sys/backing.ts';
import { close } from '../sys/file.ts';
import type { Passthrough } from '../union/union.ts';
import { AnnouncerLink } from './announcer-link.ts';
import type { ToWorker, WorkerStart } from './messages.ts';
import { NotifierLink } from './notifier-link.ts';
import { endServing, openServing, receive, type Serving } from './serving.ts';
import { Shrinker } from './shrink.ts';

function serve(port: MessagePort, start: WorkerStart): void {
  const serving = openServing(start, (message) => port.postMessage(message));
  const { host, union, ears } = serving;
  const hear = () => ears.hear(union, host);
  const voice = new NotifierLink(start.notifier, union.kernel, hear);
  host.whenTold = (done) => voice.whenTold(done);
  const { announcer } = start;
  const announcements =
    announcer === null ? null : new AnnouncerLink(announcer, union, voice, (message) => host.send(message));
  const front = frontOf(serving, start, voice);
  const shrinker = new Shrinker();
  front.server = createServer({
    deviceFd: start.deviceFd,
    wakeFd: start.wakeFd,
    latencyFd: start.latencyFd,
    eventsFd: () => ears.fd,
    handlers: handlersOf(front),
    log: host.log,
    trace: start.debug ? (line) => host.log.debug(line) : null,
    buckets: start.buckets,
    wishes: start.wishes,
    onInit: (negotiated) => {
      if (negotiated.uses.PASSTHROUGH) union.passthrough = passthroughOf(start, negotiated);
      if (!negotiated.offers.HAS_EXPIRE_ONLY) union.kernel.keeping = 'none';
      host.send({ kind: 'serving', negotiated });
    },
    onWake: () => {
      front.ahead.drop();
      if (voice.isReminded()) doLate(serving);
      voice.drain();
      announcements?.drain();
      drain(port, serving);
    },
    onEvents: () => {
      front.ahead.drop();
      hear();
    },
    spare: () => front.ahead.work(),
    onDone: () => voice.send(),
    onEmpty: () => union.kernel.drained(),
    onPause: () => {
      front.listings.dropAbandoned();
      pause(serving, voice);
    },
    idle: {
      isDue: () => shrinker.isDue(union.table.size),
      run: () => shrinker.shrink(union.table.size),
    },
    onInterrupt: (token) => interrupted(front, token),
    onDestroy: () => {},
  });
  serving.voices = {
    notifier: (end) => (end === null ? voice.silence() : voice.replace(end)),
    announcer: (contact) => announcements?.replace(contact),
  };
  serving.onRotate = () => shrinker.look(union.table.size);
  serving.metrics = () => front.server.metrics();
  let how: string;
  try {
    how = front.server.run();
  } catch (error) {
    how = messageOf(error);
    host.log.error(how);
  }
  union.table.endLingering();
  close(start.deviceFd);
  endServing(serving, how);
}

/** Its server has to be set. */
function frontOf({ host, union }: Serving, start: WorkerStart, voice: NotifierLink): Front {
  const front: Front = {
    union,
    // Who has opened a control file sees the base as it was by then.
    askControl: (request, done) => {
      if (request.op === 'open') voice.whenTold(() => host.askControl(request, done));
      else host.askControl(request, done);
    },
    owner: start.owner,
    keepSeconds: start.config.keepSeconds,
    opensDirectories: true,
    listings: new Listings((node, listing) => listingEnded(front, node, listing)),
    ahead: new Ahead(union),
    allowances: new Allowances(),
    opening: new Map(),
    lockWaiters: new Map(),
    changing: new Set(),
    controlPaths: new Map(),
    exported: start.exported,
  } as Omit<Front, 'server'> as Front;
  return front;
}

/** Nothing is to be answered. To wake another thread after each request would cost as much as the request. */
function pause(serving: Serving, voice: NotifierLink): void {
  serving.seenLog?.flush();
  serving.union.table.endLingering();
  if (voice.isSilent) doLate(serving);
  else if (serving.union.kernel.hasLate || serving.host.hasCollected) voice.remindLater();
  voice.send();
}

/** What may be late. */
function doLate({ flush, union }: Serving): void {
  flush();
  union.kernel.tellLate();
}

/** Seen on Linux 6.18 (7.45); kernels before 6.14 (7.42) are not trusted with it. */
const TAKES_BACK_MINOR = 42;

function passthroughOf({ deviceFd, exported }: WorkerStart, { kernelMinor }: Negotiated): Passthrough {
  return {
    // Handles of an NFS server cannot be divided when what they lead to is copied up.
    base: !exported,
    takesBack: kernelMinor >= TAKES_BACK_MINOR,
    open: (fd) => openBacking(deviceFd, fd),
    close: (id) => void closeBacking(deviceFd, id),
  };
}

function drain(port: MessagePort, serving: Serving): void {
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    receive(serving, got.message as ToWorker);
  }
}

if (parentPort === null) throw new TypeError('serve-worker.ts is the entry of a worker thread');
const port = parentPort;
port.once('message', (start: WorkerStart) => serve(port, start));
