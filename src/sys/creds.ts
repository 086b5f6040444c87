// Who the calling thread is for the kernel. libc's setuid, setgid and setgroups act on all threads of the
// process; what is here acts on the calling thread alone, and so on each worker by itself.
import * as fs from 'node:fs';
import { E } from '../lib/errno.ts';
import { inUserNamespace } from '../lib/user-namespace.ts';
import {
  CAP_DAC_OVERRIDE,
  CAP_DAC_READ_SEARCH,
  CAP_FOWNER,
  CAP_SETUID,
  CAP_SYS_ADMIN,
  SYS_SETFSGID,
  SYS_SETFSUID,
  SYS_SETGROUPS,
} from './constants.ts';
import { addressOf, native, pinned, systemCall } from './ffi.ts';

const cSetId = systemCall(['int64_t']);
const cSetgroups = systemCall(['size_t', 'uintptr_t']);
const cCapget = native('capget', 'int', ['uintptr_t', 'uintptr_t']);
const cCapset = native('capset', 'int', ['uintptr_t', 'uintptr_t']);
const cUnshare = native('unshare', 'int', ['int']);

const CLONE_FS = 0x200;
const CLONE_FILES = 0x400;
/** No id: asking for it changes nothing and tells the present one. */
const NO_ID = 0xffffffff;

const OPEN_FILES = /^Max open files +([0-9]+)/m;

const cSetrlimit = native('setrlimit', 'int', ['int', 'uintptr_t']);
const RLIMIT_NOFILE = 7;
/** The kernel's own default of fs.nr_open. systemd sets that to 1e9, and there are programs that close all up to their limit. */
const MOST_OPEN_FILES = 2 ** 20;

/**
 * Lets the process have as many descriptors as the kernel gives to any, where it may have more than it was started with
 * (CAP_SYS_RESOURCE). That limit was set for who has mounted, as 1024 in many a session; but what any guest has open takes
 * a descriptor here, and each guest has a limit of its own. What there is is never made less.
 */
export function raiseMostOpenFiles(): number {
  const most = Math.min(Number(fs.readFileSync('/proc/sys/fs/nr_open', 'latin1')), MOST_OPEN_FILES);
  // Node has made the limit that counts as high as the other, so what is above one is above both.
  if (mostOpenFiles() >= most) return 0;
  // struct rlimit: what counts, and how far that may be raised.
  return cSetrlimit(
    RLIMIT_NOFILE,
    addressOf(new Uint8Array(new BigUint64Array(2).fill(BigInt(most)).buffer)),
  );
}

/** Descriptors that the process may have (RLIMIT_NOFILE, which Node has raised as far as it may). */
export function mostOpenFiles(): number {
  const told = OPEN_FILES.exec(fs.readFileSync('/proc/self/limits', 'latin1'));
  return told === null ? Number.POSITIVE_INFINITY : Number(told[1]);
}

/** What the thread is now; -1: not known yet. */
let fsUid = -1;
let fsGid = -1;
/** The capabilities over files have been raised since the thread last became another user than root. */
let raised = false;

/**
 * Owner and rights for what this thread does with files from now on. A user other than root loses root's
 * rights over files (raiseFileCaps brings some back); 0 restores them. EPERM: the ids were refused.
 */
export function setFsIds(uid: number, gid: number): number {
  if (gid !== fsGid) {
    fsGid = -1;
    cSetId(SYS_SETFSGID, gid);
    // The call itself tells nothing of success.
    if (cSetId(SYS_SETFSGID, NO_ID) !== gid) return -E.EPERM;
    fsGid = gid;
  }
  if (uid !== fsUid) {
    if (fsUid <= 0) raised = false;
    fsUid = -1;
    cSetId(SYS_SETFSUID, uid);
    if (cSetId(SYS_SETFSUID, NO_ID) !== uid) return -E.EPERM;
    fsUid = uid;
  }
  return 0;
}

/** Supplementary groups of this thread. */
export function setGroups(gids: readonly number[]): number {
  const list = new Uint8Array(Uint32Array.from(gids).buffer);
  return cSetgroups(SYS_SETGROUPS, gids.length, addressOf(list));
}

/** struct __user_cap_header_struct, version 3, thread 0: the calling one. */
const capHeader = pinned(8);
capHeader.u32[0] = 0x20080522;
/** Two of struct __user_cap_data_struct: effective, permitted, inheritable; capabilities 0-31, then 32-63. */
const capData = pinned(24);
const EFFECTIVE = 0;
const PERMITTED = 1;
const INHERITABLE = 2;

function readCaps(): number {
  return cCapget(capHeader.address, capData.address);
}

function writeCaps(): number {
  return cCapset(capHeader.address, capData.address);
}

const FILE_CAPS = (1 << CAP_DAC_OVERRIDE) | (1 << CAP_DAC_READ_SEARCH) | (1 << CAP_FOWNER);

/** After setFsIds to another user than root: the thread may again reach and change every file. */
export function raiseFileCaps(): number {
  if (raised) return 0;
  const error = readCaps();
  if (error < 0) return error;
  const permitted = capData.u32[PERMITTED] as number;
  if ((permitted & FILE_CAPS) !== FILE_CAPS) return -E.EPERM;
  capData.u32[EFFECTIVE] = (capData.u32[EFFECTIVE] as number) | FILE_CAPS;
  const result = writeCaps();
  raised = result === 0;
  return result;
}

/** The thread gives up a capability for good. */
export function dropCapability(cap: number): number {
  const error = readCaps();
  if (error < 0) return error;
  const half = cap < 32 ? 0 : 3;
  for (const set of [EFFECTIVE, PERMITTED, INHERITABLE]) {
    capData.u32[half + set] = (capData.u32[half + set] as number) & ~(1 << (cap & 31));
  }
  return writeCaps();
}

/** Whether the thread can use it now. */
export function hasCapability(cap: number): boolean {
  if (readCaps() < 0) return false;
  return ((capData.u32[(cap < 32 ? 0 : 3) + EFFECTIVE] as number) & (1 << (cap & 31))) !== 0;
}

/** What the process may do. */
export interface Rights {
  /** All that root may: owners, devices, trusted.* attributes. */
  privileged: boolean;
  /** It can act as other users: root, if only that of a container or a user namespace. */
  actsForOthers: boolean;
  /** Its ids are those of a user namespace. */
  inNamespace: boolean;
}

/** trusted.* attributes are for CAP_SYS_ADMIN of the machine itself: no user namespace has it. */
export function rightsOfProcess(): Rights {
  const root = process.geteuid?.() === 0;
  const inNamespace = inUserNamespace();
  return {
    privileged: root && !inNamespace && hasCapability(CAP_SYS_ADMIN),
    actsForOthers: root && hasCapability(CAP_SETUID),
    inNamespace,
  };
}

/** The thread has a umask (and a working directory) of its own from now on. */
export function unshareFs(): number {
  return cUnshare(CLONE_FS);
}

/** Descriptors of this thread alone from now on: copies of all that are open. */
export function unshareDescriptors(): number {
  return cUnshare(CLONE_FILES);
}
