// Nodes: what the kernel knows by a NodeId. A directory is identified by its place in the tree, anything else
// by the object it shows (branch and inode number), so that hard links share one node and one page cache.
import type { Metacopy } from '../branch/metacopy.ts';
import type { Fingerprint } from '../lib/fingerprint.ts';
import type { Stat } from '../lib/stat.ts';
import type { Origin } from '../versions/origin.ts';
import type { Reader, Seen } from './seen.ts';

/** What the kernel calls a nodeid; never reused within an overlay. */
export type NodeId = number & { readonly brand: 'NodeId' };

export const ROOT_ID = 1 as NodeId;

/**
 * A number that equals none. No small integer stands for it in fields that come to hold large ones: the first of those
 * would change the layout of every object of that shape, and V8 would throw away what it has compiled for them.
 */
export const NO_NUMBER = Number.NaN;

/** One layer of the base that contributes to a directory. `fd` is -1 while it is not open. */
export interface DirPart {
  layer: number;
  /** Path inside the layer. */
  path: string;
  ino: number;
  fd: number;
  /** Number of the watch on its directory; -1: it is not watched. */
  watch: number;
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
  /** Inode number of the overlay's directory that is known to be marked as one that whiteouts lie in; NO_NUMBER: none. */
  whiteoutsIn: number;
  /** The overlay's directory hides the base's names (not their origins): by itself, or for one above does. */
  opaque: boolean;
  ownOpaque: boolean;
  /** It shows what the base has elsewhere, as overlayfs writes it; null: at the same place. */
  redirect: string | null;
  /** Where the base as a whole has it (its layers may have it elsewhere); of use where there are parts. */
  basePath: string;
  /** What of the base lies at this path, also under an opaque directory: origins need it. */
  parts: DirPart[];
  /** Every part is watched. */
  watched: boolean;
  /** While it is watched: the base's directory holds no directories. */
  flat: boolean;
  /** The state of the base's directories at which nothing was left of what they removed; NO_NUMBER: not looked yet. */
  lookedInto: number;
  /** It, or one above it, shows by a redirect what the base has elsewhere: what happens above that is not watched. */
  elsewhere: boolean;
  /** Names that the kernel may know not to exist, and until when; null: none. */
  absent: Map<string, number> | null;
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

/** An opening of a node that was noted (note-seen.ts); valid while the node shows what it showed then, at that place. */
export interface Noted {
  reader: Reader;
  version: Seen;
  /** By identity: what tells of the version. */
  shows: object;
  place: Name;
  /** In the base, of its directory. */
  dirPath: string;
}

/** The origins of an overlay object, valid while its ctime is the one given, or none has been written since. */
export interface OriginCache {
  ctimeSec: number;
  ctimeNsec: number;
  /** The union's count of origins that had been written. */
  written: number;
  list: readonly Origin[];
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
  /** contentPrint of its stat. */
  baseContent: string;
  /** 0 where the base has nothing. */
  baseMode: number;
  stale: boolean;
  /** The base is another version than the origin's, for certain. */
  moved: boolean;
  /** Hash of the base's fingerprint, '' where it has nothing. */
  fingerprint: string;
}

/** A fingerprint and its hash. */
export interface Print {
  of: Fingerprint;
  hash: string;
}

/** What has been found out of the object that a node shows; it goes when the node shows another one. */
export interface Learned {
  origins: OriginCache | null;
  compared: Compared | null;
  /** The fingerprint that was last taken of it, as a base object. */
  print: Print | null;
  /** The last of its openings. */
  noted: Noted | null;
  /** Of an overlay's file: what it says of its content; null: that is its own; undefined: not asked yet. */
  metacopy: Metacopy | null | undefined;
  /** Inode number of the content that such a copy was last seen with; 0: none yet. */
  contentIno: number;
  /** It lies beneath a file of the base that is such a copy itself. */
  contentBeneath: boolean;
}

export interface Node {
  /** 0 until it has its first place. */
  id: NodeId;
  /** File type bits of st_mode. */
  type: number;
  /** References that the kernel holds, by replies that carried this node, and those of who works with it here. */
  lookups: number;
  /** Its place in the tree, by which the object is reached; null when that has been removed. */
  place: Name | null;
  /** Further ones, of a hard link. Only the table changes them: all other nodes share a list that is empty. */
  others: readonly Name[];
  /** Null when it is no directory. */
  dir: DirState | null;
  /** Index of the base layer that answers for a non-directory; -1: the overlay. */
  layer: number;
  /** Inode number of the object in its branch, and its birth time, which tells a reused number. */
  ino: number;
  btimeSec: number;
  btimeNsec: number;
  /** Only the table changes it: nodes that nobody has open share one that is empty. */
  handles: ReadonlySet<Handle>;
  /** The kernel reads and writes the open files of this node by itself; null: by way of us. See passthrough.ts. */
  backing: Backing | null;
  /** Locks of guests on what it shows; null: none so far, or the kernel keeps them. */
  locks: FileLocks | null;
  /** It was open for reading and writing past us: a shared map may live on, and write, after its RELEASE. */
  mayBeMapped: boolean;
  /** The node that has what this one showed, which kept only its open files, with the bytes of before the copy-up. */
  successor: Node | null;
  /** Everything written so far is on the disk, so that a rename over a name of the base needs no sync. */
  dataSynced: boolean;
  /** null: nothing yet, as of most. */
  learned: Learned | null;
  /** The object was removed or replaced while it was open; reached by this descriptor alone, else -1. */
  orphanFd: number;
  /** Content of a copy of metadata alone that has no name any more; else -1. */
  dataFd: number;
  /**
   * ctime and size at the last OPEN: the kernel's pages are still right when they are the same at the next. null: what
   * pages it has is not known; undefined: it has none, for nobody has ever opened it.
   */
  cachedAt: { ino: number; ctimeSec: number; ctimeNsec: number; size: number } | null | undefined;
  /**
   * The size that the kernel has been told since its attributes were taken back, and may have dropped while `revokedIn`
   * is not 0; below 0: none, or one of several (kernel-view.ts).
   */
  toldSize: number;
  /** The size that was answered last, whatever has been taken back since; below 0: none. */
  answeredSize: number;
  /** Number of the notifications that took its attributes back; 0: the kernel has been told them since, for certain. */
  revokedIn: number;
  /** Watch on the base's file, where that has several names; -1: none. */
  watch: number;
  /** Number of the notifications that say its content is another; 0: the kernel knows what there is to know. */
  toldIn: number;
  /** When a look-up was last answered with it, in seconds since the start; far below 0: never. */
  answeredAt: number;
  /** The copy-up that is under way, so that requests that change this node wait for it. */
  busy: PendingWork | null;
}

/** What the kernel has been given for the data of a node. It stays the same from the first open to the last close. */
export interface Backing {
  id: number;
  /** Where the file lies: index of the base layer, -1: the overlay. And what it was then. */
  layer: number;
  size: number;
  ctimeSec: number;
  ctimeNsec: number;
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
  /** Of a file that is open past us: for reading only, however the kernel has it open. */
  fd: number;
  /** The kernel has the data by itself. */
  readonly through: boolean;
  /** Where `through`, but reads and writes come to us: newHandle tells why. */
  direct: boolean;
  /** Where `through`: opened when something is to be written by us; else -1. */
  writeFd: number;
  /** Open flags as given by the kernel. */
  readonly flags: number;
  readonly writable: boolean;
  /** Index of the base layer the descriptor belongs to; -1: the overlay. */
  layer: number;
}

/** A lock of a guest's, held or asked for. */
export interface Lock {
  flock: boolean;
  /** As the kernel names it. */
  owner: string;
  /** The open file by which it was asked for: what is closed for good holds nothing. */
  handle: Handle;
  /** F_RDLCK, F_WRLCK or F_UNLCK. */
  type: number;
  /** Bytes, the last one included. */
  start: number;
  end: number;
  pid: number;
}

/** One that is waited for. */
export interface LockWaiter {
  lock: Lock;
  locks: FileLocks;
  /** Called once, when it holds. */
  granted(): void;
}

export interface FileLocks {
  held: Lock[];
  /** In the order of asking. */
  waiting: LockWaiter[];
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
  /** What it is about; null: a look failed. */
  parent: Node | null;
  name: string;
  /** performance.now() of the look. */
  lookedAt: number;
  /** The directory's version for which it may be used once more (lookup.ts, `findAgain`); -1: for none. */
  goodFor: number;
  /** Origins of what lies in the overlay, where they are known already. */
  origins: readonly Origin[] | null;
}

/**
 * How many names in a directory of the overlay lie where the base has a directory; valid while both are those, and the
 * base's has not changed (directory-links.ts).
 */
export interface Covered {
  readonly overlayIno: number;
  readonly ino: number;
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  names: number;
}

/** All places in the tree, as they are now. */
export function placesOf({ place, others }: Node): Name[] {
  return place === null ? [] : [place, ...others];
}

/** Where to write down what is found out. */
export function learn(node: Node): Learned {
  node.learned ??= {
    origins: null,
    compared: null,
    print: null,
    noted: null,
    metacopy: undefined,
    contentIno: 0,
    contentBeneath: false,
  };
  return node.learned;
}

export function isOpenForWriting(node: Node): boolean {
  for (const { writable } of node.handles) if (writable) return true;
  return false;
}

/** The node whose attributes a node has. */
export function livingNode(node: Node): Node {
  let living = node;
  while (living.successor !== null) living = living.successor;
  return living;
}
