// The device number of a mount (st_dev). The kernel gives the lowest that is free to file systems without a device, so
// that it is another one after each mount; but NFS-Ganesha has it in the handles that clients keep.
import { newStat } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { detachedFilesystem } from '../sys/mount.ts';
import { fstat } from '../sys/stat.ts';

/** More numbers than this are not held for the sake of one. */
const MOST = 4096;

/**
 * Does `mountIt` while all lower numbers are taken, by file systems that nobody sees: what it mounts gets the minor
 * number `wanted`, if that is free.
 */
export function withMinor<T>(wanted: number, mountIt: () => T): T {
  const held: number[] = [];
  const stat = newStat();
  try {
    while (held.length < MOST) {
      const fd = detachedFilesystem('tmpfs');
      if (fd < 0) break;
      const known = fstat(fd, stat);
      if (known === 0 && stat.devMinor < wanted) {
        held.push(fd);
        continue;
      }
      close(fd);
      break;
    }
    return mountIt();
  } finally {
    for (const fd of held) close(fd);
  }
}
