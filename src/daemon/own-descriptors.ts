// Descriptors of a thread's own, for threads that the kernel may let wait: a daemon that is killed meanwhile lets go of
// all others, the device and the watchdog's pipe among them.
import * as fs from 'node:fs';
import { unshareDescriptors } from '../sys/creds.ts';
import { close } from '../sys/file.ts';

/** What watches the base is let go of by whoever opened it, and then there is to be nobody else. */
const OTHERS = ['/', 'socket:', 'anon_inode:inotify', 'anon_inode:[fanotify]'];

/** Files, directories, sockets and what watches are closed here, but for `keep`. 0 or a negative errno: they are shared as before. */
export function ownDescriptors(keep: number): number {
  const error = unshareDescriptors();
  if (error < 0) return error;
  const dir = '/proc/thread-self/fd';
  for (const name of fs.readdirSync(dir)) {
    const fd = Number(name);
    if (fd <= 2 || fd === keep) continue;
    try {
      const target = fs.readlinkSync(`${dir}/${name}`);
      if (OTHERS.some((kind) => target.startsWith(kind))) close(fd);
    } catch (error) {
      // The descriptor by which the directory was read.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return 0;
}
