// How many links a directory has that overlay and base make up together: two, and one for each directory in it. Both
// branches count their own; the names that the overlay has where the base has a directory count once too often. These
// are counted when the directory is first met, and from then on kept true, so that no change has the names read again.
// A count that is too low makes find(1) and others skip directories, so where there is any doubt it is 1, for "not
// known", as in overlayfs.
import { statAt } from '../branch/base.ts';
import { readBeneath } from '../branch/listing.ts';
import { isDirectory, newStat, type Stat } from '../lib/stat.ts';
import { fstat } from '../sys/stat.ts';
import { overlayDirFd, partFd } from './dir-fds.ts';
import { type Covered, type Node, ROOT_ID } from './node.ts';
import { CONTROL_NAME } from './place.ts';
import type { Union } from './union.ts';

/** Directories whose covered names are remembered. Of others the names are not counted, as that would be done each time. */
const MOST = 10_000;
/** Of a larger directory of the overlay, in bytes, already the names would keep requests waiting. */
const LARGEST_DIRECTORY = 128 * 1024;
/** The clock of ctimes may stand still for so long, in milliseconds; where they have no nanoseconds, for the second. */
const TICK_MS = 20;
const SECOND_MS = 2000;

const baseStat = newStat();
const nameStat = newStat();

/** st_nlink of a directory to which several branches contribute; `stat` is of the overlay's, where that has one. */
export function mergedLinks(union: Union, node: Node, stat: Stat): number {
  const { dir } = node;
  const part = dir?.parts[0];
  if (!dir?.hasOverlay || part === undefined || dir.parts.length > 1 || stat.nlink < 2) return 1;
  if (union.overlay.isRemote || union.layers[part.layer]?.isRemote) return 1;
  // There its control directory is listed, too.
  if (node.id === ROOT_ID && union.table.identity !== null) return 1;
  if (dir.watched && dir.flat) return stat.nlink;
  const fd = partFd(union, node, part);
  if (fd < 0 || fstat(fd, baseStat) < 0 || baseStat.nlink < 2) return 1;
  const isFlat = baseStat.nlink === 2 && node.id !== ROOT_ID;
  dir.flat = dir.watched && isFlat;
  const covered = isFlat ? 0 : coveredIn(union, node, stat, fd);
  return covered < 0 ? 1 : Math.max(1, stat.nlink + baseStat.nlink - 2 - covered);
}

/** How many links of the two branches count once too often, or lead to what no guest sees; -1: not known. */
function coveredIn(union: Union, node: Node, stat: Stat, fd: number): number {
  const known = union.covered.get(node);
  if (known !== undefined && stands(known, stat, baseStat)) return known.names;
  union.covered.delete(node);
  if (stat.size > LARGEST_DIRECTORY || union.covered.size >= MOST) return -1;
  const names = countCovered(union, node, fd);
  if (names < 0 || mayChangeUnseen(baseStat)) return names;
  const { ino, ctimeSec, ctimeNsec } = baseStat;
  union.covered.set(node, { overlayIno: stat.ino, ino, ctimeSec, ctimeNsec, names });
  return names;
}

function stands({ overlayIno, ino, ctimeSec, ctimeNsec }: Covered, overlay: Stat, base: Stat): boolean {
  const same = overlayIno === overlay.ino && ino === base.ino;
  return same && ctimeSec === base.ctimeSec && ctimeNsec === base.ctimeNsec;
}

/** What has just changed may change again without another ctime. */
function mayChangeUnseen({ ctimeSec, ctimeNsec }: Stat): boolean {
  const age = Date.now() - ctimeSec * 1000 - ctimeNsec / 1e6;
  return Math.abs(age) < (ctimeNsec === 0 ? SECOND_MS : TICK_MS);
}

function countCovered(union: Union, node: Node, fd: number): number {
  const overlayFd = overlayDirFd(union, node);
  if (overlayFd < 0) return -1;
  const isRoot = node.id === ROOT_ID;
  // What Kasane keeps beside the guest's files no guest sees, nor what the base has of that name.
  let covered = isRoot ? directoriesAt(overlayFd, CONTROL_NAME) + directoriesAt(fd, CONTROL_NAME) : 0;
  const error = readBeneath(overlayFd, (name) => {
    if (!isRoot || name !== CONTROL_NAME) covered += directoriesAt(fd, name);
  });
  return error < 0 ? error : covered;
}

function directoriesAt(dirFd: number, name: string): 0 | 1 {
  return statAt(dirFd, name, nameStat) === 0 && isDirectory(nameStat.mode) ? 1 : 0;
}

/** The overlay has got something where it had nothing, and the base has a directory. */
export function nameCovered({ covered }: Union, parent: Node): void {
  const known = covered.get(parent);
  if (known !== undefined) known.names += 1;
}
