// The three-way merge of what is not content: mode, owner, extended attributes. Field by field; where both sides
// changed one, permissions are the overlay's made narrower, while an owner or an attribute is a conflict. What gives
// privilege (set-id bits, capabilities) survives only with owner and content of the side that set it.
import { S_IFDIR, S_ISGID, S_ISUID } from '../lib/stat.ts';
import { ACL_ACCESS, ACL_DEFAULT, decodeAcl, encodeAcl, narrow, type Permissions } from './acl.ts';
import type { Side, XattrMap, XattrSides } from './facts.ts';

/** Whose bytes the result has; both: they are equal; merged: nobody's. */
export type ContentFrom = 'overlay' | 'base' | 'both' | 'merged';

export interface MergedMetadata {
  /** 0o7777. Agrees with the access ACL, so it may be written after it. */
  mode: number;
  uid: number;
  gid: number;
  /** Exactly these are to be on the result; null: no side has any. */
  xattrs: XattrMap | null;
  /** Differs from what the overlay has now. */
  changes: boolean;
  equalsBase: boolean;
  /** For the log. */
  notes: readonly string[];
}

export interface MetadataConflict {
  /** Names of the fields that both sides changed, each to something else. */
  conflict: string;
}

const STICKY_AND_SETID = [0o1000, S_ISGID, S_ISUID];

/** Bound to the bytes: file capabilities, and what IMA and EVM sign. */
export const contentBound: ReadonlySet<string> = new Set([
  'security.capability',
  'security.ima',
  'security.evm',
]);

interface Work {
  ancestor: Side | null;
  overlay: Side;
  base: Side;
  from: ContentFrom;
  maps: { ancestor: XattrMap | null; overlay: XattrMap; base: XattrMap };
  conflicts: string[];
  notes: string[];
}

/**
 * `ancestor` null: none is known, and the overlay's fields stay. `xattrs` is only called if a side has some.
 * The result's owner is to be written first, then xattrs, then the mode.
 */
export function mergeMetadata(
  ancestor: Side | null,
  overlay: Side,
  base: Side,
  from: ContentFrom,
  xattrs: () => XattrSides,
): MergedMetadata | MetadataConflict {
  const bare = [ancestor, overlay, base].every((side) => side === null || side.xattrs === '');
  const maps = bare
    ? { ancestor: new Map(), overlay: new Map(), base: new Map() }
    : known(ancestor, overlay, base, xattrs());
  const work: Work = { ancestor, overlay, base, from, maps, conflicts: [], notes: [] };
  const uid = owner(work, 'uid');
  const gid = owner(work, 'gid');
  const { permissions, accessAcl } = mergePermissions(work);
  const survivors = survivingSides(work, uid, gid);
  const mode = permissions | specialBits(work, survivors);
  const merged = mergeXattrs(work, survivors, accessAcl);
  if (work.conflicts.length > 0) return { conflict: work.conflicts.join(', ') };
  const equals = (side: Side, map: XattrMap) =>
    side.mode === mode && side.uid === uid && side.gid === gid && sameMap(map, merged);
  return {
    mode,
    uid,
    gid,
    xattrs: bare ? null : merged,
    changes: !equals(overlay, maps.overlay),
    equalsBase: equals(base, maps.base),
    notes: work.notes,
  };
}

/** An ancestor's attributes that were not kept are still known where its hash is a side's, or says "none". */
function known(ancestor: Side | null, overlay: Side, base: Side, maps: XattrSides): XattrSides {
  if (ancestor === null || maps.ancestor !== null) return maps;
  if (ancestor.xattrs === '') return { ...maps, ancestor: new Map() };
  if (ancestor.xattrs === overlay.xattrs) return { ...maps, ancestor: maps.overlay };
  if (ancestor.xattrs === base.xattrs) return { ...maps, ancestor: maps.base };
  return maps;
}

function owner(work: Work, field: 'uid' | 'gid'): number {
  const { ancestor, overlay, base } = work;
  const [o, b] = [overlay[field], base[field]];
  if (ancestor === null || o === b || b === ancestor[field]) return o;
  if (o !== ancestor[field]) work.conflicts.push(field);
  return b;
}

function mergePermissions(work: Work): { permissions: number; accessAcl: Buffer | undefined } {
  const { ancestor, overlay, base, maps } = work;
  const ours = { permissions: overlay.mode & 0o777, accessAcl: maps.overlay.get(ACL_ACCESS) };
  const theirs = { permissions: base.mode & 0o777, accessAcl: maps.base.get(ACL_ACCESS) };
  const same = (x: typeof ours, y: typeof ours) =>
    x.permissions === y.permissions && sameBytes(x.accessAcl, y.accessAcl);
  if (ancestor === null || same(ours, theirs)) return ours;
  if (maps.ancestor === null) {
    work.conflicts.push('ACL (the ancestor’s is not known)');
    return ours;
  }
  const old = { permissions: ancestor.mode & 0o777, accessAcl: maps.ancestor.get(ACL_ACCESS) };
  if (same(old, ours)) return theirs;
  if (same(old, theirs)) return ours;
  const [a, o, b] = [permissionsOf(old), permissionsOf(ours), permissionsOf(theirs)];
  if (a === null || o === null || b === null) {
    work.conflicts.push('ACL (of an unknown form)');
    return ours;
  }
  const result = narrow(a, o, b);
  work.notes.push(
    `permissions: both sides changed them; the overlay's, no wider than the base's where it tightened them`,
  );
  return { permissions: result.mode, accessAcl: result.acl === null ? undefined : encodeAcl(result.acl) };
}

function permissionsOf(fields: { permissions: number; accessAcl: Buffer | undefined }): Permissions | null {
  if (fields.accessAcl === undefined) return { mode: fields.permissions, acl: null };
  const acl = decodeAcl(fields.accessAcl);
  return acl === null ? null : { mode: fields.permissions, acl };
}

/** The sides whose owner and content the result has wholly: only their privileges may live on. */
function survivingSides(work: Work, uid: number, gid: number): Side[] {
  const { overlay, base, from } = work;
  const sides: Side[] = [];
  const owns = (side: Side) => side.uid === uid && side.gid === gid;
  if ((from === 'overlay' || from === 'both') && owns(overlay)) sides.push(overlay);
  if ((from === 'base' || from === 'both') && owns(base)) sides.push(base);
  return sides;
}

/** Set-uid, set-gid and sticky are a field each; of one bit, two sides that changed it have the same. */
function specialBits(work: Work, survivors: readonly Side[]): number {
  const { ancestor, overlay, base } = work;
  let bits = 0;
  for (const bit of STICKY_AND_SETID) {
    const [o, b] = [overlay.mode & bit, base.mode & bit];
    const merged = ancestor === null || o !== (ancestor.mode & bit) ? o : b;
    if (merged === 0) continue;
    const plain = bit === 0o1000 || overlay.type === S_IFDIR;
    if (plain || survivors.some((side) => (side.mode & bit) !== 0)) bits |= bit;
    else
      work.notes.push(
        `${bit === S_ISUID ? 'set-uid' : 'set-gid'} taken off: owner or content are not of the side that set it`,
      );
  }
  return bits;
}

function mergeXattrs(
  work: Work,
  survivors: readonly Side[],
  accessAcl: Buffer | undefined,
): Map<string, Buffer> {
  const { maps } = work;
  const result = new Map<string, Buffer>();
  if (accessAcl !== undefined) result.set(ACL_ACCESS, accessAcl);
  const names = new Set([...maps.overlay.keys(), ...maps.base.keys()]);
  names.delete(ACL_ACCESS);
  for (const name of [...names].sort()) {
    const [o, b] = [maps.overlay.get(name), maps.base.get(name)];
    const merged = contentBound.has(name) ? privileged(work, survivors, name) : mergeValue(work, name, o, b);
    if (merged === undefined) continue;
    result.set(name, merged);
  }
  return result;
}

function mergeValue(
  work: Work,
  name: string,
  o: Buffer | undefined,
  b: Buffer | undefined,
): Buffer | undefined {
  if (work.ancestor === null || sameBytes(o, b)) return o;
  const a = work.maps.ancestor?.get(name);
  if (work.maps.ancestor !== null) {
    if (sameBytes(a, b)) return o;
    if (sameBytes(a, o)) return b;
    const narrowed = name === ACL_DEFAULT ? narrowDefault(work, a, o, b) : undefined;
    if (narrowed !== undefined) return narrowed;
  }
  work.conflicts.push(name);
  return o;
}

/** undefined: it cannot be said what is narrower. */
function narrowDefault(work: Work, a?: Buffer, o?: Buffer, b?: Buffer): Buffer | undefined {
  const [old, ours, theirs] = [a, o, b].map((bytes) => (bytes === undefined ? null : decodeAcl(bytes)));
  if (!old || !ours || !theirs) return undefined;
  const permissions = (acl: typeof ours) => ({ mode: modeOf(acl), acl });
  work.notes.push(
    "default ACL: both sides changed it; the overlay's, no wider than the base's where it tightened it",
  );
  return encodeAcl(narrow(permissions(old), permissions(ours), permissions(theirs)).acl ?? []);
}

function modeOf(acl: readonly { tag: number; perm: number }[]): number {
  const perm = (tag: number) => acl.find((entry) => entry.tag === tag)?.perm;
  return ((perm(0x01) ?? 0) << 6) | ((perm(0x10) ?? perm(0x04) ?? 0) << 3) | (perm(0x20) ?? 0);
}

function privileged(work: Work, survivors: readonly Side[], name: string): Buffer | undefined {
  const { ancestor, overlay, maps } = work;
  const [o, b] = [maps.overlay.get(name), maps.base.get(name)];
  const a = maps.ancestor?.get(name);
  // What the three-way result may be: one side's, or, where both changed it, whichever can survive.
  const unchanged = (value: Buffer | undefined) => maps.ancestor !== null && sameBytes(a, value);
  const candidates = ancestor === null || unchanged(b) || sameBytes(o, b) ? [o] : unchanged(o) ? [b] : [o, b];
  for (const value of candidates) {
    const holders = survivors.filter((side) => sameBytes(side === overlay ? o : b, value));
    if (holders.length > 0) return value;
  }
  if (candidates.some((value) => value !== undefined)) {
    work.notes.push(`${name} taken off: owner or content are not of the side that set it`);
  }
  return undefined;
}

function sameBytes(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

function sameMap(a: XattrMap, b: XattrMap): boolean {
  return a.size === b.size && [...a].every(([name, value]) => sameBytes(value, b.get(name)));
}
