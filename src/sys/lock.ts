// Lock files: a lock that ends with the process, whatever ends it.
import { LOCK_EX, LOCK_NB } from './constants.ts';
import { flock } from './file.ts';

/**
 * Locks an open file for the holder of this descriptor (and its duplicates) alone, until the last of them is
 * closed. EAGAIN (which is EWOULDBLOCK): somebody else has it.
 */
export function tryLock(fd: number): number {
  return flock(fd, LOCK_EX | LOCK_NB);
}
