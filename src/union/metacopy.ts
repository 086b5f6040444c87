// Copies of metadata alone, as overlayfs makes them (metacopy=on): a file without blocks that carries an
// attribute, its content being the base's. Kasane makes none, and cannot show their content yet: it refuses to
// open them rather than give zeros for bytes.
import { E } from '../lib/errno.ts';
import { isRegular, type Stat } from '../lib/stat.ts';
import { getxattr } from '../sys/xattr.ts';
import type { Union } from './union.ts';

/** 0, or -EIO for an overlay file (by descriptor, or by directory and name) whose content is not there. */
export function refuseMetacopy(union: Union, dirFd: number, name: string, stat: Stat): number {
  // Whatever has been written has blocks; only a file that is all hole asks for a closer look.
  if (!isRegular(stat.mode) || stat.size === 0 || stat.blocks !== 0) return 0;
  if (typeof getxattr(dirFd, name, union.overlay.metacopy) === 'number') return 0;
  union.host.log.error(
    `${name || 'an open file'}: a copy of metadata alone (metacopy), whose content is not shown`,
  );
  return -E.EIO;
}
