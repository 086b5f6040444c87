// Which version of a path of the base somebody has read through this mount (rule 2 of native-notes/versioning.md): an
// editor that read v1 and writes after the base moved to v2 must not count as having seen v2.
import { newStat } from '../lib/stat.ts';
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW } from '../sys/constants.ts';
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

interface Reader {
  tid: number;
  /** The version of its last opening. */
  last: Seen;
  /**
   * The newest that its writing can be founded on. Its last opening alone may have been for a copy: vim reads
   * what it is about to overwrite once more, for the backup.
   */
  founded: Seen;
}

interface Path {
  versions: Seen[];
  /** Least recent first. */
  readers: Reader[];
  /** The newest that anybody has opened. */
  newest: Seen;
}

/** Versions whose descriptors are kept, at most. */
const MOST_DESCRIPTORS = 300;
/** Paths of which it is known who has read what. */
const MOST_PATHS = 20_000;
/** Readers of a path above which those that have ended are forgotten, and those that live at last. */
const READERS = 32;
const MOST_READERS = 128;

const scratch = newStat();

/** Whether a thread lives; with `other`, whether that is one of the same process. */
function lives(tid: number, other = tid): boolean {
  return statx(AT_FDCWD, `/proc/${tid}/task/${other}`, AT_SYMLINK_NOFOLLOW, scratch) === 0;
}

export class SeenVersions {
  /** Least recently opened first. */
  readonly #byPath = new Map<string, Path>();
  /** Those with a descriptor, oldest first. */
  readonly #kept = new Set<Seen>();
  #order = 0;
  readonly #log: Pick<SeenLog, 'append'> | null;

  constructor(log: Pick<SeenLog, 'append'> | null = null) {
    this.#log = log;
  }

  /** Whether a version of this path is known; then `opened` needs no descriptor. */
  has(path: string, fingerprint: string): boolean {
    return this.#byPath.get(path)?.versions.some((one) => one.fingerprint === fingerprint) ?? false;
  }

  /** Thread `tid` has opened a version for reading. The descriptor in `version` is given away. */
  opened(path: string, tid: number, version: Omit<Seen, 'order'>): void {
    const news = this.#note(path, tid, version);
    if (news === null || !news.lasting || this.#log === null) return;
    const { fingerprint, content, mode, uid, gid, xattrs } = news;
    this.#log.append({ path, tid, time: Date.now(), fingerprint, content, mode, uid, gid, xattrs });
  }

  /** What the last daemon has known of somebody who still lives. The descriptor is given away. */
  restore({ path, tid, ...version }: SeenRecord, fd: number, witness: Witness | null): void {
    this.#note(path, tid, { ...version, fd, witness, lasting: true });
  }

  /** The version; null where it was known already that the thread has opened it last. */
  #note(path: string, tid: number, version: Omit<Seen, 'order'>): Seen | null {
    const entry = this.#byPath.get(path);
    let known = entry?.versions.find((one) => one.fingerprint === version.fingerprint);
    if (!known) {
      known = { ...version, order: this.#order++ };
      entry?.versions.push(known);
      if (known.fd >= 0) this.#kept.add(known);
    } else if (version.fd >= 0) {
      close(version.fd);
    }
    this.#byPath.delete(path);
    this.#byPath.set(path, entry ?? { versions: [known], readers: [], newest: known });
    let isNews = true;
    if (entry) {
      if (known.order > entry.newest.order) entry.newest = known;
      isNews = noteReader(entry, tid, known);
    } else {
      this.#byPath.get(path)?.readers.push({ tid, last: known, founded: known });
    }
    this.#limit();
    return isNews ? known : null;
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
    const own = entry.readers.filter((one) => one.tid === tid || lives(tid, one.tid));
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
    for (const version of this.#kept) {
      if (this.#kept.size <= MOST_DESCRIPTORS) break;
      this.#letGo(version);
    }
    for (const [path, entry] of this.#byPath) {
      if (this.#byPath.size <= MOST_PATHS) break;
      this.#byPath.delete(path);
      for (const version of entry.versions) this.#letGo(version);
    }
  }

  /** The version stays known by its name; without its bytes it can only end in a conflict, never in silence. */
  #letGo(version: Seen): void {
    this.#kept.delete(version);
    if (version.fd >= 0) close(version.fd);
    version.fd = -1;
    version.witness = null;
  }

  clear(): void {
    this.#byPath.clear();
    for (const version of this.#kept) this.#letGo(version);
  }
}

/** Whether that was not known already. */
function noteReader(entry: Path, tid: number, version: Seen): boolean {
  const at = entry.readers.findIndex((one) => one.tid === tid);
  const before = at < 0 ? null : (entry.readers.splice(at, 1)[0] as Reader);
  entry.readers.push({ tid, last: version, founded: before?.last ?? version });
  if (entry.readers.length > READERS) {
    if (entry.readers.length % READERS === 1) entry.readers = entry.readers.filter((one) => lives(one.tid));
    if (entry.readers.length > MOST_READERS) entry.readers.shift();
  }
  return before?.last !== version;
}
