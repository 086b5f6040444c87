// What the kernel may keep: where a change of the base raises an event that leads to a notification. What is not
// watched, for whatever reason, is asked for each time, as with `check`.
import { isRegular, S_ISGID, S_ISUID, type Stat } from '../lib/stat.ts';
import { partFd } from './dir-fds.ts';
import type { DirPart, Node } from './node.ts';
import { isChangedUnseen } from './passthrough.ts';
import type { Union } from './union.ts';

/** Whether changes of the names in a directory are heard of; watches what is not watched yet. */
export function keepsNames(union: Union, node: Node): boolean {
  const { dir } = node;
  if (dir === null || union.kernel.keeping === 'none') return false;
  if (dir.watched || union.kernel.keeping === 'timed') return true;
  if (dir.elsewhere) return false;
  for (const part of dir.parts) if (!isWatched(union, node, part)) return false;
  dir.watched = true;
  dir.flat = false;
  return true;
}

function isWatched(union: Union, node: Node, part: DirPart): boolean {
  if (part.fd >= 0 && part.watch < 0) {
    // What was looked at through it before the watch may have changed since: this time it does not count.
    union.watches.directory(node, part);
    return false;
  }
  return partFd(union, node, part) >= 0 && part.watch >= 0;
}

/** Whether changes of an object's attributes are heard of. `stat` is of the object itself. */
export function keepsAttributes(union: Union, node: Node, stat: Stat): boolean {
  // Set-id bits go with a write, of which the kernel learns no mode: who then asks for that alone, or executes the file,
  // would be told the one of before.
  if ((stat.mode & (S_ISUID | S_ISGID)) !== 0 && isRegular(stat.mode)) return false;
  if (union.kernel.keeping !== 'watched') return union.kernel.keeping === 'timed';
  if (node.dir !== null) return keepsNames(union, node);
  const place = node.place;
  // What a divided node shows of its successor changes without its knowing.
  if (node.successor !== null || isChangedUnseen(union, node)) return false;
  if (!place) return node.layer < 0;
  // By another name a file changes without an event here.
  if (node.layer >= 0 && stat.nlink > 1 && node.watch < 0) return false;
  return keepsNames(union, place.parent);
}
