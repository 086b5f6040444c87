// Configuration of an NFS server for a mount: NFS-Ganesha (FSAL_VFS) and, as a comment, a line of exports(5) for
// the kernel's server. Pure; what the host lacks is told by whoever asks.
import { hash128 } from '../lib/hash.ts';
import { escapeName } from '../lib/names.ts';

export interface NfsExport {
  mountPoint: string;
  /** All clients speak NFSv4: files are merged while they are in use. */
  nfs4Only: boolean;
  /** Sentences about what is missing on this host. */
  missing: readonly string[];
}

/** A number for the server's tables, the same for the same mount point: 16 bits, never 0. */
export function exportId(mountPoint: string): number {
  return 1 + (Number.parseInt(hash128(Buffer.from(mountPoint, 'latin1')).slice(0, 8), 16) % 65_534);
}

function quoted(path: string): string {
  return `"${path.replace(/["\\]/g, (c) => `\\${c}`)}"`;
}

/** When files are merged, for who may not know what his clients do. */
export function exportNote(nfs4Only: boolean): string {
  return nfs4Only
    ? 'exported: files are merged while they are in use, so all clients must speak NFSv4'
    : 'exported: files are merged at mount and by kasane reconcile only, for an NFSv3 client writes without opening';
}

export function nfsExportText({ mountPoint, nfs4Only, missing }: NfsExport): string {
  const path = escapeName(mountPoint);
  const id = exportId(mountPoint);
  const protocols = nfs4Only ? '4' : '3, 4';
  return `${[
    `# NFS export of ${path}, for NFS-Ganesha with FSAL_VFS (packages nfs-ganesha, nfs-ganesha-vfs, rpcbind).`,
    `# ${exportNote(nfs4Only)}`,
    '# The server holds the mount. When that ends (so, too, when the daemon does), before the next one is made end the',
    '# server, and start it afterwards; or let it go on, and have it let go of the mount:',
    '#   take the block EXPORT out of its configuration; kill -HUP SERVER; umount -l the dead mount, and mount anew;',
    '#   put the block back; kill -HUP SERVER. With one HUP alone it goes on with the dead mount. Clients go on.',
    ...missing.map((line) => `# Missing: ${line}`),
    `# For the kernel's server, a line of exports(5) instead:`,
    `#   ${path} CLIENT(rw,no_root_squash,no_subtree_check,fsid=${id})`,
    '# It, too, holds the mount, and lets go of a dead one by exportfs -f, once there is another. Clients go on.',
    'NFS_CORE_PARAM {',
    `  Protocols = ${protocols};`,
    '  Enable_RQUOTA = false;',
    ...(nfs4Only ? ['  Enable_NLM = false;', '  Enable_UDP = false;'] : []),
    '}',
    '# A file that no client has open is closed soon, for nothing is merged beneath a writer; and names that come and',
    '# go in the base are noticed.',
    'MDCACHE {',
    '  Dir_Chunk = 0;',
    '  FD_LWMark_Percent = 0;',
    '  LRU_Run_Interval = 2;',
    '}',
    'EXPORT {',
    `  Export_Id = ${id};`,
    `  Path = ${quoted(mountPoint)};`,
    `  Pseudo = ${quoted(mountPoint)};`,
    `  Filesystem_Id = ${id}.0;`,
    `  Protocols = ${protocols};`,
    '  Access_Type = RW;',
    '  Squash = No_Root_Squash;',
    '  SecType = sys;',
    '  # What the base changes is seen at once, and no file with the size of its version before.',
    '  Attr_Expiration_Time = 0;',
    '  FSAL {',
    '    Name = VFS;',
    '  }',
    '}',
  ].join('\n')}\n`;
}
