// Random walks of a path: guest, base, looks by the real decide(), resolutions, undos and losses of the index. No
// bytes that were ever under a conflict, a merge or a drop are lost: they live, are the base's, or were kept.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { S_IFREG } from '../../src/lib/stat.ts';
import { type Decision, decide, type Look, type TextOutcome, writes } from '../../src/merge/decide.ts';
import type { Side } from '../../src/merge/facts.ts';
import {
  alike,
  atPin,
  following,
  isOwn,
  type PathState,
  type StateEvent,
  same,
  type Version,
} from '../../src/merge/path-state.ts';
import { policyOf } from '../../src/merge/policy.ts';
import { step } from '../../src/merge/states.ts';

const sideOf = (version: Version): Side => ({
  type: S_IFREG,
  mode: Number.parseInt(version.meta, 8),
  uid: 0,
  gid: 0,
  size: 10,
  rdev: 0,
  content: version.content,
  xattrs: '',
});

/** expect() costs more than all the rest of a walk. */
function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

interface Weather {
  settled: boolean;
  writer: boolean;
  locked: boolean;
  inScope: boolean;
  text: TextOutcome;
}

function lookAt(state: PathState, weather: Weather): Look {
  const overlay = state.overlay as Version;
  return {
    path: weather.inScope ? 'etc/motd' : 'usr/share/motd',
    policy: policyOf(weather.inScope ? 'etc/motd' : 'usr/share/motd', true),
    ancestor: state.ancestor && sideOf(state.ancestor),
    kindIfUnknown: state.lost ? 'no-ancestor' : 'added',
    overlay: sideOf(overlay),
    base: state.base && sideOf(state.base),
    pinned: state.pin === null ? null : atPin(state) ? 'at-pin' : 'past-pin',
    conditions: {
      baseState: state.frozen ?? 'accepted',
      settled: weather.settled,
      writer: weather.writer,
      setReady: true,
      overlayWritable: 'yes',
      underOpaque: state.underOpaque,
      locked: weather.locked,
    },
    metadataOnly: state.metadataOnly,
    directory: null,
    ancestorBytes: true,
    xattrs: () => ({ ancestor: new Map(), overlay: new Map(), base: new Map() }),
    text: () => weather.text,
  };
}

/** What the overlay has when a decision is carried out; null: nothing is written. */
function resultOf(state: PathState, decision: Decision): Version | null {
  if (!('metadata' in decision)) return null;
  const meta = decision.metadata.mode.toString(8);
  const [o, b] = [state.overlay as Version, state.base as Version];
  if (decision.do === 'merge-text') return { content: `merge(${o.content},${b.content})`, meta, seq: 0 };
  if (decision.do === 'take-base') return { content: b.content, meta, seq: 0 };
  return decision.metadata.changes ? { content: o.content, meta, seq: 0 } : null;
}

const weathers = fc.record<Weather>({
  settled: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, fc.boolean()),
  writer: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, fc.boolean()),
  locked: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, fc.boolean()),
  inScope: fc.oneof({ weight: 6, arbitrary: fc.constant(true) }, fc.boolean()),
  text: fc.constantFrom<TextOutcome>(
    'clean',
    'conflict',
    'conflict',
    'binary',
    'no-ancestor',
    'check-failed',
  ),
});
// Few contents and modes, so that sides come back to what they were, and equal each other, again and again.
const contents = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const modes = fc.constantFrom('644', '600', '640');

const moves = fc.oneof(
  fc.record({
    move: fc.constant('copy-up' as const),
    content: contents,
    meta: modes,
    chmod: fc.boolean(),
    torn: fc.boolean(),
  }),
  fc.record({ move: fc.constant('edit' as const), content: contents, meta: modes, seen: fc.nat(9) }),
  fc.record({ move: fc.constant('put-back' as const) }),
  fc.record({ move: fc.constantFrom('unlink' as const, 'rename-away' as const), seen: fc.nat(9) }),
  fc.record({ move: fc.constant('create' as const), content: contents, withinDay: fc.boolean() }),
  fc.record({ move: fc.constant('base' as const), content: fc.option(contents), meta: modes }),
  fc.record({ move: fc.constant('base' as const), content: fc.option(contents), meta: modes }),
  fc.record({ move: fc.constant('look' as const), weather: weathers }),
  fc.record({ move: fc.constant('look' as const), weather: weathers }),
  fc.record({ move: fc.constant('look' as const), weather: weathers }),
  fc.record({
    move: fc.constant('resolve' as const),
    take: fc.constantFrom('overlay' as const, 'base' as const, 'merged' as const, 'file' as const),
    moved: fc.option(contents),
    markers: fc.boolean(),
    stale: fc.boolean(),
  }),
  fc.record({ move: fc.constant('undo' as const), force: fc.boolean() }),
  fc.record({ move: fc.constant('undo' as const), force: fc.boolean() }),
  fc.record({
    move: fc.constantFrom(
      'reconcile' as const,
      'policy' as const,
      'index-lost' as const,
      'new-tree' as const,
      'expire' as const,
    ),
  }),
  fc.record({
    move: fc.constant('freeze' as const),
    why: fc.constantFrom(null, null, 'held' as const, 'unaccepted' as const),
  }),
);
type Move = typeof moves extends fc.Arbitrary<infer T> ? T : never;

class Walk {
  state: PathState;
  readonly bases: Version[];
  readonly kept = new Set<string>();
  readonly owed = new Set<string>();
  readonly revs = new Map<number, number>();
  ids = 0;

  constructor(opaque: boolean) {
    this.bases = [{ content: 'a', meta: '644', seq: 1 }];
    this.state = { ...following(this.bases[0] as Version), underOpaque: opaque };
  }

  newBase(content: string | null, meta: string): Version | null {
    if (content === null) return null;
    const version = { content, meta, seq: this.bases.length + 1 };
    this.bases.push(version);
    return version;
  }

  seen(n: number): Version | null {
    return n < 5 ? null : (this.bases.at(4 - n) ?? null);
  }

  eventOf(m: Move): StateEvent | null {
    const { state } = this;
    switch (m.move) {
      case 'copy-up': {
        if (state.base === null) return null;
        const content = m.chmod ? state.base.content : m.content;
        return {
          type: 'copy-up',
          copied: state.base,
          overlay: { content, meta: m.meta, seq: 0 },
          torn: m.torn,
          metadataOnly: m.chmod,
        };
      }
      case 'edit': {
        // To write to a metadata-only copy is a copy-up; only its metadata change without.
        const content = state.metadataOnly && state.overlay ? state.overlay.content : m.content;
        return { type: 'edit', overlay: { content, meta: m.meta, seq: 0 }, seen: this.seen(m.seen) };
      }
      case 'put-back': {
        const before = state.undo.at(-1)?.before.overlay;
        return before && !state.metadataOnly ? { type: 'edit', overlay: before, seen: null } : null;
      }
      case 'unlink':
      case 'rename-away':
        return { type: m.move, seen: this.seen(m.seen) };
      case 'create':
        return {
          type: 'create',
          overlay: { content: m.content, meta: '644', seq: 0 },
          withinDay: m.withinDay,
        };
      case 'base':
        return { type: 'base', base: this.newBase(m.content, m.meta) };
      case 'look': {
        if (state.overlay === null) return null;
        const decision = decide(lookAt(state, m.weather));
        return {
          type: 'look',
          decision,
          result: resultOf(state, decision),
          id: ++this.ids,
          displaced: false,
        };
      }
      case 'resolve':
        return {
          type: 'resolve',
          id: state.conflict?.id ?? 1,
          rev: m.stale ? 1 : null,
          take: m.take,
          now: m.moved === null ? state.base : this.newBase(m.moved, '644'),
          result: { content: `resolved(${this.bases.length})`, meta: '644', seq: 0 },
          markers: m.markers,
        };
      case 'undo':
        return { type: 'undo', force: m.force };
      case 'freeze':
        return { type: 'freeze', why: m.why };
      default:
        return { type: m.move };
    }
  }

  /** What this step has under a conflict, a merge or a drop, before it. */
  owe(event: StateEvent, next: PathState): void {
    const { state } = this;
    const owe = (...versions: (Version | null)[]) => {
      for (const version of versions) if (version !== null) this.owed.add(version.content);
    };
    const looked = event.type === 'look' && event.decision.do !== 'pending';
    if (looked && (next.at === 'X' || (writes(event.decision) && event.result !== null))) {
      owe(state.ancestor, state.overlay, state.base);
    }
    if (event.type === 'look' && event.decision.do === 'drop') owe(state.ancestor, state.overlay, state.base);
    // The index may be lost before the edits of an open conflict are looked at; nobody knows of them then.
    const leaves = ['edit', 'copy-up', 'unlink', 'rename-away', 'resolve', 'undo'].includes(event.type);
    if (state.at === 'X' && (leaves || (event.type === 'base' && next.at !== 'X'))) owe(state.overlay);
    if (event.type === 'resolve') {
      owe(state.ancestor);
      if (alike(event.now, state.conflict?.base ?? null)) owe(event.now);
    }
    if (event.type === 'undo') owe(state.overlay);
  }

  go(m: Move): void {
    const event = this.eventOf(m);
    if (event === null) return;
    const before = JSON.stringify(this.state);
    const result = step(this.state, event);
    must(JSON.stringify(this.state) === before, 'step changes nothing in place');
    // A resolution sees the base of its moment: what the world did stays done, also where it was refused.
    if (event.type === 'resolve' && !alike(event.now, this.state.base) && 'refused' in result) {
      this.apply({ type: 'base', base: event.now });
    } else if (!('refused' in result)) {
      this.apply(event);
    }
  }

  apply(event: StateEvent): void {
    const result = step(this.state, event);
    if ('refused' in result) throw new Error(result.refused);
    const { next, actions } = result;
    this.owe(event, next);
    for (const action of actions) {
      if (action.do === 'keep') this.kept.add(action.version.content);
      if (action.do === 'open' || action.do === 'revise') {
        const rev = action.do === 'revise' ? action.rev : (this.revs.get(action.id) ?? 1);
        must(rev >= (this.revs.get(action.id) ?? 0), 'a rev never falls');
        this.revs.set(action.id, rev);
      }
    }
    this.state = next;
    this.check();
  }

  check(): void {
    const { state } = this;
    const shown = new Set([...this.kept, state.overlay?.content, state.base?.content]);
    for (const content of this.owed) must(shown.has(content), `lost: ${content}`);
    must((state.overlay === null) === (state.at === 'F' || state.at === 'W'), 'an overlay, but in F and W');
    must((state.conflict !== null) === (state.at === 'X'), 'a conflict in X');
    must((state.keptBy !== null) === (state.at === 'K'), 'a reason in K');
    must(state.at !== 'U' || state.pin !== null, 'a pin in U');
    must(state.at !== 'F' || state.pin === null, 'no pin in F');
    const current = state.frozen !== null || same(state.ancestor, state.base) || isOwn(state);
    must(state.at !== 'C' || current, 'A = B in C');
  }
}

const walks = fc.array(moves, { minLength: 5, maxLength: 60, size: 'max' });

test('no bytes of a conflict, a merge or a drop are ever lost, and refusals change nothing', () => {
  fc.assert(
    fc.property(walks, fc.boolean(), (steps, opaque) => {
      const walk = new Walk(opaque);
      for (const m of steps) walk.go(m);
    }),
    { numRuns: 5000 },
  );
});

test('a pin is only lifted by asking, by resolving, or by the base going back to the ancestor', () => {
  fc.assert(
    fc.property(walks, (steps) => {
      const walk = new Walk(false);
      for (const m of steps) {
        const before = walk.state;
        walk.go(m);
        const { state } = walk;
        if (before.pin === null || state.pin !== null) continue;
        const asked = ['reconcile', 'resolve', 'undo'].includes(m.move);
        const back = same(state.ancestor, state.base) || isOwn(state) || state.at === 'F';
        expect(asked || back || (m.move === 'create' && before.at === 'W'), m.move).toBe(true);
      }
    }),
    { numRuns: 2000 },
  );
});

test('the walks reach every state', () => {
  const reached = new Set<string>();
  fc.assert(
    fc.property(walks, (steps) => {
      const walk = new Walk(false);
      for (const m of steps) {
        walk.go(m);
        reached.add(walk.state.at + (walk.state.conflict?.kind ?? ''));
      }
    }),
    { numRuns: 2000, seed: 1 },
  );
  for (const at of ['F', 'C', 'P', 'K', 'U', 'W', 'Xtext', 'Xundone', 'Xdeleted', 'Xadded', 'Xno-ancestor']) {
    expect([...reached]).toContain(at);
  }
});

test('left alone, every stale path comes to rest: a second look changes nothing', () => {
  const calm: Weather = { settled: true, writer: false, locked: false, inScope: true, text: 'conflict' };
  fc.assert(
    fc.property(walks, (steps) => {
      const walk = new Walk(false);
      for (const m of steps) walk.go(m);
      walk.go({ move: 'freeze', why: null });
      walk.go({ move: 'look', weather: calm });
      const rested = walk.state;
      expect(['F', 'C', 'K', 'X', 'U', 'W']).toContain(rested.at);
      walk.go({ move: 'look', weather: calm });
      expect(walk.state).toEqual(rested);
    }),
    { numRuns: 2000 },
  );
});
