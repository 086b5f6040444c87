// What a look comes to: each Decision carried out on the state of a path (versioning.md, the rows "looked at").
import type { Decision } from './decide.ts';
import {
  closed,
  keepAll,
  type OpenConflict,
  type PathState,
  type Recorded,
  type StateAction,
  type StateEvent,
  type Step,
  undoRecord,
  type Version,
} from './path-state.ts';

type Look = StateEvent & { type: 'look' };

export function look(state: PathState, event: Look): Step {
  const { decision } = event;
  if (decision.do === 'pending') return { next: state, actions: [] };
  if (state.frozen !== null) return { refused: 'frozen' };
  const privileges = state.metadataOnly && decision.do === 'metadata';
  if (state.at === 'C' && !privileges) {
    return decision.do === 'current' ? { next: state, actions: [] } : { refused: 'not-stale' };
  }
  if (state.at === 'F' || state.at === 'W') return { refused: 'not-stale' };
  switch (decision.do) {
    case 'current':
      return settle(state, { at: 'C', pin: null }, state.conflict === null ? null : 'withdrawn', 'withdrawn');
    case 'pinned':
      if (state.pin === null) return { refused: 'not-stale' };
      return settle(state, { at: 'U' }, state.conflict === null ? null : 'withdrawn', 'withdrawn');
    case 'kept':
      return kept(state, decision.reason);
    case 'conflict':
      return inConflict(state, decision.kind, event.id);
    default:
      return state.pin === null ? carryOut(state, event, decision) : { refused: 'pinned' };
  }
}

/** Out of P, K, U or X into a state without conflict. */
function settle(
  state: PathState,
  change: Partial<PathState>,
  event: Recorded | null,
  how: 'withdrawn' | 'reconciled',
): Step {
  const next: PathState = { ...state, keptBy: null, conflict: null, ...change };
  const actions = closed(state, how);
  if (next.ancestor !== state.ancestor || next.pin !== state.pin) actions.push({ do: 'origin' });
  if (event !== null) actions.push({ do: 'record', event });
  return { next, actions };
}

function kept(state: PathState, reason: NonNullable<PathState['keptBy']>): Step {
  const open = state.conflict;
  // A conflict that the base's deletion overtakes stays one (somebody is to decide); scope and policy end it.
  if (open !== null && reason === 'deleted') {
    return open.kind === 'deleted'
      ? stillOpen(state, open)
      : revised(state, { ...open, kind: 'deleted', rev: open.rev + 1 });
  }
  const news = state.at === 'K' && state.keptBy === reason ? null : 'kept';
  const step = settle(state, { at: 'K', keptBy: reason }, news, 'withdrawn');
  // What was open was shown as a version, so it stays one.
  return 'refused' in step || open === null
    ? step
    : { ...step, actions: [...keepAll(state), ...step.actions] };
}

function stillOpen(state: PathState, conflict: OpenConflict): Step {
  return { next: { ...state, conflict }, actions: keepAll(state) };
}

function revised(state: PathState, conflict: OpenConflict): Step {
  const { id, rev, kind } = conflict;
  return { next: { ...state, conflict }, actions: [...keepAll(state), { do: 'revise', id, rev, kind }] };
}

function inConflict(state: PathState, kind: OpenConflict['kind'], id: number): Step {
  const open = state.conflict;
  if (open !== null) {
    // rev grows when a side moves, which has been told already; of another kind it may be by the same sides.
    const same = open.kind === kind || (open.kind === 'deleted' && state.base === null);
    return same ? stillOpen(state, open) : revised(state, { ...open, kind });
  }
  const conflict: OpenConflict = { id, rev: 1, kind, base: state.base };
  const next: PathState = { ...state, at: 'X', keptBy: null, conflict };
  return {
    next,
    actions: [...keepAll(state), { do: 'open', id, kind }, { do: 'record', event: 'conflict' }],
  };
}

/** The decisions that write. Everything that goes into one is kept first. */
function carryOut(state: PathState, event: Look, decision: Decision): Step {
  const { base } = state;
  switch (decision.do) {
    case 'drop': {
      const undo = [...state.undo, undoRecord(state, 'drop', null)];
      const gone = {
        at: 'F',
        ancestor: null,
        lost: false,
        overlay: null,
        metadataOnly: false,
        undo,
      } as const;
      return written(state, settle(state, gone, 'dropped', 'reconciled'), { do: 'remove' });
    }
    case 'adopt':
      if (event.result !== null) return replaced(state, event.result, state.metadataOnly);
      return written(
        state,
        settle(state, { at: 'C', ancestor: base, lost: false }, 'adopted', 'reconciled'),
        null,
      );
    case 'metadata':
      if (event.result === null) {
        // Nothing is to be written: only the origin moves on.
        return settle(
          state,
          { at: 'C', ancestor: base, lost: false },
          state.conflict && 'merged',
          'reconciled',
        );
      }
      return replaced(state, event.result, state.metadataOnly);
    case 'take-base':
      return event.result === null
        ? { refused: 'not-stale' }
        : replaced(state, event.result, decision.as === 'metadata-only');
    case 'merge-text':
      return event.result === null ? { refused: 'not-stale' } : replaced(state, event.result, false);
    case 'displace':
      return displaced(state, event);
    default:
      return { refused: 'not-stale' };
  }
}

function written(state: PathState, step: Step, action: StateAction | null): Step {
  if ('refused' in step) return step;
  return {
    next: step.next,
    actions: [...keepAll(state), ...(action === null ? [] : [action]), ...step.actions],
  };
}

function replaced(state: PathState, overlay: Version, metadataOnly: boolean): Step {
  const undo = [...state.undo, undoRecord(state, 'merge', overlay)];
  const change = { at: 'C', ancestor: state.base, lost: false, overlay, metadataOnly, undo } as const;
  return written(state, settle(state, change, 'merged', 'reconciled'), { do: 'put', version: overlay });
}

/** The base's object shows; what found no place is a conflict at this path, and lies in displaced/. */
function displaced(state: PathState, event: Look): Step {
  const remove: StateAction = { do: 'remove' };
  if (!event.displaced) {
    const gone = { at: 'F', ancestor: null, lost: false, overlay: null, metadataOnly: false } as const;
    return written(state, settle(state, gone, 'merged', 'reconciled'), remove);
  }
  const step = inConflict(state, 'type', event.id);
  return 'refused' in step ? step : { next: step.next, actions: [...step.actions, remove] };
}
