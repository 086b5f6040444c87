// What stands in a branch for "this name is gone" and for "nothing of the layers beneath is seen in here", in each
// form that is read. Whatever asks whether a name is there asks here, so that listings, look-ups, origins and
// `check` agree. The rules, and who writes which form, are in native-notes/overlay-format.md.
import { joinPath } from '../lib/names.ts';
import { isRegular, isWhiteoutDevice, newStat, type Stat } from '../lib/stat.ts';
import { AT_SYMLINK_NOFOLLOW, DT_CHR, DT_REG, DT_UNKNOWN } from '../sys/constants.ts';
import { statx } from '../sys/stat.ts';
import { getxattr } from '../sys/xattr.ts';
import { isLetter } from './own-attribute.ts';

/** Whose whiteouts count in the layers of the base: those of overlayfs always, files named .wh.NAME if asked for. */
export type WhiteoutForm = 'overlayfs' | 'oci';

/** The forms that count in a branch. Plain data: it goes to other threads. */
export interface Marks {
  /** Attributes of a directory whose value `y` hides the layers beneath, and `x` announces whiteouts that are files. */
  readonly opaque: readonly string[];
  /** Attributes that make an empty file a whiteout, in a directory that announces such. */
  readonly whiteout: readonly string[];
  /** The same announcement where the directory is opaque as well. */
  readonly announced: string;
  /** Files named .wh.NAME are whiteouts of NAME. */
  readonly named: boolean;
}

const OF_FUSE_OVERLAYFS = 'user.fuseoverlayfs.opaque';

/** In a layer of the base: whoever made it, with rights or without. */
export function marksOfBase(form: WhiteoutForm): Marks {
  return {
    opaque: ['trusted.overlay.opaque', 'user.overlay.opaque', OF_FUSE_OVERLAYFS],
    whiteout: ['trusted.overlay.whiteout', 'user.overlay.whiteout'],
    announced: 'trusted.overlay.whiteouts',
    named: form === 'oci',
  };
}

/** In an overlay, whose attributes are of one kind. */
export function marksOfOverlay(prefix: 'trusted.' | 'user.'): Marks {
  return {
    opaque: [`${prefix}overlay.opaque`, OF_FUSE_OVERLAYFS],
    whiteout: [`${prefix}overlay.whiteout`],
    announced: `${prefix}overlay.whiteouts`,
    named: false,
  };
}

/**
 * fuse-overlayfs, aufs and OCI put an empty file of this name into an opaque directory. It is no more a thing of
 * the guest's than a whiteout is, so no guest may make one.
 */
export const OPAQUE_MARK = '.wh..wh..opq';
const NAMED = '.wh.';

const markStat = newStat();

/** Whether an object that was found under a name of an open directory stands for none. */
export function isWhiteout(marks: Marks, dirFd: number, name: string, stat: Stat): boolean {
  if (isWhiteoutDevice(stat)) return true;
  if (!isRegular(stat.mode)) return false;
  if (name.startsWith(NAMED) && (marks.named || (name === OPAQUE_MARK && stat.size === 0))) return true;
  if (stat.size !== 0) return false;
  const marked = marks.whiteout.some((attr) => typeof getxattr(dirFd, name, attr) !== 'number');
  return marked && announcesFiles(marks, dirFd);
}

/** Whether a file without content in this open directory may be a whiteout. */
export function announcesFiles(marks: Marks, dirFd: number): boolean {
  return hasMark(marks, dirFd, '', 'x') || typeof getxattr(dirFd, '', marks.announced) !== 'number';
}

/** Whether a whiteout that lies beside the name, and not under it, hides what the layers beneath have there. */
export function isNamedAway(marks: Marks, dirFd: number, name: string): boolean {
  return marks.named && statx(dirFd, NAMED + name, AT_SYMLINK_NOFOLLOW, markStat) === 0;
}

/** The name that a whiteout beside it takes away; null: it is none, or the mark of an opaque directory. */
export function takenName(marks: Marks, name: string): string | null {
  return marks.named && name.startsWith(NAMED) && name !== OPAQUE_MARK ? name.slice(NAMED.length) : null;
}

/** Whether a directory is opaque by itself. '' as name: the descriptor's own. */
export function isOpaque(marks: Marks, dirFd: number, name: string): boolean {
  if (hasMark(marks, dirFd, name, 'y')) return true;
  const error = statx(dirFd, joinPath(name, OPAQUE_MARK), AT_SYMLINK_NOFOLLOW, markStat);
  return error === 0 && isRegular(markStat.mode) && (marks.named || markStat.size === 0);
}

/** Whether a directory of a layer hides what the layers beneath have at its name. */
export function hidesBeneath(marks: Marks, dirFd: number, name: string): boolean {
  return isOpaque(marks, dirFd, name) || isNamedAway(marks, dirFd, name);
}

function hasMark(marks: Marks, dirFd: number, name: string, letter: 'x' | 'y'): boolean {
  return marks.opaque.some((attr) => isLetter(dirFd, name, attr, letter));
}

/** For listings, which know a name and its d_type alone: whether an entry stands for none. */
export function listsWhiteouts(marks: Marks, dirFd: number): (name: string, type: number) => boolean {
  const files = announcesFiles(marks, dirFd);
  return (name, type) => {
    const looked =
      type === DT_CHR || type === DT_UNKNOWN || ((files || name.startsWith(NAMED)) && type === DT_REG);
    if (!looked || statx(dirFd, name, AT_SYMLINK_NOFOLLOW, listStat) !== 0) return false;
    return isWhiteout(marks, dirFd, name, listStat);
  };
}

const listStat = newStat();
