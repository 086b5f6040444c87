// Everything about a mount that can be refused before its daemon is started. It looks, and changes nothing
// but one thing: a mount point held by a dead Kasane is detached. What needs the overlay's lock, its format
// or its xattrs is the daemon's to refuse.
import * as fs from 'node:fs';
import type { MountOptions } from '../control/mount-options.ts';
import {
  isWithin,
  KASANE_TYPE,
  type Mount,
  mountOf,
  readMountInfo,
  superOption,
} from '../control/mountinfo.ts';
import { type Found, isAlive, readRegistrations, removeRegistration } from '../control/registry.ts';
import { resolveOutside } from '../control/resolve.ts';
import { loadAddon } from '../fuse/native/addon.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { detach, isDead } from './detach.ts';
import { answers, bytesOf, isLocal, lstatOrNull, shown } from './paths.ts';

/** The machine, as far as a test wants to bend it. */
export interface Host {
  device: string;
  uid: number;
  /** Directories in which fusermount3 is looked for. */
  path: string;
}

export interface Validated {
  /** With paths that have no symlinks, but for the bases: whoever swaps a link there has another base. */
  options: MountOptions;
  /** A sentence each, to be told. */
  notes: string[];
}

export function thisHost(): Host {
  return { device: '/dev/fuse', uid: process.getuid?.() ?? 0, path: process.env.PATH ?? '/usr/bin:/bin' };
}

/** A daemon whose mount has been taken away writes what it has to: on a loaded machine that takes seconds. */
const LEAVE_MS = 20_000;

export async function validateMount(options: MountOptions, host: Host): Promise<Validated> {
  refuseWhatIsNotThereYet(options);
  const mounts = readMountInfo();
  const registered = await settledRegistrations(options, mounts);
  const bases = [];
  for (const base of options.bases) bases.push(await directory('base', base, mounts));
  const overlay = await directory('overlay', options.overlay, mounts);
  for (const base of bases) refuseNested(base, overlay);
  const notes: string[] = [];
  const mountPoint = await freeMountPoint(options.mountPoint, mounts, registered, notes);
  for (const [what, dir] of [
    ...bases.map((base) => ['base', base] as const),
    ['overlay', overlay] as const,
  ]) {
    if (isWithin(mountPoint.path, dir.path)) {
      throw new FsError(
        E.EINVAL,
        `${shown(mountPoint.path)}: mount point lies in the ${what}: choose another`,
      );
    }
    if (isWithin(dir.path, mountPoint.path)) {
      throw new FsError(
        E.EINVAL,
        `${shown(dir.path)}: ${what} lies beneath the mount point, which would hide it`,
      );
    }
  }
  refuseUsedOverlay(overlay, mounts, registered);
  refuseReadOnly(overlay.path, options);
  const state = options.state === null ? null : stateDirectory(options.state, overlay, bases);
  refuseWithoutState(state ?? `${overlay.path}/.kasane`, options);
  refuseWithoutFuse(host, options.transport);
  checkLog(options.log);
  return {
    options: {
      ...options,
      overlay: overlay.path,
      mountPoint: mountPoint.path,
      state,
    },
    notes,
  };
}

/**
 * The registrations, after daemons that were unmounted a moment ago have had time to end: they still hold
 * the overlay's lock, and the socket of the mount point.
 */
async function settledRegistrations(options: MountOptions, mounts: readonly Mount[]): Promise<Found[]> {
  const isMounted = (at: string) => mounts.some((one) => one.type === KASANE_TYPE && one.mountPoint === at);
  const found = readRegistrations();
  const leaving = found.filter(({ alive, registration }) => {
    const ours = registration.mountPoint === options.mountPoint || registration.overlay === options.overlay;
    return alive && ours && !isMounted(registration.mountPoint);
  });
  if (leaving.length === 0) return found;
  const until = Date.now() + LEAVE_MS;
  while (leaving.some(({ registration }) => isAlive(registration)) && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return readRegistrations();
}

function refuseWhatIsNotThereYet(options: MountOptions): void {
  const missing: [boolean, string][] = [[options.policy !== null, '--policy']];
  const first = missing.find(([asked]) => asked);
  if (first !== undefined) throw new FsError(E.EOPNOTSUPP, `${first[1]}: not there yet`);
}

interface Dir {
  path: string;
  stat: fs.Stats;
}

async function directory(what: string, typed: string, mounts: readonly Mount[]): Promise<Dir> {
  try {
    // A child that asks takes longer than all else here.
    if (!isLocal(typed, mounts)) await answers(typed);
    const path = fs.realpathSync.native(bytesOf(typed), { encoding: 'latin1' });
    const stat = fs.statSync(bytesOf(path));
    if (!stat.isDirectory()) throw new FsError(E.ENOTDIR, `${shown(typed)}: ${what} is not a directory`);
    if (what === 'overlay' && mountOf(mounts, path)?.type === KASANE_TYPE) {
      throw new FsError(
        E.EBUSY,
        `${shown(typed)}: overlay lies in a Kasane mount: choose a directory outside`,
      );
    }
    return { path, stat };
  } catch (error) {
    throw lookError(what, typed, error);
  }
}

/** What Node says of a path, as one line for a person. */
function lookError(what: string, path: string, error: unknown): unknown {
  if (error instanceof FsError) return error;
  const name = shown(path);
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new FsError(E.ENOENT, `${name}: ${what} does not exist: create it or name another`, error);
    case 'ENOTDIR':
      return new FsError(E.ENOTDIR, `${name}: ${what} is not a directory`, error);
    case 'EACCES':
      return new FsError(E.EACCES, `${name}: ${what} is not yours to read`, error);
    case 'ELOOP':
      return new FsError(E.ELOOP, `${name}: ${what}: too many symbolic links`, error);
    case 'ENOTCONN':
      return new FsError(E.ENOTCONN, `${name}: ${what} lies in a dead mount: unmount that first`, error);
    case 'EIO':
      return new FsError(E.EIO, `${name}: ${what} cannot be read: input/output error`, error);
    default:
      return error;
  }
}

function refuseNested(base: Dir, overlay: Dir): void {
  if (
    base.path === overlay.path ||
    (base.stat.dev === overlay.stat.dev && base.stat.ino === overlay.stat.ino)
  ) {
    throw new FsError(
      E.EINVAL,
      `${shown(overlay.path)}: base and overlay are the same directory: choose two`,
    );
  }
  if (isWithin(overlay.path, base.path)) {
    throw new FsError(
      E.EINVAL,
      `${shown(overlay.path)}: overlay lies in the base: choose a directory outside`,
    );
  }
  if (isWithin(base.path, overlay.path)) {
    throw new FsError(E.EINVAL, `${shown(base.path)}: base lies in the overlay: choose a directory outside`);
  }
}

/** The mount point without symlinks; a dead Kasane there is detached, and said. */
async function freeMountPoint(
  typed: string,
  mounts: readonly Mount[],
  registered: readonly Found[],
  notes: string[],
): Promise<Dir> {
  const kasane = new Set(
    mounts.filter((mount) => mount.type === KASANE_TYPE).map((mount) => mount.mountPoint),
  );
  const resolved = resolveOutside(typed, kasane);
  if (resolved.stop !== null && resolved.rest !== '') {
    throw new FsError(E.EBUSY, `${shown(typed)}: mount point lies in another Kasane mount: choose another`);
  }
  if (resolved.stop !== null) {
    const there = registered.filter((one) => one.registration.mountPoint === resolved.path);
    if (there.some((one) => one.alive) || !(await isDead(resolved.path))) {
      throw new FsError(
        E.EBUSY,
        `${shown(resolved.path)}: a Kasane serves here already: kasane umount it first`,
      );
    }
    const times = mounts.filter((one) => one.mountPoint === resolved.path && one.type === KASANE_TYPE).length;
    for (let i = 0; i < times; i++) await detach(resolved.path);
    for (const one of there) removeRegistration(one.registration.mountPoint, one.dir);
    notes.push(`${shown(resolved.path)}: held by a dead Kasane: detached`);
  }
  const leaving = registered.find((one) => one.alive && one.registration.mountPoint === resolved.path);
  if (resolved.stop === null && leaving !== undefined) {
    const { pid } = leaving.registration;
    throw new FsError(
      E.EBUSY,
      `${shown(resolved.path)}: its last Kasane (pid ${pid}) has not ended: try again`,
    );
  }
  return directory('mount point', resolved.path, mounts);
}

function refuseUsedOverlay(overlay: Dir, mounts: readonly Mount[], registered: readonly Found[]): void {
  const live = registered.find(({ alive, registration }) => alive && registration.overlay === overlay.path);
  if (live !== undefined) {
    const { mountPoint, pid } = live.registration;
    throw new FsError(
      E.EBUSY,
      `${shown(overlay.path)}: overlay is in use: mounted on ${shown(mountPoint)}, pid ${pid}`,
    );
  }
  for (const mount of mounts) {
    if (mount.type !== 'overlay') continue;
    for (const role of ['upperdir', 'workdir']) {
      const dir = superOption(mount, role);
      if (dir?.startsWith('/') && overlaps(resolveOutside(dir, new Set()).path, overlay, role)) {
        const where = `the ${role} of a kernel overlayfs on ${shown(mount.mountPoint)}: unmount that first`;
        throw new FsError(E.EBUSY, `${shown(overlay.path)}: overlay is in use as ${where}`);
      }
    }
  }
}

/** The upper is the overlay itself, or either lies in the other. A work directory beside it is no matter. */
function overlaps(dir: string, overlay: Dir, role: string): boolean {
  if (isWithin(dir, overlay.path)) return true;
  if (role === 'upperdir' && isWithin(overlay.path, dir)) return sameMount(dir, overlay);
  return false;
}

/** An upper of a container's root, `/`-like, may be the parent of anything by name alone. */
function sameMount(dir: string, overlay: Dir): boolean {
  try {
    return fs.statSync(bytesOf(dir)).dev === overlay.stat.dev;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') return false;
    throw error;
  }
}

function refuseReadOnly(overlay: string, options: MountOptions): void {
  if (options.readOnly) return;
  try {
    fs.accessSync(bytesOf(overlay), fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EROFS') {
      throw new FsError(
        E.EROFS,
        `${shown(overlay)}: overlay lies on a read-only file system: remount it, or -o ro`,
        error,
      );
    }
    throw new FsError(E.EACCES, `${shown(overlay)}: overlay is not yours to write`, error);
  }
}

function stateDirectory(typed: string, overlay: Dir, bases: readonly Dir[]): string {
  const { path } = resolveOutside(typed, new Set());
  const parent = path.slice(0, path.lastIndexOf('/')) || '/';
  let stat: fs.Stats;
  try {
    stat = fs.statSync(bytesOf(fs.existsSync(bytesOf(path)) ? path : parent));
  } catch (error) {
    throw lookError('directory of the state', parent, error);
  }
  if (!stat.isDirectory()) throw new FsError(E.ENOTDIR, `${shown(typed)}: state is not a directory`);
  if (stat.dev !== overlay.stat.dev) {
    throw new FsError(E.EINVAL, `${shown(typed)}: state must lie on the overlay's file system`);
  }
  if (isWithin(path, overlay.path) && path !== `${overlay.path}/.kasane`) {
    throw new FsError(E.EINVAL, `${shown(typed)}: state lies in the overlay, where the guest would see it`);
  }
  if (bases.some((base) => isWithin(path, base.path))) {
    throw new FsError(E.EINVAL, `${shown(typed)}: state lies in the base: choose a directory outside`);
  }
  return path;
}

/** A read-only mount makes nothing. */
function refuseWithoutState(state: string, { readOnly }: MountOptions): void {
  if (!readOnly || lstatOrNull(state) !== null) return;
  throw new FsError(E.ENOENT, `${shown(state)}: is not there yet: mount once without -o ro`);
}

function refuseWithoutFuse(host: Host, transport: MountOptions['transport']): void {
  let fd: number;
  try {
    fd = fs.openSync(host.device, fs.constants.O_RDWR);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    const what = code === 'ENOENT' ? 'is missing' : `cannot be opened (${code})`;
    const todo =
      code === 'EACCES'
        ? `its mode keeps you out: chmod 666 ${host.device}, or be root`
        : 'load the fuse module (modprobe fuse), or give the container --device /dev/fuse';
    throw new FsError(E.ENODEV, `${host.device} ${what}: ${todo}`, error);
  }
  fs.closeSync(fd);
  if (transport === 'fuse-native') loadAddon();
  if (host.uid === 0) return;
  const helper = transport === 'fuse-native' ? 'fusermount' : 'fusermount3';
  const found = host.path.split(':').some((dir) => dir !== '' && fs.existsSync(`${dir}/${helper}`));
  if (!found) {
    throw new FsError(
      E.ENODEV,
      `not root, and ${helper} is not installed: install the package fuse3, or be root`,
    );
  }
}

function checkLog(log: string | null): void {
  if (log === null) return;
  try {
    fs.closeSync(fs.openSync(bytesOf(log), 'a', 0o600));
  } catch (error) {
    throw new FsError(
      E.EINVAL,
      `${shown(log)}: log cannot be written: ${(error as NodeJS.ErrnoException).code}`,
      error,
    );
  }
}
