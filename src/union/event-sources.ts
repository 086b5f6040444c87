// What tells of changes of the base: inotify, which watches a directory at a time, or fanotify, which watches whole
// file systems and needs to be known only which of their directories matter. Both speak in numbers of watches and in
// events of inotify.
import { E } from '../lib/errno.ts';
import { IN_CLOSE_WRITE, IN_DELETE_SELF, IN_IGNORED, IN_Q_OVERFLOW } from '../sys/constants.ts';
import {
  eventKey,
  FanotifyEvents,
  type FanotifyTaker,
  fanotifyIgnore,
  keyOfEvents,
  parseFanotify,
} from '../sys/fanotify.ts';
import { read } from '../sys/file.ts';
import { inotifyAdd, inotifyRm, parseInotify } from '../sys/poll.ts';
import { KeyTable } from './key-table.ts';
import type { Watching } from './watches.ts';

/** `name` is '' where it is about the watched object itself. */
type EventTaker = (watch: number, mask: number, name: string) => void;

/** Which descriptor, made by the main thread, is read in which way. */
export interface SourceSpec {
  by: 'inotify' | 'fanotify';
  fd: number;
}

export interface EventSource extends SourceSpec, Watching {
  /** Everything that there is to tell by now. 0, or why that is unknown: a negative errno. */
  hear(each: EventTaker): number;
}

export interface FileSystems {
  /** Id of the one that a layer of the base lies on. */
  fsidOf(layer: number): ArrayLike<number>;
  /** The overlay lies on one of them, too. */
  shared: boolean;
}

export function eventSource({ by, fd }: SourceSpec, on: FileSystems): EventSource {
  return by === 'inotify' ? inotifySource(fd) : fanotifySource(fd, on);
}

/** Above all numbers that inotify gives. */
const FIRST_OF_FANOTIFY = 2 ** 30;
/** Room for some thousand events. */
const ROOM = 256 * 1024;

function inotifySource(fd: number): EventSource {
  const events = Buffer.allocUnsafeSlow(ROOM);
  return {
    by: 'inotify',
    fd,
    first: 1,
    add: (dirFd, name, mask) => inotifyAdd(fd, dirFd, name, mask),
    remove: (watch) => {
      inotifyRm(fd, watch);
    },
    ignore: () => {},
    hear: (each) => {
      for (;;) {
        const length = read(fd, events, 0, events.length);
        if (length <= 0) return length === -E.EAGAIN ? 0 : length;
        parseInotify(events, length, (watch, mask, _cookie, name) => each(watch, mask, name));
      }
    },
  };
}

function fanotifySource(fd: number, { fsidOf, shared }: FileSystems): EventSource {
  const events = new FanotifyEvents(ROOM);
  const known = new KeyTable();
  let each: EventTaker = () => {};
  const taker: FanotifyTaker = {
    lost: () => each(-1, IN_Q_OVERFLOW, ''),
    find: (words, at, count) => known.find(words, at, count),
    event: (number, mask, name) => {
      const watch = FIRST_OF_FANOTIFY + number;
      // The watch goes with its object, as with inotify. Who hears of it may let go of the watch himself, or watch
      // something else, which must not have its number.
      const gone = (mask & IN_DELETE_SELF) !== 0 && known.forget(number);
      // One event may stand for several. Who has closed a file comes last, and is told of alone, as by inotify.
      const others = mask & ~IN_CLOSE_WRITE;
      if (others !== 0) each(watch, others, name);
      if ((mask & IN_CLOSE_WRITE) !== 0) each(watch, IN_CLOSE_WRITE, name);
      if (!gone) return;
      each(watch, IN_IGNORED, '');
      known.free(number);
    },
  };
  return {
    by: 'fanotify',
    fd,
    first: FIRST_OF_FANOTIFY,
    add: (dirFd, name, _mask, layer) => {
      const count = keyOfEvents(dirFd, name, fsidOf(layer));
      // Not a limit that could be raised.
      if (count < 0) return count === -E.ENOMEM ? -E.EIO : count;
      // Somebody may have moved it here from the overlay.
      if (shared && name === '') fanotifyIgnore(fd, dirFd, false);
      return FIRST_OF_FANOTIFY + known.add(eventKey, 0, count);
    },
    remove: (watch) => known.remove(watch - FIRST_OF_FANOTIFY),
    ignore: (dirFd) => {
      // Where it is refused (a kernel before 6.0) there is only more to be passed over.
      if (shared) fanotifyIgnore(fd, dirFd, true);
    },
    hear: (take) => {
      each = take;
      for (;;) {
        const length = read(fd, events.bytes, 0, ROOM);
        if (length <= 0) return length === -E.EAGAIN ? 0 : length;
        parseFanotify(events, length, process.pid, taker);
      }
    },
  };
}
