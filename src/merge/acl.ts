// POSIX ACLs as the kernel hands them out (system.posix_acl_*; linux/posix_acl_xattr.h): a little-endian version 2,
// then entries of tag, permissions and id. Permission bits and access ACL are one thing to the kernel, so they are
// one thing to a merge: a Permissions.

export const ACL_ACCESS = 'system.posix_acl_access';
export const ACL_DEFAULT = 'system.posix_acl_default';

const VERSION = 2;
const USER_OBJ = 0x01;
const GROUP_OBJ = 0x04;
const MASK = 0x10;
const OTHER = 0x20;
const NO_ID = 0xffffffff;

export interface AclEntry {
  tag: number;
  perm: number;
  id: number;
}

export interface Permissions {
  /** 0o777. With an ACL its group bits are the mask. */
  mode: number;
  acl: readonly AclEntry[] | null;
}

/** null: not an ACL that we know. */
export function decodeAcl(bytes: Buffer): AclEntry[] | null {
  if (bytes.length < 4 || (bytes.length - 4) % 8 !== 0 || bytes.readUInt32LE(0) !== VERSION) return null;
  const entries: AclEntry[] = [];
  for (let at = 4; at < bytes.length; at += 8) {
    entries.push({
      tag: bytes.readUInt16LE(at),
      perm: bytes.readUInt16LE(at + 2),
      id: bytes.readUInt32LE(at + 4),
    });
  }
  return entries;
}

export function encodeAcl(entries: readonly AclEntry[]): Buffer {
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(VERSION, 0);
  entries.forEach((entry, i) => {
    bytes.writeUInt16LE(entry.tag, 4 + i * 8);
    bytes.writeUInt16LE(entry.perm, 6 + i * 8);
    bytes.writeUInt32LE(entry.id, 8 + i * 8);
  });
  return bytes;
}

function entryOf(acl: readonly AclEntry[], tag: number, id: number): number | null {
  return acl.find((entry) => entry.tag === tag && (entry.id === id || id === NO_ID))?.perm ?? null;
}

/** What a permissions say to an entry; who is not named in an ACL falls to the others. */
function granted(p: Permissions, tag: number, id: number): number {
  if (tag === MASK) return (p.mode >> 3) & 7;
  const found = p.acl === null ? null : entryOf(p.acl, tag, id);
  if (found !== null) return found;
  if (tag === USER_OBJ) return (p.mode >> 6) & 7;
  if (tag === GROUP_OBJ) return (p.mode >> 3) & 7;
  return p.mode & 7;
}

/** Where the base took something away from an entry since the ancestor, the entry gets no more than the base's. */
function narrowEntry(
  perm: number,
  tag: number,
  id: number,
  ancestor: Permissions,
  base: Permissions,
): number {
  const now = granted(base, tag, id);
  return (granted(ancestor, tag, id) & ~now) === 0 ? perm : perm & now;
}

/**
 * The overlay's permissions, made no wider than the base's wherever (owner, group, others, each entry of an ACL)
 * the base tightened them.
 */
export function narrow(ancestor: Permissions, overlay: Permissions, base: Permissions): Permissions {
  const bits = (tag: number, shift: number) => {
    const perm = (overlay.mode >> shift) & 7;
    return narrowEntry(perm, tag, NO_ID, ancestor, base) << shift;
  };
  const acl = overlay.acl?.map((entry) => ({
    ...entry,
    perm: narrowEntry(entry.perm, entry.tag, entry.id, ancestor, base),
  }));
  // The group bits of the mode are the class, which is the mask where there is one.
  const mode = bits(USER_OBJ, 6) | bits(MASK, 3) | bits(OTHER, 0);
  return { mode, acl: acl === undefined ? null : agree(acl, mode) };
}

/** The entries that the mode shows, made equal to it: the kernel keeps both alike. */
function agree(acl: readonly AclEntry[], mode: number): AclEntry[] {
  const masked = acl.some((entry) => entry.tag === MASK);
  return acl.map((entry) => {
    if (entry.tag === USER_OBJ) return { ...entry, perm: (mode >> 6) & 7 };
    if (entry.tag === OTHER) return { ...entry, perm: mode & 7 };
    if (entry.tag === (masked ? MASK : GROUP_OBJ)) return { ...entry, perm: (mode >> 3) & 7 };
    return entry;
  });
}
