// What a mount serves from, whichever way its requests come: the union with its host and journal, and what it is
// told by the main thread. All of it belongs to the thread that serves.
import type { BaseLayer } from '../branch/base.ts';
import type { OpcodeCounters } from '../fuse/counters.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { CAP_SYS_RESOURCE } from '../sys/constants.ts';
import { dropCapability, unshareFs } from '../sys/creds.ts';
import { close, forgetDevices } from '../sys/file.ts';
import { commit } from '../union/commit.ts';
import { expireAll, replaceLayer } from '../union/expiry.ts';
import { fillOrigin } from '../union/fill.ts';
import { loadHardLinks } from '../union/hard-links.ts';
import { namesOf } from '../union/known.ts';
import { restoreSeen } from '../union/seen-restore.ts';
import { setVerdict } from '../union/stale.ts';
import { type Journal, Union } from '../union/union.ts';
import { Watches } from '../union/watches.ts';
import { IdentityLog } from '../versions/identity-log.ts';
import { JournalWriter, journalName } from '../versions/journal.ts';
import { SeenLog } from '../versions/seen-log.ts';
import { Ears } from './ears.ts';
import { Host } from './host.ts';
import type {
  AnnouncerContact,
  FromWorker,
  NotifierEnd,
  ServingStart,
  ToWorker,
  WorkerCounts,
} from './messages.ts';

/** New ones are asked for when so few are left: more than can be looked up while the main thread is busy. */
const NODES_LOW = 500_000;

/** Of a mount that nothing can be written to. */
const noJournal: Journal = {
  size: 0,
  append: () => 0,
  takeBack: () => {},
  rotate: () => '',
  close: () => {},
};

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

/** By what the kernel and guests are told, where the kernel keeps something. */
interface Voices {
  /** Another notifier is there; null: there is none any more. */
  notifier(end: NotifierEnd | null): void;
  announcer(contact: AnnouncerContact | null): void;
}

export interface Serving {
  readonly start: ServingStart;
  readonly host: Host;
  readonly union: Union;
  readonly mint: Mint;
  readonly identity: IdentityLog | null;
  readonly seenLog: SeenLog | null;
  readonly ears: Ears;
  /** Sends and writes what has been collected: for when nobody waits for an answer. */
  readonly flush: () => void;
  /** The journal has been given away, which happens about once a second while the guest changes something. */
  onRotate: () => void;
  voices: Voices;
  /** What has been answered so far. */
  metrics: () => OpcodeCounters[];
}

/** To be called once, on the thread that is going to serve. `later`: where nobody tells when it has nothing to do. */
export function openServing(
  start: ServingStart,
  send: (message: FromWorker) => void,
  later: (work: () => void) => void = () => {},
): Serving {
  const host = new Host(start, send);
  // Guests must not write past quotas and reserved blocks; and the umask is to be this thread's own.
  dropCapability(CAP_SYS_RESOURCE);
  unshareFs();
  const mint = new Mint(start.nodes, () => host.send({ kind: 'nodes-low' }));
  const journal = start.config.readOnly ? noJournal : new JournalWriter(start.stateFd);
  const { config, overlay, layers, workFd, linksFd } = start;
  const identity = start.exported ? new IdentityLog(start.stateDir) : null;
  const flush = () => {
    host.flush();
    seenLog?.flush();
  };
  host.onCollected = () => later(flush);
  const seenLog = start.stateDir === null ? null : new SeenLog(start.stateDir, host.onCollected);
  const ears = new Ears(start);
  const branches = { overlay, layers, workFd, linksFd };
  const union = new Union({
    config,
    ...branches,
    journal,
    mint: mint.mint,
    identity,
    seenLog,
    numbers: start.numbers,
    watches: new Watches(ears.source, ears.many(start.manyAt, host)),
    host,
  });
  union.baseAccepted = start.baseAccepted;
  const learnt = loadHardLinks(union);
  if (learnt < 0) host.log.error(`links/ cannot be read (${errnoName(learnt)})`);
  if (seenLog !== null) restoreSeen(union, seenLog.take());
  const nothing = () => {};
  return {
    start,
    host,
    union,
    mint,
    identity,
    seenLog,
    ears,
    flush,
    onRotate: nothing,
    voices: { notifier: nothing, announcer: nothing },
    metrics: () => [],
  };
}

/** The last word to the main thread. */
export function endServing(serving: Serving, how: string): void {
  const { start, host, union, identity, seenLog } = serving;
  union.journal.close();
  identity?.close();
  seenLog?.close();
  host.send({ kind: 'ended', how, journal: start.config.readOnly ? '' : journalName });
}

/** What the main thread has sent. */
export function receive(serving: Serving, message: ToWorker): void {
  serving.host.orEio(`message ${message.kind}`, () => {
    take(serving, message);
    return 0;
  });
}

function take(serving: Serving, message: ToWorker): void {
  const { host, union, mint, start } = serving;
  union.forgetFound();
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
      serving.onRotate();
      return;
    case 'names':
      host.send({ kind: 'named', id: message.id, paths: namesOf(union, message.path) });
      return;
    case 'changes':
      host.send({ kind: 'changed', id: message.id, settled: union.changes.settled(message.settleMs) });
      return;
    case 'counts':
      host.send({ kind: 'counted', id: message.id, counts: countsOf(serving) });
      return;
    case 'fill':
      fillOrigin(union, message.path, message.fingerprint, message.content);
      return;
    case 'watcher':
      serving.ears.change(union, message.watcher, message.manyAt, host);
      return;
    case 'carry':
      host.send({ kind: 'carried', id: message.id, more: serving.ears.carry(union, host) });
      return;
    case 'layer':
      closeLayer(start, message.layer);
      forgetDevices();
      start.layers[message.layer.index] = message.layer;
      replaceLayer(union, message.layer);
      host.baseSettled(message.layer.index);
      return;
    case 'accepted':
      union.baseAccepted = message.accepted;
      union.verdicts.clear();
      expireAll(union);
      return;
    case 'announcer':
      serving.voices.announcer(message.contact);
      return;
    case 'notifier':
      serving.voices.notifier(message.end);
      expireAll(union);
      return;
    case 'unheard':
      expireAll(union);
      union.announcements.silence();
      union.kernel.keeping = 'none';
      serving.voices.notifier(null);
      return;
    case 'nodes':
      mint.add(message);
      return;
  }
}

function countsOf({ union, host, metrics }: Serving): WorkerCounts {
  const { table, fds, watches } = union;
  return {
    opcodes: metrics(),
    nodes: table.size,
    handles: table.handleCount,
    directoryFds: fds.size,
    pending: host.pending,
    watches: watches.size,
    watchesRefused: watches.refused,
  };
}

/** The tree that lay there before is not needed any more. */
function closeLayer(start: ServingStart, fresh: BaseLayer): void {
  const old = start.layers[fresh.index];
  if (old && old.rootFd !== fresh.rootFd) close(old.rootFd);
}
