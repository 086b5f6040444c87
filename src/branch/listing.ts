// The names in a directory of a branch, as they are there.
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { close, getdents, parseDents, reopen } from '../sys/file.ts';

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

/** The same of a directory known by an O_PATH descriptor, or by one that has been read from; 0 or a negative errno. */
export function readBeneath(pathFd: number, each: (name: string, ino: number, type: number) => void): number {
  const fd = reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  const error = readNames(fd, each);
  close(fd);
  return error;
}
