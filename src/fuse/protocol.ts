// The kernel's side of FUSE, protocol 7.45, as facts of linux/fuse.h: layouts of the structs and, for each
// opcode, what its message and its reply consist of. Codec, types, trace and the test of sizes derive from
// these two tables; nothing else knows an offset. Field names are those of the header in camel case, and a
// number in place of a type is so many bytes of padding.

/** Where the body of a message begins, after fuse_in_header. */
export const HEADER = 40;
/** Where the payload of a reply begins, after fuse_out_header. */
export const PAYLOAD = 16;
export const KERNEL_MAJOR = 7;
export const KERNEL_MINOR = 45;
export const ROOT_NODE = 1;

/** u64 and i64 are read as numbers; opaque ones (lock owners, uniques) are two halves, so that no bit is lost. */
export type FieldType = 'u16' | 'u32' | 'i32' | 'u64' | 'i64';
export type Layout = Readonly<Record<string, FieldType | number>>;

const attr = {
  ino: 'u64',
  size: 'u64',
  blocks: 'u64',
  atime: 'i64',
  mtime: 'i64',
  ctime: 'i64',
  atimensec: 'u32',
  mtimensec: 'u32',
  ctimensec: 'u32',
  mode: 'u32',
  nlink: 'u32',
  uid: 'u32',
  gid: 'u32',
  rdev: 'u32',
  blksize: 'u32',
  attrFlags: 'u32',
} as const;

const statx = {
  mask: 'u32',
  blksize: 'u32',
  attributes: 'u64',
  nlink: 'u32',
  uid: 'u32',
  gid: 'u32',
  mode: 'u16',
  _1: 2,
  ino: 'u64',
  size: 'u64',
  blocks: 'u64',
  attributesMask: 'u64',
  atime: 'i64',
  atimensec: 'u32',
  _2: 4,
  btime: 'i64',
  btimensec: 'u32',
  _3: 4,
  ctime: 'i64',
  ctimensec: 'u32',
  _4: 4,
  mtime: 'i64',
  mtimensec: 'u32',
  _5: 4,
  rdevMajor: 'u32',
  rdevMinor: 'u32',
  devMajor: 'u32',
  devMinor: 'u32',
  _6: 112,
} as const;

const fileLock = { start: 'i64', end: 'i64', type: 'u32', pid: 'u32' } as const;
const lockOwner = { lockOwnerLow: 'u32', lockOwnerHigh: 'u32' } as const;

export const structs = {
  in_header: {
    len: 'u32',
    opcode: 'u32',
    uniqueLow: 'u32',
    uniqueHigh: 'u32',
    nodeid: 'u64',
    uid: 'u32',
    gid: 'u32',
    pid: 'u32',
    totalExtlen: 'u16',
    _1: 2,
  },
  out_header: { len: 'u32', error: 'i32', uniqueLow: 'u32', uniqueHigh: 'u32' },
  attr,
  statx,
  entry_out: {
    nodeid: 'u64',
    generation: 'u64',
    entryValid: 'u64',
    attrValid: 'u64',
    entryValidNsec: 'u32',
    attrValidNsec: 'u32',
    ...attr,
  },
  attr_out: { attrValid: 'u64', attrValidNsec: 'u32', _0: 4, ...attr },
  statx_in: { getattrFlags: 'u32', _1: 4, fh: 'u64', sxFlags: 'u32', sxMask: 'u32' },
  statx_out: { attrValid: 'u64', attrValidNsec: 'u32', flags: 'u32', _0: 16, ...statx },
  forget_in: { nlookup: 'u64' },
  forget_one: { nodeid: 'u64', nlookup: 'u64' },
  batch_forget_in: { count: 'u32', _1: 4 },
  getattr_in: { getattrFlags: 'u32', _1: 4, fh: 'u64' },
  setattr_in: {
    valid: 'u32',
    _1: 4,
    fh: 'u64',
    size: 'u64',
    ...lockOwner,
    atime: 'i64',
    mtime: 'i64',
    ctime: 'i64',
    atimensec: 'u32',
    mtimensec: 'u32',
    ctimensec: 'u32',
    mode: 'u32',
    _2: 4,
    uid: 'u32',
    gid: 'u32',
    _3: 4,
  },
  mknod_in: { mode: 'u32', rdev: 'u32', umask: 'u32', _1: 4 },
  mkdir_in: { mode: 'u32', umask: 'u32' },
  rename_in: { newdir: 'u64' },
  rename2_in: { newdir: 'u64', flags: 'u32', _1: 4 },
  link_in: { oldnodeid: 'u64' },
  open_in: { flags: 'u32', openFlags: 'u32' },
  create_in: { flags: 'u32', mode: 'u32', umask: 'u32', openFlags: 'u32' },
  open_out: { fh: 'u64', openFlags: 'u32', backingId: 'i32' },
  release_in: { fh: 'u64', flags: 'u32', releaseFlags: 'u32', ...lockOwner },
  flush_in: { fh: 'u64', _1: 8, ...lockOwner },
  read_in: { fh: 'u64', offset: 'u64', size: 'u32', readFlags: 'u32', ...lockOwner, flags: 'u32', _1: 4 },
  write_in: { fh: 'u64', offset: 'u64', size: 'u32', writeFlags: 'u32', ...lockOwner, flags: 'u32', _1: 4 },
  write_out: { size: 'u32', _1: 4 },
  statfs_out: {
    blocks: 'u64',
    bfree: 'u64',
    bavail: 'u64',
    files: 'u64',
    ffree: 'u64',
    bsize: 'u32',
    namelen: 'u32',
    frsize: 'u32',
    _1: 28,
  },
  fsync_in: { fh: 'u64', fsyncFlags: 'u32', _1: 4 },
  setxattr_in: { size: 'u32', flags: 'u32', setxattrFlags: 'u32', _1: 4 },
  getxattr_in: { size: 'u32', _1: 4 },
  getxattr_out: { size: 'u32', _1: 4 },
  lk_in: { fh: 'u64', ownerLow: 'u32', ownerHigh: 'u32', ...fileLock, lkFlags: 'u32', _1: 4 },
  lk_out: fileLock,
  access_in: { mask: 'u32', _1: 4 },
  init_in: { major: 'u32', minor: 'u32', maxReadahead: 'u32', flags: 'u32', flags2: 'u32', _1: 44 },
  init_out: {
    major: 'u32',
    minor: 'u32',
    maxReadahead: 'u32',
    flags: 'u32',
    maxBackground: 'u16',
    congestionThreshold: 'u16',
    maxWrite: 'u32',
    timeGran: 'u32',
    maxPages: 'u16',
    mapAlignment: 'u16',
    flags2: 'u32',
    maxStackDepth: 'u32',
    requestTimeout: 'u16',
    _1: 22,
  },
  interrupt_in: { uniqueLow: 'u32', uniqueHigh: 'u32' },
  bmap_in: { block: 'u64', blocksize: 'u32', _1: 4 },
  bmap_out: { block: 'u64' },
  ioctl_in: { fh: 'u64', flags: 'u32', cmd: 'u32', arg: 'u64', inSize: 'u32', outSize: 'u32' },
  ioctl_out: { result: 'i32', flags: 'u32', inIovs: 'u32', outIovs: 'u32' },
  poll_in: { fh: 'u64', khLow: 'u32', khHigh: 'u32', flags: 'u32', events: 'u32' },
  poll_out: { revents: 'u32', _1: 4 },
  fallocate_in: { fh: 'u64', offset: 'u64', length: 'u64', mode: 'u32', _1: 4 },
  dirent: { ino: 'u64', off: 'u64', namelen: 'u32', type: 'u32' },
  lseek_in: { fh: 'u64', offset: 'i64', whence: 'u32', _1: 4 },
  lseek_out: { offset: 'i64' },
  copy_file_range_in: {
    fhIn: 'u64',
    offIn: 'u64',
    nodeidOut: 'u64',
    fhOut: 'u64',
    offOut: 'u64',
    len: 'u64',
    flags: 'u64',
  },
  copy_file_range_out: { bytesCopied: 'u64' },
  syncfs_in: { _1: 8 },
  ext_header: { size: 'u32', type: 'u32' },
} as const satisfies Record<string, Layout>;

export type StructName = keyof typeof structs;

/** A struct as a plain object: every field but the padding, as a number. */
export type StructOf<N extends StructName> = {
  -readonly [K in keyof (typeof structs)[N] as (typeof structs)[N][K] extends string ? K : never]: number;
};

export interface OpcodeRow {
  code: number;
  /** Struct at the beginning of the body. */
  in?: StructName;
  /** NUL-terminated names that follow it. */
  names?: number;
  /** Struct of the reply; none: nothing, or data. */
  out?: StructName;
  /** The kernel waits for no reply. */
  silent?: true;
}

export const opcodes = {
  LOOKUP: { code: 1, names: 1, out: 'entry_out' },
  FORGET: { code: 2, in: 'forget_in', silent: true },
  GETATTR: { code: 3, in: 'getattr_in', out: 'attr_out' },
  SETATTR: { code: 4, in: 'setattr_in', out: 'attr_out' },
  READLINK: { code: 5 },
  SYMLINK: { code: 6, names: 2, out: 'entry_out' },
  MKNOD: { code: 8, in: 'mknod_in', names: 1, out: 'entry_out' },
  MKDIR: { code: 9, in: 'mkdir_in', names: 1, out: 'entry_out' },
  UNLINK: { code: 10, names: 1 },
  RMDIR: { code: 11, names: 1 },
  RENAME: { code: 12, in: 'rename_in', names: 2 },
  LINK: { code: 13, in: 'link_in', names: 1, out: 'entry_out' },
  OPEN: { code: 14, in: 'open_in', out: 'open_out' },
  READ: { code: 15, in: 'read_in' },
  WRITE: { code: 16, in: 'write_in', out: 'write_out' },
  STATFS: { code: 17, out: 'statfs_out' },
  RELEASE: { code: 18, in: 'release_in' },
  FSYNC: { code: 20, in: 'fsync_in' },
  SETXATTR: { code: 21, in: 'setxattr_in', names: 1 },
  GETXATTR: { code: 22, in: 'getxattr_in', names: 1 },
  LISTXATTR: { code: 23, in: 'getxattr_in' },
  REMOVEXATTR: { code: 24, names: 1 },
  FLUSH: { code: 25, in: 'flush_in' },
  INIT: { code: 26, in: 'init_in', out: 'init_out' },
  OPENDIR: { code: 27, in: 'open_in', out: 'open_out' },
  READDIR: { code: 28, in: 'read_in' },
  RELEASEDIR: { code: 29, in: 'release_in' },
  FSYNCDIR: { code: 30, in: 'fsync_in' },
  GETLK: { code: 31, in: 'lk_in', out: 'lk_out' },
  SETLK: { code: 32, in: 'lk_in' },
  SETLKW: { code: 33, in: 'lk_in' },
  ACCESS: { code: 34, in: 'access_in' },
  CREATE: { code: 35, in: 'create_in', names: 1, out: 'entry_out' },
  INTERRUPT: { code: 36, in: 'interrupt_in', silent: true },
  BMAP: { code: 37, in: 'bmap_in', out: 'bmap_out' },
  DESTROY: { code: 38 },
  IOCTL: { code: 39, in: 'ioctl_in', out: 'ioctl_out' },
  POLL: { code: 40, in: 'poll_in', out: 'poll_out' },
  NOTIFY_REPLY: { code: 41, silent: true },
  BATCH_FORGET: { code: 42, in: 'batch_forget_in', silent: true },
  FALLOCATE: { code: 43, in: 'fallocate_in' },
  READDIRPLUS: { code: 44, in: 'read_in' },
  RENAME2: { code: 45, in: 'rename2_in', names: 2 },
  LSEEK: { code: 46, in: 'lseek_in', out: 'lseek_out' },
  COPY_FILE_RANGE: { code: 47, in: 'copy_file_range_in', out: 'write_out' },
  SETUPMAPPING: { code: 48 },
  REMOVEMAPPING: { code: 49 },
  SYNCFS: { code: 50, in: 'syncfs_in' },
  TMPFILE: { code: 51, in: 'create_in', names: 1, out: 'entry_out' },
  STATX: { code: 52, in: 'statx_in', out: 'statx_out' },
  COPY_FILE_RANGE_64: { code: 53, in: 'copy_file_range_in', out: 'copy_file_range_out' },
} as const satisfies Record<string, OpcodeRow>;

export type OpcodeName = keyof typeof opcodes;

interface NamedRow extends OpcodeRow {
  name: OpcodeName;
}

const rowByCode: readonly (NamedRow | undefined)[] = (() => {
  const rows: (NamedRow | undefined)[] = [];
  for (const [name, row] of Object.entries(opcodes)) rows[row.code] = { name: name as OpcodeName, ...row };
  return rows;
})();

/** What the table says of an opcode; undefined for one that it lacks. */
export function opcodeRow(code: number): Readonly<NamedRow> | undefined {
  return rowByCode[code];
}

/** `LOOKUP` for 1; `OPCODE_99` for one that the table lacks. */
export function opcodeName(code: number): string {
  return rowByCode[code]?.name ?? `OPCODE_${code}`;
}
