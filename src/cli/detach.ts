// Taking mounts away, as root by umount2(2), else through fusermount3, which is set-uid for this.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { answers, bytesOf, shown } from './paths.ts';

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** 0, or a negative errno. `lazy` takes it out of the tree at once, whoever still uses it. */
export async function unmount(mountPoint: string, lazy: boolean): Promise<number> {
  if (process.getuid?.() === 0) {
    const { umount2 } = await import('../sys/mount.ts');
    return umount2(mountPoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0));
  }
  return new Promise((resolve) => {
    const target = Buffer.from(mountPoint, 'latin1').toString('utf8');
    execFile(
      'fusermount3',
      lazy ? ['-u', '-z', '--', target] : ['-u', '--', target],
      (error, _out, stderr) => {
        if (error === null) resolve(0);
        else if ((error as NodeJS.ErrnoException).code === 'ENOENT') resolve(-E.ENODEV);
        else if (/busy/i.test(stderr)) resolve(-E.EBUSY);
        else resolve(-E.EPERM);
      },
    );
  });
}

/** As unmount, for what may not fail. */
export async function detach(mountPoint: string): Promise<void> {
  const result = await unmount(mountPoint, true);
  // EINVAL: no mount any more; somebody was quicker.
  if (result < 0 && result !== -E.EINVAL) {
    throw new FsError(
      -result,
      `${shown(mountPoint)}: a dead mount that cannot be detached: umount -l it as root`,
    );
  }
}

/** A mount without a daemon answers ENOTCONN; one that hangs is not dead. Of its root the kernel may know all but this. */
export async function isDead(mountPoint: string): Promise<boolean> {
  try {
    await answers(mountPoint);
    fs.statfsSync(bytesOf(mountPoint));
    return false;
  } catch (error) {
    if (error instanceof FsError) return false;
    const code = (error as NodeJS.ErrnoException).code;
    // EACCES: another user's mount, which is no proof of anything.
    return code === 'ENOTCONN' || code === 'ECONNABORTED';
  }
}
