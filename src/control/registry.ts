// Which mounts there are on this host: beside each control socket lies a small JSON file that says whom the
// daemon serves. Files of dead daemons stay until somebody mounts there anew or unmounts, so that `list` can
// show them. Written by the daemon, read by the command line.
import * as fs from 'node:fs';
import * as os from 'node:os';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { hash128 } from '../lib/hash.ts';
import { inUserNamespace, outerUid } from '../lib/user-namespace.ts';

export interface Registration {
  kasane: 1;
  mountPoint: string;
  bases: string[];
  overlay: string;
  state: string;
  pid: number;
  /** Start time of the process in clock ticks since boot: a pid alone may be somebody else's by now. */
  startTicks: string;
  bootId: string;
  /** Milliseconds since the epoch. */
  started: number;
}

export interface RuntimePaths {
  socket: string;
  registration: string;
  /** Where a daemon logs that finds no syslog. */
  log: string;
}

/** Directory of sockets and registrations of the calling user; KASANE_RUNTIME_DIR overrides it. */
export function runtimeDir(): string {
  const chosen = process.env.KASANE_RUNTIME_DIR;
  if (chosen) return chosen;
  const uid = process.getuid?.() ?? 0;
  if (uid === 0 && !inUserNamespace()) return '/run/kasane';
  const xdg = process.env.XDG_RUNTIME_DIR;
  return xdg ? `${xdg}/kasane` : `${os.tmpdir()}/kasane-${outerUid(uid)}`;
}

/** Makes it, 0700; EPERM if somebody else got there first. */
export function ensureRuntimeDir(): string {
  const dir = runtimeDir();
  fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
  const stat = fs.lstatSync(dir);
  if (!stat.isDirectory() || stat.uid !== (process.getuid?.() ?? 0)) {
    throw new FsError(E.EPERM, `${dir}: belongs to somebody else: remove it or set KASANE_RUNTIME_DIR`);
  }
  if ((stat.mode & 0o077) !== 0) fs.chmodSync(dir, 0o700);
  return dir;
}

/** Where socket and registration of a mount point lie. `mountPoint` is absolute and without symlinks. */
export function runtimePaths(mountPoint: string, dir = runtimeDir()): RuntimePaths {
  const name = hash128(Buffer.from(mountPoint, 'latin1')).slice(0, 16);
  return {
    socket: `${dir}/${name}.sock`,
    registration: `${dir}/${name}.json`,
    log: `${dir}/${name}.log`,
  };
}

/** Field 22 of /proc/PID/stat; null: no such process, or a dead one that nobody has waited for. */
export function processStartTicks(pid: number): string | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // Its first thread may be dead while others still hold what is open.
    const ended = fields[0] === 'X' || (fields[0] === 'Z' && Number(fields[17]) <= 1);
    return ended ? null : (fields[19] ?? null);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}

export function bootId(): string {
  return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

/** The registration of the calling process. */
export function newRegistration(
  mount: Pick<Registration, 'mountPoint' | 'bases' | 'overlay' | 'state'>,
): Registration {
  return {
    kasane: 1,
    mountPoint: mount.mountPoint,
    bases: mount.bases,
    overlay: mount.overlay,
    state: mount.state,
    pid: process.pid,
    startTicks: processStartTicks(process.pid) ?? '',
    bootId: bootId(),
    started: Date.now(),
  };
}

export function writeRegistration(registration: Registration): void {
  ensureRuntimeDir();
  const { registration: file } = runtimePaths(registration.mountPoint);
  const fresh = `${file}.${process.pid}`;
  fs.writeFileSync(fresh, `${JSON.stringify(registration)}\n`, { mode: 0o600 });
  fs.renameSync(fresh, file);
}

/** Removes registration and socket of a mount point; that they are gone already is fine (ENOENT). */
export function removeRegistration(mountPoint: string, dir = runtimeDir()): void {
  const paths = runtimePaths(mountPoint, dir);
  for (const path of [paths.registration, paths.socket]) fs.rmSync(path, { force: true });
}

/** Whether the process that registered still runs. `boot`: the id of this boot. */
export function isAlive(registration: Registration, boot = bootId()): boolean {
  return registration.bootId === boot && processStartTicks(registration.pid) === registration.startTicks;
}

export interface Found {
  registration: Registration;
  paths: RuntimePaths;
  dir: string;
  alive: boolean;
}

/** All registrations that the caller may read: its own, root's, and for root those of every user. */
export function readRegistrations(dirs = runtimeDirs()): Found[] {
  const found: Found[] = [];
  const boot = bootId();
  for (const dir of dirs) {
    for (const name of namesIn(dir)) {
      if (!name.endsWith('.json')) continue;
      const registration = readRegistration(`${dir}/${name}`);
      if (registration === null) continue;
      const paths = runtimePaths(registration.mountPoint, dir);
      found.push({ registration, paths, dir, alive: isAlive(registration, boot) });
    }
  }
  return found.sort((a, b) => (a.registration.mountPoint < b.registration.mountPoint ? -1 : 1));
}

/** How many mounts the calling user has. */
export function countMounts(): number {
  return readRegistrations([runtimeDir()]).filter(({ alive }) => alive).length;
}

function runtimeDirs(): string[] {
  const dirs = new Set([runtimeDir()]);
  if (process.env.KASANE_RUNTIME_DIR) return [...dirs];
  dirs.add('/run/kasane');
  if (process.getuid?.() === 0) {
    for (const user of namesIn('/run/user')) dirs.add(`/run/user/${user}/kasane`);
    for (const name of namesIn(os.tmpdir())) {
      if (/^kasane-\d+$/.test(name)) dirs.add(`${os.tmpdir()}/${name}`);
    }
  }
  return [...dirs];
}

/** Names in a directory; none where there is none, or it is not for us. */
function namesIn(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return [];
    throw error;
  }
}

/** null: gone meanwhile, not ours to read, or not a registration (a file that another program put there). */
function readRegistration(file: string): Registration | null {
  let text: string;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'EACCES' || code === 'ELOOP') return null;
    throw error;
  }
  try {
    const value = JSON.parse(text) as Partial<Registration> | null;
    const whole =
      value?.kasane === 1 &&
      typeof value.mountPoint === 'string' &&
      typeof value.overlay === 'string' &&
      typeof value.state === 'string' &&
      typeof value.pid === 'number' &&
      Array.isArray(value.bases);
    return whole ? (value as Registration) : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
