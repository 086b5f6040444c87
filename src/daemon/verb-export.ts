// `export`: the configuration of an NFS server for this mount, and what the host lacks for it.
import * as fs from 'node:fs';
import type { ExportReport } from '../control/verbs.ts';
import { nfsExportText } from '../guest/nfs-export.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import type { MountContext } from './context.ts';

/** Refused (EOPNOTSUPP, EINVAL where nothing is mounted) for a mount whose handles do not survive. */
export async function exportConfig(context: MountContext): Promise<ExportReport> {
  const { export: how, mountPoint } = context.options;
  if (context.mounted === null) throw new FsError(E.ENOTCONN, 'not mounted: mount it with --export first');
  if (how === 'off') {
    throw new FsError(
      E.EOPNOTSUPP,
      'mounted without --export: its file handles would go stale; unmount it and mount it with --export',
    );
  }
  return { text: nfsExportText({ mountPoint, nfs4Only: how === 'nfs4', missing: missingOnHost() }) };
}

function missingOnHost(): string[] {
  const missing: string[] = [];
  const has = (path: string) => fs.existsSync(path);
  if (!has('/usr/bin/ganesha.nfsd') && !has('/usr/sbin/exportfs')) {
    missing.push('an NFS server: install nfs-ganesha and nfs-ganesha-vfs (or nfs-kernel-server)');
  }
  if (has('/usr/bin/ganesha.nfsd') && !has('/usr/lib/ganesha') && !has('/usr/lib/x86_64-linux-gnu/ganesha')) {
    missing.push('FSAL_VFS: install nfs-ganesha-vfs');
  }
  if (!has('/etc/netconfig')) missing.push('/etc/netconfig: install libtirpc-common');
  if (!has('/etc/protocols')) missing.push('/etc/protocols: install netbase');
  if (!has('/usr/sbin/rpcbind') && !has('/sbin/rpcbind')) missing.push('rpcbind, for NFSv3: install rpcbind');
  if (!has('/etc/mtab')) missing.push('/etc/mtab: ln -s /proc/self/mounts /etc/mtab');
  return missing;
}
