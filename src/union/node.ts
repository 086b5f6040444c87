// Nodes: what the kernel knows by a NodeId. A directory is identified by its place in the tree, anything else
// by the object it shows (branch and inode number), so that hard links share one node and one page cache.
import type { Stat } from '../lib/stat.ts';
import type { Origin } from '../versions/origin.ts';

/** What the kernel calls a nodeid; never reused within an overlay. */
export type NodeId = number & { readonly brand: 'NodeId' };

export const ROOT_ID = 1 as NodeId;

/** One layer of the base that contributes to a directory. `fd` is -1 while it is not open. */
export interface DirPart {
  layer: number;
  /** Path inside the layer. */
  path: string;
  ino: number;
  fd: number;
}

export interface DirState {
  children: Map<string, Node>;
  /** O_PATH descriptor of the overlay's directory; -1 while it is not open. */
  overlayFd: number;
  hasOverlay: boolean;
  /** Of the overlay's directory: its inode number and the ctime at which opaque and redirect were read. */
  overlayIno: number;
  ctimeSec: number;
  ctimeNsec: number;
  /** The overlay's directory hides the base's names (not their origins): by itself, or for one above does. */
  opaque: boolean;
  ownOpaque: boolean;
  /** It shows what the base has elsewhere, as overlayfs writes it; null: at the same place. */
  redirect: string | null;
  /** What of the base lies at this path, also under an opaque directory: origins need it. */
  parts: DirPart[];
  /** Grows when the guest changes the listing. */
  version: number;
}

/** What came of the last look at a stale path. It holds until either side moves, or its time has come. */
export interface Verdict {
  /** 0: it holds for its time, whatever the sides. */
  overlayIno: number;
  overlayCtimeSec: number;
  overlayCtimeNsec: number;
  /** Hash of the base's fingerprint; '' where it had nothing. */
  fingerprint: string;
  /** Milliseconds after which it is to be looked at again; Infinity: when a side moves. */
  retryMs: number;
  /** Or once nobody has it open for writing. */
  writer: boolean;
}

export interface Name {
  parent: Node;
  name: string;
}

/** The origins of an overlay object, valid while its ctime is the one given. */
export interface OriginCache {
  ctimeSec: number;
  ctimeNsec: number;
  list: Origin[];
  /** st_ino that the object shows because it was copied up; 0: its own. */
  ino: number;
}

/** What was last found when an overlay object was compared with the base; valid while neither stat moves. */
export interface Compared {
  overlayCtimeSec: number;
  overlayCtimeNsec: number;
  baseCtimeSec: number;
  baseCtimeNsec: number;
  baseMtimeSec: number;
  baseMtimeNsec: number;
  baseIno: number;
  baseSize: number;
  /** 0 where the base has nothing. */
  baseMode: number;
  stale: boolean;
  /** Hash of the base's fingerprint, '' where it has nothing. */
  fingerprint: string;
}

export interface Node {
  /** 0 until it has its first place. */
  id: NodeId;
  /** File type bits of st_mode. */
  type: number;
  /** References that the kernel holds, by replies that carried this node, and those of who works with it here. */
  lookups: number;
  /** Places in the tree; the first is the one used to reach the object. Empty when it has been removed. */
  names: Name[];
  /** Null when it is no directory. */
  dir: DirState | null;
  /** Index of the base layer that answers for a non-directory; -1: the overlay. */
  layer: number;
  /** Inode number of the object in its branch, and its birth time, which tells a reused number. */
  ino: number;
  btimeSec: number;
  btimeNsec: number;
  handles: Set<Handle>;
  /** Everything written so far is on the disk, so that a rename over a name of the base needs no sync. */
  dataSynced: boolean;
  origins: OriginCache | null;
  compared: Compared | null;
  /** The object was removed or replaced while it was open; reached by this descriptor alone, else -1. */
  orphanFd: number;
  /** ctime and size at the last OPEN: the kernel's pages are still right when they are the same at the next. */
  cachedAt: { ino: number; ctimeSec: number; ctimeNsec: number; size: number } | null;
  /** The copy-up that is under way, so that requests that change this node wait for it. */
  busy: PendingWork | null;
}

/** Work that a request waits for. The front end parks requests on it. */
export interface PendingWork {
  readonly id: number;
  /** What it is for, in the log. */
  readonly kind: string;
  /** 0 or more: done; negative errno: failed; undefined while it runs. */
  result: number | undefined;
  /** Called once when the result is there, in the order of asking. */
  waiting: ((result: number) => void)[];
}

export type HandleId = number & { readonly brand: 'HandleId' };

export interface Handle {
  readonly id: HandleId;
  readonly node: Node;
  fd: number;
  /** Open flags as given by the kernel. */
  readonly flags: number;
  readonly writable: boolean;
  /** Index of the base layer the descriptor belongs to; -1: the overlay. */
  layer: number;
}

/** The four states of a name. */
export const NONE = 0;
export const IN_BASE = 1;
export const IN_OVERLAY = 2;
export const WHITEOUT = 3;

/** Result of resolving a name; one object is reused by all look-ups of a thread. */
export interface Found {
  state: typeof NONE | typeof IN_BASE | typeof IN_OVERLAY | typeof WHITEOUT;
  /** Of the object that answers: the overlay's (also a whiteout's) or the base's. */
  stat: Stat;
  /** The base has the name (seen or hidden); `baseStat` tells of the topmost, which lies in parts[part]. */
  inBase: boolean;
  part: number;
  baseStat: Stat;
}
