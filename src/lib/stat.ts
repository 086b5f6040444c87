// What statx(2) tells of an object, as plain numbers, and the file types. Kept in lib so that branch, union
// and the codec share one shape. 64-bit inode numbers beyond 2^53 are folded by sys/stat.ts.

export interface Stat {
  mode: number;
  ino: number;
  nlink: number;
  uid: number;
  gid: number;
  size: number;
  blocks: number;
  blksize: number;
  rdevMajor: number;
  rdevMinor: number;
  devMajor: number;
  devMinor: number;
  mask: number;
  attributes: number;
  mntId: number;
  /** Id of the subvolume, since Linux 6.10, where there are such; else 0. */
  subvol: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
  /**
   * Of a file of the base whose content lies in another (a copy of metadata alone), once that has been found: hash of
   * that one's fingerprint; else ''.
   */
  contentPrint: string;
}

export function newStat(): Stat {
  return {
    mode: 0,
    ino: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    size: 0,
    blocks: 0,
    blksize: 0,
    rdevMajor: 0,
    rdevMinor: 0,
    devMajor: 0,
    devMinor: 0,
    mask: 0,
    attributes: 0,
    mntId: 0,
    subvol: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    btimeSec: 0,
    btimeNsec: 0,
    contentPrint: '',
  };
}

/** Field by field: Object.assign costs twenty times as much, and each look-up copies one. */
export function copyStat(from: Stat, to: Stat): void {
  to.mode = from.mode;
  to.ino = from.ino;
  to.nlink = from.nlink;
  to.uid = from.uid;
  to.gid = from.gid;
  to.size = from.size;
  to.blocks = from.blocks;
  to.blksize = from.blksize;
  to.rdevMajor = from.rdevMajor;
  to.rdevMinor = from.rdevMinor;
  to.devMajor = from.devMajor;
  to.devMinor = from.devMinor;
  to.mask = from.mask;
  to.attributes = from.attributes;
  to.mntId = from.mntId;
  to.subvol = from.subvol;
  to.atimeSec = from.atimeSec;
  to.atimeNsec = from.atimeNsec;
  to.mtimeSec = from.mtimeSec;
  to.mtimeNsec = from.mtimeNsec;
  to.ctimeSec = from.ctimeSec;
  to.ctimeNsec = from.ctimeNsec;
  to.btimeSec = from.btimeSec;
  to.btimeNsec = from.btimeNsec;
  to.contentPrint = from.contentPrint;
}

/** Of two times, each in seconds and nanoseconds. */
export function isLater(sec: number, nsec: number, thanSec: number, thanNsec: number): boolean {
  return sec > thanSec || (sec === thanSec && nsec > thanNsec);
}

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;

/** Both halves of a device's number in one. */
export function deviceOf({ devMajor, devMinor }: Stat): number {
  return devMajor * 0x100000 + devMinor;
}

export function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function isRegular(mode: number): boolean {
  return (mode & S_IFMT) === S_IFREG;
}

export function isSymlink(mode: number): boolean {
  return (mode & S_IFMT) === S_IFLNK;
}

/** A whiteout in device form, as overlayfs writes it: a character device 0:0. */
export function isWhiteoutDevice(stat: Stat): boolean {
  return (stat.mode & S_IFMT) === S_IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0;
}

/**
 * The same number, for what is kept many times: put together from two words it lies apart, in 16 bytes more, and so it
 * does from then on in every object of that shape. A small one then lies in the object itself.
 */
export function inPlace(number: number): number {
  const small = number | 0;
  return small === number ? small : number;
}
