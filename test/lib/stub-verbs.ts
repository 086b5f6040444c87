// Verbs that answer from plain data and write down what they were asked, for tests of their callers.
import type {
  Conflict,
  ConflictDetail,
  EventRecord,
  SideInfo,
  StatusReport,
  Verbs,
} from '../../src/control/verbs.ts';
import { E } from '../../src/lib/errno.ts';
import { FsError } from '../../src/lib/errors.ts';

export interface Stub {
  verbs: Verbs;
  /** Each call as [verb, request]. */
  calls: [string, unknown][];
  status: StatusReport;
  conflicts: Conflict[];
  details: Map<number, ConflictDetail>;
  contents: Map<string, Buffer>;
  events: EventRecord[];
}

export const absent: SideInfo = {
  type: 'absent',
  mode: 0,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: 0,
  hash: null,
  target: null,
};

export const fileSide = (size: number): SideInfo => ({ ...absent, type: 'file', mode: 0o644, size });

export const emptyStatus: StatusReport = {
  version: '0.1.0',
  mountPoint: '/mnt/web1',
  bases: ['/srv/base'],
  overlay: '/srv/guests/web1',
  state: '/srv/guests/web1/.kasane',
  pid: 4711,
  started: 1_700_000_000_000,
  epoch: 3,
  base: 'accepted',
  coherence: 'check',
  bound: 0,
  watches: 0,
  watcher: 'none',
  watcherReason: 'coherence is check',
  readOnly: false,
  copying: [],
  counts: {
    copies: 2,
    whiteouts: 1,
    hidden: 0,
    stale: 1,
    pending: 1,
    kept: 0,
    conflicts: 1,
    undone: 0,
    metadataOnly: 0,
    withoutContent: 0,
  },
  bytes: { overlay: 10, ancestors: 5, history: 0, index: 7 },
  options: { settle: '2' },
  overlayfsOptions: 'metacopy=on,redirect_dir=on',
  notes: [],
};

export function stubVerbs(): Stub {
  const calls: [string, unknown][] = [];
  const refuse = (verb: string) => async (): Promise<never> => {
    calls.push([verb, undefined]);
    throw new FsError(E.EOPNOTSUPP, `${verb}: not there yet`);
  };
  const stub: Stub = {
    calls,
    status: structuredClone(emptyStatus),
    conflicts: [],
    details: new Map(),
    contents: new Map(),
    events: [],
    verbs: {
      status: async () => {
        calls.push(['status', undefined]);
        return stub.status;
      },
      conflicts: async () => {
        calls.push(['conflicts', undefined]);
        return stub.conflicts;
      },
      conflict: async (target) => {
        calls.push(['conflict', target]);
        const detail = 'id' in target ? stub.details.get(target.id) : undefined;
        if (detail === undefined) throw new FsError(E.ENOKEY, 'no such conflict');
        return detail;
      },
      diff: async () => ({ looked: 0 }),
      log: async () => ({ done: true }),
      show: async (request, emit) => {
        calls.push(['show', request]);
        const key = JSON.stringify(request);
        const content = stub.contents.get(key) ?? Buffer.alloc(0);
        for (let at = 0; at < content.length; at += 1000) {
          await emit({ data: content.subarray(at, at + 1000).toString('base64') });
        }
        return { ...fileSide(content.length), path: 'etc/passwd' };
      },
      resolve: async (request) => {
        calls.push(['resolve', request]);
        const target = request.target;
        if (!('id' in target) || !stub.conflicts.some((one) => one.id === target.id)) {
          throw new FsError(E.ENOKEY, 'no such conflict');
        }
        if (request.rev !== null && request.rev !== 3) throw new FsError(E.ESTALE, 'it is at revision 3');
        return { resolved: [{ id: target.id, rev: 3, path: 'etc/passwd', already: false }] };
      },
      undo: async (request) => {
        calls.push(['undo', request]);
        return {
          seq: 5,
          kind: 'merged',
          path: 'etc/passwd',
          reopened: null,
          keptVersion: null,
          already: false,
        };
      },
      reconcile: async (request, emit) => {
        calls.push(['reconcile', request]);
        await emit({ done: 1, total: 1, path: request.path, outcome: 'merged', detail: '' });
        return {
          dryRun: request.dryRun,
          looked: 1,
          merged: 1,
          dropped: 0,
          adopted: 0,
          kept: 0,
          pending: 0,
          full: 0,
          failed: 0,
          conflicts: [],
          baseAccepted: false,
        };
      },
      check: async () => ({ objects: 0, origins: 0, ancestors: 0, records: 0, damage: 0, warnings: 0 }),
      events: async ({ from }, emit) => {
        calls.push(['events', { from }]);
        for (const event of stub.events) if (event.seq >= from) await emit(event);
        return { done: true };
      },
      metrics: async () => {
        calls.push(['metrics', undefined]);
        const one = { opcode: 'LOOKUP', count: 3, errors: 1, seconds: 0.25, histogram: [1, 1, 1] };
        return { opcodes: [one], gauges: [{ name: 'nodes', help: 'Nodes.', type: 'gauge', value: 7 }] };
      },
      stop: async () => ({ done: true }),
      prune: refuse('prune'),
      exportConfig: refuse('export'),
      hold: refuse('hold'),
      release: refuse('release'),
    },
  };
  return stub;
}

export const oneConflict: Conflict = {
  id: 17,
  rev: 3,
  kind: 'text',
  path: 'etc/passwd',
  since: 1_700_000_000_000,
};

/** A conflict with contents on every side but a deleted base. */
export function addConflict(stub: Stub): void {
  stub.conflicts = [oneConflict];
  const sizes = { ancestor: 5, overlay: 2500, merged: 9 };
  stub.details.set(17, {
    ...oneConflict,
    reason: 'both sides changed the same lines',
    ancestor: fileSide(sizes.ancestor),
    overlay: fileSide(sizes.overlay),
    base: absent,
    merged: { size: sizes.merged, markers: true },
  });
  for (const [side, size] of Object.entries(sizes)) {
    const key = JSON.stringify({ target: { id: 17 }, what: { side } });
    stub.contents.set(key, Buffer.alloc(size, side));
  }
}
