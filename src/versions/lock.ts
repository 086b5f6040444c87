// The lock of an overlay: flock on `lock` in the state directory, held by whoever has the store open. The
// kernel lets go of it when the process dies; LevelDB's own lock is not enough (a failed second open in one
// process releases it). The file holds the pid, for the message only.
import * as fs from 'node:fs';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { tryLock } from '../sys/lock.ts';
import { bytesOf, codeOf, isOutOfRoom } from './files.ts';

export interface StoreLock {
  release(): void;
}

const fileName = 'lock';

/** Throws FsError EBUSY when another process, or another store of this one, holds it. */
export function lockStore(dir: string, readOnly: boolean): StoreLock {
  const path = bytesOf(`${dir}/${fileName}`);
  const flags = readOnly ? fs.constants.O_RDONLY : fs.constants.O_RDWR | fs.constants.O_CREAT;
  let fd: number;
  try {
    fd = fs.openSync(path, flags, 0o600);
  } catch (error) {
    // Nobody can have locked what is not there.
    if (readOnly && codeOf(error) === 'ENOENT') return { release: () => {} };
    throw error;
  }
  const locked = tryLock(fd);
  if (locked < 0) {
    const holder = fs.readFileSync(fd, 'latin1').trim();
    fs.closeSync(fd);
    if (locked !== -E.EAGAIN) {
      throw new FsError(-locked, `the overlay cannot be locked: ${errnoName(locked)}`);
    }
    throw new FsError(E.EBUSY, `overlay is in use (pid ${/^\d+$/.test(holder) ? holder : 'unknown'})`);
  }
  if (!readOnly) notePid(fd);
  return { release: () => fs.closeSync(fd) };
}

function notePid(fd: number): void {
  try {
    fs.ftruncateSync(fd, 0);
    fs.writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    // It is not worth a refusal.
    if (!isOutOfRoom(error)) throw error;
  }
}
