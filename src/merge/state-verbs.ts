// Resolve and undo: what a person decides (versioning.md, "Undo and resolve"). A refusal changes nothing.
import {
  alike,
  atPin,
  closed,
  keepAll,
  type PathState,
  type StateAction,
  type StateEvent,
  type Step,
  type UndoRecord,
  undoRecord,
  type Version,
} from './path-state.ts';

export function resolve(state: PathState, event: StateEvent & { type: 'resolve' }): Step {
  const open = state.conflict;
  if (state.at !== 'X' || open === null || open.id !== event.id) return { refused: 'closed' };
  if (state.frozen !== null) return { refused: 'frozen' };
  if (event.rev !== null && event.rev !== open.rev) return { refused: 'moved' };
  if (event.take === 'merged' && event.markers) return { refused: 'markers' };
  const shown = { ...state, base: open.base };
  const keeps = keepAll(shown);
  const current = alike(open.base, event.now);
  const overlay = event.take === 'overlay' ? state.overlay : event.take === 'base' ? open.base : event.result;
  if (event.take === 'base' && !current) return { refused: 'moved' };
  const after = { base: event.now, pin: null, conflict: null, lost: false } as const;
  if (event.take === 'base' && (!state.underOpaque || open.base === null)) {
    const undo = [...state.undo, undoRecord(shown, 'resolution', null)];
    const next: PathState = {
      ...state,
      ...after,
      at: 'F',
      ancestor: null,
      overlay: null,
      metadataOnly: false,
      undo,
    };
    return { next, actions: [...keeps, { do: 'remove' }, ...ends(state)] };
  }
  if (overlay === null) return { refused: 'no-proposal' };
  const undo = [...state.undo, undoRecord(shown, 'resolution', overlay)];
  const metadataOnly = event.take === 'overlay' && state.metadataOnly;
  // The base of the rev that was decided upon is the origin, not the base's now.
  const next: PathState = {
    ...state,
    ...after,
    at: current ? 'C' : 'P',
    ancestor: open.base,
    overlay,
    metadataOnly,
    undo,
  };
  const put: StateAction[] = event.take === 'overlay' ? [] : [{ do: 'put', version: overlay }];
  const actions: StateAction[] = [...keeps, ...put, { do: 'origin' }, ...ends(state)];
  return { next, actions: current ? actions : [...actions, { do: 'look' }] };
}

function ends(state: PathState): StateAction[] {
  return [...closed(state, 'resolved'), { do: 'record', event: 'resolved' }];
}

/** States in which each can be taken back; K after a merge too, for it is a stale C. */
const undoableAt: Record<UndoRecord['what'], string> = { merge: 'CPXK', drop: 'FCPK', resolution: 'CPFK' };

export function undo(state: PathState, force: boolean): Step {
  const last = state.undo.at(-1);
  if (last === undefined || !undoableAt[last.what].includes(state.at)) return { refused: 'nothing-to-undo' };
  if (state.frozen !== null) return { refused: 'frozen' };
  if (!unchanged(state, last.after) && !force) return { refused: 'changed-since' };
  const keep: StateAction[] =
    state.overlay === null ? [] : [{ do: 'keep', version: state.overlay, of: 'overlay' }];
  const back = { ...state, ...last.before, keptBy: null, undo: state.undo.slice(0, -1) };
  const put: StateAction[] =
    last.before.overlay === null || alike(last.before.overlay, state.overlay)
      ? []
      : [{ do: 'put', version: last.before.overlay }];
  if (last.what === 'resolution' && last.conflict !== null) {
    const { id, kind } = last.conflict;
    const rev = last.conflict.rev + 1;
    const next: PathState = { ...back, at: 'X', conflict: { id, rev, kind, base: state.base } };
    const actions: StateAction[] = [...keep, ...put, { do: 'origin' }, { do: 'open', id, kind }];
    return {
      next,
      actions: [
        ...actions,
        { do: 'revise', id, rev, kind },
        { do: 'record', event: 'undone' },
        { do: 'look' },
      ],
    };
  }
  const next: PathState = { ...back, at: 'U', conflict: null, pin: { base: last.base } };
  const actions: StateAction[] = [...keep, ...put, { do: 'origin' }, ...closed(state, 'undone')];
  actions.push({ do: 'record', event: 'undone' });
  if (!atPin(next)) actions.push({ do: 'look' });
  return { next, actions };
}

/** Of a metadata-only copy the content is the base's, and moves without the guest. */
function unchanged(state: PathState, after: Version | null): boolean {
  if (state.metadataOnly && state.overlay !== null && after !== null)
    return state.overlay.meta === after.meta;
  return alike(state.overlay, after);
}
