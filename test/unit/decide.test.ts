// The decision table: the rows "looked at" of the states, and the policy of what is merged, by example; and what
// must hold whatever the sides are.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { conflictKinds as controlKinds } from '../../src/control/verbs.ts';
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK } from '../../src/lib/stat.ts';
import {
  type Conditions,
  type Decision,
  decide,
  decideSet,
  type Look,
  type TextOutcome,
  writes,
} from '../../src/merge/decide.ts';
import { conflictKinds, type Side, sameBody, sameMetadata } from '../../src/merge/facts.ts';
import { policyOf } from '../../src/merge/policy.ts';

const side = (content: string | null, more: Partial<Side> = {}): Side => ({
  type: S_IFREG,
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 10,
  rdev: 0,
  content,
  xattrs: '',
  ...more,
});
const link = (target: string) => side(target, { type: S_IFLNK, mode: 0o777 });
const dir = (more: Partial<Side> = {}) => side(null, { type: S_IFDIR, mode: 0o755, ...more });

const calm: Conditions = {
  baseState: 'accepted',
  settled: true,
  writer: false,
  setReady: true,
  overlayWritable: 'yes',
  underOpaque: false,
  locked: false,
};

interface Given extends Partial<Omit<Look, 'conditions' | 'text'>> {
  text?: TextOutcome;
  osTree?: boolean;
  when?: Partial<Conditions>;
}

function lookOf(
  ancestor: Side | null,
  overlay: Side,
  base: Side | null,
  { text, osTree, when, ...rest }: Given = {},
): Look {
  const path = rest.path ?? 'etc/motd';
  return {
    path,
    policy: policyOf(path, osTree ?? true),
    ancestor,
    kindIfUnknown: 'no-ancestor',
    overlay,
    base,
    pinned: null,
    conditions: { ...calm, ...when },
    metadataOnly: false,
    directory:
      overlay.type === S_IFDIR ? { opaque: false, renamed: false, empty: false, baseLink: null } : null,
    ancestorBytes: true,
    xattrs: () => {
      throw new Error('asked for attributes that no side has');
    },
    text: () => {
      if (text === undefined) throw new Error('asked for a line merge that decides nothing');
      return text;
    },
    ...rest,
  };
}

const ask = (...args: Parameters<typeof lookOf>) => decide(lookOf(...args));
const [a, o, b] = [side('a'), side('o'), side('b')];

test('the kinds of conflicts are those of the control interface', () => {
  expect(conflictKinds).toEqual(controlKinds);
});

describe('conditions', () => {
  test.each<[string, Partial<Conditions>]>([
    ['settling', { settled: false }],
    ['writer', { writer: true }],
    ['set', { setReady: false }],
    ['full', { overlayWritable: 'full' }],
    ['read-only', { overlayWritable: 'read-only' }],
    ['held', { baseState: 'held' }],
    ['unaccepted', { baseState: 'unaccepted' }],
  ])('pending: %s', (reason, when) => {
    expect(ask(a, o, b, { when, text: 'clean' })).toEqual({ do: 'pending', reason });
    expect(ask(a, a, b, { when })).toEqual({ do: 'pending', reason });
  });

  test('contents are asked for only where they decide', () => {
    const hashing = { do: 'pending', reason: 'hashing' };
    expect(ask(a, side(null), b)).toEqual(hashing);
    expect(ask(a, o, side(null))).toEqual(hashing);
    expect(ask(a, side(null), side(null), { when: { settled: false } })).toMatchObject({
      reason: 'settling',
    });
    expect(ask(a, side(null), side(null), { path: 'usr/bin/x' })).toMatchObject({ do: 'kept' });
    expect(ask(a, side(null), side(null), { path: 'etc/hostname' })).toMatchObject({ do: 'kept' });
  });

  test('the base back at the ancestor, or touched only, is current whatever else holds', () => {
    expect(ask(a, o, a, { when: { writer: true, setReady: false, overlayWritable: 'full' } })).toEqual({
      do: 'current',
    });
    expect(ask(a, o, side('a'), { path: 'usr/bin/x' })).toEqual({ do: 'current' });
    expect(ask(a, o, a, { when: { settled: false } })).toMatchObject({ do: 'pending' });
    expect(ask(null, o, null, { kindIfUnknown: 'added' })).toEqual({ do: 'current' });
  });
});

describe('scope and policy', () => {
  test('out of scope a stale copy is kept, untouched or not, and whatever became of the base', () => {
    for (const [overlay, base] of [
      [a, b],
      [o, b],
      [o, null],
      [a, null],
      [o, link('x')],
    ] as const) {
      const decision = ask(a, overlay, base, { path: 'usr/bin/x' });
      expect(decision).toMatchObject({ do: 'kept', reason: 'scope' });
    }
    expect(ask(a, a, b, { path: 'usr/bin/x', osTree: false })).toEqual({ do: 'drop', gone: false });
  });

  test('out of scope, what equals the base wholly is not stale', () => {
    expect(ask(a, b, b, { path: 'usr/bin/x' })).toMatchObject({ do: 'adopt', metadata: { changes: false } });
    expect(ask(a, b, side('b', { mode: 0o600 }), { path: 'usr/bin/x' })).toMatchObject({ do: 'kept' });
    expect(ask(null, b, b, { path: 'usr/bin/x' })).toMatchObject({ do: 'adopt' });
    expect(ask(null, o, b, { path: 'usr/bin/x' })).toMatchObject({ do: 'kept', reason: 'scope' });
  });

  test('what is on the ignore list is the overlay’s, always', () => {
    for (const overlay of [a, o, b]) {
      for (const base of [b, null]) {
        const decision = ask(a, overlay, base, { path: 'etc/machine-id' });
        expect(decision).toMatchObject({ do: 'kept', reason: 'ignored' });
      }
    }
  });

  test('generated files are marked with their command, and never dropped', () => {
    const path = 'etc/ld.so.cache';
    expect(ask(a, o, b, { path })).toMatchObject({ do: 'kept', reason: 'generated', regenerate: 'ldconfig' });
    expect(ask(a, a, b, { path })).toMatchObject({ do: 'take-base', as: 'copy', regenerate: 'ldconfig' });
    expect(ask(a, b, b, { path })).toMatchObject({ do: 'take-base', contentSame: true });
    expect(ask(a, a, null, { path })).toMatchObject({ do: 'kept', reason: 'deleted' });
  });
});

describe('the copy is untouched, or equals the base', () => {
  test('it is dropped', () => {
    expect(ask(a, a, b)).toEqual({ do: 'drop', gone: false });
    expect(ask(a, b, b)).toEqual({ do: 'drop', gone: false });
    expect(ask(link('a'), link('a'), link('b'))).toEqual({ do: 'drop', gone: false });
    expect(ask(a, a, side('b', { mode: 0o600, uid: 7 }))).toEqual({ do: 'drop', gone: false });
  });

  test('with metadata of its own it becomes a metadata-only copy: a chmod does not stop content', () => {
    const chmodded = side('a', { mode: 0o640 });
    const decision = ask(a, chmodded, b);
    expect(decision).toMatchObject({ do: 'take-base', as: 'metadata-only', metadata: { mode: 0o640 } });
  });

  test('nothing is dropped where only metadata of the base have changed', () => {
    const base = side('a', { mode: 0o600 });
    expect(ask(a, a, base)).toMatchObject({ do: 'metadata', metadata: { mode: 0o600, changes: true } });
    expect(ask(a, o, base)).toMatchObject({ do: 'metadata', metadata: { mode: 0o600 } });
  });

  test.each<[string, Given, Partial<Side>]>([
    ['empty', {}, { size: 0 }],
    ['locked', { when: { locked: true } }, {}],
    ['beneath an opaque directory', { when: { underOpaque: true } }, {}],
  ])('%s it is not dropped but gets the base’s content', (_, given, more) => {
    const untouched = side('a', more);
    const decision = ask(untouched, untouched, side('b', { mode: 0o600 }), given);
    expect(decision).toMatchObject({ do: 'take-base', as: 'copy', metadata: { mode: 0o600 } });
  });

  test('a socket is never dropped', () => {
    const socket = side(null, { type: S_IFSOCK });
    expect(ask(socket, socket, null)).toMatchObject({ do: 'kept', reason: 'deleted' });
  });

  test('the base deleted it: the name goes, unless the guest changed content or metadata', () => {
    expect(ask(a, a, null)).toEqual({ do: 'drop', gone: true });
    expect(ask(a, o, null)).toMatchObject({ do: 'kept', reason: 'deleted' });
    expect(ask(a, side('a', { mode: 0o600 }), null)).toMatchObject({ do: 'kept', reason: 'deleted' });
    expect(ask(side(null), o, null)).toMatchObject({ do: 'kept', reason: 'deleted' });
    const empty = side('a', { size: 0 });
    expect(ask(empty, empty, null)).toMatchObject({ do: 'kept' });
  });
});

describe('a metadata-only copy', () => {
  const only = (given: Given = {}) => ({ metadataOnly: true, ...given });
  const chmodded = side(null, { mode: 0o600 });

  test('follows the content of the base at once, in any scope', () => {
    for (const path of ['etc/motd', 'usr/bin/x', 'etc/hostname']) {
      const when = { settled: false, writer: true };
      expect(ask(a, chmodded, b, only({ path, when }))).toMatchObject({
        do: 'metadata',
        metadata: { mode: 0o600, changes: false },
      });
    }
  });

  test('loses a set-id bit of the guest’s when the content moves under it', () => {
    const suid = side(null, { mode: 0o4755 });
    const decision = ask(side('a', { mode: 0o755 }), suid, side('b', { mode: 0o755 }), only());
    expect(decision).toMatchObject({ do: 'metadata', metadata: { mode: 0o755, changes: true } });
  });

  test('merges metadata when the base’s move too, and is dropped when nothing is left of it', () => {
    expect(ask(a, chmodded, side('b', { uid: 5 }), only())).toMatchObject({
      do: 'metadata',
      metadata: { mode: 0o600, uid: 5 },
    });
    expect(ask(a, chmodded, side('b', { mode: 0o600 }), only())).toEqual({ do: 'drop', gone: false });
  });

  test('without base is filled with the ancestor’s bytes, or is gone', () => {
    expect(ask(a, chmodded, null, only())).toMatchObject({ do: 'kept', reason: 'deleted', fill: true });
    expect(ask(a, chmodded, null, only({ ancestorBytes: false }))).toEqual({ do: 'drop', gone: true });
    expect(ask(a, chmodded, link('x'), only())).toEqual({ do: 'drop', gone: false });
  });
});

describe('both sides changed it', () => {
  test.each<[TextOutcome, Partial<Decision> & Record<string, unknown>]>([
    ['clean', { do: 'merge-text' }],
    ['conflict', { do: 'conflict', kind: 'text', proposal: 'marked' }],
    ['check-failed', { do: 'conflict', kind: 'text', proposal: 'clean' }],
    ['binary', { do: 'conflict', kind: 'binary', proposal: 'none' }],
    ['too-large', { do: 'conflict', kind: 'text', proposal: 'none' }],
    ['no-ancestor', { do: 'conflict', kind: 'no-ancestor', proposal: 'marked' }],
  ])('line merge: %s', (text, decision) => {
    expect(ask(a, o, b, { text })).toMatchObject(decision);
  });

  test('a clean merge takes metadata field by field, and no set-id bit', () => {
    const decision = ask(
      side('a', { mode: 0o4755 }),
      side('o', { mode: 0o4755, uid: 5 }),
      side('b', { mode: 0o4755, gid: 6 }),
      { text: 'clean' },
    );
    expect(decision).toMatchObject({ do: 'merge-text', metadata: { mode: 0o755, uid: 5, gid: 6 } });
  });

  test('record formats are conflicts until record merges exist', () => {
    for (const path of ['etc/passwd', 'etc/gshadow', 'etc/subuid']) {
      expect(ask(a, o, b, { path })).toMatchObject({ do: 'conflict', kind: 'record' });
    }
    const dpkg = { path: 'var/lib/dpkg/status', osTree: false };
    expect(ask(a, o, b, dpkg)).toMatchObject({ do: 'conflict', kind: 'record' });
  });

  test('symlinks are three-way on the target: both differ is a conflict with the overlay’s live', () => {
    expect(ask(link('a'), link('o'), link('b'))).toMatchObject({
      do: 'conflict',
      kind: 'text',
      proposal: 'none',
    });
    expect(ask(link('a'), link('b'), link('b'))).toEqual({ do: 'drop', gone: false });
    expect(ask(link('a'), link('o'), link('a'))).toEqual({ do: 'current' });
  });

  test('another type on either side is a conflict `type`', () => {
    for (const [overlay, base] of [
      [link('x'), b],
      [o, link('x')],
      [dir(), b],
      [link('x'), link('y')],
      [o, dir()],
      [side(null, { type: S_IFCHR, rdev: 1 }), b],
    ] as const) {
      expect(ask(a, overlay, base)).toMatchObject({ do: 'conflict', kind: 'type' });
    }
    expect(ask(a, a, link('x')), 'an untouched copy follows').toEqual({ do: 'drop', gone: false });
    expect(ask(a, link('x'), link('x'))).toEqual({ do: 'drop', gone: false });
    expect(ask(a, side('a', { mode: 0o600 }), link('x'))).toMatchObject({ kind: 'type' });
  });

  test('the owner, changed to two different ones, is a conflict `metadata`', () => {
    const decision = ask(a, side('a', { uid: 5 }), side('b', { uid: 6 }));
    expect(decision).toMatchObject({
      do: 'conflict',
      kind: 'metadata',
      reason: expect.stringContaining('uid'),
    });
  });
});

describe('no ancestor', () => {
  test('equal is adopted, different is a conflict of its kind', () => {
    expect(ask(null, b, b)).toMatchObject({ do: 'adopt', metadata: { changes: false } });
    expect(ask(null, side('b', { mode: 0o600 }), b)).toMatchObject({
      do: 'adopt',
      metadata: { mode: 0o600 },
    });
    expect(ask(null, o, b, { text: 'no-ancestor' })).toMatchObject({
      kind: 'no-ancestor',
      proposal: 'marked',
    });
    const added: Given = { kindIfUnknown: 'added', text: 'binary' };
    expect(ask(null, o, b, added)).toMatchObject({ kind: 'added', proposal: 'none' });
    expect(ask(null, o, link('x'), added)).toMatchObject({ kind: 'type' });
    expect(ask(null, dir(), dir(), added)).toMatchObject({ do: 'adopt' });
    expect(ask(side(null), o, b, { text: 'no-ancestor' })).toMatchObject({ kind: 'no-ancestor' });
  });
});

describe('directories', () => {
  const directory = { opaque: false, renamed: false, empty: false, baseLink: null };

  test('one that is not opaque is no change: it follows the metadata of the base, in any scope', () => {
    const decision = ask(dir(), dir(), dir({ mode: 0o700 }), { path: 'usr/lib/x' });
    expect(decision).toMatchObject({ do: 'metadata', metadata: { mode: 0o700 } });
    expect(ask(dir(), dir({ mode: 0o711 }), dir({ mode: 0o700 }), { path: 'usr/lib/x' })).toMatchObject({
      do: 'kept',
    });
  });

  test('it goes with the base’s, in any scope, once nothing is in it; changed or renamed by the guest it stays', () => {
    for (const path of ['etc/x', 'usr/lib/x', 'var/cache/x']) {
      const empty = { path, directory: { ...directory, empty: true } };
      expect(ask(dir(), dir(), null, empty)).toEqual({ do: 'drop', gone: true });
      expect(ask(dir(), dir(), null, { path })).toMatchObject({ do: 'kept', reason: 'deleted' });
      expect(ask(dir(), dir({ mode: 0o700 }), null, empty)).toMatchObject({ do: 'kept' });
      expect(ask(null, dir(), null, empty)).toMatchObject({ do: 'kept' });
      const renamed = { path, directory: { ...empty.directory, renamed: true } };
      expect(ask(dir(), dir(), null, renamed)).toMatchObject({ do: 'kept' });
      expect(ask(dir(), dir(), null, { ...empty, when: { settled: false } })).toMatchObject({
        do: 'pending',
      });
      expect(ask(dir(), dir(), null, { ...empty, when: { underOpaque: true } })).toMatchObject({
        do: 'kept',
      });
      expect(ask(dir(), dir(), null, { ...empty, pinned: 'at-pin' })).toEqual({ do: 'pinned' });
    }
  });

  test('usrmerge: where the base has a symlink to a directory, or a file, the entries are displaced', () => {
    const path = 'lib';
    const linked = { path, directory: { ...directory, baseLink: 'directory' as const } };
    expect(ask(dir(), dir(), link('usr/lib'), linked)).toEqual({ do: 'displace', into: 'target' });
    expect(ask(null, dir(), link('usr/lib'), linked)).toEqual({ do: 'displace', into: 'target' });
    expect(ask(dir(), dir(), b, { path })).toEqual({ do: 'displace', into: 'nowhere' });
    expect(ask(dir(), dir(), b, { path, when: { settled: false } })).toMatchObject({ reason: 'settling' });
    expect(ask(null, dir(), b, { kindIfUnknown: 'added' })).toMatchObject({ kind: 'type' });
  });

  test('an opaque one, or one that would be hidden by what leads nowhere, is never dropped', () => {
    const opaque = { directory: { ...directory, opaque: true } };
    expect(ask(dir(), dir(), b, opaque)).toMatchObject({ do: 'conflict', kind: 'type' });
    expect(ask(dir(), dir(), link('x'))).toMatchObject({ do: 'conflict', kind: 'type' });
    expect(ask(dir(), dir(), null)).toMatchObject({ do: 'kept', reason: 'deleted' });
    const empty = { directory: { ...directory, empty: true } };
    expect(ask(dir(), dir(), null, empty)).toEqual({ do: 'drop', gone: true });
  });
});

describe('pins', () => {
  test('at the pin nothing happens, past it there is a conflict, back at the ancestor it is current', () => {
    expect(ask(a, o, b, { pinned: 'at-pin' })).toEqual({ do: 'pinned' });
    expect(ask(a, o, null, { pinned: 'at-pin' })).toEqual({ do: 'pinned' });
    expect(ask(a, o, b, { pinned: 'past-pin' })).toMatchObject({ do: 'conflict', kind: 'undone' });
    expect(ask(a, a, null, { pinned: 'past-pin' })).toMatchObject({ kind: 'undone' });
    expect(ask(a, o, b, { pinned: 'past-pin', when: { settled: false } })).toMatchObject({ do: 'pending' });
    expect(ask(a, o, a, { pinned: 'past-pin' })).toEqual({ do: 'current' });
  });
});

describe('sets', () => {
  const account = (name: string, ...args: Parameters<typeof lookOf>) =>
    lookOf(args[0], args[1], args[2], { ...args[3], path: `etc/${name}` });

  test('wholly: where all can, all follow', () => {
    const looks = [account('passwd', a, a, b), account('shadow', a, a, b), account('group', a, o, a)];
    expect(decideSet('accounts', looks).map((d) => d.do)).toEqual(['drop', 'drop', 'current']);
  });

  test('or not at all: one in conflict, pending or pinned holds back the others', () => {
    for (const shadow of [
      account('shadow', a, o, b),
      account('shadow', a, a, b, { when: { writer: true } }),
      account('shadow', a, o, b, { pinned: 'at-pin' }),
    ]) {
      const [first] = decideSet('accounts', [account('passwd', a, a, b), shadow]);
      expect(first).toEqual({ do: 'pending', reason: 'set' });
    }
  });

  test('a database whose changes lie in the -wal is not dropped by its .db that equals the ancestor', () => {
    const path = 'srv/app.db';
    const db = lookOf(a, a, b, { path });
    const wal = lookOf(null, o, null, { path: `${path}-wal`, kindIfUnknown: 'added' });
    expect(decideSet('database', [db]).map((d) => d.do)).toEqual(['drop']);
    expect(decideSet('database', [db, wal])[0]).toMatchObject({ do: 'conflict', kind: 'binary' });
    expect(decideSet('database', [db], true)[0]).toMatchObject({ do: 'conflict', kind: 'binary' });
    const empty = { ...wal, overlay: side('e', { size: 0 }) };
    const shm = lookOf(null, o, null, { path: `${path}-shm`, kindIfUnknown: 'added' });
    expect(decideSet('database', [db, empty, shm]).map((d) => d.do)).toEqual(['drop', 'current', 'current']);
  });
});

// ---- what holds whatever the sides are ----

const someSide = fc.record({
  type: fc.constantFrom(S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFLNK, S_IFDIR, S_IFCHR, S_IFSOCK),
  mode: fc.oneof(fc.constantFrom(0o644, 0o600, 0o4755, 0o755), fc.nat(0o7777)),
  uid: fc.nat(2),
  gid: fc.nat(2),
  size: fc.constantFrom(0, 10),
  content: fc.constantFrom('a', 'b', 'c', null),
});
const normal = (s: Omit<Side, 'rdev' | 'xattrs'>): Side => {
  const has = s.type === S_IFREG || s.type === S_IFLNK;
  return { ...s, rdev: 0, xattrs: '', content: has ? s.content : null };
};
const someLook = fc
  .record({
    sides: fc.tuple(fc.option(someSide), someSide, fc.option(someSide)),
    given: fc.record({
      path: fc.constantFrom(
        'etc/motd',
        'etc/motd',
        'usr/bin/x',
        'etc/passwd',
        'etc/ld.so.cache',
        'etc/hostname',
        'x.db',
      ),
      osTree: fc.boolean(),
      text: fc.constantFrom<TextOutcome>(
        'clean',
        'conflict',
        'binary',
        'too-large',
        'no-ancestor',
        'check-failed',
      ),
      kindIfUnknown: fc.constantFrom('added' as const, 'no-ancestor' as const),
      pinned: fc.constantFrom(null, null, null, 'at-pin' as const, 'past-pin' as const),
      ancestorBytes: fc.boolean(),
      when: fc.record({
        settled: fc.constantFrom(true, true, false),
        writer: fc.constantFrom(false, false, true),
        setReady: fc.constantFrom(true, true, false),
        locked: fc.boolean(),
        underOpaque: fc.boolean(),
      }),
    }),
    metadataOnly: fc.constantFrom(false, false, true),
    directory: fc.record({
      opaque: fc.boolean(),
      renamed: fc.boolean(),
      empty: fc.boolean(),
      baseLink: fc.constantFrom('directory' as const, 'other' as const, null),
    }),
  })
  .map(({ sides: [x, y, z], given, metadataOnly, directory }) => {
    const overlay = normal(y);
    return lookOf(x && normal(x), overlay, z && normal(z), {
      ...given,
      metadataOnly: metadataOnly && overlay.type === S_IFREG,
      directory: overlay.type === S_IFDIR ? directory : null,
    });
  });

const everyLook = (holds: (look: Look, decision: Decision) => void) =>
  fc.assert(
    // What an expectation returns is no verdict.
    fc.property(someLook, (look) => void holds(look, decide(look))),
    { numRuns: 20_000 },
  );

describe('whatever the sides are', () => {
  test('it is total, and says the same again', () => {
    everyLook((look, decision) => {
      expect(decide(look)).toEqual(decision);
    });
  });

  test('merged permissions never exceed the base’s where it tightened them', () => {
    everyLook(({ ancestor, base }, decision) => {
      if (!('metadata' in decision) || ancestor === null || base === null || ancestor.type !== base.type)
        return;
      for (const shift of [0, 3, 6]) {
        const [was, is, gets] = [ancestor, base, decision.metadata].map((s) => (s.mode >> shift) & 7) as [
          number,
          number,
          number,
        ];
        if ((was & ~is) !== 0) expect(gets & ~is).toBe(0);
      }
    });
  });

  test('a set-id bit is of a side that set it, with its owner, and never on merged content', () => {
    everyLook(({ ancestor, overlay, base, metadataOnly }, decision) => {
      if (!('metadata' in decision) || base === null || overlay.type === S_IFDIR) return;
      const { metadata } = decision;
      for (const bit of [0o4000, 0o2000]) {
        if ((metadata.mode & bit) === 0) continue;
        expect(decision.do).not.toBe('merge-text');
        const has = (s: Side) => (s.mode & bit) !== 0 && s.uid === metadata.uid && s.gid === metadata.gid;
        const still = decision.do === 'adopt' || (ancestor !== null && sameBody(ancestor, base));
        const overlays = metadataOnly ? still : decision.do !== 'take-base' || decision.contentSame;
        const bases = metadataOnly || decision.do === 'take-base' || sameBody(overlay, base);
        expect((overlays && has(overlay)) || (bases && has(base))).toBe(true);
      }
    });
  });

  test('an untouched copy in scope follows a settled change of content', () => {
    const regular = fc.record({ a: someSide, b: someSide });
    fc.assert(
      fc.property(regular, fc.boolean(), (given, locked) => {
        const [x, y] = [
          normal({ ...given.a, type: S_IFREG, content: 'a' }),
          normal({ ...given.b, type: S_IFREG, content: 'b' }),
        ];
        const decision = ask(x, x, y, { when: { locked } });
        expect(['drop', 'take-base']).toContain(decision.do);
        if ('metadata' in decision)
          expect(decision.metadata).toMatchObject({ mode: y.mode, uid: y.uid, gid: y.gid });
      }),
    );
  });

  test('nothing is written under a pin, out of scope but metadata of a directory or metacopy, or while waiting', () => {
    everyLook((look, decision) => {
      if (!writes(decision)) return;
      expect(look.pinned).toBeNull();
      expect(look.conditions.setReady).toBe(true);
      const apart = look.metadataOnly || look.directory !== null;
      if (!apart) {
        expect(look.policy).toMatchObject({ inScope: true, ignored: null });
        expect(look.conditions).toMatchObject({ settled: true, writer: false });
      }
    });
  });

  test('what is dropped has nothing that the ancestor or the base has not', () => {
    everyLook((look, decision) => {
      if (decision.do !== 'drop' || look.metadataOnly) return;
      const { ancestor, overlay, base } = look;
      const has = (s: Side | null) => s !== null && sameBody(overlay, s);
      expect(has(ancestor) || has(base)).toBe(true);
      if (base === null || ancestor === null) {
        expect(sameMetadata(overlay, ancestor as Side)).toBe(true);
      } else {
        expect(sameBody(ancestor, base)).toBe(false);
      }
    });
  });
});
