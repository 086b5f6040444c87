// POSIX ACLs in the form of the xattrs system.posix_acl_access and _default (linux/posix_acl_xattr.h): what a
// new object inherits, for objects that are made elsewhere (in work/) than where they come to lie.

const VERSION = 2;
const USER_OBJ = 0x01;
const GROUP_OBJ = 0x04;
const MASK = 0x10;
const OTHER = 0x20;
const HEADER = 4;
const ENTRY = 8;

export interface Inherited {
  /** Permission bits of the new object. */
  mode: number;
  /** Value of system.posix_acl_access; null: the mode says it all. */
  access: Buffer | null;
}

/**
 * What a new object with the wanted `mode` gets in a directory with this default ACL (acl(5), "Object creation
 * and default ACLs"). null: the value is no ACL.
 */
export function inheritAcl(defaultAcl: Uint8Array, mode: number): Inherited | null {
  const acl = Buffer.from(defaultAcl);
  if (acl.length < HEADER || (acl.length - HEADER) % ENTRY !== 0 || acl.readUInt32LE(0) !== VERSION)
    return null;
  let masked = false;
  let named = false;
  for (let at = HEADER; at < acl.length; at += ENTRY) {
    const tag = acl.readUInt16LE(at);
    if (tag === MASK) masked = true;
    if (tag !== USER_OBJ && tag !== GROUP_OBJ && tag !== OTHER) named = true;
  }
  let bits = mode & 0o7000;
  for (let at = HEADER; at < acl.length; at += ENTRY) {
    const tag = acl.readUInt16LE(at);
    const shift = tag === USER_OBJ ? 6 : tag === OTHER ? 0 : tag === (masked ? MASK : GROUP_OBJ) ? 3 : -1;
    if (shift < 0) continue;
    const allowed = acl.readUInt16LE(at + 2) & (mode >> shift) & 7;
    acl.writeUInt16LE(allowed, at + 2);
    bits |= allowed << shift;
  }
  return { mode: bits, access: named ? acl : null };
}
