// The table "States of a path" of the design, row by row; each test has its row as its name.
import { describe, expect, test } from 'vitest';
import type { Decision } from '../../src/merge/decide.ts';
import { following, type PathState, type StateEvent, type Version } from '../../src/merge/path-state.ts';
import { step } from '../../src/merge/states.ts';

const v = (content: string, seq = 0, meta = '644'): Version => ({ content, meta, seq });
const [v1, v2, v3] = [v('v1', 1), v('v2', 2), v('v3', 3)];
const mine = v('mine');

function act(state: PathState, event: StateEvent) {
  const result = step(state, event);
  if ('refused' in result) throw new Error(`${event.type} refused: ${result.refused}`);
  return result;
}

const run = (state: PathState, ...events: StateEvent[]) => events.reduce((s, e) => act(s, e).next, state);
const refusal = (state: PathState, event: StateEvent) => {
  const result = step(state, event);
  return 'refused' in result ? result.refused : null;
};
const keeps = (result: ReturnType<typeof act>) =>
  result.actions.flatMap((a) => (a.do === 'keep' ? [a.version.content] : [])).sort();
const recorded = (result: ReturnType<typeof act>) =>
  result.actions.flatMap((a) => (a.do === 'record' ? [a.event] : []));
const does = (result: ReturnType<typeof act>) => result.actions.map((a) => a.do);

const base = (to: Version | null): StateEvent => ({ type: 'base', base: to });
const edit = (overlay: Version, seen: Version | null = null): StateEvent => ({ type: 'edit', overlay, seen });
const copyUp = (copied: Version, more = {}): StateEvent => ({
  type: 'copy-up',
  copied,
  overlay: mine,
  torn: false,
  metadataOnly: false,
  ...more,
});
const look = (decision: Decision, result: Version | null = null, id = 7): StateEvent => ({
  type: 'look',
  decision,
  result,
  id,
  displaced: false,
});
const unlink = (seen: Version | null = null): StateEvent => ({ type: 'unlink', seen });
const create = (withinDay: boolean): StateEvent => ({ type: 'create', overlay: v('new'), withinDay });
const resolve = (
  take: 'overlay' | 'base' | 'merged' | 'file',
  now: Version | null,
  more = {},
): StateEvent => ({
  type: 'resolve',
  id: 7,
  rev: null,
  take,
  now,
  result: null,
  markers: false,
  ...more,
});
const undo = (force = false): StateEvent => ({ type: 'undo', force });

const metadata = { mode: 0o644, uid: 0, gid: 0, xattrs: null, changes: false, equalsBase: true, notes: [] };
const merged: Decision = { do: 'merge-text', metadata };
const conflict = (kind: 'text' | 'undone' | 'added' | 'no-ancestor' = 'text'): Decision => ({
  do: 'conflict',
  kind,
  reason: '',
  proposal: 'none',
});
const kept = (reason: 'scope' | 'deleted' | 'ignored'): Decision => ({
  do: 'kept',
  reason,
  detail: '',
  regenerate: null,
  fill: false,
});
const takeBase = (as: 'copy' | 'metadata-only'): Decision => ({
  do: 'take-base',
  as,
  contentSame: false,
  metadata,
  regenerate: null,
});
const drop: Decision = { do: 'drop', gone: false };

const F = following(v1);
const C = run(F, copyUp(v1));
const P = run(C, base(v2));
const K = run(P, look(kept('scope')));
const X = run(P, look(conflict()));
const U = run(P, look(merged, v('merge')), undo());
const XU = run(U, base(v3), look(conflict('undone'), null, 7));
const W = run(F, unlink());
const metadataOnly = run(F, copyUp(v1, { metadataOnly: true, overlay: v('v1', 0, '600') }));

test('the states that the rows start from are what they are called', () => {
  expect([F, C, P, K, X, U, XU, W].map((s) => s.at)).toEqual(['F', 'C', 'P', 'K', 'X', 'U', 'X', 'W']);
});

describe('what the guest does', () => {
  test('F | write, chmod | C, A = bytes copied; P after three torn tries', () => {
    expect(C).toMatchObject({ at: 'C', ancestor: v1, overlay: mine });
    expect(run(F, copyUp(v1, { torn: true }))).toMatchObject({ at: 'P', ancestor: v1 });
  });

  test('F | name taken or truncated | C if seen = B; else P, A = seen', () => {
    expect(run(F, edit(mine, v1))).toMatchObject({ at: 'C', ancestor: v1 });
    expect(run(F, edit(mine, null))).toMatchObject({ at: 'C', ancestor: v1 });
    expect(run(F, base(v2), edit(mine, v1))).toMatchObject({ at: 'P', ancestor: v1, base: v2 });
  });

  test('F | unlink | W, A = seen', () => {
    expect(run(F, base(v2), unlink(v1))).toMatchObject({ at: 'W', ancestor: v1 });
    expect(W).toMatchObject({ at: 'W', ancestor: v1, overlay: null });
    expect(refusal(following(null), unlink())).toBe('absent');
  });

  test('C | guest changes it | C; P if seen is older (A = seen)', () => {
    expect(run(C, edit(v('again')))).toMatchObject({ at: 'C', ancestor: v1 });
    expect(run(F, base(v2), copyUp(v2), edit(v('vim'), v1))).toMatchObject({ at: 'P', ancestor: v1 });
  });

  test('C, P, K, U | unlink, rename away | W, A = older of A and seen', () => {
    for (const state of [C, P, K, U]) {
      expect(run(state, unlink())).toMatchObject({ at: 'W', ancestor: v1, overlay: null });
      expect(run(state, { type: 'rename-away', seen: v('v0', 0) })).toMatchObject({
        at: 'W',
        ancestor: { seq: 0 },
      });
    }
    expect(run(U, unlink()).pin).toEqual({ base: v2 });
  });

  test("overlay's own name, no origin | base adds the name | as P with A unknown; kind added", () => {
    const own = run(following(null), edit(mine));
    expect(own).toMatchObject({ at: 'C', ancestor: null });
    const added = run(own, base(v1));
    expect(added).toMatchObject({ at: 'P', ancestor: null, lost: false });
    expect(run(added, base(null)).at).toBe('C');
    expect(run(added, look(conflict('added'))).conflict).toMatchObject({ id: 7, rev: 1, kind: 'added' });
    expect(run(own, unlink())).toMatchObject({ at: 'F', overlay: null });
  });

  test('P | guest changes it | P, A = older of A and seen', () => {
    expect(run(P, edit(v('x'), v2))).toMatchObject({ at: 'P', ancestor: v1 });
    const later = run(F, base(v2), edit(mine, v2), base(v3));
    expect(run(later, edit(v('x'), v1))).toMatchObject({ at: 'P', ancestor: v1 });
  });

  test('K | guest changes it, base moves | K, A = older of A and seen', () => {
    expect(run(K, edit(v('x')), base(v3))).toMatchObject({ at: 'K', ancestor: v1 });
    expect(run(K, edit(v('x'), v('v0', 0)))).toMatchObject({ at: 'K', ancestor: { seq: 0 } });
  });

  test('X | guest unlinks | W, A kept, closed', () => {
    const result = act(X, unlink(v('v0', 0)));
    expect(result.next).toMatchObject({ at: 'W', ancestor: v1, conflict: null });
    expect(result.actions).toContainEqual({ do: 'close', id: 7, how: 'unlinked' });
    expect(keeps(result)).toEqual(['mine']);
  });

  test('U | guest edits | U', () => {
    expect(run(U, edit(v('x')))).toMatchObject({ at: 'U', ancestor: v1, pin: { base: v2 } });
  });

  test('W | created within a day | C if A = B, else P, A kept', () => {
    expect(run(W, create(true))).toMatchObject({ at: 'C', ancestor: v1 });
    expect(run(W, base(v2), create(true))).toMatchObject({ at: 'P', ancestor: v1 });
    const again = run(U, unlink(), create(true));
    expect(again, 'unlink and create do not lift a pin').toMatchObject({ at: 'P', pin: { base: v2 } });
    expect(run(again, look({ do: 'pinned' })).at).toBe('U');
  });

  test('W | created later | C, A = B, recorded as added', () => {
    const result = act(run(W, base(v2)), create(false));
    expect(result.next).toMatchObject({ at: 'C', ancestor: v2, overlay: v('new') });
    expect(recorded(result)).toEqual(['added']);
  });
});

describe('what the base does', () => {
  test('C | base moves | P', () => {
    expect(P).toMatchObject({ at: 'P', ancestor: v1, base: v2 });
    expect(run(C, base(null)).at).toBe('P');
  });

  test("C, metadata only | the base's content alone moves | C, A = B", () => {
    const result = act(metadataOnly, base(v2));
    expect(result.next).toMatchObject({ at: 'C', ancestor: v2 });
    expect(does(result), 'set-id bits are looked at before the origin moves').toEqual(['look', 'origin']);
    expect(run(metadataOnly, base(v('v2', 2, '600'))).at).toBe('P');
    const written = run(metadataOnly, copyUp(v1));
    expect(run(written, base(v2)).at, 'it has content now').toBe('P');
  });

  test('P | base moves again | P, A kept', () => {
    expect(run(P, base(v3))).toMatchObject({ at: 'P', ancestor: v1, base: v3 });
  });

  test('P | base back to A | C', () => {
    expect(run(P, base(v('v1', 9)))).toMatchObject({ at: 'C', ancestor: v1 });
  });

  test('K | base back to A | C', () => {
    expect(run(K, base(v1))).toMatchObject({ at: 'C', keptBy: null });
    const deleted = run(C, base(null), look(kept('deleted')));
    expect(deleted).toMatchObject({ at: 'K', keptBy: 'deleted' });
    expect(run(deleted, base(v1)).at).toBe('C');
    expect(run(deleted, base(v2)).at, 'the base has it again: no deletion any more').toBe('P');
  });

  test('X | O or B moves | rev + 1; once settled looked at with the same A; F or C closes it, recorded', () => {
    expect(run(X, edit(v('x'))).conflict).toMatchObject({ id: 7, rev: 2 });
    const moved = act(X, base(v3));
    expect(moved.next).toMatchObject({ at: 'X', ancestor: v1, conflict: { id: 7, rev: 2, base: v3 } });
    expect(does(moved)).toContain('look');
    const result = act(moved.next, look(merged, v('merge')));
    expect(result.next).toMatchObject({ at: 'C', ancestor: v3, conflict: null });
    expect(result.actions).toContainEqual({ do: 'close', id: 7, how: 'reconciled' });
    expect(recorded(result)).toEqual(['merged']);
    expect(run(moved.next, look(drop))).toMatchObject({ at: 'F', conflict: null });
    expect(run(moved.next, look(conflict(), null, 99)).conflict).toMatchObject({ id: 7, rev: 2 });
  });

  test('X | base back to A | C, closed as withdrawn', () => {
    const result = act(X, base(v1));
    expect(result.next).toMatchObject({ at: 'C', ancestor: v1, overlay: mine, conflict: null });
    expect(result.actions).toContainEqual({ do: 'close', id: 7, how: 'withdrawn' });
    expect(recorded(result)).toEqual(['withdrawn']);
  });

  test('X | B absent | X, kind deleted, rev + 1', () => {
    const gone = run(X, base(null));
    expect(gone).toMatchObject({ at: 'X', conflict: { id: 7, rev: 2, kind: 'deleted' } });
    expect(run(gone, look(kept('deleted')))).toEqual(gone);
  });

  test('X, kind undone | base back to pin | U, closed as withdrawn', () => {
    const result = act(XU, base(v2));
    expect(result.next).toMatchObject({ at: 'U', ancestor: v1, pin: { base: v2 }, conflict: null });
    expect(result.actions).toContainEqual({ do: 'close', id: 7, how: 'withdrawn' });
  });

  test('X, kind undone | O or B moves | X, kind undone, rev + 1; never merged unasked', () => {
    const moved = run(XU, edit(v('x')), base(v('v4', 4)));
    expect(moved).toMatchObject({ at: 'X', conflict: { kind: 'undone', rev: 3 } });
    expect(run(moved, base(null)).conflict).toMatchObject({ kind: 'undone', rev: 4 });
    for (const decision of [merged, drop, takeBase('copy')]) {
      expect(refusal(moved, look(decision, v('merge')))).toBe('pinned');
    }
  });

  test('U | base ≠ pin, settled | X, kind undone, A kept', () => {
    const moved = act(U, base(v3));
    expect(moved.next.at).toBe('U');
    expect(does(moved)).toEqual(['look']);
    expect(run(moved.next, look({ do: 'pending', reason: 'settling' })).at).toBe('U');
    expect(XU).toMatchObject({ at: 'X', ancestor: v1, conflict: { kind: 'undone', rev: 1 } });
    expect(refusal(moved.next, look(merged, v('merge')))).toBe('pinned');
  });

  test('U | base back to A | C', () => {
    expect(run(U, base(v1))).toMatchObject({ at: 'C', pin: null, ancestor: v1 });
    expect(run(XU, base(v1))).toMatchObject({ at: 'C', pin: null, conflict: null });
  });

  test('W | base moves | W, A kept, recorded once per version', () => {
    const result = act(W, base(v2));
    expect(result.next).toMatchObject({ at: 'W', ancestor: v1 });
    expect(recorded(result)).toEqual(['kept']);
    expect(act(result.next, base(v2)).actions).toEqual([]);
  });

  test('W | base gone | W, dropped later by retention', () => {
    const gone = run(W, base(null));
    expect(gone.at).toBe('W');
    expect(run(gone, { type: 'expire' })).toMatchObject({ at: 'F', base: null });
    expect(refusal(W, { type: 'expire' })).toBe('present');
  });
});

describe('looked at', () => {
  test('P | looked at: not settled, a writer, set not ready, overlay full or read-only | P', () => {
    for (const reason of ['settling', 'writer', 'set', 'full', 'read-only', 'hashing'] as const) {
      expect(step(P, look({ do: 'pending', reason }))).toEqual({ next: P, actions: [] });
    }
  });

  test('P | looked at: out of scope | K, A kept, recorded', () => {
    const result = act(P, look(kept('scope')));
    expect(result.next).toMatchObject({ at: 'K', ancestor: v1, keptBy: 'scope' });
    expect(recorded(result)).toEqual(['kept']);
  });

  test('P | looked at: B absent, O ≠ A | K, A kept, recorded', () => {
    const result = act(run(C, base(null)), look(kept('deleted')));
    expect(result.next).toMatchObject({ at: 'K', ancestor: v1, overlay: mine });
    expect(recorded(result)).toEqual(['kept']);
  });

  test('K | scope or policy changes | P', () => {
    expect(run(K, { type: 'policy' })).toMatchObject({ at: 'P', ancestor: v1, keptBy: null });
  });

  test('P | B absent, O = A | F (name gone), version kept', () => {
    const untouched = run(F, copyUp(v1, { overlay: v1 }), base(null));
    const result = act(untouched, look({ do: 'drop', gone: true }));
    expect(result.next).toMatchObject({ at: 'F', overlay: null, base: null });
    expect(keeps(result)).toContain('v1');
  });

  test('P | O = B, or O = A | F if every condition of Dropping holds, version kept; metadata differs: C, metadata only; another condition fails: C, O = B, metadata merged; under opaque: C with O = B', () => {
    const dropped = act(P, look(drop));
    expect(dropped.next).toMatchObject({ at: 'F', overlay: null, ancestor: null });
    expect(keeps(dropped)).toEqual(['mine', 'v1', 'v2']);
    expect(recorded(dropped)).toEqual(['dropped']);
    const only = run(P, look(takeBase('metadata-only'), v('v2', 0, '600')));
    expect(only).toMatchObject({ at: 'C', ancestor: v2, metadataOnly: true });
    expect(run(P, look(takeBase('copy'), v2))).toMatchObject({ at: 'C', overlay: v2, metadataOnly: false });
    expect(run({ ...P, underOpaque: true }, look(takeBase('copy'), v2))).toMatchObject({
      at: 'C',
      overlay: v2,
    });
  });

  test('P | clean | C, O = merge, A = B; old A, O, B kept', () => {
    const result = act(P, look(merged, v('merge')));
    expect(result.next).toMatchObject({ at: 'C', overlay: v('merge'), ancestor: v2 });
    expect(keeps(result)).toEqual(['mine', 'v1', 'v2']);
    expect(result.actions.at(0)?.do, 'kept first').toBe('keep');
  });

  test('P | A unknown, O = B | C (adopted)', () => {
    const unknown = { ...P, ancestor: null, lost: true };
    const result = act(unknown, look({ do: 'adopt', metadata }));
    expect(result.next).toMatchObject({ at: 'C', ancestor: v2, overlay: mine, lost: false });
    expect(recorded(result)).toEqual(['adopted']);
  });

  test('P | otherwise | X, new id, rev 1, A kept', () => {
    const result = act(P, look(conflict(), null, 12));
    expect(result.next).toMatchObject({ at: 'X', ancestor: v1, conflict: { id: 12, rev: 1, kind: 'text' } });
    expect(keeps(result)).toEqual(['mine', 'v1', 'v2']);
  });
});

describe('decisions of a person', () => {
  test('X | take overlay | O kept, A = Br; C if B = Br, else P', () => {
    expect(run(X, resolve('overlay', v2))).toMatchObject({ at: 'C', overlay: mine, ancestor: v2 });
    expect(run(X, resolve('overlay', v3))).toMatchObject({ at: 'P', overlay: mine, ancestor: v2, base: v3 });
    const deleted = run(X, base(null), resolve('overlay', null));
    expect(deleted, "the guest's own name from now on").toMatchObject({ at: 'C', ancestor: null });
  });

  test('X | take base | F if B = Br, else refused (4); under opaque: C with O = Br', () => {
    const result = act(X, resolve('base', v2));
    expect(result.next).toMatchObject({ at: 'F', overlay: null, conflict: null });
    expect(keeps(result)).toContain('mine');
    expect(refusal(X, resolve('base', v3))).toBe('moved');
    expect(run({ ...X, underOpaque: true }, resolve('base', v2))).toMatchObject({ at: 'C', overlay: v2 });
  });

  test('X | take merged, file | O = that, A = Br; C or P', () => {
    const result = act(X, resolve('merged', v2, { result: v('merge') }));
    expect(result.next).toMatchObject({ at: 'C', overlay: v('merge'), ancestor: v2 });
    expect(keeps(result)).toEqual(['mine', 'v1', 'v2']);
    expect(run(X, resolve('file', v3, { result: v('file') }))).toMatchObject({ at: 'P', ancestor: v2 });
    expect(refusal(X, resolve('merged', v2, { result: v('m'), markers: true }))).toBe('markers');
    expect(refusal(X, resolve('merged', v2))).toBe('no-proposal');
  });

  test('a resolution of a closed conflict, or of a rev that is past, is refused', () => {
    expect(refusal(C, resolve('overlay', v1))).toBe('closed');
    expect(refusal(X, resolve('overlay', v2, { id: 8 }))).toBe('closed');
    expect(refusal(run(X, base(v3)), resolve('overlay', v3, { rev: 1 }))).toBe('moved');
  });

  test('C, P, X after a merge | undo; in C also O = bytes before the merge | U: previous O and A, pin = the B merged; an open conflict closes', () => {
    const after = run(P, look(merged, v('merge')));
    const undone = { at: 'U', overlay: mine, ancestor: v1, pin: { base: v2 }, conflict: null };
    expect(run(after, undo())).toMatchObject(undone);
    expect(run(after, base(v3), undo())).toMatchObject(undone);
    const open = run(after, base(v3), look(conflict(), null, 9));
    expect(open.at).toBe('X');
    const result = act(open, undo());
    expect(result.next).toMatchObject(undone);
    expect(result.actions).toContainEqual({ do: 'close', id: 9, how: 'undone' });
    expect(keeps(result)).toEqual(['merge']);
    expect(run(after, edit(v('mine', 0, '600'))), 'put back by Ansible').toMatchObject({
      at: 'U',
      ancestor: v1,
      pin: { base: v2 },
    });
  });

  test('F after a drop | undo | U: copy and A, pin = B at the drop', () => {
    const restored = { at: 'U', overlay: mine, ancestor: v1, pin: { base: v2 } };
    expect(run(P, look(drop), undo())).toMatchObject(restored);
    expect(run(P, look(drop), base(v3), undo())).toMatchObject({ ...restored, base: v3 });
    const gone = run(C, base(null), look({ do: 'drop', gone: true }), undo());
    expect(gone, 'the deletion is refused too').toMatchObject({ at: 'U', pin: { base: null } });
  });

  test('C, P, F after a resolution | undo | X, old id, rev + 1, previous O and A', () => {
    const open = { at: 'X', overlay: mine, ancestor: v1, conflict: { id: 7, rev: 2 } };
    expect(run(X, resolve('overlay', v2), undo())).toMatchObject(open);
    expect(run(X, resolve('overlay', v3), undo())).toMatchObject(open);
    expect(run(X, resolve('base', v2), undo())).toMatchObject(open);
    const pinned = run(XU, resolve('merged', v3, { result: v('m') }), undo());
    expect(pinned, 'what was refused before it still is').toMatchObject({ pin: { base: v2 }, ...open });
  });

  test('any | undo, nothing to undo | refused (4)', () => {
    for (const state of [F, C, P, K, X, U, W]) expect(refusal(state, undo(true))).toBe('nothing-to-undo');
  });

  test('any | undo, O changed since | refused (4); `--force`: O kept as a version, then undo', () => {
    const changed = run(P, look(merged, v('merge')), edit(v('since')));
    expect(refusal(changed, undo())).toBe('changed-since');
    const result = act(changed, undo(true));
    expect(result.next).toMatchObject({ at: 'U', overlay: mine });
    expect(keeps(result)).toEqual(['since']);
    const copiedAgain = run(P, look(drop), copyUp(v2));
    expect(refusal(copiedAgain, undo())).toBe('changed-since');
    expect(keeps(act(copiedAgain, undo(true)))).toEqual(['mine']);
  });

  test('U | reconcile PATH | pin off, looked at as P', () => {
    const result = act(U, { type: 'reconcile' });
    expect(result.next).toMatchObject({ at: 'P', pin: null, ancestor: v1 });
    expect(recorded(result)).toEqual(['pin-lifted']);
    const asked = run(XU, { type: 'reconcile' }, look(merged, v('merge')));
    expect(asked, 'asked to, a conflict undone may be merged').toMatchObject({ at: 'C', conflict: null });
  });
});

describe('the world around', () => {
  test('any | a new tree of the same release | as is; A against B by hash', () => {
    for (const state of [F, C, P, K, X, U, W]) {
      expect(step(state, { type: 'new-tree' })).toEqual({
        next: state,
        actions: [{ do: 'compare-by-hash' }],
      });
    }
  });

  test("any | base unaccepted, or under `kasane hold` | frozen, but for the guest's own edits", () => {
    for (const why of ['unaccepted', 'held'] as const) {
      for (const state of [C, P, K, X, U, W].map((s) => run(s, { type: 'freeze', why }))) {
        const moved = run(state, base(v3));
        expect(moved).toEqual({ ...state, base: v3 });
        if (state.at !== 'W') expect(refusal(state, look(kept('scope')))).toBe('frozen');
      }
      const frozen = run(C, { type: 'freeze', why }, base(v3));
      expect(run(frozen, edit(v('x')))).toMatchObject({ at: 'C', overlay: v('x') });
      expect(run(frozen, { type: 'freeze', why: null }), 'thawed it is what the base made it').toMatchObject({
        at: 'P',
        ancestor: v1,
      });
      expect(refusal(run(X, { type: 'freeze', why }), resolve('overlay', v2))).toBe('frozen');
      const thawed = run(X, { type: 'freeze', why }, base(v3), base(v('v4', 4)), {
        type: 'freeze',
        why: null,
      });
      expect(thawed.conflict).toMatchObject({ rev: 2 });
    }
  });

  test('any | index lost | same; X looked at anew, under higher ids', () => {
    for (const state of [F, C, P, K, U, W]) {
      expect(run(state, { type: 'index-lost' })).toEqual({ ...state, undo: [] });
    }
    const lost = act(X, { type: 'index-lost' });
    expect(lost.next).toMatchObject({ at: 'P', ancestor: v1, conflict: null });
    expect(does(lost)).toEqual(['look']);
    expect(run(lost.next, look(conflict(), null, 8)).conflict).toMatchObject({ id: 8, rev: 1 });
  });
});
