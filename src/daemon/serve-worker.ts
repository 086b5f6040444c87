// The serving worker: owns union and FUSE server, and answers the kernel. It never waits for another thread nor
// for a disk; what may, it sends to the main thread as a job and goes on.
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type BaseLayer, baseMoved } from '../branch/base.ts';
import { type AskControl, type ControlReply, type Front, interrupted } from '../frontend/front.ts';
import { handlersOf } from '../frontend/index.ts';
import { createServer } from '../fuse/server.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { makeLog } from '../lib/log.ts';
import { CAP_SYS_RESOURCE } from '../sys/constants.ts';
import { dropCapability, unshareFs } from '../sys/creds.ts';
import { close } from '../sys/file.ts';
import { commit } from '../union/commit.ts';
import { fillOrigin } from '../union/fill.ts';
import { loadHardLinks } from '../union/hard-links.ts';
import type { JobResult } from '../union/jobs.ts';
import { namesOf } from '../union/known.ts';
import type { PendingWork } from '../union/node.ts';
import { setVerdict } from '../union/stale.ts';
import { type Journal, Union, type UnionHost } from '../union/union.ts';
import { IdentityLog } from '../versions/identity-log.ts';
import { JournalWriter, journalName } from '../versions/journal.ts';
import type { FromWorker, ToWorker, WorkerStart } from './messages.ts';
import { Shrinker } from './shrink.ts';

const shrinker = new Shrinker();

/** New ones are asked for when so few are left: more than can be looked up while the main thread is busy. */
const NODES_LOW = 500_000;

interface Running {
  work: PendingWork;
  finished: ((result: JobResult) => number) | null;
}

/** The worker's side of everything that another thread does for it. */
class Host implements UnionHost {
  readonly log;
  readonly #port: MessagePort;
  readonly #running = new Map<number, Running>();
  readonly #looks = new Map<string, PendingWork>();
  readonly #asked = new Map<number, (reply: ControlReply) => void>();
  readonly #layers: () => WorkerStart['layers'];
  readonly #moving = new Set<number>();
  #next = 1;

  constructor(port: MessagePort, start: WorkerStart) {
    this.#port = port;
    this.#layers = () => start.layers;
    this.log = makeLog(start.log);
  }

  send(message: FromWorker): void {
    this.#port.postMessage(message);
  }

  get pending(): number {
    return this.#running.size;
  }

  #begin(kind: string, finished: Running['finished']): PendingWork {
    const work: PendingWork = { id: this.#next++, kind, result: undefined, waiting: [] };
    this.#running.set(work.id, { work, finished });
    return work;
  }

  startJob: UnionHost['startJob'] = (args, finished) => {
    const work = this.#begin(args.kind, finished);
    this.send({ kind: 'job', id: work.id, args });
    return work;
  };

  look: UnionHost['look'] = (path, basePath) => {
    const known = this.#looks.get(path);
    if (known) return known;
    const work = this.#begin(`look at ${path}`, () => {
      this.#looks.delete(path);
      return 0;
    });
    this.#looks.set(path, work);
    this.send({ kind: 'look', id: work.id, path, basePath });
    return work;
  };

  noticed: UnionHost['noticed'] = (path, basePath) => {
    if (!this.#looks.has(path)) this.send({ kind: 'noticed', path, basePath });
  };

  remember: UnionHost['remember'] = (path, fingerprint, fd, witness) => {
    this.send({ kind: 'remember', path, fingerprint, fd, witness });
  };

  renamed: UnionHost['renamed'] = () => {
    this.send({ kind: 'renamed' });
  };

  baseMoved: UnionHost['baseMoved'] = (index) => {
    const layer = this.#layers()[index];
    if (!layer || this.#moving.has(index) || baseMoved(layer) === 0) return;
    this.#moving.add(index);
    this.send({ kind: 'base-moved', layer: index });
  };

  baseSettled(index: number): void {
    this.#moving.delete(index);
  }

  askControl: AskControl = (request, done) => {
    const id = this.#next++;
    this.#asked.set(id, done);
    this.send({ kind: 'control', id, request });
  };

  controlReply(id: number, reply: ControlReply): void {
    const done = this.#asked.get(id);
    this.#asked.delete(id);
    done?.(reply);
  }

  /** A mistake of ours costs whoever waits an error, and never the answer. */
  orEio(what: string, work: () => number): number {
    try {
      return work();
    } catch (error) {
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.log.error(`${what}: ${detail.replace(/\s*\n\s*/g, ' | ')}`);
      return -E.EIO;
    }
  }

  finish(id: number, result: JobResult | null): void {
    const running = this.#running.get(id);
    if (!running) return;
    this.#running.delete(id);
    const { work, finished } = running;
    work.result = finished === null ? 0 : this.orEio(work.kind, () => finished(result ?? emptyResult));
    for (const waiting of work.waiting.splice(0)) waiting(work.result);
  }
}

/** Of a mount that nothing can be written to. */
const noJournal: Journal = {
  size: 0,
  append: () => 0,
  takeBack: () => {},
  rotate: () => '',
  close: () => {},
};

const emptyResult: JobResult = { result: 0, content: '', fingerprint: '', torn: false, origin: '' };

/** NodeIds out of a reserved block; asks for the next block before this one is used up. */
class Mint {
  #from: number;
  #to: number;
  #next: { from: number; to: number } | null = null;
  #asked = false;
  readonly #ask: () => void;

  constructor(block: { from: number; to: number }, ask: () => void) {
    this.#from = block.from;
    this.#to = block.to;
    this.#ask = ask;
  }

  add(block: { from: number; to: number }): void {
    this.#next = block;
    this.#asked = false;
  }

  mint = (): number => {
    if (this.#to - this.#from < NODES_LOW && this.#next === null && !this.#asked) {
      this.#asked = true;
      this.#ask();
    }
    if (this.#from >= this.#to) {
      // Rather fail than give a number out twice.
      if (this.#next === null) throw new FsError(E.EAGAIN, 'no numbers are left for new nodes');
      this.#from = this.#next.from;
      this.#to = this.#next.to;
      this.#next = null;
    }
    return this.#from++;
  };
}

function serve(port: MessagePort, start: WorkerStart): void {
  const host = new Host(port, start);
  // Guests must not write past quotas and reserved blocks; and the umask is to be this thread's own.
  dropCapability(CAP_SYS_RESOURCE);
  unshareFs();
  const mint = new Mint(start.nodes, () => host.send({ kind: 'nodes-low' }));
  const journal = start.config.readOnly ? noJournal : new JournalWriter(start.stateFd);
  const { config, overlay, layers, workFd, linksFd } = start;
  const identity = start.exported ? new IdentityLog(start.identityDir) : null;
  const union = new Union({
    config,
    overlay,
    layers,
    workFd,
    linksFd,
    journal,
    mint: mint.mint,
    identity,
    host,
  });
  union.baseAccepted = start.baseAccepted;
  const learnt = loadHardLinks(union);
  if (learnt < 0) host.log.error(`links/ cannot be read (${errnoName(learnt)})`);
  const front = {
    union,
    askControl: host.askControl,
    owner: start.owner,
    entryValid: start.entryValid,
    attrValid: start.attrValid,
    directories: new Map(),
    nextDirectory: 1,
    opening: new Map(),
    controlPaths: new Map(),
    exported: start.exported,
  } as Omit<Front, 'server'> as Front;
  front.server = createServer({
    deviceFd: start.deviceFd,
    wakeFd: start.wakeFd,
    handlers: handlersOf(front),
    log: host.log,
    trace: start.debug ? (line) => host.log.debug(line) : null,
    buckets: start.buckets,
    wishes: start.wishes,
    onInit: (negotiated) => host.send({ kind: 'serving', negotiated }),
    onWake: () => drain(port, host, front, mint, start),
    onInterrupt: (token) => interrupted(front, token),
    onDestroy: () => {},
  });
  let how: string;
  try {
    how = front.server.run();
  } catch (error) {
    how = messageOf(error);
    host.log.error(how);
  }
  journal.close();
  identity?.close();
  close(start.deviceFd);
  host.send({ kind: 'ended', how, journal: start.config.readOnly ? '' : journalName });
}

function drain(port: MessagePort, host: Host, front: Front, mint: Mint, start: WorkerStart): void {
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    const message = got.message as ToWorker;
    host.orEio(`message ${message.kind}`, () => {
      take(message, host, front, mint, start);
      return 0;
    });
  }
}

function take(message: ToWorker, host: Host, front: Front, mint: Mint, start: WorkerStart): void {
  const { union } = front;
  switch (message.kind) {
    case 'job-done':
      host.finish(message.id, message.result);
      return;
    case 'look-done':
      host.finish(message.id, null);
      return;
    case 'control':
      host.controlReply(message.id, message.reply);
      return;
    case 'verdict':
      setVerdict(union, message.path, message.verdict);
      return;
    case 'commit':
      host.send({
        kind: 'committed',
        id: message.id,
        result: host.orEio('commit', () => commit(union, message.requests)),
      });
      return;
    case 'rotate':
      host.send({ kind: 'rotated', id: message.id, name: union.journal.rotate() });
      shrinker.look(union.table.size);
      return;
    case 'names':
      host.send({ kind: 'named', id: message.id, paths: namesOf(union, message.path) });
      return;
    case 'counts': {
      const { table, fds } = union;
      const counts = {
        opcodes: front.server.metrics(),
        nodes: table.size,
        handles: table.handleCount,
        directoryFds: fds.size,
        pending: host.pending,
      };
      host.send({ kind: 'counted', id: message.id, counts });
      return;
    }
    case 'fill':
      fillOrigin(union, message.path, message.fingerprint, message.content);
      return;
    case 'layer':
      closeLayer(start, message.layer);
      start.layers[message.layer.index] = message.layer;
      union.replaceLayer(message.layer);
      host.baseSettled(message.layer.index);
      return;
    case 'accepted':
      union.baseAccepted = message.accepted;
      union.verdicts.clear();
      return;
    case 'nodes':
      mint.add(message);
      return;
  }
}

/** The tree that lay there before is not needed any more. */
function closeLayer(start: WorkerStart, fresh: BaseLayer): void {
  const old = start.layers[fresh.index];
  if (old && old.rootFd !== fresh.rootFd) close(old.rootFd);
}

if (parentPort === null) throw new TypeError('serve-worker.ts is the entry of a worker thread');
serve(parentPort, workerData as WorkerStart);
