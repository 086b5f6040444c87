// The names in a directory of a branch, as they are there.
import { getdents, parseDents } from '../sys/file.ts';

const DENTS_BYTES = 64 * 1024;

/** Every name of an open directory but `.` and `..`; 0 or a negative errno. */
export function readNames(fd: number, each: (name: string, ino: number, type: number) => void): number {
  const buffer = Buffer.allocUnsafeSlow(DENTS_BYTES);
  for (;;) {
    const got = getdents(fd, buffer);
    if (got <= 0) return got;
    parseDents(buffer, got, (name, ino, type) => {
      if (name !== '.' && name !== '..') each(name, ino, type);
    });
  }
}
