// Which version of a path somebody has read through this mount (rule 2 of native-notes/versioning.md): an
// editor that read v1 and writes after the base moved to v2 must not count as having seen v2.
import * as fs from 'node:fs';
import { close } from '../sys/file.ts';

export interface Seen {
  /** Hash of the base's fingerprint at the time: the version's name. */
  fingerprint: string;
  /** Content hash; '' while nobody has read it. */
  content: string;
  /** Descriptor of the base's object, -1: it is not kept (the version came from an origin). */
  fd: number;
  mode: number;
  uid: number;
  gid: number;
  /** Order in which versions were first seen here. */
  order: number;
}

interface Reader {
  tid: number;
  version: Seen;
  used: number;
}

/** Versions whose descriptors are kept, at most. */
const MOST_VERSIONS = 300;

/** Thread group of a thread; 0 when it has ended. */
function tgidOf(tid: number): number {
  try {
    const status = fs.readFileSync(`/proc/${tid}/status`, 'latin1');
    return Number(/^Tgid:\t(\d+)/m.exec(status)?.[1] ?? 0);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return 0;
    throw error;
  }
}

export class SeenVersions {
  readonly #byPath = new Map<string, { versions: Seen[]; readers: Reader[] }>();
  #order = 0;
  #count = 0;
  #clock = 0;

  /** Whether a version of this path is known; then `opened` needs no descriptor. */
  has(path: string, fingerprint: string): boolean {
    return this.#byPath.get(path)?.versions.some((one) => one.fingerprint === fingerprint) ?? false;
  }

  /** Thread `tid` has opened a version for reading. The descriptor in `version` is given away. */
  opened(path: string, tid: number, version: Omit<Seen, 'order'>): void {
    let entry = this.#byPath.get(path);
    if (!entry) {
      entry = { versions: [], readers: [] };
    } else {
      this.#byPath.delete(path);
    }
    this.#byPath.set(path, entry);
    let known = entry.versions.find((one) => one.fingerprint === version.fingerprint);
    if (!known) {
      known = { ...version, order: this.#order++ };
      entry.versions.push(known);
      this.#count += 1;
    } else if (version.fd >= 0) {
      if (known.fd < 0) known.fd = version.fd;
      else close(version.fd);
    }
    const reader = entry.readers.find((one) => one.tid === tid);
    this.#clock += 1;
    if (reader) {
      reader.version = known;
      reader.used = this.#clock;
    } else {
      entry.readers.push({ tid, version: known, used: this.#clock });
      if (entry.readers.length > 32) entry.readers.shift();
    }
    while (this.#count > MOST_VERSIONS) this.#dropOldest();
  }

  /**
   * The newest version that the writing process has opened; where that is unknown the newest that anybody
   * opened; null: nobody did.
   */
  of(path: string, tid: number): Seen | null {
    const entry = this.#byPath.get(path);
    if (!entry || entry.readers.length === 0) return null;
    const tgid = tgidOf(tid);
    const own = entry.readers.filter(
      (one) => one.tid === tid || one.tid === tgid || (tgid !== 0 && tgidOf(one.tid) === tgid),
    );
    const from = own.length > 0 ? own : entry.readers;
    return from.reduce((a, b) => (b.version.order > a.version.order ? b : a)).version;
  }

  /** Records that a version has come to be the origin of a path: later than all that were seen so far. */
  noted(path: string, fingerprint: string): void {
    const entry = this.#byPath.get(path);
    if (!entry || entry.versions.some((one) => one.fingerprint === fingerprint)) return;
    entry.versions.push({ fingerprint, content: '', fd: -1, mode: 0, uid: 0, gid: 0, order: this.#order++ });
    this.#count += 1;
  }

  /** Whether `seen` was there before the version `fingerprint`, which is taken for older when it is unknown. */
  isOlder(path: string, seen: Seen, fingerprint: string): boolean {
    if (seen.fingerprint === fingerprint) return false;
    const other = this.#byPath.get(path)?.versions.find((one) => one.fingerprint === fingerprint);
    return other !== undefined && seen.order < other.order;
  }

  forget(path: string): void {
    const entry = this.#byPath.get(path);
    if (!entry) return;
    this.#byPath.delete(path);
    for (const version of entry.versions) if (version.fd >= 0) close(version.fd);
    this.#count -= entry.versions.length;
  }

  #dropOldest(): void {
    const [path] = this.#byPath.keys();
    if (path !== undefined) this.forget(path);
  }

  clear(): void {
    for (const path of [...this.#byPath.keys()]) this.forget(path);
  }
}
