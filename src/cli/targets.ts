// From what the caller named to the functions that answer for it: the mount above a path (over its socket),
// or the overlay that a path lies in (the index opened by the command itself, under the overlay's lock).
import * as fs from 'node:fs';
import { connectVerbs } from '../control/client.ts';
import { isWithin, KASANE_TYPE, type Mount, readMountInfo } from '../control/mountinfo.ts';
import { type Found, readRegistrations } from '../control/registry.ts';
import { type Resolved, resolveOutside } from '../control/resolve.ts';
import type { OfflineVerbs, Verbs } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { joinPath, parentPath } from '../lib/names.ts';
import { absolute, answers, bytesOf, lstatOrNull, shown, workingDirectory } from './paths.ts';

export interface Target {
  verbs: Verbs;
  /** Host path of the mount, or of the overlay that is not mounted. */
  root: string;
  mounted: boolean;
  /** Path within the union, root ''. */
  path: string;
  close(): Promise<void>;
}

export interface TargetOptions {
  /** --state of an overlay that is not mounted. */
  state: string | null;
  /** The path may name an overlay's root that shows no trace of Kasane (`check`). */
  anyOverlay: boolean;
}

/** Kasane mounts of this mount namespace, by mount point; of several on one point the topmost. */
export function kasaneMounts(): Map<string, Mount> {
  const mounts = new Map<string, Mount>();
  for (const mount of readMountInfo()) {
    if (mount.type === KASANE_TYPE) mounts.set(mount.mountPoint, mount);
  }
  return mounts;
}

/** What answers for `typed`. ENOTCONN where nothing does. */
export async function openTarget(
  typed: string,
  options: TargetOptions = { state: null, anyOverlay: false },
): Promise<Target> {
  const mounts = kasaneMounts();
  const where = absolute(typed, workingDirectory());
  const split = splitLast(where);
  const registered = readRegistrations();
  // The last part is not followed: a symlink is itself something with a history.
  const parent = resolveOutside(split.parent, new Set(mounts.keys()));
  const resolved = below(parent, split.name, mounts);
  if (resolved.stop !== null) return onMount(resolved.stop, resolved.rest, registered);
  return inOverlay(resolved.path, typed, options, registered);
}

function splitLast(path: string): { parent: string; name: string } {
  const slash = path.lastIndexOf('/');
  const name = path.slice(slash + 1);
  // `..` can only be walked, and so can the root.
  if (name === '' || name === '..') return { parent: path, name: '' };
  return { parent: path.slice(0, slash) || '/', name };
}

function below(parent: Resolved, name: string, mounts: ReadonlyMap<string, Mount>): Resolved {
  if (name === '') return parent;
  if (parent.stop !== null) {
    return { path: `${parent.path}/${name}`, stop: parent.stop, rest: joinPath(parent.rest, name) };
  }
  const path = parent.path === '/' ? `/${name}` : `${parent.path}/${name}`;
  if (mounts.has(path)) return { path, stop: path, rest: '' };
  // Outside, a symlink to a mount is the mount.
  return resolveOutside(path, new Set(mounts.keys()));
}

async function onMount(mountPoint: string, rest: string, registered: readonly Found[]): Promise<Target> {
  const mine = registered.filter((one) => one.registration.mountPoint === mountPoint);
  const live = mine.find((one) => one.alive);
  if (live === undefined) {
    const gone = mine.length > 0 || process.getuid?.() === 0;
    throw gone
      ? new FsError(
          E.ENOTCONN,
          `${shown(mountPoint)}: its daemon is dead: kasane umount ${shown(mountPoint)}`,
        )
      : new FsError(E.EACCES, `${shown(mountPoint)}: mounted by somebody else: ask as that user or as root`);
  }
  const verbs = connectVerbs(live.paths.socket);
  const path = await followInside(mountPoint, rest);
  return { verbs, root: mountPoint, mounted: true, path, close: async () => {} };
}

/** Symlinks within the mount, but for the last part. What leads out of it, or is not there, stays as typed. */
async function followInside(mountPoint: string, rest: string): Promise<string> {
  const parent = parentPath(rest);
  if (parent === '') return rest;
  try {
    await answers(`${mountPoint}/${parent}`);
    const real = fs.realpathSync.native(bytesOf(`${mountPoint}/${parent}`), { encoding: 'latin1' });
    if (!isWithin(real, mountPoint)) return rest;
    return joinPath(real.slice(mountPoint.length + 1), rest.slice(parent.length + 1));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES' || code === 'ELOOP') return rest;
    if (code === 'ENOTCONN') {
      throw new FsError(
        E.ENOTCONN,
        `${shown(mountPoint)}: not connected: kasane umount ${shown(mountPoint)}`,
        error,
      );
    }
    throw error;
  }
}

async function inOverlay(
  path: string,
  typed: string,
  options: TargetOptions,
  registered: readonly Found[],
): Promise<Target> {
  const live = registered.find((one) => one.alive && isWithin(path, one.registration.overlay));
  if (live !== undefined) {
    const { overlay, mountPoint } = live.registration;
    const verbs = connectVerbs(live.paths.socket);
    return { verbs, root: mountPoint, mounted: true, path: relative(path, overlay), close: async () => {} };
  }
  const overlay = overlayAbove(path, options);
  if (overlay === null) {
    if (lstatOrNull(path) === null) throw new FsError(E.ENOENT, `${shown(typed)}: no such file or directory`);
    throw new FsError(E.ENOTCONN, `${shown(typed)}: on no mount: kasane list shows those there are`);
  }
  const { openOffline } = await import('../daemon/offline.ts');
  const offline: OfflineVerbs = await openOffline(overlay, { state: options.state });
  return {
    verbs: offline.verbs,
    root: overlay,
    mounted: false,
    path: relative(path, overlay),
    close: offline.close,
  };
}

/** The nearest directory at or above `path` that Kasane has used as an overlay. */
function overlayAbove(path: string, options: TargetOptions): string | null {
  for (let dir = path; dir !== ''; dir = dir.slice(0, dir.lastIndexOf('/'))) {
    if (lstatOrNull(`${dir}/.kasane/format`) !== null) return dir;
  }
  const isDir = lstatOrNull(path)?.isDirectory() ?? false;
  return isDir && (options.anyOverlay || options.state !== null) ? path : null;
}

function relative(path: string, root: string): string {
  return path === root ? '' : path.slice(root.length + 1);
}

/** Runs `work` on what answers for `typed`, and lets go of it whatever happens. */
export async function withTarget<T>(
  typed: string,
  work: (target: Target) => Promise<T>,
  options?: TargetOptions,
): Promise<T> {
  const target = await openTarget(typed, options);
  try {
    return await work(target);
  } finally {
    await target.close();
  }
}

/** A target's path as the user would name it. */
export function hostPath(target: Pick<Target, 'root'>, path: string): string {
  return path === '' ? target.root : `${target.root}/${path}`;
}
