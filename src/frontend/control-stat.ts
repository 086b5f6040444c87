// Objects of the control directory as a stat: inode numbers above all others, owned by the mount's owner.
import type { ControlStat } from '../control/tree.ts';
import { newStat, S_IFDIR, S_IFREG, type Stat } from '../lib/stat.ts';

/** Nodeids and inode numbers of the control directory lie above all others. */
export const FIRST_CONTROL = 2 ** 52;

export function controlIno(ino: number): number {
  return FIRST_CONTROL + ino;
}

export function controlStatOf(from: ControlStat, owner: { uid: number; gid: number }): Stat {
  const stat = newStat();
  stat.mode = from.mode | (from.kind === 'dir' ? S_IFDIR : S_IFREG);
  stat.size = from.size;
  stat.blocks = Math.ceil(from.size / 512);
  stat.blksize = 4096;
  stat.nlink = from.nlink;
  stat.uid = owner.uid;
  stat.gid = owner.gid;
  const seconds = Math.floor(from.mtimeMs / 1000);
  const nanoseconds = Math.round((from.mtimeMs - seconds * 1000) * 1e6);
  stat.atimeSec = stat.mtimeSec = stat.ctimeSec = seconds;
  stat.atimeNsec = stat.mtimeNsec = stat.ctimeNsec = nanoseconds;
  return stat;
}
