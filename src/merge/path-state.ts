// The vocabulary of states.ts: what a path is, what may happen to it, and what then is to be done. Versions are
// opaque: two are the same if content and metadata are.

import type { Decision, KeptReason } from './decide.ts';
import type { ConflictKind } from './facts.ts';

export interface Version {
  content: string;
  meta: string;
  /** Order of appearance in the base; of an overlay's version it means nothing. */
  seq: number;
}

/**
 * F follows, no copy; C current; P stale: pending or not looked at yet; K kept; X conflict; U undone, pinned;
 * W whiteout. The guest's own name, of which the base knows nothing, is C without ancestor, or F when it is gone.
 */
export type At = 'F' | 'C' | 'P' | 'K' | 'X' | 'U' | 'W';

export interface OpenConflict {
  id: number;
  rev: number;
  kind: ConflictKind;
  /** The base at this rev (Br): what a resolution concerns. */
  base: Version | null;
}

/** What undo takes back: the newest is the last of PathState.undo. */
export interface UndoRecord {
  what: 'merge' | 'drop' | 'resolution';
  before: Pick<PathState, 'ancestor' | 'lost' | 'overlay' | 'metadataOnly' | 'pin'>;
  /** The overlay's right after it; null: no copy. */
  after: Version | null;
  /** The base that was merged, or was shown by dropping the copy: what undo will pin. */
  base: Version | null;
  /** That the resolution closed. */
  conflict: OpenConflict | null;
}

export interface PathState {
  at: At;
  /** The origin's version. null: none or not known. */
  ancestor: Version | null;
  /** Without ancestor: there was one (no-ancestor), or never (added). */
  lost: boolean;
  /** null in F and W. */
  overlay: Version | null;
  base: Version | null;
  /** The version of the base (null: its absence) that an undo refused. */
  pin: { base: Version | null } | null;
  metadataOnly: boolean;
  underOpaque: boolean;
  frozen: 'unaccepted' | 'held' | null;
  keptBy: KeptReason | null;
  conflict: OpenConflict | null;
  undo: readonly UndoRecord[];
}

export type StateEvent =
  /** First write or chmod to what the base has, or first write to a metadata-only copy. `torn`: three tries. */
  | { type: 'copy-up'; copied: Version; overlay: Version; torn: boolean; metadataOnly: boolean }
  /** The name is taken (rename over, create, link) or its file truncated or written. seen: rule 2; null: nobody. */
  | { type: 'edit'; overlay: Version; seen: Version | null }
  | { type: 'unlink' | 'rename-away'; seen: Version | null }
  /** A name is created where a whiteout is. */
  | { type: 'create'; overlay: Version; withinDay: boolean }
  | { type: 'base'; base: Version | null }
  /** decide() was asked. `result`: the overlay's version when it is carried out (unchanged: null). `id`: a new one,
   *  if it comes to a conflict. `displaced`: something of a directory found no place. */
  | { type: 'look'; decision: Decision; result: Version | null; id: number; displaced: boolean }
  /** Scope, ignore list or policy changed. */
  | { type: 'policy' }
  /** `now`: the base in the moment it is done. `result`: what merged or file puts in place (null: no proposal). */
  | {
      type: 'resolve';
      id: number;
      rev: number | null;
      take: 'overlay' | 'base' | 'merged' | 'file';
      now: Version | null;
      result: Version | null;
      markers: boolean;
    }
  | { type: 'undo'; force: boolean }
  /** `kasane reconcile PATH`, naming it exactly. */
  | { type: 'reconcile' }
  | { type: 'freeze'; why: 'unaccepted' | 'held' | null }
  | { type: 'new-tree' }
  | { type: 'index-lost' }
  /** Retention takes a whiteout of what is gone. */
  | { type: 'expire' };

/** Why nothing was done; each has its errno in control/verbs.ts. */
export type Refusal =
  /** EBUSY: base unaccepted or held. */
  | 'frozen'
  /** ENOENT: there is no such name to do it to. */
  | 'absent'
  /** EEXIST: there is a copy already. */
  | 'present'
  /** EALREADY or ENOKEY: no such conflict is open. */
  | 'closed'
  /** ESTALE: a side has moved since. */
  | 'moved'
  /** EBADMSG. */
  | 'markers'
  /** ENODATA: there is no proposal. */
  | 'no-proposal'
  /** ENODATA. */
  | 'nothing-to-undo'
  /** EBUSY: the guest has changed it since. */
  | 'changed-since'
  /** A bug of the caller's: what was undone is not merged unasked. */
  | 'pinned'
  /** A bug of the caller's: not stale, or no result given. */
  | 'not-stale';

export type Closing = 'resolved' | 'withdrawn' | 'reconciled' | 'unlinked' | 'undone';

export type Recorded =
  | 'copy-up'
  | 'whiteout'
  | 'added'
  | 'adopted'
  | 'merged'
  | 'dropped'
  | 'kept'
  | 'conflict'
  | 'withdrawn'
  | 'resolved'
  | 'undone'
  | 'pin-lifted';

export type StateAction =
  /** Before anything else: this version must stay to be shown. Contents are addressed by hash, so often a no-op. */
  | { do: 'keep'; version: Version; of: 'ancestor' | 'overlay' | 'base' }
  /** The overlay's object gets this version (from history, base, merge or caller). */
  | { do: 'put'; version: Version }
  /** The copy is removed, and the base shows. */
  | { do: 'remove' }
  /** Origin (with pin) is to be written anew: as `next` has it. */
  | { do: 'origin' }
  | { do: 'open'; id: number; kind: ConflictKind }
  | { do: 'revise'; id: number; rev: number; kind: ConflictKind }
  | { do: 'close'; id: number; how: Closing }
  | { do: 'record'; event: Recorded }
  /** Look at it (again), as soon as conditions let. */
  | { do: 'look' }
  | { do: 'compare-by-hash' };

export type Step = { next: PathState; actions: StateAction[] } | { refused: Refusal };

export function same(a: Version | null, b: Version | null): boolean {
  return a !== null && b !== null && a.content === b.content && a.meta === b.meta;
}

/** As `same`, and two absences are alike too. */
export function alike(a: Version | null, b: Version | null): boolean {
  return a === null ? b === null : same(a, b);
}

/** What was written against no known version was written against the base now, which is never older. */
export function older(ancestor: Version, seen: Version | null): Version {
  return seen !== null && seen.seq < ancestor.seq ? seen : ancestor;
}

export function atPin(state: PathState): boolean {
  return state.pin !== null && alike(state.pin.base, state.base);
}

/** Neither ancestor nor base: the guest's own name. */
export function isOwn(state: PathState): boolean {
  return state.ancestor === null && state.base === null && !state.lost;
}

/** A path that nobody in the guest has touched. */
export function following(base: Version | null): PathState {
  return {
    at: 'F',
    ancestor: null,
    lost: false,
    overlay: null,
    base,
    pin: null,
    metadataOnly: false,
    underOpaque: false,
    frozen: null,
    keptBy: null,
    conflict: null,
    undo: [],
  };
}

/** All three sides, as far as they exist. */
export function keepAll(state: PathState): StateAction[] {
  const sides = { ancestor: state.ancestor, overlay: state.overlay, base: state.base } as const;
  return (['ancestor', 'overlay', 'base'] as const).flatMap((of) => {
    const version = sides[of];
    return version === null ? [] : [{ do: 'keep', version, of } as const];
  });
}

export function closed(state: PathState, how: Closing): StateAction[] {
  return state.conflict === null ? [] : [{ do: 'close', id: state.conflict.id, how }];
}

/** What undo needs to come back to `state`. */
export function undoRecord(state: PathState, what: UndoRecord['what'], after: Version | null): UndoRecord {
  const { ancestor, lost, overlay, metadataOnly, pin, base, conflict } = state;
  return { what, before: { ancestor, lost, overlay, metadataOnly, pin }, after, base, conflict };
}
