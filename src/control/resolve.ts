// Where a path leads to, with symlinks resolved without ever touching the inside of a Kasane mount, which might be dead,
// or hang, or be our own, whose answer would have to come from who asks. Paths are latin1.
import * as fs from 'node:fs';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';

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
    if (links > MAX_LINKS) throw new FsError(E.ELOOP, `${escapeName(path)}: too many symbolic links`);
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
    return fs.readlinkSync(Buffer.from(path, 'latin1'), { encoding: 'latin1' });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EINVAL' || code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return null;
    // Another dead FUSE mount on the way, or a disk that fails: whoever needs it will say so.
    if (code === 'ENOTCONN' || code === 'EIO' || code === 'ENAMETOOLONG' || code === 'EPERM') return null;
    throw error;
  }
}
