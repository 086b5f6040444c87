// The three-way merge of mode, owner and extended attributes, ACLs and capabilities among them.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { S_IFDIR, S_IFREG } from '../../src/lib/stat.ts';
import { ACL_ACCESS, ACL_DEFAULT, type AclEntry, decodeAcl, encodeAcl, narrow } from '../../src/merge/acl.ts';
import type { Side } from '../../src/merge/facts.ts';
import { type ContentFrom, type MergedMetadata, mergeMetadata } from '../../src/merge/metadata.ts';

type Xattrs = Record<string, string | Buffer>;

interface Given {
  mode?: number;
  uid?: number;
  gid?: number;
  xattrs?: Xattrs;
}

const mapOf = (xattrs: Xattrs = {}) =>
  new Map(Object.entries(xattrs).map(([name, value]) => [name, Buffer.from(value)]));
const sideOf = ({ mode = 0o644, uid = 0, gid = 0, xattrs = {} }: Given, type = S_IFREG): Side => ({
  type,
  mode,
  uid,
  gid,
  size: 1,
  rdev: 0,
  content: 'x',
  xattrs: Object.entries(xattrs).flat().join(),
});

function merge(
  a: Given | null,
  o: Given,
  b: Given,
  from: ContentFrom = 'both',
  type = S_IFREG,
  lost = false,
) {
  const sides = [a, o, b].map((given) => given && sideOf(given, type)) as [Side | null, Side, Side];
  return mergeMetadata(...sides, from, () => ({
    ancestor: a === null || lost ? null : mapOf(a.xattrs),
    overlay: mapOf(o.xattrs),
    base: mapOf(b.xattrs),
  }));
}

function merged(...args: Parameters<typeof merge>): MergedMetadata {
  const result = merge(...args);
  if ('conflict' in result) throw new Error(`conflict: ${result.conflict}`);
  return result;
}

const texts = (result: MergedMetadata) =>
  Object.fromEntries([...(result.xattrs ?? [])].map(([name, value]) => [name, value.toString()]));

describe('mode and owner', () => {
  test('each field is the side’s that changed it', () => {
    expect(merged({}, { mode: 0o600 }, { uid: 5, gid: 6 })).toMatchObject({ mode: 0o600, uid: 5, gid: 6 });
    expect(merged({}, { uid: 5 }, { uid: 5, mode: 0o755 })).toMatchObject({
      mode: 0o755,
      uid: 5,
      changes: true,
      equalsBase: true,
      xattrs: null,
    });
    expect(merged({}, { mode: 0o600 }, {})).toMatchObject({ changes: false, equalsBase: false });
  });

  test('a mode that both changed is the overlay’s, no wider than the base’s where that was tightened', () => {
    expect(merged({ mode: 0o644 }, { mode: 0o664 }, { mode: 0o600 }).mode).toBe(0o600);
    expect(merged({ mode: 0o644 }, { mode: 0o640 }, { mode: 0o755 }).mode).toBe(0o640);
    expect(merged({ mode: 0o644 }, { mode: 0o755 }, { mode: 0o640 }).mode).toBe(0o750);
    expect(merged({ mode: 0o644 }, { mode: 0o664 }, { mode: 0o600 }).notes).toHaveLength(1);
  });

  test('an owner that both changed is a conflict', () => {
    expect(merge({}, { uid: 1 }, { uid: 2 })).toEqual({ conflict: 'uid' });
    expect(merge({}, { uid: 1, gid: 1 }, { uid: 2, gid: 2 })).toEqual({ conflict: 'uid, gid' });
  });

  test('without ancestor the overlay’s stay', () => {
    expect(merged(null, { mode: 0o666, uid: 1 }, { mode: 0o600, uid: 2 })).toMatchObject({
      mode: 0o666,
      uid: 1,
    });
  });
});

describe('privileges', () => {
  test('a set-id bit survives only with owner and content of the side that set it', () => {
    const suid = { mode: 0o4755 };
    const plain = { mode: 0o755 };
    expect(merged(plain, suid, plain, 'both').mode).toBe(0o4755);
    expect(merged(plain, suid, plain, 'base').mode).toBe(0o755);
    expect(merged(suid, suid, suid, 'merged').mode).toBe(0o755);
    expect(merged(plain, plain, suid, 'base').mode).toBe(0o4755);
    expect(merged(plain, plain, suid, 'overlay').mode).toBe(0o755);
    expect(merged(plain, { ...plain, uid: 5 }, suid, 'base').mode).toBe(0o755);
    expect(merged(suid, suid, plain, 'base').mode, 'taken off by the base').toBe(0o755);
    expect(merged({ mode: 0o2755 }, { mode: 0o2755, gid: 5 }, { mode: 0o2755, uid: 5 }).mode).toBe(0o755);
  });

  test('of a directory set-gid and sticky are no privilege, and merge like any bit', () => {
    const result = merged({ mode: 0o755 }, { mode: 0o2755 }, { mode: 0o1755, gid: 7 }, 'merged', S_IFDIR);
    expect(result.mode).toBe(0o3755);
  });

  test('capabilities likewise', () => {
    const cap = { xattrs: { 'security.capability': 'net' } };
    expect(texts(merged({}, cap, {}, 'both'))).toEqual({ 'security.capability': 'net' });
    expect(texts(merged({}, cap, {}, 'base'))).toEqual({});
    expect(texts(merged({}, cap, {}, 'merged'))).toEqual({});
    expect(texts(merged({}, {}, cap, 'base'))).toEqual({ 'security.capability': 'net' });
    expect(texts(merged(cap, cap, { ...cap, uid: 4 }, 'overlay'))).toEqual({});
    expect(texts(merged(cap, cap, {}, 'base'))).toEqual({});
    const other = { xattrs: { 'security.capability': 'raw' } };
    expect(texts(merged({}, cap, other, 'overlay'))).toEqual({ 'security.capability': 'net' });
    expect(texts(merged({}, cap, other, 'base'))).toEqual({ 'security.capability': 'raw' });
  });
});

describe('extended attributes', () => {
  test('each name for itself: added, changed and removed by either side', () => {
    const result = merged(
      { xattrs: { 'user.a': '1', 'user.b': '1', 'user.c': '1', 'user.d': '1' } },
      { xattrs: { 'user.a': '2', 'user.b': '1', 'user.d': '1', 'user.o': 'o' } },
      { xattrs: { 'user.a': '1', 'user.b': '2', 'user.c': '1', 'user.n': 'n' } },
    );
    expect(texts(result)).toEqual({ 'user.a': '2', 'user.b': '2', 'user.o': 'o', 'user.n': 'n' });
    expect(result).toMatchObject({ changes: true, equalsBase: false });
  });

  test('one that both changed is a conflict', () => {
    const x = (value: string) => ({ xattrs: { 'user.x': value } });
    expect(merge(x('a'), x('o'), x('b'))).toEqual({ conflict: 'user.x' });
    expect(merge({}, x('o'), x('b'))).toEqual({ conflict: 'user.x' });
    expect(texts(merged(x('a'), x('b'), x('b')))).toEqual({ 'user.x': 'b' });
  });

  test('an ancestor whose attributes were not kept is known where a side has its hash', () => {
    const x = (value: string) => ({ xattrs: { 'user.x': value } });
    expect(texts(merged(x('a'), x('a'), x('b'), 'both', S_IFREG, true))).toEqual({ 'user.x': 'b' });
    expect(texts(merged(x('a'), x('o'), x('a'), 'both', S_IFREG, true))).toEqual({ 'user.x': 'o' });
    expect(merge(x('a'), x('o'), x('b'), 'both', S_IFREG, true)).toEqual({ conflict: 'user.x' });
    expect(texts(merged({}, {}, x('b'), 'both', S_IFREG, true))).toEqual({ 'user.x': 'b' });
  });
});

const acl = (user: number, named: Record<number, number>, group: number, mask: number, other: number) => [
  { tag: 1, perm: user, id: 0xffffffff },
  ...Object.entries(named).map(([id, perm]) => ({ tag: 2, perm, id: Number(id) })),
  { tag: 4, perm: group, id: 0xffffffff },
  { tag: 16, perm: mask, id: 0xffffffff },
  { tag: 32, perm: other, id: 0xffffffff },
];
const withAcl = (entries: AclEntry[], name = ACL_ACCESS): Given => {
  const perm = (tag: number) => entries.find((entry) => entry.tag === tag)?.perm ?? 0;
  const mode = (perm(1) << 6) | (perm(16) << 3) | perm(32);
  return { ...(name === ACL_ACCESS ? { mode } : {}), xattrs: { [name]: encodeAcl(entries) } };
};
const aclOf = (result: MergedMetadata, name = ACL_ACCESS) => {
  const bytes = result.xattrs?.get(name);
  return bytes === undefined ? null : decodeAcl(bytes);
};

describe('ACLs', () => {
  test('permission bits and access ACL are one field: a chmod of one side takes its ACL along', () => {
    const before = withAcl(acl(6, { 7: 6 }, 4, 6, 4));
    const chmodded = withAcl(acl(6, { 7: 6 }, 4, 4, 0));
    expect(aclOf(merged(before, before, chmodded))).toEqual(acl(6, { 7: 6 }, 4, 4, 0));
    expect(merged(before, before, chmodded).mode).toBe(0o640);
    expect(merged(before, before, { mode: 0o640 })).toMatchObject({ mode: 0o640, xattrs: new Map() });
  });

  test('changed by both, each entry of the overlay’s is no wider than the base’s where that was tightened', () => {
    const result = merged(
      withAcl(acl(6, { 7: 6, 8: 4 }, 4, 6, 4)),
      withAcl(acl(7, { 7: 6, 8: 6, 9: 6 }, 4, 6, 4)),
      withAcl(acl(6, { 7: 4, 8: 4 }, 4, 6, 0)),
    );
    // 8 was given more here and nothing taken there; 9 could read as one of the others, which the base took away.
    expect(aclOf(result)).toEqual(acl(7, { 7: 4, 8: 6, 9: 0 }, 4, 6, 0));
    expect(result.mode).toBe(0o760);
  });

  test('a base that was closed by chmod closes the overlay’s ACL by its mask', () => {
    const result = merged({ mode: 0o644 }, withAcl(acl(6, { 7: 6 }, 4, 6, 4)), { mode: 0o600 });
    expect(result.mode).toBe(0o600);
    expect(aclOf(result)).toEqual(acl(6, { 7: 0 }, 0, 0, 0));
  });

  test('default ACLs merge alike where all sides have one, and are a conflict where one was removed', () => {
    const d = (entries: AclEntry[]) => withAcl(entries, ACL_DEFAULT);
    const [a, o, b] = [acl(7, {}, 5, 5, 5), acl(7, {}, 7, 7, 5), acl(7, {}, 5, 5, 0)];
    expect(aclOf(merged(d(a), d(o), d(b), 'both', S_IFDIR), ACL_DEFAULT)).toEqual(acl(7, {}, 7, 7, 0));
    expect(merge(d(a), d(o), {}, 'both', S_IFDIR)).toEqual({ conflict: ACL_DEFAULT });
  });

  test('what is no ACL that we know, or an ancestor’s that is lost, is a conflict', () => {
    const broken = { mode: 0o600, xattrs: { [ACL_ACCESS]: 'what' } };
    expect(merge({}, broken, { mode: 0o640 })).toEqual({ conflict: expect.stringContaining('ACL') });
    const [o, b] = [withAcl(acl(6, {}, 4, 4, 4)), withAcl(acl(6, {}, 0, 0, 0))];
    const a = withAcl(acl(7, {}, 7, 7, 7));
    expect(merge(a, o, b, 'both', S_IFREG, true)).toEqual({ conflict: expect.stringContaining('ACL') });
  });

  test('whatever the ACLs are: nobody gets what the base took away, and the mode agrees with the ACL', () => {
    const perm = fc.nat(7);
    const entries = fc
      .tuple(perm, fc.dictionary(fc.constantFrom('1', '2', '3'), perm), perm, perm, perm)
      .map(([u, named, g, m, o]) => acl(u, named as Record<number, number>, g, m, o));
    const permissions = fc.tuple(fc.nat(0o777), fc.option(entries)).map(([mode, list]) => {
      const perms = (tag: number) => list?.find((entry) => entry.tag === tag)?.perm ?? 0;
      return { mode: list ? (perms(1) << 6) | (perms(16) << 3) | perms(32) : mode, acl: list };
    });
    fc.assert(
      fc.property(permissions, permissions, permissions, (a, o, b) => {
        const result = narrow(a, o, b);
        for (const shift of [0, 3, 6]) {
          const [was, is, gets] = [a, b, result].map((p) => (p.mode >> shift) & 7) as [
            number,
            number,
            number,
          ];
          if ((was & ~is) !== 0) expect(gets & ~is).toBe(0);
        }
        for (const entry of result.acl ?? []) {
          const of = (p: typeof a) => p.acl?.find((e) => e.tag === entry.tag && e.id === entry.id)?.perm;
          const [was, is] = [of(a), of(b)];
          if (was !== undefined && is !== undefined && (was & ~is) !== 0) expect(entry.perm & ~is).toBe(0);
          expect(entry.perm & ~(of(o) ?? 0)).toBe(0);
        }
        if (result.acl) expect((result.mode >> 3) & 7).toBe(result.acl.find((e) => e.tag === 16)?.perm);
      }),
      { numRuns: 5000 },
    );
  });
});
