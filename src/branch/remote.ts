// Which file systems are remote: others than this kernel change what lies there, and what it remembers of it is old.
import { fstatfs, newStatfs, statfs } from '../sys/file.ts';

/** File systems that somebody else may change without an event here, by their f_type. */
const REMOTE: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x517b, 'SMB'],
  [0x65735546, 'FUSE'],
  [0x01021997, '9p'],
  [0x00c36400, 'Ceph'],
  [0x5346414f, 'AFS'],
  [0x6b414653, 'AFS'],
  [0x73757245, 'Coda'],
  [0x7461636f, 'OCFS2'],
  [0x01161970, 'GFS2'],
  [0x0bd00bd0, 'Lustre'],
  [0x786f4256, 'vboxsf'],
  [0xbacbacbc, 'vmhgfs'],
  [0x00c0ffee, 'hostfs'],
]);

/** They refuse a lease, too, where the server has lent them nothing to pass on. */
const REFUSING: readonly (string | null)[] = ['NFS', 'CIFS', 'SMB2'];

const typeName = ({ type }: { type: number }): string | null => REMOTE.get(type >>> 0) ?? null;

/** The name of the remote file system that a path lies on; null: a local one. */
export function remoteType(path: string): string | null {
  const found = newStatfs();
  return statfs(path, found) < 0 ? null : typeName(found);
}

/** Whether a lease that is refused says nothing of writers. */
export function refusesLeases(fd: number): boolean {
  const found = newStatfs();
  return fstatfs(fd, found) === 0 && REFUSING.includes(typeName(found));
}
