// Inode numbers of a layer. A file system that consists of several parts (subvolumes of btrfs, whatever overlayfs
// unites) numbers each of them anew, and only st_dev tells equal numbers apart. A guest sees one file system, so
// those of all parts but the root's are moved to where no other part's are likely to be.
import { newStat, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, DT_DIR } from '../sys/constants.ts';
import { fstatfs, newStatfs } from '../sys/file.ts';
import { fstat, statx } from '../sys/stat.ts';

/** Numbers have so many bits, in a branch; those beyond are folded, and that two then meet is very unlikely. */
export const NUMBERS = 2 ** 48;

/** Which objects of a file system may be of another part than the directory that they lie in. */
export type Parts = 'none' | 'directories' | 'all';

const partsOfTypes = new Map<number, Parts>([
  [0x9123683e, 'directories'], // btrfs
  [0xca451a4e, 'directories'], // bcachefs
  [0x794c7630, 'all'], // overlayfs
]);

export function partsOf(rootFd: number): Parts {
  const statfs = newStatfs();
  return fstatfs(rootFd, statfs) < 0 ? 'none' : (partsOfTypes.get(statfs.type) ?? 'none');
}

/** What tells the parts of a layer from each other: its root's device. */
export interface Numbering {
  readonly devMajor: number;
  readonly devMinor: number;
  readonly parts: Parts;
}

function layerIno(layer: Numbering, stat: Stat): number {
  return (stat.ino + shiftOf(layer, stat)) % NUMBERS;
}

/** The number that tells an object from all others of its branch; -1 as layer is the overlay. */
export function branchIno(layers: readonly Numbering[], layer: number, stat: Stat): number {
  return layer < 0 ? stat.ino : layerIno(layers[layer] as Numbering, stat);
}

function shiftOf(layer: Numbering, stat: Stat): number {
  if (stat.devMinor === layer.devMinor && stat.devMajor === layer.devMajor) return 0;
  // A subvolume's id outlasts the mount; device numbers are given out in the order of use.
  const key = stat.subvol !== 0 ? stat.subvol : stat.devMajor * 2 ** 20 + stat.devMinor;
  const high = Math.imul(key ^ 0x5bd1e995, 0x9e3779b1) >>> 0;
  const low = Math.imul(high ^ (high >>> 15), 0x85ebca6b) >>> 16;
  return high * 2 ** 16 + low;
}

const dirStat = newStat();
const entryStat = newStat();

/** The numbers of what a listing of an open directory tells of, as a look-up would find them. */
export function listedInos(
  layer: Numbering,
  dirFd: number,
): (name: string, ino: number, type: number) => number {
  if (layer.parts === 'none' || fstat(dirFd, dirStat) < 0) return (_, ino) => ino % NUMBERS;
  const shift = shiftOf(layer, dirStat);
  return (name, ino, type) => {
    const looked = layer.parts === 'all' || type === DT_DIR;
    const known = looked && statx(dirFd, name, AT_SYMLINK_NOFOLLOW, entryStat) === 0;
    return known ? layerIno(layer, entryStat) : (ino + shift) % NUMBERS;
  };
}
