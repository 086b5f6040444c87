// Doing something as the caller: what is made belongs to the caller, counts in the caller's quota, and gets the
// mode that the caller's umask leaves (or the directory's default ACL). Permissions have been checked by the
// kernel (default_permissions), so the right to pass by them is kept.
import { raiseFileCaps, setFsIds, setGroups } from '../sys/creds.ts';
import { umask } from '../sys/names.ts';

/** Whoever sent the request. */
export interface Caller {
  uid: number;
  gid: number;
  /** Thread id of the caller, in the daemon's pid namespace; 0 if it has none there. */
  pid: number;
  umask: number;
  /** Supplementary groups that matter for this request (the kernel tells at most one). */
  groups: readonly number[];
}

/** Runs `work` with the caller's fsuid, fsgid and umask where the daemon may take them on. */
export function asCaller(caller: Caller, privileged: boolean, work: () => number): number {
  // The worker's own: its file system state is not shared with other threads (unshareFs).
  umask(caller.umask);
  if (!privileged || (caller.uid === 0 && caller.gid === 0)) return work();
  if (caller.groups.length > 0) setGroups(caller.groups);
  try {
    const changed = setFsIds(caller.uid, caller.gid);
    if (changed < 0) return changed;
    if (caller.uid !== 0) raiseFileCaps();
    return work();
  } finally {
    setFsIds(0, 0);
    if (caller.groups.length > 0) setGroups([]);
  }
}
