// Whether anybody watches a mount by inotify or fanotify: it is told in /proc, and nowhere else. Guests are told of the
// base only where somebody listens, for that has its price.
import * as fs from 'node:fs';

const WATCHING = new Set(['anon_inode:inotify', 'anon_inode:[fanotify]']);
/** Gone meanwhile. */
const GONE = new Set(['ENOENT', 'ESRCH']);

/** `minor`: of the mount's st_dev. True also where that cannot be seen. */
export function isWatched(minor: number, proc = '/proc'): boolean {
  // What fanotify watches by its mount is not told by device.
  const here = `sdev:${minor.toString(16)}\\b`;
  const device = new RegExp(`^inotify .*\\b${here}|^fanotify (?:(?:ino:\\S+ )?${here}|mnt_id)`, 'm');
  for (const pid of fs.readdirSync(proc)) {
    const first = pid.charCodeAt(0);
    if (first >= 0x30 && first <= 0x39 && watches(`${proc}/${pid}`, device)) return true;
  }
  return false;
}

function watches(process: string, device: RegExp): boolean {
  try {
    for (const fd of fs.readdirSync(`${process}/fd`)) {
      if (!WATCHING.has(targetOf(`${process}/fd/${fd}`))) continue;
      if (device.test(fs.readFileSync(`${process}/fdinfo/${fd}`, 'latin1'))) return true;
    }
  } catch (error) {
    // Another user's.
    return !GONE.has((error as NodeJS.ErrnoException).code ?? '');
  }
  return false;
}

function targetOf(path: string): string {
  try {
    return fs.readlinkSync(path, 'latin1');
  } catch (error) {
    if (GONE.has((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}
