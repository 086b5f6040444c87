// Opens the FUSE device and mounts it: with mount(2) as root, else through fusermount3, which is set-user-ID
// and hands the device over through a socket. To be called once per mount, before anything serves it.
import { spawnSync } from 'node:child_process';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { toDisplay } from '../lib/names.ts';
import {
  AT_FDCWD,
  MNT_DETACH,
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
} from '../sys/constants.ts';
import { close, openat, setNonBlocking } from '../sys/file.ts';
import { mount, umount2 } from '../sys/mount.ts';
import { recvFd, socketpair } from '../sys/socket.ts';
import { MAX_IO } from './init.ts';

const DEVICE = '/dev/fuse';
const SUBTYPE = 'kasane';
/** Number of the socket in fusermount3. */
const COMM_FD = 3;
const FUSERMOUNT_TIMEOUT = 30_000;

export interface DeviceOptions {
  /** A directory; absolute, latin1. */
  mountPoint: string;
  /** First column of df and mountinfo; latin1. */
  fsname: string;
  readOnly: boolean;
  suid: boolean;
  dev: boolean;
  exec: boolean;
  atime: boolean;
  allowOther: boolean;
}

/** The device, non-blocking and close-on-exec, of a file system that is mounted and waits to be served. */
export function openMount(options: DeviceOptions): number {
  return isRoot() ? mountAsRoot(options) : mountByHelper(options);
}

/** 0 or a negative errno. `lazy`: at once, even where it is in use. */
export function unmount(mountPoint: string, lazy: boolean): number {
  if (isRoot()) return umount2(mountPoint, lazy ? MNT_DETACH : 0);
  const { status } = runHelper(['-u', '-q', ...(lazy ? ['-z'] : []), '--', fromBytes(mountPoint)], null);
  return status === 0 ? 0 : -E.EBUSY;
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

function mountAsRoot(options: DeviceOptions): number {
  const fd = openat(AT_FDCWD, DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    throw new FsError(-fd, `${DEVICE} cannot be opened (${errnoName(fd)}): is the module fuse loaded?`);
  const data = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    'default_permissions',
    `max_read=${MAX_IO}`,
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  const error = mount(
    options.fsname,
    options.mountPoint,
    `fuse.${SUBTYPE}`,
    flagsOf(options),
    data.join(','),
  );
  if (error === 0) return fd;
  close(fd);
  throw new FsError(-error, `mounting on ${toDisplay(options.mountPoint)} failed: ${errnoName(error)}`);
}

function flagsOf(options: DeviceOptions): number {
  return (
    (options.readOnly ? MS_RDONLY : 0) |
    (options.suid ? 0 : MS_NOSUID) |
    (options.dev ? 0 : MS_NODEV) |
    (options.exec ? 0 : MS_NOEXEC) |
    (options.atime ? 0 : MS_NOATIME)
  );
}

/** The helper itself adds nosuid and nodev, whatever is asked for. */
function mountByHelper(options: DeviceOptions): number {
  const words = [
    `fsname=${options.fsname.replace(/[\\,]/g, '\\$&')}`,
    `subtype=${SUBTYPE}`,
    'default_permissions',
    `max_read=${MAX_IO}`,
    ...(options.readOnly ? ['ro'] : []),
    ...(options.exec ? [] : ['noexec']),
    ...(options.atime ? [] : ['noatime']),
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  const args = ['-o', fromBytes(words.join(',')), '--', fromBytes(options.mountPoint)];
  const pair = socketpair();
  if (typeof pair === 'number') throw new FsError(-pair, `no socket for fusermount3: ${errnoName(pair)}`);
  const [ours, theirs] = pair;
  try {
    callWith(theirs, args);
    return received(ours);
  } finally {
    close(ours);
  }
}

/** Our copy of the helper's end goes too, or a helper that sent nothing would be waited for. */
function callWith(theirs: number, args: string[]): void {
  try {
    const { status, stderr } = runHelper(args, theirs);
    if (status !== 0) throw new FsError(E.EPERM, `mounting failed: ${stderr}`);
  } finally {
    close(theirs);
  }
}

function received(socket: number): number {
  const fd = recvFd(socket);
  if (fd < 0) throw new FsError(-fd, `fusermount3 handed over no device: ${errnoName(fd)}`);
  const error = setNonBlocking(fd);
  if (error === 0) return fd;
  close(fd);
  throw new FsError(-error, `the FUSE device stays blocking: ${errnoName(error)}`);
}

function runHelper(args: string[], socket: number | null): { status: number | null; stderr: string } {
  const { status, stderr, error } = spawnSync('fusermount3', args, {
    env: { ...process.env, LC_ALL: 'C', ...(socket === null ? {} : { _FUSE_COMMFD: String(COMM_FD) }) },
    stdio: ['ignore', 'ignore', 'pipe', ...(socket === null ? [] : [socket])],
    timeout: FUSERMOUNT_TIMEOUT,
    encoding: 'utf8',
  });
  const missing = (error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
  if (missing)
    throw new FsError(E.ENOENT, 'fusermount3 is not installed (package fuse3): needed without root');
  if (error !== undefined) throw new FsError(E.EIO, `fusermount3: ${error.message}`, error);
  return { status, stderr: stderr.trim() };
}

/** Node passes arguments as UTF-8, so other bytes do not reach a helper. */
function fromBytes(name: string): string {
  const bytes = Buffer.from(name, 'latin1');
  const text = bytes.toString('utf8');
  if (Buffer.compare(Buffer.from(text, 'utf8'), bytes) === 0) return text;
  throw new FsError(E.EILSEQ, `${toDisplay(name)} is not UTF-8, and only root can mount with such a name`);
}
