// What a mount is asked to be: the plain data that the command line makes and the daemon takes. Paths are
// absolute host paths, latin1.

/** auto: from what the base lies on. */
export type Coherence =
  | { mode: 'auto' }
  | { mode: 'check' }
  | { mode: 'notify' }
  | { mode: 'ttl'; seconds: number };

/** What tells of changes of the base, with notify. auto: inotify, past so many watches (null: see the manual) fanotify. */
export type WatchWish = { by: 'auto'; at: number | null } | { by: 'inotify' } | { by: 'fanotify' };

export interface MountOptions {
  /** Topmost first. */
  bases: string[];
  overlay: string;
  mountPoint: string;
  /** Directory of Kasane's state; null: OVERLAY/.kasane. Same file system as the overlay. */
  state: string | null;
  coherence: Coherence;
  watch: WatchWish;
  /** How long a base must have been still before it is merged, in milliseconds. */
  settleMs: number;
  /** Handles that survive a restart, for an NFS server. */
  export: 'off' | 'on' | 'nfs4';
  /** No syncs at publication. */
  volatile: boolean;
  metacopy: boolean;
  redirectDir: boolean;
  /** Whose whiteouts count in the layers of the base. */
  whiteouts: 'overlayfs' | 'oci';
  /** Largest file that is copied up, in bytes; null: no limit. */
  copyUpLimit: number | null;
  transport: 'direct' | 'fuse-native';
  /** low: processors are kept awake while requests follow each other closely; auto: where that pays. */
  cpuLatency: 'auto' | 'low' | 'off';
  policy: string | null;
  /** Log file; null: syslog, or stderr in the foreground. */
  log: string | null;
  foreground: boolean;
  debug: boolean;
  readOnly: boolean;
  suid: boolean;
  dev: boolean;
  exec: boolean;
  atime: boolean;
  /** Let other users in; null: as root yes, else no. */
  allowOther: boolean | null;
  /** First column of df and mountinfo. */
  fsname: string;
}

/** What holds where nothing is said; the paths are empty. A new object each time. */
export function defaultMountOptions(): MountOptions {
  return {
    bases: [],
    overlay: '',
    mountPoint: '',
    state: null,
    coherence: { mode: 'auto' },
    watch: { by: 'auto', at: null },
    settleMs: 2000,
    export: 'off',
    volatile: false,
    metacopy: true,
    redirectDir: true,
    whiteouts: 'overlayfs',
    copyUpLimit: null,
    transport: 'direct',
    cpuLatency: 'auto',
    policy: null,
    log: null,
    foreground: false,
    debug: false,
    readOnly: false,
    suid: false,
    dev: false,
    exec: true,
    atime: true,
    allowOther: null,
    fsname: 'kasane',
  };
}

/** Descriptor on which the daemon says that it serves. */
export const READY_FD = 3;

/** What the daemon tells the command that started it, as one line of JSON, once. */
export type ReadyMessage =
  | { ready: true; notes: string[] }
  | { ready: false; errno: number; message: string };

/**
 * Runs a mount (daemon/session.ts). It calls `ready` once with `ready: true` when the mount serves, and ends the
 * process when the mount is gone. Before that it fails by rejecting with FsError. Lines of log go to the open descriptor
 * `logFd` (2, or that of --log FILE).
 */
export type RunDaemon = (
  options: MountOptions,
  ready: (message: ReadyMessage) => void,
  logFd: number,
) => Promise<never>;
