// Whether a descriptor that was kept still gives the bytes of the version it was kept for. Replaced by rename it
// does for ever; written to in place it shows what came later, and its bytes are gone.
import { deviceOf, newStat, type Stat } from '../lib/stat.ts';
import { fstatFresh } from '../sys/stat.ts';

/** What fstat said of the object when the version was named. Plain data: it goes to other threads. */
export interface Witness {
  dev: number;
  ino: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  nlink: number;
}

export function witnessOf(stat: Stat): Witness {
  const { ino, size, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec, nlink } = stat;
  return { dev: deviceOf(stat), ino, size, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec, nlink };
}

/** A ctime that moved may only come from names that the object has lost. */
export function stillShows(fd: number, witness: Witness): boolean {
  const stat = newStat();
  if (fstatFresh(fd, stat) < 0) return false;
  return (
    stat.ino === witness.ino &&
    stat.size === witness.size &&
    stat.mtimeSec === witness.mtimeSec &&
    stat.mtimeNsec === witness.mtimeNsec &&
    ((stat.ctimeSec === witness.ctimeSec && stat.ctimeNsec === witness.ctimeNsec) ||
      stat.nlink < witness.nlink)
  );
}
