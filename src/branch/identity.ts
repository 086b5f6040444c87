// Identity of a branch: enough to see that a path names another tree than last time. It goes into every
// fingerprint, so that equal inode numbers and times in another file system are never taken for "not moved".
import * as fs from 'node:fs';
import { hash128 } from '../lib/hash.ts';
import type { Stat } from '../lib/stat.ts';
import { fstatfs, newStatfs } from '../sys/file.ts';

/** File systems that are made as images: two of them can differ in a byte and in nothing that stat or statfs tell. */
const imageTypes: readonly number[] = [
  0xe0f5e1e2, // EROFS
  0x73717368, // SquashFS
  0x28cd3d45, // cramfs
  0x9660, // ISO 9660
];

/**
 * 32 hexadecimal digits from the file system's type and id and the root's inode number. Device numbers stay
 * out: they change with the order of mounting.
 */
export function layerIdentity(rootFd: number, root: Stat): string {
  const statfs = newStatfs();
  const error = fstatfs(rootFd, statfs);
  const id = error < 0 ? 'unknown' : `${statfs.type} ${statfs.fsid}`;
  const born = `${root.btimeSec}.${root.btimeNsec}`;
  const image = error === 0 && imageTypes.includes(statfs.type) ? ` ${imageIdentity(root)}` : '';
  return hash128(Buffer.from(`${id} ${root.ino} ${born}${image}`, 'latin1'));
}

/** Of the file that a loop device shows; of another device, which disk it is in this boot; else good for one mount. */
function imageIdentity(root: Stat): string {
  const device = `/sys/dev/block/${root.devMajor}:${root.devMinor}`;
  const backing = readLine(`${device}/loop/backing_file`);
  const file = backing === null ? undefined : fs.statSync(backing, { bigint: true, throwIfNoEntry: false });
  if (file !== undefined) return `${file.ino} ${file.size} ${file.mtimeNs} ${file.ctimeNs}`;
  const boot = readLine('/proc/sys/kernel/random/boot_id') ?? '';
  return `${boot} ${readLine(`${device}/diskseq`) ?? `mount ${root.mntId}`}`;
}

function readLine(path: string): string | null {
  try {
    return fs.readFileSync(path, 'utf8').trimEnd();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return null;
    throw error;
  }
}

export interface OsRelease {
  id: string;
  versionId: string;
}

/** ID and VERSION_ID of an OS tree, or null when the tree has no os-release. */
export function readOsRelease(root: string): OsRelease | null {
  for (const name of ['etc/os-release', 'usr/lib/os-release']) {
    let text: string;
    try {
      const path = Buffer.from(`${root}/${name}`, 'latin1');
      if (!fs.lstatSync(path).isFile()) continue;
      text = fs.readFileSync(path, 'utf8');
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') continue;
      throw error;
    }
    const field = (key: string) => new RegExp(`^${key}=["']?([^"'\\n]*)["']?$`, 'm').exec(text)?.[1] ?? '';
    return { id: field('ID'), versionId: field('VERSION_ID') };
  }
  return null;
}
