// What can be asked of a mount, or of an overlay that is not mounted: the one place where all verbs come
// together. Socket, control file and command line call these functions alike.
import { notThereYet } from '../control/protocol.ts';
import type { Verbs } from '../control/verbs.ts';
import type { MountContext } from './context.ts';

export function createVerbs(context: MountContext): Verbs {
  const { store } = context;
  return {
    status: async () => {
      throw notThereYet('status');
    },
    conflicts: async () =>
      store.conflicts.all().map(({ id, rev, kind, path, since }) => ({ id, rev, kind, path, since })),
    conflict: async () => {
      throw notThereYet('conflict');
    },
    diff: async () => ({ looked: 0 }),
    log: async () => ({ done: true }),
    show: async () => {
      throw notThereYet('show');
    },
    resolve: async () => {
      throw notThereYet('resolve');
    },
    undo: async () => {
      throw notThereYet('undo');
    },
    reconcile: async () => {
      throw notThereYet('reconcile');
    },
    check: async () => {
      throw notThereYet('check');
    },
    events: async () => ({ done: true }),
    metrics: async () => ({ opcodes: [], gauges: [] }),
    stop: async () => {
      await context.stop();
      return { done: true };
    },
    prune: async () => {
      throw notThereYet('prune');
    },
    exportConfig: async () => {
      throw notThereYet('export');
    },
    hold: async () => {
      throw notThereYet('hold');
    },
    release: async () => {
      throw notThereYet('release');
    },
  };
}
