// What the announcer is to do for what waits to be told (announcements.ts): decided by what the union shows when it is
// asked for, so that of a name that came and went nothing is told.
import { isDirectory, isRegular, S_IFDIR, S_IFMT, S_IFREG } from '../lib/stat.ts';
import {
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_ISDIR,
  IN_MODIFY,
  IN_MOVED_FROM,
  IN_MOVED_TO,
} from '../sys/constants.ts';
import type { Waiting } from './announcements.ts';
import { nodeAt } from './known.ts';
import { find } from './lookup.ts';
import { metacopyOf } from './metacopy.ts';
import { IN_OVERLAY, NONE, type Node, WHITEOUT } from './node.ts';
import type { Union } from './union.ts';

/** The events that are to be raised, as a set of IN_CREATE, IN_DELETE, IN_MODIFY, IN_CLOSE_WRITE, IN_ATTRIB. */
export interface Announcement {
  /** Path of its directory. */
  dir: string;
  name: string;
  events: number;
  /** Of IN_CREATE and IN_DELETE: the type, as in st_mode. */
  type: number;
}

/** Names that are given out at a time. */
const BATCH = 128;
const ANY_EXECUTE = 0o111;

/** The next to be told. */
export function takeAnnouncements(union: Union): Announcement[] {
  const { announcements } = union;
  const list: Announcement[] = [];
  announcements.begin();
  while (list.length < BATCH) {
    const next = announcements.next();
    if (next === null) break;
    const [path, waiting] = next;
    const cut = path.lastIndexOf('/');
    const dir = path.slice(0, Math.max(cut, 0));
    const name = path.slice(cut + 1);
    const parent = dir === '' ? union.table.root : nodeAt(union, dir);
    // Who watches a directory keeps its node alive.
    if (!parent?.dir) continue;
    const one = announcementOf(union, parent, name, waiting);
    if (one === null) continue;
    list.push({ dir, name, ...one });
    const gone = (one.events & IN_DELETE) !== 0;
    if (gone || (one.events & IN_CREATE) !== 0) {
      announcements.pretend(parent.id, name, { gone, type: one.type, id: waiting.id });
    }
  }
  announcements.given(list.length);
  return list;
}

/** null: guests see nothing of it, or it is over already. */
function announcementOf(
  union: Union,
  parent: Node,
  name: string,
  { was, mask, own }: Waiting,
): Pick<Announcement, 'events' | 'type'> | null {
  if (find(union, parent, name) < 0) return null;
  const { state, stat } = union.found;
  if (state === NONE) {
    const type = (mask & IN_ISDIR) !== 0 ? S_IFDIR : S_IFREG;
    return was ? { events: IN_DELETE, type } : null;
  }
  if (state === WHITEOUT) return null;
  if (state === IN_OVERLAY && !own && !followsBase(union, parent, name)) return null;
  const type = stat.mode & S_IFMT;
  // Nobody can run what somebody has open for writing: that is only said to have changed.
  const isWritable = isRegular(stat.mode) && (stat.mode & ANY_EXECUTE) === 0;
  if (!was) return { events: isWritable ? IN_CREATE | IN_CLOSE_WRITE : IN_CREATE, type };
  const modified = isWritable ? IN_MODIFY | IN_CLOSE_WRITE : IN_ATTRIB;
  if ((mask & (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM)) === 0) {
    const changed = (mask & IN_MODIFY) !== 0 ? modified : isWritable ? mask & IN_CLOSE_WRITE : 0;
    const events = changed | (mask & IN_ATTRIB);
    return events === 0 ? null : { events, type };
  }
  return { events: isDirectory(stat.mode) ? IN_ATTRIB : modified | IN_ATTRIB, type };
}

/** A copy of metadata alone has the base's content. */
function followsBase(union: Union, parent: Node, name: string): boolean {
  const node = union.table.child(parent, name);
  return node !== undefined && node.dir === null && node.layer < 0 && metacopyOf(union, node) !== null;
}
