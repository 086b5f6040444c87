// Doing something as the caller: what is made belongs to the caller, counts in the caller's quota, and gets the
// mode that the caller's umask leaves (or the directory's default ACL). Permissions have been checked by the
// kernel (default_permissions), so the right to pass by them is kept.
import * as fs from 'node:fs';
import { CAP_FOWNER, CAP_FSETID, O_ACCMODE, O_RDONLY } from '../sys/constants.ts';
import { raiseFileCaps, setFsIds, setGroups } from '../sys/creds.ts';
import { setUmask } from '../sys/names.ts';

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

/** What /proc tells of a thread, and a request does not; '' where it has ended. */
function statusOf(pid: number): string {
  try {
    return fs.readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return '';
    throw error;
  }
}

function isCapable(status: string, cap: number): boolean {
  const caps = /^CapEff:\t([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${caps}`) >> BigInt(cap)) & 1n) === 1n;
}

/** Whether the caller may change the mode of an owner's file. */
export function mayChangeMode({ uid, pid }: Pick<Caller, 'uid' | 'pid'>, owner: number): boolean {
  return uid === owner || isCapable(statusOf(pid), CAP_FOWNER);
}

/**
 * Whether a thread has what shows that inode number open for writing, or is the kernel's own (an NFS server), which has
 * nothing open; true where that is not to be told.
 */
export function mayBeWriting(pid: number, ino: number): boolean {
  const status = pid === 0 ? '' : statusOf(pid);
  // It waits for the answer, so it is there, and hidden from us.
  if (status === '' || !/^VmSize:/m.test(status)) return true;
  const dir = `/proc/${pid}/fdinfo`;
  try {
    return fs.readdirSync(dir).some((fd) => isOpenedToWrite(`${dir}/${fd}`, ino));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EACCES' && code !== 'EPERM' && code !== 'ENOENT' && code !== 'ESRCH') throw error;
    return true;
  }
}

function isOpenedToWrite(file: string, ino: number): boolean {
  let fdinfo: string;
  try {
    fdinfo = fs.readFileSync(file, 'latin1');
  } catch (error) {
    // Another thread has closed it meanwhile.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  const flags = Number.parseInt(/^flags:\t(\d+)$/m.exec(fdinfo)?.[1] ?? '0', 8);
  // Kernels before 5.14 do not tell the number.
  const told = /^ino:\t(\d+)$/m.exec(fdinfo)?.[1];
  return (flags & O_ACCMODE) !== O_RDONLY && (told === undefined || Number(told) === ino);
}

/** Whether a thread may leave the set-group-id bit on a file of a group: it is in the group, or has CAP_FSETID. */
export function mayKeepSetgid(pid: number, gid: number): boolean {
  const status = statusOf(pid);
  if (isCapable(status, CAP_FSETID)) return true;
  const fsGid = /^Gid:\t\d+\t\d+\t\d+\t(\d+)$/m.exec(status)?.[1];
  const groups = /^Groups:\t(.*)$/m.exec(status)?.[1]?.split(' ') ?? [];
  return [fsGid, ...groups].includes(String(gid));
}

/** Runs `work` with the caller's fsuid, fsgid and umask where the daemon may take them on. */
export function asCaller(caller: Caller, actsForOthers: boolean, work: () => number): number {
  // The worker's own: its file system state is not shared with other threads (unshareFs).
  setUmask(caller.umask);
  if (!actsForOthers || (caller.uid === 0 && caller.gid === 0)) return work();
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
