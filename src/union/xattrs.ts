// Extended attributes as a guest sees them. What belongs to the branch (overlayfs's and Kasane's own) is out of
// reach: a guest's own trusted.overlay.* and user.overlay.* are kept under an escaped name, as overlayfs does,
// and *.kasane.* is refused and hidden, as is what fuse-overlayfs left behind, and what xfs shows of ACLs.
import { splitNames } from '../branch/copy.ts';
import { E } from '../lib/errno.ts';
import { getxattr, listxattr, removexattr, setxattr } from '../sys/xattr.ts';
import { killSetgid } from './attributes.ts';
import { copyUp, metadataAlone } from './copy-up.ts';
import { locate } from './locate.ts';
import { livingNode, type Node } from './node.ts';
import type { Union } from './union.ts';

const own = /^(?:(?:trusted|user)\.kasane\.|user\.fuseoverlayfs\.|trusted\.SGI_ACL_|system\.nfs4_)/;
/** What every overlay supports. */
const supported = /^(?:user|trusted|security)\.|^system\.posix_acl_(?:access|default)$/;
const overlayfs = /^((?:trusted|user)\.overlay\.)(.*)$/s;

/** The name under which a guest's attribute is kept; null: not for guests. */
function outer(attr: string): string | null {
  if (own.test(attr)) return null;
  const match = overlayfs.exec(attr);
  return match ? `${match[1]}overlay.${match[2]}` : attr;
}

/** The name that a guest sees; null: hidden. */
function inner(attr: string): string | null {
  if (own.test(attr)) return null;
  const match = overlayfs.exec(attr);
  if (!match) return attr;
  const rest = match[2] as string;
  return rest.startsWith('overlay.') ? `${match[1]}${rest.slice(8)}` : null;
}

/** GETXATTR: the value, or a negative errno (ENODATA). */
export function getAttribute(union: Union, node: Node, attr: string): Buffer | number {
  const name = outer(attr);
  if (name === null) return -E.ENODATA;
  const at = locate(union, livingNode(node));
  if (typeof at === 'number') return at;
  const { layer } = at;
  const value = getxattr(at.dirFd, at.name, name);
  // A base may know no such attributes, where the overlay does: it has none then. The kernel takes an error for an
  // ACL that it could not read, and lets nobody in.
  return value === -E.EOPNOTSUPP && layer >= 0 && supported.test(attr) ? -E.ENODATA : value;
}

/** LISTXATTR: names with a NUL each, or a negative errno. Those of trusted.* are for root's eyes. */
export function listAttributes(union: Union, node: Node, isRoot: boolean): Buffer | number {
  const at = locate(union, livingNode(node));
  if (typeof at === 'number') return at;
  const { layer } = at;
  const list = listxattr(at.dirFd, at.name);
  if (list === -E.EOPNOTSUPP && layer >= 0) return Buffer.alloc(0);
  if (typeof list === 'number' || list.length === 0) return list;
  let text = '';
  for (const attr of splitNames(list)) {
    const name = inner(attr);
    if (name !== null && (isRoot || !name.startsWith('trusted.'))) text += `${name}\0`;
  }
  return Buffer.from(text, 'latin1');
}

/** SETXATTR: 0, WAIT or a negative errno. `dropSetgid`: the caller may not keep the set-group-id bit. */
export function setAttribute(
  union: Union,
  node: Node,
  attr: string,
  value: Buffer,
  flags: number,
  dropSetgid: boolean,
  callerPid: number,
): number {
  if (union.config.readOnly) return -E.EROFS;
  const name = outer(attr);
  if (name === null) return -E.EPERM;
  // A write would take this one away again, also the one that brings the content.
  const wish = name === 'security.capability' ? undefined : metadataAlone;
  const up = copyUp(union, livingNode(node), callerPid, wish);
  if (up < 0) return up;
  const at = locate(union, livingNode(node));
  if (typeof at === 'number') return at;
  const { dirFd, name: entry } = at;
  const error = setxattr(dirFd, entry, name, value, flags);
  if (error < 0 || !dropSetgid) return error;
  return killSetgid(dirFd, entry, union.stat);
}

/** REMOVEXATTR: 0, WAIT or a negative errno. */
export function removeAttribute(union: Union, node: Node, attr: string, callerPid: number): number {
  if (union.config.readOnly) return -E.EROFS;
  const name = outer(attr);
  if (name === null) return -E.ENODATA;
  const up = copyUp(union, livingNode(node), callerPid, metadataAlone);
  if (up < 0) return up;
  const at = locate(union, livingNode(node));
  if (typeof at === 'number') return at;
  return removexattr(at.dirFd, at.name, name);
}
