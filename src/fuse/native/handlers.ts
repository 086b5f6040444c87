// What the fuse-native transport asks of a file system: one function per operation of libfuse 2 that is answered.

/** 0, a count or a handle; a negative errno. */
export type Answer = number | Promise<number>;

/** What is handed back beside the answer. */
export interface Listing {
  /** latin1. */
  names: string[];
  /** As of `entryWords`. */
  entries: Uint32Array[];
}

/** Paths are relative to the root, which is ''; they and all names are latin1. Buffers are good until the answer. */
export interface NativeHandlers {
  getattr(path: string, out: Uint32Array): Answer;
  fgetattr(handle: number, out: Uint32Array): Answer;
  statfs(out: Uint32Array): Answer;
  readlink(path: string, out: { target: string }): Answer;
  readdir(path: string, out: Listing): Answer;
  mknod(path: string, mode: number, rdev: number): Answer;
  mkdir(path: string, mode: number): Answer;
  symlink(target: string, path: string): Answer;
  link(from: string, to: string): Answer;
  rename(from: string, to: string): Answer;
  unlink(path: string): Answer;
  rmdir(path: string): Answer;
  chmod(path: string, mode: number): Answer;
  /** null: stays as it is. */
  chown(path: string, uid: number | null, gid: number | null): Answer;
  truncate(path: string, size: number): Answer;
  ftruncate(handle: number, size: number): Answer;
  /** Milliseconds since 1970. */
  utimens(path: string, atime: number, mtime: number): Answer;
  /** The handle, above 0. */
  open(path: string, flags: number): Answer;
  create(path: string, mode: number): Answer;
  read(handle: number, into: Buffer, offset: number): Answer;
  write(handle: number, from: Buffer, offset: number): Answer;
  release(handle: number): Answer;
  fsync(handle: number, dataOnly: boolean): Answer;
  fsyncdir(path: string): Answer;
  setxattr(path: string, name: string, value: Buffer, flags: number): Answer;
  getxattr(path: string, name: string, out: { value: Buffer }): Answer;
  listxattr(path: string, out: { value: Buffer }): Answer;
  removexattr(path: string, name: string): Answer;
}
