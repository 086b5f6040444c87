// Has the base settled at a path? Not while it may still be changing: its ctime must be old enough, or, where
// clocks disagree, its fingerprint must have been seen unchanged that long; and nobody may have the file open
// for writing, which is asked last. Each merge within the hour doubles the time.
import { refusesLeases } from '../branch/remote.ts';
import { E } from '../lib/errno.ts';
import { isRegular } from '../lib/stat.ts';
import { F_RDLCK, F_UNLCK } from '../sys/constants.ts';
import { close, setLease } from '../sys/file.ts';
import type { BaseSide } from './sides.ts';

const HOUR_MS = 3_600_000;
/** While somebody writes to the base's file: when to look again. */
const WRITER_MS = 500;
const REMEMBERED = 4096;

export class Settling {
  readonly #settleMs: number;
  readonly #seen = new Map<string, { fingerprint: string; since: number }>();

  constructor(settleMs: number) {
    this.#settleMs = settleMs;
  }

  /** The settling time of a path, in milliseconds, by its merges within the hour. */
  needed(lastMerges: readonly number[]): number {
    const now = Date.now();
    // What lies ahead is of a clock that has been set back since.
    const recent = lastMerges.filter((time) => time <= now && now - time < HOUR_MS).length;
    return Math.min(HOUR_MS, this.#settleMs * 2 ** Math.min(recent, 30));
  }

  /** 0: it has settled; else milliseconds after which to ask again. `open` opens the base's file. */
  wait(path: string, base: BaseSide, lastMerges: readonly number[], open: () => number): number {
    const needed = this.needed(lastMerges);
    const quiet = this.#quietFor(path, base);
    if (quiet < needed) return Math.max(1, Math.ceil(needed - quiet));
    if (base.object === null || !isRegular(base.object.stat.mode)) return 0;
    return this.#isWritten(open) ? WRITER_MS : 0;
  }

  #quietFor(path: string, base: BaseSide): number {
    const now = performance.now();
    let seen = this.#seen.get(path);
    if (seen?.fingerprint !== base.fingerprint) {
      seen = { fingerprint: base.fingerprint, since: now };
      this.#seen.delete(path);
      this.#seen.set(path, seen);
      const [oldest] = this.#seen.keys();
      if (this.#seen.size > REMEMBERED && oldest !== undefined) this.#seen.delete(oldest);
    }
    const watched = now - seen.since;
    if (base.object === null) return watched;
    const { ctimeSec, ctimeNsec } = base.object.stat;
    return Math.max(watched, Date.now() - (ctimeSec * 1000 + ctimeNsec / 1e6));
  }

  /** A read lease is refused while anybody has the file open for writing; it is let go at once. */
  #isWritten(open: () => number): boolean {
    const fd = open();
    if (fd < 0) return false;
    const lease = setLease(fd, F_RDLCK);
    if (lease === 0) setLease(fd, F_UNLCK);
    // Of writers on the server or another client nothing can be heard: what is left is the time without a change.
    const refused = (lease === -E.EAGAIN || lease === -E.EBUSY) && !refusesLeases(fd);
    close(fd);
    return refused;
  }
}
