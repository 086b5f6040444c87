// The thread that raises events in the guests' inotify: it does in the mount what raises them, and the serving worker
// answers it without doing any of it (frontend/announced.ts). It is a client like any other, and may wait for locks
// of guests; nobody waits for it. It holds no descriptor but for the moment, of the mount neither.
import { parentPort, workerData } from 'node:worker_threads';
import { E } from '../lib/errno.ts';
import { newStat, S_IFDIR, S_IFLNK } from '../lib/stat.ts';
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  FALLOC_FL_KEEP_SIZE,
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_MODIFY,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_WRONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
} from '../sys/constants.ts';
import { close, fallocate, openat, openat2 } from '../sys/file.ts';
import { mkdirat, mknodat, symlinkat, unlinkat } from '../sys/names.ts';
import { eventfdSignal } from '../sys/poll.ts';
import { fstat } from '../sys/stat.ts';
import { setxattrByPath } from '../sys/xattr.ts';
import type { Announcement } from '../union/announce.ts';
import { monotonicMs } from '../union/announcements.ts';
import { failPoint } from '../union/fail-point.ts';
import type { AnnouncerStart, FromAnnouncer, ToAnnouncer } from './messages.ts';
import { ownDescriptors } from './own-descriptors.ts';
import { NO_USE } from './side-thread.ts';
import { isWatched } from './watchers.ts';

/** What comes within this time is told together. */
const GATHER_MS = 10;
/** After each batch it rests so many times as long as that took, and longer after a look for who listens. */
const REST = 3;
const LOOK_REST = 20;
/** Who listens goes on listening for so long. */
const LISTENS_MS = 5000;
/** What is mounted inside the union is none of its business. */
const INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
const nothing = Buffer.alloc(1);

const stat = newStat();

function run(start: AnnouncerStart): void {
  const { port, wakeFd } = start;
  // Without descriptors of its own a daemon that is killed could not let go of the device.
  if (ownDescriptors(-1) < 0) process.exit(NO_USE);
  introduce(start);
  let paused = false;
  let due = false;
  let heardUntil = 0;
  let restUntil = 0;
  const say = (message: FromAnnouncer) => {
    port.postMessage(message);
    eventfdSignal(wakeFd);
  };
  const look = () => {
    const began = monotonicMs();
    const heard = isWatched(start.minor);
    const now = monotonicMs();
    if (heard) heardUntil = now + LISTENS_MS;
    restUntil = now + LOOK_REST * (now - began);
    say(heard ? 'next' : began);
  };
  const ask = (ms: number) =>
    setTimeout(() => {
      due = paused;
      if (paused) return;
      if (monotonicMs() < heardUntil) say('next');
      else look();
    }, ms);
  port.on('message', (message: ToAnnouncer) => {
    if (message === 'stir') {
      const now = monotonicMs();
      ask(now < heardUntil ? GATHER_MS : Math.max(GATHER_MS, restUntil - now));
      return;
    }
    const began = performance.now();
    if (!paused) tell(start, message);
    ask(Math.max(GATHER_MS, REST * (performance.now() - began)));
  });
  parentPort?.on('message', (word: 'pause' | 'resume' | 'stop') => {
    if (word === 'stop') process.exit(0);
    paused = word === 'pause';
    if (paused) parentPort?.postMessage('paused');
    else if (due) ask(0);
  });
}

/** The root of the mount, if it is still there; a negative errno or -1. */
function openRoot({ mountPoint, minor }: AnnouncerStart): number {
  const root = openat(AT_FDCWD, mountPoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0 || (fstat(root, stat) === 0 && stat.devMinor === minor)) return root;
  close(root);
  return -1;
}

/** By this look-up the serving worker knows who it is. */
function introduce(start: AnnouncerStart): void {
  const root = openRoot(start);
  if (root < 0) return;
  const fd = openat2(root, start.sign, O_PATH | O_CLOEXEC, 0, INSIDE);
  if (fd >= 0) close(fd);
  close(root);
}

function tell(start: AnnouncerStart, list: readonly Announcement[]): void {
  failPoint('announce');
  const root = openRoot(start);
  if (root < 0) return;
  let at = '';
  let dir = -1;
  for (const one of list) {
    if (dir < 0 || one.dir !== at) {
      if (dir >= 0) close(dir);
      at = one.dir;
      dir = openat2(root, at === '' ? '.' : at, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, INSIDE);
    }
    if (dir >= 0) announce(dir, one);
  }
  if (dir >= 0) close(dir);
  close(root);
}

function announce(dir: number, { name, events, type }: Announcement): void {
  if ((events & IN_DELETE) !== 0) {
    unlinkat(dir, name, type === S_IFDIR ? AT_REMOVEDIR : 0);
    return;
  }
  if ((events & IN_CREATE) !== 0) make(dir, name, type);
  const written = (events & IN_CLOSE_WRITE) === 0 || write(dir, name, (events & IN_MODIFY) !== 0);
  if ((events & IN_ATTRIB) !== 0 || !written) setAttribute(dir, name);
}

/** False: it cannot be opened for writing, for somebody runs it, or has it open past the daemon. */
function write(dir: number, name: string, modifies: boolean): boolean {
  const fd = openat2(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, INSIDE);
  if (fd < 0) return false;
  if (modifies) fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1);
  close(fd);
  return true;
}

/** One that nobody can have: a guest's own would be refused. */
function setAttribute(dir: number, name: string): void {
  const fd = openat2(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, INSIDE);
  if (fd < 0) return;
  const path = `/proc/thread-self/fd/${fd}`;
  const error = setxattrByPath(path, 'trusted.kasane.told', nothing);
  // Only root of the machine has such attributes; others have these, of files and directories.
  if (error === -E.EPERM) setxattrByPath(path, 'user.kasane.told', nothing);
  close(fd);
}

function make(dir: number, name: string, type: number): void {
  if (type === S_IFDIR) mkdirat(dir, name, 0o700);
  else if (type === S_IFLNK) symlinkat('.', dir, name);
  else mknodat(dir, name, type | 0o600, 0, 0);
}

if (parentPort === null) throw new TypeError('announcer-worker.ts is the entry of a worker thread');
run(workerData as AnnouncerStart);
