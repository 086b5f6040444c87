// Copies of metadata alone, in overlayfs's form: a regular file of the overlay, or of a layer that once was one, with
// holes for content and an attribute that says so. Its content is what the layers beneath have, under its own name or where a redirect
// says.
import { E } from '../lib/errno.ts';
import type { Stat } from '../lib/stat.ts';
import { utimensat } from '../sys/stat.ts';
import { getxattr, removexattr, setxattr } from '../sys/xattr.ts';
import type { Overlay } from './overlay.ts';
import { removeOwnAttribute, setOwnAttribute } from './own-attribute.ts';

export interface Metacopy {
  /** Where the content lies, as overlayfs writes it: absolute from the base's root, or a name beside; null: here. */
  readonly redirect: string | null;
  /** The attribute is none of overlayfs's: the content is nowhere. */
  readonly damaged: boolean;
}

/** Version, length, flags and algorithm of a digest of fs-verity; the digest follows. */
const HEADER = 4;

/** What a branch's file (by descriptor with '' as name, or by directory and name) says of itself; null: it is none. */
export function metacopyAt(
  branch: Pick<Overlay, 'metacopy' | 'redirect'>,
  dirFd: number,
  name: string,
): Metacopy | null {
  const value = getxattr(dirFd, name, branch.metacopy);
  if (typeof value === 'number') return null;
  const damaged = value.length > 0 && (value.length < HEADER || value[0] !== 0 || value[1] !== value.length);
  const redirect = getxattr(dirFd, name, branch.redirect);
  const none = typeof redirect === 'number' || redirect.length === 0;
  return { redirect: none ? null : redirect.toString('latin1'), damaged };
}

/** Whether a file says of itself that it is such a copy, whoever's overlay it was made in. */
export function isMarkedMetacopy(dirFd: number, name: string): boolean {
  return ['trusted', 'user'].some(
    (kind) => typeof getxattr(dirFd, name, `${kind}.overlay.metacopy`) !== 'number',
  );
}

/** Without a digest, so that the content may be any. */
export function setMetacopy(overlay: Overlay, dirFd: number, name: string): number {
  return setxattr(dirFd, name, overlay.metacopy, Buffer.alloc(0), 0);
}

/** From now on the file's own content counts. */
export function removeMetacopy(overlay: Overlay, dirFd: number, name: string): number {
  const error = removexattr(dirFd, name, overlay.metacopy);
  return error === -E.ENODATA ? 0 : error;
}

type Timed = Pick<Overlay, 'times'>;

/** The bytes of a content move the times, which are the guest's until they count: a crash may come in between. */
export function keepTimes(overlay: Timed, fd: number, stat: Stat): number {
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = stat;
  const text = [atimeSec, atimeNsec, mtimeSec, mtimeNsec].join(' ');
  return setOwnAttribute(fd, '', overlay.times, Buffer.from(text));
}

export function dropTimes(overlay: Timed, dirFd: number, name: string): number {
  return removeOwnAttribute(dirFd, name, overlay.times);
}

/** Gives a copy the times that it had when a crash cut off its content; whether there were any. */
export function putTimesBack(overlay: Timed, dirFd: number, name: string): boolean {
  const value = getxattr(dirFd, name, overlay.times);
  if (typeof value === 'number') return false;
  const kept = /^(-?\d+) (\d+) (-?\d+) (\d+)$/.exec(value.toString('latin1'))?.slice(1).map(Number);
  const [atimeSec = 0, atimeNsec = 0, mtimeSec = 0, mtimeNsec = 0] = kept ?? [];
  if (kept && utimensat(dirFd, name, atimeSec, atimeNsec, mtimeSec, mtimeNsec) < 0) return false;
  return dropTimes(overlay, dirFd, name) === 0;
}

/** The base's path of the content of a copy that has its place at `basePath`. */
export function contentPath(metacopy: Metacopy, basePath: string): string {
  const { redirect } = metacopy;
  if (redirect === null) return basePath;
  if (redirect.startsWith('/')) return redirect.slice(1);
  return basePath.slice(0, basePath.lastIndexOf('/') + 1) + redirect;
}
