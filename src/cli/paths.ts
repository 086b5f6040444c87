// Host paths as bytes: what the caller typed, made absolute, and whether what it names answers. Paths are latin1.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { type Mount, mountOf } from '../control/mountinfo.ts';
import { resolveOutside } from '../control/resolve.ts';
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
    const child = spawn('xargs', ['-0', 'stat', '-f', '-c', '%i', '--'], {
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
