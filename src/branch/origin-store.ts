// Where the bytes of an object's origins lie: in an extended attribute, and for what cannot carry one (without
// privileges symlinks, devices, FIFOs and sockets, so also whiteouts; and whatever has its space for attributes
// full) in a record beside the overlay. A record is a symlink in origins/, named by its object and holding the
// bytes as its target: one system call makes it, whole, and a short one lies in its inode. It belongs to the
// object as an attribute does, so it goes along with renames and links, and one without its object says nothing.
import { E } from '../lib/errno.ts';
import { isDirectory, newStat, type Stat } from '../lib/stat.ts';
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  UTIME_OMIT,
} from '../sys/constants.ts';
import { close, openat, reopen } from '../sys/file.ts';
import { readlinkat, renameat2, symlinkat, unlinkat } from '../sys/names.ts';
import { statx, utimensat } from '../sys/stat.ts';
import { getxattr } from '../sys/xattr.ts';
import { readNames } from './listing.ts';
import { removeOwnAttribute, setOwnAttribute } from './own-attribute.ts';

export interface OriginStore {
  /** Name of the attribute. */
  readonly attr: string;
  /** origins/, open for reading; -1 while the state directory is not there. */
  recordsFd: number;
  /** Shared by all threads, 1 once there may be records: else nobody looks for any. */
  readonly used: Int32Array;
}

export function newOriginStore(attr: string): OriginStore {
  return { attr, recordsFd: -1, used: new Int32Array(new SharedArrayBuffer(4)) };
}

/** Opens origins/ in a state directory; 0 or a negative errno. */
export function openRecords(store: OriginStore, stateDir: string): number {
  if (store.recordsFd >= 0) return 0;
  const fd = openat(AT_FDCWD, `${stateDir}/origins`, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fd;
  store.recordsFd = fd;
  return readNames(fd, () => {
    store.used[0] = 1;
  });
}

/** Errnos of setting an attribute that an object cannot have, or has no room for. */
const cannotCarry: readonly number[] = [-E.EPERM, -E.EOPNOTSUPP, -E.ENOSPC, -E.E2BIG, -E.ERANGE];

const scratch = newStat();

/** Birth time as well as number: another object may get the number. */
export function recordName(stat: Stat): string {
  return `${stat.ino}-${stat.btimeSec}.${stat.btimeNsec}`;
}

/** The bytes; ENODATA or another negative errno where there are none. */
export function readOriginBytes(store: OriginStore, dirFd: number, name: string): Buffer | number {
  const value = getxattr(dirFd, name, store.attr);
  if (typeof value !== 'number' || store.used[0] === 0) return value;
  if (statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch) < 0) return value;
  const target = readlinkat(store.recordsFd, recordName(scratch));
  return typeof target === 'number' ? value : unpack(target);
}

/** Sets them; 0 or a negative errno. On the object itself, or else in its record, which is there from then on. */
export function writeOriginBytes(store: OriginStore, dirFd: number, name: string, bytes: Buffer): number {
  const error = setOwnAttribute(dirFd, name, store.attr, bytes);
  if (error === 0 || !cannotCarry.includes(error) || store.recordsFd < 0) return error;
  const known = statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch);
  if (known < 0) return known;
  store.used[0] = 1;
  const written = writeRecord(store.recordsFd, recordName(scratch), pack(bytes));
  if (written < 0) return written;
  // A reader asks for the attribute first. Until it is gone, it is as if nothing had been written.
  if (error !== -E.EPERM && error !== -E.EOPNOTSUPP) removeOwnAttribute(dirFd, name, store.attr);
  // As an attribute would, by setting a time to what it is: what is kept of an object counts as long as its
  // ctime stands.
  utimensat(dirFd, name, scratch.atimeSec, scratch.atimeNsec, 0, UTIME_OMIT);
  return 0;
}

function writeRecord(recordsFd: number, record: string, target: string): number {
  const made = symlinkat(target, recordsFd, record);
  if (made !== -E.EEXIST) return made;
  const temp = `${record}.new`;
  unlinkat(recordsFd, temp, 0);
  const error = symlinkat(target, recordsFd, temp);
  return error < 0 ? error : renameat2(recordsFd, temp, recordsFd, record, 0);
}

/**
 * Runs a change that takes a name from whatever has it: if that was the last name, its record goes, too. What a
 * crash leaves in between is tidied by tidyRecords.
 */
export function releasing(store: OriginStore, dirFd: number, name: string, change: () => number): number {
  if (store.used[0] === 0 || statx(dirFd, name, AT_SYMLINK_NOFOLLOW, scratch) < 0) return change();
  const last = isDirectory(scratch.mode) || scratch.nlink <= 1;
  const record = recordName(scratch);
  const result = change();
  if (result >= 0 && last) unlinkat(store.recordsFd, record, 0);
  return result;
}

/** unlinkat of what may have a record. */
export function unlinkReleasing(store: OriginStore, dirFd: number, name: string, flags: number): number {
  return releasing(store, dirFd, name, () => unlinkat(dirFd, name, flags));
}

/** Takes away the records of objects that are not among those named (by recordName); how many. */
export function tidyRecords(store: OriginStore, living: ReadonlySet<string>): number {
  const fd = reopen(store.recordsFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return 0;
  const dead: string[] = [];
  readNames(fd, (record) => {
    if (!living.has(record)) dead.push(record);
  });
  close(fd);
  for (const record of dead) unlinkat(store.recordsFd, record, 0);
  return dead.length;
}

/** Longest run of bytes that one length stands before. */
const RUN = 254;

/** A target holds no NUL: each run of other bytes follows its length + 1 (consistent overhead byte stuffing). */
function pack(bytes: Buffer): string {
  let out = '';
  let from = 0;
  for (;;) {
    const zero = bytes.indexOf(0, from);
    const end = Math.min(zero < 0 ? bytes.length : zero, from + RUN);
    out += String.fromCharCode(end - from + 1) + bytes.toString('latin1', from, end);
    if (end === bytes.length) return out;
    from = end - from === RUN ? end : end + 1;
  }
}

function unpack(target: string): Buffer {
  const packed = Buffer.from(target, 'latin1');
  const parts: Buffer[] = [];
  for (let at = 0; at < packed.length; ) {
    const length = (packed[at] as number) - 1;
    parts.push(packed.subarray(at + 1, at + 1 + length));
    at += length + 1;
    if (length < RUN && at < packed.length) parts.push(Buffer.alloc(1));
  }
  return Buffer.concat(parts);
}
