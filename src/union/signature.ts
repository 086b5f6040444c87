// What an object of the overlay holds, as one line: by it an edit of the guest's is told from a mere touch.
import { readXattrs } from '../branch/copy.ts';
import { metacopyAt } from '../branch/metacopy.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { hash128 } from '../lib/hash.ts';
import { isRegular, newStat, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { statx } from '../sys/stat.ts';
import type { VersionRef } from '../versions/types.ts';
import type { Workshop } from './build.ts';
import { type Found, isMetadataOnly } from './sides.ts';
import { hashXattrs, type XattrSet } from './xattr-set.ts';

function line(content: string | null, stat: Stat, xattrs: XattrSet): string {
  const { mode, uid, gid, size, mtimeSec, mtimeNsec, rdevMajor, rdevMinor } = stat;
  // Too large to be hashed, or a device: then what stat tells must do.
  const other = isRegular(mode) ? `~${size}.${mtimeSec}.${mtimeNsec}` : `-${rdevMajor}:${rdevMinor}`;
  return `${content ?? other} ${mode} ${uid} ${gid} ${hashXattrs(xattrs) || '-'}`;
}

/** Stands for a content that is the base's, and moves without the guest. */
const FOLLOWS = 'base';

/** Signature of an object whose content has been read; '' where there is none. */
export function contentSignature(found: Found | null): string {
  if (found === null) return '';
  return line(isMetadataOnly(found) ? FOLLOWS : found.content, found.stat, found.xattrs);
}

/** That of a kept version, as an object would have it that was made from it. */
export function signatureOfVersion(ref: VersionRef): string {
  const own = ref.target === null ? ref.content : hash128(Buffer.from(ref.target, 'latin1'));
  const content = ref.metadataOnly ? FOLLOWS : own;
  const xattrs = new Map(ref.xattrs.map(([name, value]) => [name, Buffer.from(value, 'base64')]));
  const { mode, uid, gid, size } = ref;
  const [rdevMajor, rdevMinor] = ref.rdev ?? [0, 0];
  const stat = { ...newStat(), mode, uid, gid, size, rdevMajor, rdevMinor };
  return line(content, stat, xattrs);
}

/** That of an object in work/, which is about to take its name. */
export function builtSignature(shop: Workshop, temp: string, content: string | null): string {
  const stat = newStat();
  const error = statx(shop.workFd, temp, AT_SYMLINK_NOFOLLOW, stat);
  if (error < 0) throw new FsError(error === -E.ENOENT ? E.EAGAIN : -error, 'what was built has gone');
  const follows = isRegular(stat.mode) && metacopyAt(shop.overlay, shop.workFd, temp) !== null;
  return line(follows ? FOLLOWS : content, stat, readXattrs(shop.workFd, temp));
}

/** Whether an object is still the version that was kept of it. */
export function isStill(found: Found | null, ref: VersionRef): boolean {
  if (found === null) return false;
  const { mode, uid, gid, size, mtimeSec, mtimeNsec } = found.stat;
  if (!isRegular(mode) || found.content !== null || isMetadataOnly(found))
    return contentSignature(found) === signatureOfVersion(ref);
  const same = ref.mode === mode && ref.uid === uid && ref.gid === gid && ref.size === size;
  return same && ref.mtime === mtimeSec * 1000 + mtimeNsec / 1e6;
}
