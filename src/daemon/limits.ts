// What a mount cannot do for want of rights, in one sentence each: told at the mount and by status.
import type { MountOptions } from '../control/mount-options.ts';
import type { OpenBranches } from './branches.ts';

export function limitNotes(
  options: Pick<MountOptions, 'allowOther' | 'suid' | 'dev'>,
  { rights, overlay }: Pick<OpenBranches, 'rights' | 'overlay'>,
): string[] {
  const notes: string[] = [];
  if (rights.privileged && overlay.xattrPrefix === 'trusted.') return notes;
  if (!rights.actsForOthers) {
    notes.push('as an ordinary user: all that is brought up is yours, whoever owns it in the base');
    if (options.allowOther !== true) {
      notes.push('the mount is for you alone: -o allow_other needs user_allow_other in /etc/fuse.conf');
    }
    if (options.suid || options.dev) notes.push('the mount is nosuid,nodev: only root may have it otherwise');
  } else if (rights.inNamespace) {
    notes.push('as root of a user namespace: what owners outside it have in the base is brought up as yours');
  }
  if (!rights.privileged) {
    notes.push('device nodes can be neither made nor brought up, and trusted.* attributes are not there');
  }
  notes.push(
    'the overlay carries user.* attributes; overlayfs, with userxattr, knows no renamed directories there',
  );
  return notes;
}
