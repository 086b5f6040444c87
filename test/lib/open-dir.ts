// A directory for each test with a descriptor of it, and short ways to open and look at what lies in it.
import * as fs from 'node:fs';
import { afterEach, beforeEach, expect } from 'vitest';
import { newStat, type Stat } from '../../src/lib/stat.ts';
import * as C from '../../src/sys/constants.ts';
import { close, openat, pwrite } from '../../src/sys/file.ts';
import { statx } from '../../src/sys/stat.ts';

export interface OpenDir {
  /** Of the directory, on the disk; both are other ones in each test. */
  path: string;
  /** O_PATH. */
  fd: number;
  /** A descriptor that the end of the test closes. */
  keep(fd: number): number;
  open(name: string, flags: number, mode?: number): number;
  /** A new file, open for reading and writing. */
  made(name: string, content?: string): number;
  /** What statx tells; of a symlink itself unless `flags` is 0. */
  statOf(name: string, flags?: number): Stat;
}

/** To be called at the head of a test file. */
export function openDirPerTest(): OpenDir {
  let opened: number[] = [];
  const at: OpenDir = {
    path: '',
    fd: -1,
    keep(fd) {
      expect(fd).toBeGreaterThanOrEqual(0);
      opened.push(fd);
      return fd;
    },
    open: (name, flags, mode = 0o644) => at.keep(openat(at.fd, name, flags, mode)),
    made(name, content = '') {
      const fd = at.open(name, C.O_CREAT | C.O_RDWR);
      const bytes = Buffer.from(content, 'latin1');
      expect(pwrite(fd, bytes, 0, bytes.length, 0)).toBe(bytes.length);
      return fd;
    },
    statOf(name, flags = C.AT_SYMLINK_NOFOLLOW) {
      const out = newStat();
      expect(statx(at.fd, name, flags, out)).toBe(0);
      return out;
    },
  };
  beforeEach(() => {
    at.path = fs.mkdtempSync('/var/tmp/kasane-sys-');
    opened = [];
    at.fd = at.keep(openat(C.AT_FDCWD, at.path, C.O_PATH | C.O_DIRECTORY));
  });
  afterEach(() => {
    for (const fd of opened) close(fd);
    fs.rmSync(at.path, { recursive: true, force: true });
  });
  return at;
}
