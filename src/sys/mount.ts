// Mounts: by path, and detached ones that only a descriptor leads to.
import { E } from '../lib/errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  FSCONFIG_CMD_CREATE,
  FSMOUNT_CLOEXEC,
  FSOPEN_CLOEXEC,
  MOUNT_ATTR__ATIME,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  MS_PRIVATE,
  OPEN_TREE_CLOEXEC,
  OPEN_TREE_CLONE,
  SYS_FSCONFIG,
  SYS_FSMOUNT,
  SYS_FSOPEN,
  SYS_MOUNT_SETATTR,
  SYS_OPEN_TREE,
} from './constants.ts';
import { addressOf, native, pinned, systemCall } from './ffi.ts';
import { close } from './file.ts';
import { NAME_A, NAME_ATTR, NAME_B, putA, putAttr, putB } from './scratch.ts';

const cMount = native('mount', 'int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'size_t', 'uintptr_t']);
const cUmount2 = native('umount2', 'int', ['uintptr_t', 'int']);
const cOpenTree = systemCall(['int', 'uintptr_t', 'uint']);
const cMountSetattr = systemCall(['int', 'uintptr_t', 'uint', 'uintptr_t', 'size_t']);

/** `flags`: a set of MS_*; `data`: the file system's own options. */
export function mount(source: string, target: string, type: string, flags: number, data: string): number {
  // The kernel takes at most a page of options.
  if (data.length >= 4096) return -E.EINVAL;
  const options = Buffer.from(`${data}\0`, 'latin1');
  const bad = putA(source) || putB(target) || putAttr(type);
  return bad || cMount(NAME_A, NAME_B, NAME_ATTR, flags, addressOf(options));
}

/** `flags`: a set of MNT_* and UMOUNT_NOFOLLOW. EINVAL: nothing is mounted there. */
export function umount2(target: string, flags: number): number {
  return putA(target) || cUmount2(NAME_A, flags);
}

/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd. */
const mountAttr = pinned(32);
mountAttr.u32[4] = MS_PRIVATE;

function setReadOnly(fd: number, noatime: boolean): number {
  putA('');
  mountAttr.u32[0] =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (noatime ? MOUNT_ATTR_NOATIME : 0);
  // The access time's mode is a field, not a flag: it has to be cleared before it can be set.
  mountAttr.u32[2] = noatime ? MOUNT_ATTR__ATIME : 0;
  return cMountSetattr(SYS_MOUNT_SETATTR, fd, NAME_A, AT_EMPTY_PATH, mountAttr.address, 32);
}

/**
 * A read-only view of the mount that `path` lies in, rooted at `path`, without what is mounted beneath it; it
 * is found in no mount table and goes with the last descriptor. The descriptor is an O_PATH one. EPERM
 * without CAP_SYS_ADMIN, ENOSYS before Linux 5.12.
 */
export function privateReadOnlyClone(path: string): number {
  const bad = putA(path);
  if (bad !== 0) return bad;
  const fd = cOpenTree(SYS_OPEN_TREE, AT_FDCWD, NAME_A, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (fd < 0) return fd;
  // In a user namespace the mode of access times may be locked.
  const set = setReadOnly(fd, true);
  const error = set === -E.EPERM ? setReadOnly(fd, false) : set;
  if (error === 0) return fd;
  close(fd);
  return error;
}

const cFsopen = systemCall(['uintptr_t', 'uint']);
const cFsconfig = systemCall(['int', 'uint', 'uintptr_t', 'uintptr_t', 'int']);
const cFsmount = systemCall(['int', 'uint', 'uint']);

/** A new, empty file system of this type that is mounted nowhere and goes with the descriptor. */
export function detachedFilesystem(type: string): number {
  const bad = putA(type);
  if (bad !== 0) return bad;
  const context = cFsopen(SYS_FSOPEN, NAME_A, FSOPEN_CLOEXEC);
  if (context < 0) return context;
  const made = cFsconfig(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
  const fd = made < 0 ? made : cFsmount(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0);
  close(context);
  return fd;
}
