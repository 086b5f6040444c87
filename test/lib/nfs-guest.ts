// A guest with the kernel's own NFS server and client, which this machine's kernel need not have: the server gives out
// /run/disk, a file system on a disk of its own, and what is mounted there.
import { mainFile } from './kasane.ts';
import type { Needs } from './needs.ts';
import { runOk } from './run.ts';
import { withTemp } from './temp.ts';
import { type Shell, umlBarred, withHostGuest } from './uml.ts';

export const nfsGuestNeeds: Needs = {
  barred: umlBarred,
  root: true,
  commands: ['linux.uml', 'mke2fs', 'modprobe', 'rpcbind', 'rpc.nfsd', 'rpc.mountd', 'exportfs', 'mount.nfs'],
};

/** Without leases the server delegates nothing: clients hear of no change, as of a server that knows no delegations. */
const setUp = `
  modprobe -d /run/kernel -a nfsd nfsv3 nfsv4 fuse
  mount -t nfsd nfsd /proc/fs/nfsd
  mount -t fusectl fusectl /sys/fs/fuse/connections
  mkdir -p /run/rpc_pipefs /run/disk
  mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
  mount -t tmpfs nfs /var/lib/nfs
  mkdir -p /var/lib/nfs/{sm,v4recovery}
  touch /var/lib/nfs/{etab,rmtab,state}
  mount /dev/ubda /run/disk
  echo 0 > /proc/sys/fs/leases-enable
  rpcbind -w
  exportfs -o rw,no_root_squash,no_subtree_check,insecure,fsid=0 127.0.0.1:/run/disk
  rpc.nfsd -G 10 -L 10 2
  rpc.mountd
`;

/** Before each script: the program, and a mount by one of the two versions of the protocol. */
const prelude = (program: string) => `
  kasane() { KASANE_LOOK_LIMIT_MS=60000 ${program} "$@"; }
  nfs() {
    mkdir -p "$3"
    case $1 in
    3) mount -t nfs -o "vers=3,nolock,mountaddr=127.0.0.1$4" "127.0.0.1:/run/disk$2" "$3" ;;
    4) mount -t nfs -o "vers=4.2$4" "127.0.0.1:/$2" "$3" ;;
    esac
  }
`;

/** `make` fills the directory that the disk is made of. */
export function withNfsGuest<T>(
  make: (tree: string) => Promise<unknown>,
  body: (guest: Shell) => Promise<T>,
): Promise<T> {
  return withTemp('disk', async (dir) => {
    await runOk('mkdir', [`${dir}/tree`]);
    await make(`${dir}/tree`);
    await runOk('mke2fs', ['-q', '-t', 'ext4', '-d', `${dir}/tree`, `${dir}/disk`, '64M']);
    return withHostGuest(dir, [`${dir}/disk`], async (guest) => {
      await guest.sh(setUp);
      const before = prelude(`${process.execPath} ${mainFile}`);
      return body({ sh: (script, args) => guest.sh(before + script, args) });
    });
  });
}
