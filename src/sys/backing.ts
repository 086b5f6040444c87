// Backing files of a FUSE connection (Linux 6.9): the kernel reads and writes an open file by itself, past the
// server, in the file that a backing id stands for. EPERM without CAP_SYS_ADMIN.
import { native, pinned } from './ffi.ts';

const cIoctl = native('ioctl', 'int', ['int', 'int64_t', 'int64_t']);

/** _IOW(229, 1, struct fuse_backing_map) and _IOW(229, 2, uint32_t). */
const BACKING_OPEN = 0x4010e501;
const BACKING_CLOSE = 0x4004e502;

/** struct fuse_backing_map: fd, flags, padding. */
const map = pinned(16);
const closing = pinned(8);

/**
 * An id for the file that is open as `fd`. For each open file that uses it the kernel opens the file anew, with that
 * one's flags: so `fd` wants to be one for reading, and what must not be written has to lie on a read-only mount.
 * ELOOP: it lies on a file system that is stacked too deep.
 */
export function openBacking(deviceFd: number, fd: number): number {
  map.u32[0] = fd;
  return cIoctl(deviceFd, BACKING_OPEN, map.address);
}

/** The id is free again; files that are open with it go on. */
export function closeBacking(deviceFd: number, id: number): number {
  closing.u32[0] = id;
  return cIoctl(deviceFd, BACKING_CLOSE, closing.address);
}
