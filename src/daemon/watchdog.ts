// A process without threads that aborts the connection when the daemon dies without a word: as long as a thread of the
// daemon's waits in the kernel, to write a notification or for a disk that has gone, it cannot be killed, the device stays
// open, and clients wait for answers. A shell that reads from a pipe is enough.
import { spawn } from 'node:child_process';
import { errnoName } from '../lib/errno.ts';
import type { Log } from '../lib/log.ts';
import { AT_FDCWD, O_WRONLY } from '../sys/constants.ts';
import { close, openat } from '../sys/file.ts';
import { detachedFilesystem } from '../sys/mount.ts';

/**
 * The end of the pipe without a line is the daemon's death, or at least that of its main thread, of which the kernel tells
 * by a signal, where that can be asked for. Signals to the daemon's group are not for it.
 */
const WATCH = "trap '' INT TERM HUP; trap : USR1; read -r bye || echo 1 >&3";
const SCRIPT = `die='setpriv --pdeathsig USR1'; $die true 2>&- && exec $die /bin/sh -c "$0"; eval "$0"`;

export interface Watchdog {
  /** It goes, and does nothing. */
  dismiss(): void;
  /** It aborts the connection now, and goes. */
  abort(): void;
}

/** `minor`: of the mount's st_dev. null, and a line in the log, where its connection cannot be aborted. */
export function startWatchdog(minor: number, log: Log, died: () => void): Watchdog | null {
  const fd = openAbort(minor);
  if (fd < 0) {
    log.warn(`no watchdog: the connection ${minor} cannot be aborted (${errnoName(fd)})`);
    return null;
  }
  // The descriptor is of this connection alone: the number may be another one's by then.
  const child = spawn('/bin/sh', ['-c', SCRIPT, WATCH], {
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore', fd],
    detached: true,
  });
  close(fd);
  let asked = false;
  const over = (how: string) => {
    if (asked) return;
    asked = true;
    log.warn(`the watchdog has gone (${how})`);
    died();
  };
  child.on('error', (error) => over(error.message));
  child.on('exit', (code, signal) => over(`${signal ?? code}`));
  child.stdin?.on('error', (error) => over(error.message));
  child.unref();
  const end = (word: string) => {
    asked = true;
    child.stdin?.end(word);
  };
  return { dismiss: () => end('bye\n'), abort: () => end('') };
}

function openAbort(minor: number): number {
  const known = openat(AT_FDCWD, `/sys/fs/fuse/connections/${minor}/abort`, O_WRONLY);
  if (known >= 0) return known;
  // Nobody has mounted fusectl: here it is mounted nowhere, for root.
  const control = detachedFilesystem('fusectl');
  if (control < 0) return known;
  const fd = openat(control, `${minor}/abort`, O_WRONLY);
  close(control);
  return fd;
}
