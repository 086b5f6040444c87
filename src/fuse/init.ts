// Negotiation: from what the kernel offers and what the mount wishes to what holds. Pure. What is not offered
// is not used; a kernel older than 7.31 (Linux 5.4) is refused, for its structs are shorter.
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { type InitFlag, initFlags } from './constants.ts';
import { KERNEL_MAJOR, KERNEL_MINOR, type StructOf } from './protocol.ts';

const OLDEST_MINOR = 31;
const PAGE = 4096;
/** The longest READ or WRITE, and what the kernel allows unless its administrator raised it. */
export const MAX_IO = 256 * PAGE;
/** Requests that the kernel may have under way on its own account (read-ahead, write-back). */
const MAX_BACKGROUND = 64;
const CONGESTION = 48;

export interface InitWishes {
  /** Locks of fcntl and of flock come as GETLK, SETLK and SETLKW; else the kernel keeps them itself, by inode. */
  locks: boolean;
  /** The server clears set-id bits on write, truncate and chown (HANDLE_KILLPRIV_V2). */
  killPriv: boolean;
  /** Lookups of "." and ".." find nodes that the kernel has forgotten. */
  exportSupport: boolean;
  /** auto: the kernel asks for it where it expects use of the attributes. */
  readdirplus: 'off' | 'auto' | 'always';
  /** How deep backing files of passthrough may be stacked: 1, or 2 where they lie on overlayfs; 0: no passthrough. */
  backingDepth: number;
}

export const defaultWishes: InitWishes = {
  locks: false,
  killPriv: false,
  exportSupport: false,
  readdirplus: 'off',
  backingDepth: 0,
};

/** What holds for this mount; plain data. */
export interface Negotiated {
  kernelMinor: number;
  /** The smaller one of the kernel's and ours. */
  minor: number;
  maxWrite: number;
  maxReadahead: number;
  maxBackground: number;
  /** What the kernel can, used or not (HAS_EXPIRE_ONLY, HAS_RESEND need no asking). */
  offers: Record<InitFlag, boolean>;
  uses: Record<InitFlag, boolean>;
}

const names = Object.keys(initFlags) as InitFlag[];

/** `init` with flags2 = 0 where the message has none. Throws FsError (EPROTO) for a kernel that will not do. */
export function negotiate(
  init: Readonly<StructOf<'init_in'>>,
  wishes: InitWishes,
): { out: StructOf<'init_out'>; negotiated: Negotiated } {
  if (init.major !== KERNEL_MAJOR || init.minor < OLDEST_MINOR) {
    throw new FsError(
      E.EPROTO,
      `the kernel speaks FUSE ${init.major}.${init.minor}, and ${KERNEL_MAJOR}.${OLDEST_MINOR} (Linux 5.4) is the oldest that will do`,
    );
  }
  const offers = offeredBy(init);
  const wanted = new Set(wantedBy(wishes));
  // Only with passthrough one object can be two inodes.
  if (!offers.PASSTHROUGH) for (const name of ['POSIX_LOCKS', 'FLOCK_LOCKS'] as const) wanted.delete(name);
  const uses = record((name) => wanted.has(name) && offers[name]);
  const negotiated: Negotiated = {
    kernelMinor: init.minor,
    minor: Math.min(init.minor, KERNEL_MINOR),
    maxWrite: uses.MAX_PAGES ? MAX_IO : 32 * PAGE,
    maxReadahead: init.maxReadahead,
    maxBackground: MAX_BACKGROUND,
    offers,
    uses,
  };
  return { out: answerOf(negotiated, wishes), negotiated };
}

function offeredBy(init: Readonly<StructOf<'init_in'>>): Record<InitFlag, boolean> {
  const extended = bit(init.flags, initFlags.INIT_EXT);
  return record((name) => {
    const n = initFlags[name];
    return n < 32 ? bit(init.flags, n) : extended && bit(init.flags2, n - 32);
  });
}

function wantedBy(wishes: InitWishes): InitFlag[] {
  const wanted: InitFlag[] = [
    'ASYNC_READ',
    'ATOMIC_O_TRUNC',
    'BIG_WRITES',
    'DONT_MASK',
    'AUTO_INVAL_DATA',
    'PARALLEL_DIROPS',
    'MAX_PAGES',
    'POSIX_ACL',
    'ABORT_ERROR',
    'SETXATTR_EXT',
    'INIT_EXT',
    'CREATE_SUPP_GROUP',
    'CACHE_SYMLINKS',
    // For what is opened while the kernel takes it to have another size.
    'DIRECT_IO_ALLOW_MMAP',
  ];
  if (wishes.locks) wanted.push('POSIX_LOCKS', 'FLOCK_LOCKS');
  if (wishes.killPriv) wanted.push('HANDLE_KILLPRIV_V2');
  if (wishes.exportSupport) wanted.push('EXPORT_SUPPORT');
  if (wishes.readdirplus !== 'off') wanted.push('DO_READDIRPLUS');
  if (wishes.readdirplus === 'auto') wanted.push('READDIRPLUS_AUTO');
  // Excludes WRITEBACK_CACHE, which is not asked for.
  if (wishes.backingDepth > 0) wanted.push('PASSTHROUGH');
  return wanted;
}

function answerOf(negotiated: Negotiated, wishes: InitWishes): StructOf<'init_out'> {
  let flags = 0;
  let flags2 = 0;
  for (const name of names) {
    if (!negotiated.uses[name]) continue;
    const n = initFlags[name];
    if (n < 32) flags |= 1 << n;
    else flags2 |= 1 << (n - 32);
  }
  return {
    major: KERNEL_MAJOR,
    minor: negotiated.minor,
    maxReadahead: negotiated.maxReadahead,
    flags: flags >>> 0,
    maxBackground: negotiated.maxBackground,
    congestionThreshold: CONGESTION,
    maxWrite: negotiated.maxWrite,
    timeGran: 1,
    maxPages: negotiated.uses.MAX_PAGES ? MAX_IO / PAGE : 0,
    mapAlignment: 0,
    flags2: flags2 >>> 0,
    maxStackDepth: negotiated.uses.PASSTHROUGH ? wishes.backingDepth : 0,
    requestTimeout: 0,
  };
}

function bit(word: number, n: number): boolean {
  return ((word >>> n) & 1) === 1;
}

function record(value: (name: InitFlag) => boolean): Record<InitFlag, boolean> {
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<InitFlag, boolean>;
}
