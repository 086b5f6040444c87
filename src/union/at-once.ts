// Learning the content of a version of the base on the serving thread, where it is small and lies in memory: then
// nobody need be asked, nor told later. What would have to wait for a disk is left to others.
import { readXattrs } from '../branch/copy.ts';
import { hash128 } from '../lib/hash.ts';
import { mergeable } from '../merge/policy.ts';
import { close, preadCached } from '../sys/file.ts';
import { keepXattrs } from './origins.ts';
import type { Union } from './union.ts';
import { rememberContent, type Version, withoutFd } from './version.ts';
import { stillShows } from './witness.ts';

/** To read and hash so much takes 50 µs. */
const MOST = 64 * 1024;
const buffer = Buffer.allocUnsafeSlow(MOST + 1);

/** The content of a file of that size and device, good until the next call; null where it cannot be had at once. */
export function contentAtOnce(fd: number, size: number, dev: number): Buffer | null {
  if (size > MOST) return null;
  return preadCached(fd, buffer, 0, size + 1, 0, dev) === size ? buffer.subarray(0, size) : null;
}

/**
 * The version with its content, whose bytes become an ancestor where policy would merge them; its descriptor is
 * closed then. As it was, where the content cannot be had at once. `leaving`: policy would, as is known already, and
 * the descriptor stays open for whom the object is kept.
 */
export function learnAtOnce(union: Union, path: string, version: Version, leaving = false): Version {
  const { origin, fd, witness } = version;
  if (fd < 0 || witness === null) return version;
  const bytes = contentAtOnce(fd, witness.size, witness.dev);
  if (bytes === null) return version;
  const xattrs = origin.xattrs === '' ? null : readXattrs(fd, '');
  if (!stillShows(fd, witness)) return version;
  const content = hash128(bytes);
  rememberContent(union, origin.fingerprint, content);
  if (leaving || mergeable(path, union.config.osTree, bytes.length)) union.host.keepAncestor(bytes, content);
  if (xattrs !== null) keepXattrs(union, xattrs);
  origin.content = content;
  if (leaving) return version;
  close(fd);
  return withoutFd(origin);
}
