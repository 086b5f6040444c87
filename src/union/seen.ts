// Which version of a path of the base somebody has read through this mount (rule 2 of native-notes/versioning.md): an
// editor that read v1 and writes after the base moved to v2 must not count as having seen v2.
import { performance } from 'node:perf_hooks';
import { newStat } from '../lib/stat.ts';
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
import { mostOpenFiles } from '../sys/creds.ts';
import { close } from '../sys/file.ts';
import { statx } from '../sys/stat.ts';
import type { SeenLog, SeenRecord } from '../versions/seen-log.ts';
import type { Witness } from './witness.ts';

export interface Seen {
  /** Hash of the base's fingerprint at the time: the version's name. */
  fingerprint: string;
  /** Content hash; '' while nobody has read it. */
  content: string;
  /** Descriptor of the base's object, -1: it is not kept (the version came from an origin, or is long past). */
  fd: number;
  /** Of the descriptor's object, to tell whether its bytes are still those of this version. */
  witness: Witness | null;
  mode: number;
  uid: number;
  gid: number;
  /** Hash of its extended attributes. */
  xattrs: string;
  /** An update may be merged into what replaces it, so the next daemon is to know who has read it. */
  lasting: boolean;
  /** Order in which versions were first seen here. */
  order: number;
}

/** What a thread has opened of a path. */
export interface Reader {
  tid: number;
  readonly of: Path;
  /** The version of its last opening. */
  last: Seen;
  /**
   * The newest that its writing can be founded on. Its last opening alone may have been for a copy: vim reads
   * what it is about to overwrite once more, for the backup.
   */
  founded: Seen;
  /** It is known no more. */
  gone: boolean;
}

interface Path {
  versions: Seen[];
  /** Least recent first. */
  readers: Reader[];
  /** The newest that anybody has opened. */
  newest: Seen;
  /** It has been opened since it was last about to go. */
  used: boolean;
}

/** Versions whose descriptors are kept, at most, and no more than an eighth of what the process may open. */
const MOST_DESCRIPTORS = 300;
/** Paths of which it is known who has read what. */
const MOST_PATHS = 20_000;
/** This part of them goes at a time: to find the oldest entry of a Map takes as long as many have gone before it. */
const PART = 16;
/** Readers of a path above which those that have ended are forgotten, and those that live at last. */
const READERS = 32;
const MOST_READERS = 128;

const scratch = newStat();

/** Whether a thread lives; with `other`, whether that is one of the same process. */
function lives(tid: number, other = tid): boolean {
  return statx(AT_FDCWD, `/proc/${tid}/task/${other}`, AT_SYMLINK_NOFOLLOW, scratch) === 0;
}

/** For so long it is remembered which threads are one process, in milliseconds: no id of a thread comes back so soon. */
const KIN_MS = 500;

/** What a checkout asks of each file again: whether who reads and who writes are one process. /proc takes 5 µs to tell. */
class Kin {
  #since = 0;
  readonly #known = new Map<number, Map<number, boolean>>();

  /** Whether two threads, of which the first lives, are of one process. */
  are(tid: number, other: number): boolean {
    if (tid === other) return true;
    const now = performance.now();
    if (now - this.#since > KIN_MS) {
      this.#since = now;
      this.#known.clear();
    }
    let of = this.#known.get(tid);
    if (of === undefined) {
      of = new Map();
      this.#known.set(tid, of);
    }
    const known = of.get(other);
    if (known !== undefined) return known;
    const same = lives(tid, other);
    of.set(other, same);
    return same;
  }
}

export class SeenVersions {
  /** Least recently opened first, but for those that have been `used` since. */
  readonly #byPath = new Map<string, Path>();
  /** Those with a descriptor, oldest first. */
  readonly #kept = new Set<Seen>();
  #order = 0;
  readonly #kin = new Kin();
  readonly #mostKept = Math.min(Math.floor(mostOpenFiles() / 8), MOST_DESCRIPTORS);
  readonly #log: Pick<SeenLog, 'append'> | null;

  constructor(log: Pick<SeenLog, 'append'> | null = null) {
    this.#log = log;
  }

  /** Whether a version of this path is known; then `opened` needs no descriptor. */
  has(path: string, fingerprint: string): boolean {
    return this.#byPath.get(path)?.versions.some((one) => one.fingerprint === fingerprint) ?? false;
  }

  /**
   * Thread `tid` has opened a version for reading. The descriptor in `version` is given away. While what this returns
   * `stands`, that the thread opens the same version once more is no news.
   */
  opened(path: string, tid: number, version: Omit<Seen, 'order'>): Reader {
    const entry = this.#note(path, version);
    const known = entry.of;
    const isNews = noteReader(known, tid, entry.version);
    const reader = known.readers.at(-1) as Reader;
    if (isNews && entry.version.lasting && this.#log !== null) {
      const { fingerprint, content, mode, uid, gid, xattrs } = entry.version;
      this.#log.append({ path, tid, time: Date.now(), fingerprint, content, mode, uid, gid, xattrs });
    }
    return reader;
  }

  /** What the last daemon has known of somebody who still lives. The descriptor is given away. */
  restore({ path, tid, ...version }: SeenRecord, fd: number, witness: Witness | null): void {
    const entry = this.#note(path, { ...version, fd, witness, lasting: true });
    noteReader(entry.of, tid, entry.version);
  }

  #note(path: string, version: Omit<Seen, 'order'>): { of: Path; version: Seen } {
    let of = this.#byPath.get(path);
    let known = of?.versions.find((one) => one.fingerprint === version.fingerprint);
    if (known === undefined) {
      known = asSeen(version, this.#order++);
      of?.versions.push(known);
      if (known.fd >= 0) this.#kept.add(known);
    } else if (version.fd >= 0) {
      close(version.fd);
    }
    if (of === undefined) {
      of = { versions: [known], readers: [], newest: known, used: false };
      this.#byPath.set(path, of);
    } else {
      of.used = true;
      if (known.order > of.newest.order) of.newest = known;
    }
    if (this.#kept.size > this.#mostKept || this.#byPath.size > MOST_PATHS) this.#limit();
    return { of, version: known };
  }

  /**
   * The newest version that the writing process has opened; where that is unknown the newest that anybody
   * opened; null: nobody did.
   */
  of(path: string, tid: number): Seen | null {
    return this.by(path, tid) ?? this.#byPath.get(path)?.newest ?? null;
  }

  /** The newest version that the writing process has opened; null: none. */
  by(path: string, tid: number): Seen | null {
    const entry = this.#byPath.get(path);
    if (!entry) return null;
    const own = entry.readers.filter((one) => this.#kin.are(tid, one.tid));
    if (own.length === 0) return null;
    return own.map((one) => one.founded).reduce((a, b) => (b.order > a.order ? b : a));
  }

  /**
   * Whether `seen` was there before the version `fingerprint`. One that nobody has opened came by itself (a
   * merge, a copy-up), and so after what was seen.
   */
  isOlder(path: string, seen: Seen, fingerprint: string): boolean {
    if (seen.fingerprint === fingerprint) return false;
    const other = this.#byPath.get(path)?.versions.find((one) => one.fingerprint === fingerprint);
    return other === undefined || seen.order < other.order;
  }

  #limit(): void {
    const descriptors = this.#kept.size > this.#mostKept ? this.#mostKept / PART : 0;
    let count = 0;
    for (const version of this.#kept) {
      if (count++ >= descriptors) break;
      this.#letGo(version);
    }
    let paths = this.#byPath.size > MOST_PATHS ? MOST_PATHS / PART : 0;
    for (const [path, entry] of this.#byPath) {
      if (paths-- <= 0) break;
      this.#byPath.delete(path);
      if (entry.used) {
        entry.used = false;
        this.#byPath.set(path, entry);
      } else this.#forget(entry);
    }
  }

  #forget(entry: Path): void {
    for (const reader of entry.readers) reader.gone = true;
    for (const version of entry.versions) this.#letGo(version);
  }

  /** The version stays known by its name; without its bytes it can only end in a conflict, never in silence. */
  #letGo(version: Seen): void {
    this.#kept.delete(version);
    if (version.fd >= 0) close(version.fd);
    version.fd = -1;
    version.witness = null;
  }

  clear(): void {
    for (const entry of this.#byPath.values()) this.#forget(entry);
    this.#byPath.clear();
  }
}

/** Spelled out: a spread costs as much as all the rest. */
function asSeen(version: Omit<Seen, 'order'>, order: number): Seen {
  const { fingerprint, content, fd, witness, mode, uid, gid, xattrs, lasting } = version;
  return { fingerprint, content, fd, witness, mode, uid, gid, xattrs, lasting, order };
}

/** That the thread of a reader opens `version`, as it did last, changes nothing. */
export function stands(reader: Reader, tid: number, version: Seen): boolean {
  const same = reader.tid === tid && reader.last === version && reader.founded === version && !reader.gone;
  if (same) reader.of.used = true;
  return same;
}

/** Whether that was not known already. The reader is the last of the path's then. */
function noteReader(entry: Path, tid: number, version: Seen): boolean {
  const { readers } = entry;
  const at = readers.findLastIndex((one) => one.tid === tid);
  const known = readers[at];
  const before = known?.last;
  if (known === undefined) readers.push({ tid, of: entry, last: version, founded: version, gone: false });
  else {
    known.founded = known.last;
    known.last = version;
    if (at < readers.length - 1) readers.push(...readers.splice(at, 1));
  }
  if (readers.length > READERS) limitReaders(entry);
  return before !== version;
}

function limitReaders(entry: Path): void {
  const { readers } = entry;
  if (readers.length % READERS === 1) {
    const last = readers.at(-1);
    for (const one of readers) one.gone = one !== last && !lives(one.tid);
    entry.readers = readers.filter((one) => !one.gone);
  }
  const oldest = entry.readers.length > MOST_READERS ? entry.readers.shift() : undefined;
  if (oldest !== undefined) oldest.gone = true;
}
