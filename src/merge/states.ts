// "States of a path" (versioning.md) as one pure, total function: (state, event) -> (state, actions), or a refusal
// that changes nothing. What a look comes to is decide()'s; it comes in with the event. Here: what guest and base
// do; looks, resolutions and undo lie beside it.
import {
  alike,
  atPin,
  closed,
  isOwn,
  older,
  type PathState,
  type StateAction,
  type StateEvent,
  type Step,
  same,
  type Version,
} from './path-state.ts';
import { look } from './state-looks.ts';
import { resolve, undo } from './state-verbs.ts';

export function step(state: PathState, event: StateEvent): Step {
  switch (event.type) {
    case 'copy-up':
      return copyUp(state, event);
    case 'edit':
      return edit(state, event.overlay, event.seen);
    case 'unlink':
    case 'rename-away':
      return unlink(state, event.seen);
    case 'create':
      return create(state, event.overlay, event.withinDay);
    case 'base':
      return baseMoves(state, event.base);
    case 'look':
      return look(state, event);
    case 'policy':
      return policyChanges(state);
    case 'resolve':
      return resolve(state, event);
    case 'undo':
      return undo(state, event.force);
    case 'reconcile':
      return reconcile(state);
    case 'freeze':
      return event.why === null
        ? follow({ ...state, frozen: null })
        : { next: { ...state, frozen: event.why }, actions: [] };
    case 'new-tree':
      // No fingerprint of another tree is trusted; what it finds comes in as 'base'.
      return { next: state, actions: [{ do: 'compare-by-hash' }] };
    case 'index-lost':
      return indexLost(state);
    case 'expire':
      if (state.at !== 'W' || state.base !== null) return { refused: 'present' };
      return {
        next: { ...state, at: 'F', ancestor: null, lost: false, pin: null },
        actions: [{ do: 'remove' }],
      };
  }
}

// ---- the guest ----

function copyUp(state: PathState, event: StateEvent & { type: 'copy-up' }): Step {
  const { copied, overlay, torn, metadataOnly } = event;
  if (state.at === 'F') {
    if (state.base === null) return { refused: 'absent' };
    const at = torn || !same(copied, state.base) ? 'P' : 'C';
    const next: PathState = { ...state, at, ancestor: copied, lost: false, overlay, metadataOnly };
    return { next, actions: [{ do: 'origin' }, { do: 'record', event: 'copy-up' }, ...lookIf(at === 'P')] };
  }
  if (state.at === 'W') return { refused: 'absent' };
  if (!state.metadataOnly || metadataOnly) return edit(state, overlay, null);
  // The content that a metadata-only copy shows comes in only now: it is of the version that was copied.
  const edited = edit({ ...state, metadataOnly: false }, overlay, copied);
  if ('refused' in edited) return edited;
  const stale = edited.next.at === 'C' && (torn || !same(copied, state.base));
  return stale ? { next: { ...edited.next, at: 'P' }, actions: [...edited.actions, { do: 'look' }] } : edited;
}

/** Whatever changes bytes or metadata of what the guest has, or takes a name that it has not. */
function edit(state: PathState, overlay: Version, seen: Version | null): Step {
  switch (state.at) {
    case 'F':
      return take(state, overlay, seen);
    case 'C':
      return editCurrent(state, overlay, seen);
    case 'P':
    case 'K': {
      const ancestor = state.ancestor === null ? null : older(state.ancestor, seen);
      return { next: { ...state, ancestor, overlay }, actions: originIf(ancestor !== state.ancestor) };
    }
    case 'U':
      return { next: { ...state, overlay }, actions: [] };
    case 'X':
      return editConflict(state, overlay);
    case 'W':
      return create(state, overlay, true);
  }
}

function take(state: PathState, overlay: Version, seen: Version | null): Step {
  if (state.base === null) {
    return { next: { ...state, at: 'C', ancestor: null, lost: false, overlay }, actions: [] };
  }
  const ancestor = seen ?? state.base;
  const at = same(ancestor, state.base) ? 'C' : 'P';
  const next: PathState = { ...state, at, ancestor, lost: false, overlay };
  return { next, actions: [{ do: 'origin' }, { do: 'record', event: 'copy-up' }, ...lookIf(at === 'P')] };
}

function editCurrent(state: PathState, overlay: Version, seen: Version | null): Step {
  const last = state.undo.at(-1);
  // Ansible, rsync: who puts back exactly the bytes of before the merge has undone it.
  if (
    last?.what === 'merge' &&
    last.before.overlay?.content === overlay.content &&
    !alike(last.after, overlay)
  ) {
    const { ancestor, lost } = last.before;
    const pin = { base: last.base };
    const next: PathState = {
      ...state,
      at: 'U',
      ancestor,
      lost,
      overlay,
      pin,
      undo: state.undo.slice(0, -1),
    };
    return { next, actions: [{ do: 'origin' }, { do: 'record', event: 'undone' }, ...lookIf(!atPin(next))] };
  }
  if (state.ancestor !== null && older(state.ancestor, seen) !== state.ancestor) {
    const next: PathState = { ...state, at: 'P', ancestor: seen, overlay };
    return { next, actions: [{ do: 'origin' }, { do: 'look' }] };
  }
  return { next: { ...state, overlay }, actions: [] };
}

function editConflict(state: PathState, overlay: Version): Step {
  const conflict = state.conflict && { ...state.conflict, rev: state.conflict.rev + 1 };
  const actions: StateAction[] = state.overlay ? [{ do: 'keep', version: state.overlay, of: 'overlay' }] : [];
  if (conflict) actions.push({ do: 'revise', id: conflict.id, rev: conflict.rev, kind: conflict.kind });
  return { next: { ...state, overlay, conflict }, actions: [...actions, { do: 'look' }] };
}

function unlink(state: PathState, seen: Version | null): Step {
  const gone = { overlay: null, metadataOnly: false, keptBy: null, conflict: null };
  if (state.at === 'W' || (state.at === 'F' && state.base === null)) return { refused: 'absent' };
  if (isOwn(state)) {
    return {
      next: { ...state, ...gone, at: 'F' },
      actions: [...keepConflict(state), ...closed(state, 'unlinked')],
    };
  }
  const known = state.ancestor;
  const ancestor =
    state.at === 'X' ? known : known !== null ? older(known, seen) : state.lost ? null : (seen ?? state.base);
  const next: PathState = { ...state, ...gone, at: 'W', ancestor };
  const actions = [...keepConflict(state), ...closed(state, 'unlinked')];
  return { next, actions: [...actions, { do: 'origin' }, { do: 'record', event: 'whiteout' }] };
}

/** What is in conflict is kept before the guest's own hand takes it away. */
function keepConflict(state: PathState): StateAction[] {
  if (state.at !== 'X' || state.overlay === null) return [];
  return [{ do: 'keep', version: state.overlay, of: 'overlay' }];
}

function create(state: PathState, overlay: Version, withinDay: boolean): Step {
  if (state.at === 'F') return take(state, overlay, null);
  if (state.at !== 'W') return { refused: 'present' };
  if (!withinDay) {
    const next: PathState = { ...state, at: 'C', overlay, ancestor: state.base, lost: false, pin: null };
    return { next, actions: [{ do: 'origin' }, { do: 'record', event: 'added' }] };
  }
  const current = same(state.ancestor, state.base);
  const next: PathState = { ...state, at: current ? 'C' : 'P', overlay, pin: current ? null : state.pin };
  return { next, actions: [{ do: 'origin' }, ...lookIf(!current)] };
}

// ---- the base ----

function baseMoves(state: PathState, base: Version | null): Step {
  if (alike(state.base, base)) return { next: state, actions: [] };
  return state.frozen === null ? follow({ ...state, base }) : { next: { ...state, base }, actions: [] };
}

/** Where a path stands when its base is what `state` says; also after a thaw, however much has moved by then. */
function follow(state: PathState): Step {
  const backToAncestor = same(state.ancestor, state.base) || isOwn(state);
  const stay: Step = { next: state, actions: [] };
  switch (state.at) {
    case 'F':
    case 'W':
      // A whiteout stays, and says once for each version what it hides.
      return state.at === 'F' ? stay : { next: state, actions: [{ do: 'record', event: 'kept' }] };
    case 'C':
    case 'P':
      if (backToAncestor) return current(state);
      if (state.at === 'C' && movedUnderMetadata(state)) {
        // The look comes first: a set-id bit of the guest's does not outlive the content that it was set on.
        return { next: { ...state, ancestor: state.base }, actions: [{ do: 'look' }, { do: 'origin' }] };
      }
      return { next: { ...state, at: 'P' }, actions: [{ do: 'look' }] };
    case 'K':
      if (backToAncestor) return current(state);
      // Kept because it was deleted, and it is there again: that is the base moving, not the deletion any more.
      if (state.keptBy !== 'deleted' || state.base === null) return stay;
      return { next: { ...state, at: 'P', keptBy: null }, actions: [{ do: 'look' }] };
    case 'U':
      if (backToAncestor) return current(state);
      return { next: state, actions: lookIf(!atPin(state)) };
    case 'X':
      return followConflict(state, backToAncestor);
  }
}

function current(state: PathState): Step {
  const next: PathState = { ...state, at: 'C', keptBy: null, pin: null, conflict: null };
  return { next, actions: originIf(state.pin !== null) };
}

/** It has no content of its own, so the base's content alone makes it no staler. */
function movedUnderMetadata(state: PathState): boolean {
  return state.metadataOnly && state.base !== null && state.base.meta === state.ancestor?.meta;
}

function followConflict(state: PathState, backToAncestor: boolean): Step {
  const open = state.conflict;
  if (open === null || (alike(open.base, state.base) && !backToAncestor)) return { next: state, actions: [] };
  const withdrawn: StateAction[] = [
    ...keepConflict(state),
    ...closed(state, 'withdrawn'),
    { do: 'record', event: 'withdrawn' },
  ];
  if (backToAncestor) {
    const { next, actions } = current(state) as Exclude<Step, { refused: unknown }>;
    return { next, actions: [...withdrawn, ...actions] };
  }
  if (open.kind === 'undone' && atPin(state)) {
    return { next: { ...state, at: 'U', conflict: null }, actions: withdrawn };
  }
  const kind = state.base === null && open.kind !== 'undone' ? 'deleted' : open.kind;
  const conflict = { ...open, rev: open.rev + 1, kind, base: state.base };
  const revise: StateAction = { do: 'revise', id: conflict.id, rev: conflict.rev, kind };
  return { next: { ...state, conflict }, actions: [revise, { do: 'look' }] };
}

// ---- Kasane's own ----

function policyChanges(state: PathState): Step {
  if (state.at === 'K') return { next: { ...state, at: 'P', keptBy: null }, actions: [{ do: 'look' }] };
  return { next: state, actions: lookIf(state.at === 'P' || state.at === 'X') };
}

function reconcile(state: PathState): Step {
  if (state.frozen !== null) return { refused: 'frozen' };
  const stale = !['F', 'C', 'W'].includes(state.at);
  if (state.pin === null) return { next: state, actions: lookIf(stale) };
  const next: PathState = { ...state, at: state.at === 'U' ? 'P' : state.at, pin: null };
  return { next, actions: [{ do: 'origin' }, { do: 'record', event: 'pin-lifted' }, ...lookIf(stale)] };
}

/** Origins, pins and kept bytes lie outside of the index; conflicts and what undo could take back do not. */
function indexLost(state: PathState): Step {
  const at = state.at === 'X' ? 'P' : state.at;
  const next: PathState = { ...state, at, conflict: null, undo: [] };
  return { next, actions: lookIf(['P', 'K', 'U'].includes(at)) };
}

function lookIf(condition: boolean): StateAction[] {
  return condition ? [{ do: 'look' }] : [];
}

function originIf(condition: boolean): StateAction[] {
  return condition ? [{ do: 'origin' }] : [];
}
