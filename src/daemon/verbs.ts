// What can be asked of a mount, or of an overlay that is not mounted: the one place where all verbs come
// together. Socket, control file and command line call these functions alike.
import { notThereYet } from '../control/protocol.ts';
import type { Verbs } from '../control/verbs.ts';
import type { MountContext } from './context.ts';
import { check } from './verb-check.ts';
import { diff } from './verb-diff.ts';
import { exportConfig } from './verb-export.ts';
import { reconcile } from './verb-reconcile.ts';
import { resolve } from './verb-resolve.ts';
import { show } from './verb-show.ts';
import { statusVerbs } from './verb-status.ts';
import { undo } from './verb-undo.ts';
import { readVerbs } from './verbs-read.ts';

const later = (what: string) => async (): Promise<never> => {
  throw notThereYet(what);
};

export function createVerbs(context: MountContext): Verbs {
  return {
    ...statusVerbs(context),
    ...readVerbs(context),
    show: (request, emit) => show(context, request, emit),
    diff: (request, emit) => diff(context, request, emit),
    resolve: (request) => resolve(context, request),
    undo: (request) => undo(context, request),
    reconcile: (request, emit) => reconcile(context, request, emit),
    check: (request, emit) => check(context, request, emit),
    stop: async () => {
      await context.stop();
      return { done: true };
    },
    prune: later('prune'),
    exportConfig: () => exportConfig(context),
    hold: later('hold'),
    release: later('release'),
  };
}
