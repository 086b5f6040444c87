// Host paths as bytes: what the caller typed, made absolute, with symlinks resolved without ever touching the
// inside of a Kasane mount, which might be dead or hang. Paths are latin1.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { type Mount, mountOf } from '../control/mountinfo.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';

/** The path as Node's fs takes bytes. */
export function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

/** For a message. */
export function shown(path: string): string {
  return escapeName(path);
}

/** The working directory as the kernel names it: also when it lies in a dead mount. */
export function workingDirectory(): string {
  return fs.readlinkSync('/proc/self/cwd', { encoding: 'latin1' });
}

/** Absolute, without `.`, empty parts or a slash at the end; `..` stays, for symlinks decide what it means. */
export function absolute(path: string, cwd: string): string {
  const parts = (path.startsWith('/') ? path : `${cwd}/${path}`).split('/');
  return `/${parts.filter((part) => part !== '' && part !== '.').join('/')}`;
}

export interface Resolved {
  /** Absolute, no symlinks, no `..` down to `stop`, or to the end. */
  path: string;
  /** The member of `stops` that the path lies on or beneath; null if none. */
  stop: string | null;
  /** What follows it, as typed but for `..`; '' at the stop itself. */
  rest: string;
}

const MAX_LINKS = 40;

/**
 * Walks an absolute path, following symlinks (the last one too), but never looks at anything at or beneath
 * one of `stops`. What does not exist is taken as it is written. ELOOP after 40 links.
 */
export function resolveOutside(path: string, stops: ReadonlySet<string>): Resolved {
  let todo = path.split('/').filter((part) => part !== '' && part !== '.');
  let at = '';
  let links = 0;
  for (;;) {
    const here = at === '' ? '/' : at;
    if (stops.has(here)) {
      const rest = lexicalRest(todo);
      // Out of the mount again by `..`: go on outside, where there is something to look at.
      if (rest !== null) return { path: rest === '' ? here : `${at}/${rest}`, stop: here, rest };
      todo = afterLeaving(todo);
      at = at.slice(0, at.lastIndexOf('/'));
      continue;
    }
    const part = todo.shift();
    if (part === undefined) return { path: here, stop: null, rest: '' };
    if (part === '..') {
      at = at.slice(0, Math.max(0, at.lastIndexOf('/')));
      continue;
    }
    const next = `${at}/${part}`;
    const target = stops.has(next) ? null : linkTarget(next);
    if (target === null) {
      at = next;
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new FsError(E.ELOOP, `${shown(path)}: too many symbolic links`);
    if (target.startsWith('/')) at = '';
    todo = [...target.split('/').filter((one) => one !== '' && one !== '.'), ...todo];
  }
}

/** The parts with `..` taken lexically; null if they lead out. */
function lexicalRest(parts: readonly string[]): string | null {
  const out: string[] = [];
  for (const part of parts) {
    if (part !== '..') out.push(part);
    else if (out.pop() === undefined) return null;
  }
  return out.join('/');
}

/** The parts after the `..` that leads out of where they begin. */
function afterLeaving(parts: readonly string[]): string[] {
  let depth = 0;
  const leaving = parts.findIndex((part) => {
    depth += part === '..' ? -1 : 1;
    return depth < 0;
  });
  return parts.slice(leaving + 1);
}

/** null: no symlink, or nothing that can be looked at. */
function linkTarget(path: string): string | null {
  try {
    return fs.readlinkSync(bytesOf(path), { encoding: 'latin1' });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EINVAL' || code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return null;
    // Another dead FUSE mount on the way, or a disk that fails: whoever needs it will say so.
    if (code === 'ENOTCONN' || code === 'EIO' || code === 'ENAMETOOLONG' || code === 'EPERM') return null;
    throw error;
  }
}

/** lstat without a throw for a miss. */
export function lstatOrNull(path: string): fs.Stats | null {
  try {
    return fs.lstatSync(bytesOf(path));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw error;
  }
}

/** File systems that wait for nothing but a disk. Not overlayfs, which waits for what its layers lie on. */
const LOCAL_TYPES: ReadonlySet<string> = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'tmpfs',
  'devtmpfs',
  'ramfs',
]);

/** Whether no network, and no process, is needed to get to an absolute path and look at it. */
export function isLocal(path: string, mounts: readonly Mount[]): boolean {
  const others = mounts.filter((mount) => !LOCAL_TYPES.has(mount.type)).map((mount) => mount.mountPoint);
  // In a chroot the mount that the root lies on is not told.
  return mountOf(mounts, '/') !== null && resolveOutside(path, new Set(others)).stop === null;
}

const ANSWER_MS = 5000;

/**
 * Returns when whatever holds `path` answers, be it with an error; ETIMEDOUT where it hangs. A child looks,
 * for a thread of ours that hung in the kernel would keep the whole process from ending. The path goes
 * through stdin, where bytes stay bytes.
 */
export function answers(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('xargs', ['-0', 'stat', '-c', '%i', '--'], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const timer = setTimeout(() => {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      reject(new FsError(E.ETIMEDOUT, `${shown(path)}: no answer within ${ANSWER_MS / 1000} s`));
    }, ANSWER_MS);
    const settled = () => {
      clearTimeout(timer);
      resolve();
    };
    child.once('exit', settled);
    // Without xargs we look ourselves, and hang where it hangs.
    child.once('error', settled);
    child.stdin.on('error', settled);
    child.stdin.end(bytesOf(path));
  });
}
