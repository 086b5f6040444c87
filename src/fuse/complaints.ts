// What goes wrong with requests, for the log: some lines per second at most, for a handler that fails does so
// thousands of times.
import { E } from '../lib/errno.ts';
import { FsError, messageOf, stackOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';

/** The kernel refuses an error beyond this one, and would leave its client waiting. */
export const MAX_ERRNO = 511;
const PER_SECOND = 20;

export class Complaints {
  readonly #log: Log;
  #since = 0;
  #count = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  add(message: string): void {
    const now = performance.now();
    if (now - this.#since > 1000) {
      const unsaid = this.#count - PER_SECOND;
      if (unsaid > 0) this.#log.error(`${unsaid} more errors like these`);
      this.#since = now;
      this.#count = 0;
    }
    this.#count += 1;
    if (this.#count <= PER_SECOND) this.#log.error(message);
  }

  /** What to answer where a handler has thrown. */
  thrown(what: string, error: unknown): number {
    const known = error instanceof FsError && error.errno > 0 && error.errno <= MAX_ERRNO;
    this.add(`${what}: ${known ? messageOf(error) : stackOf(error)}`);
    return known ? -error.errno : -E.EIO;
  }
}
