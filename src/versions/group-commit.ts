// Group commit: what many callers wrote goes out in one sync, ancestors before the records that name them; by
// itself about once a second. A commit that fails loses nothing from memory and is tried again.
import { FsError, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Ancestors } from './ancestors.ts';
import { errnoOf } from './files.ts';
import { isCorruption, type LevelIndex, reason } from './level-index.ts';
import type { DamageList } from './record-store.ts';

const AFTER_MS = 1000;
const AFTER_FAILURE_MS = 10_000;
/** Records that wait before a commit begins at once. */
const MANY = 4096;

export interface CommitParts {
  index: LevelIndex;
  ancestors: Ancestors;
  damage: DamageList;
  log: Log;
  readOnly: boolean;
}

export class GroupCommit {
  readonly #parts: CommitParts;
  #timer: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #failed = false;
  #stopped = false;

  constructor(parts: CommitParts) {
    this.#parts = parts;
  }

  /** All that was written before the call is durable when it resolves. Rejects with FsError. */
  flush(): Promise<void> {
    if (this.#next !== null) return this.#next;
    if (this.#running === null) return this.#start();
    const start = () => {
      this.#next = null;
      return this.#start();
    };
    this.#next = this.#running.then(start, start);
    return this.#next;
  }

  #start(): Promise<void> {
    const running = this.#run().finally(() => {
      this.#running = null;
    });
    this.#running = running;
    return running;
  }

  async #run(): Promise<void> {
    const { index, ancestors, readOnly } = this.#parts;
    // Frozen first: a record that is written meanwhile may name an ancestor that this sync has not seen.
    index.freeze();
    try {
      if (!readOnly) await ancestors.flush();
      await this.#commit();
      this.#failed = false;
    } catch (error) {
      index.thaw();
      throw new FsError(errnoOf(error), `the index cannot be written: ${reason(error)}`, error);
    }
  }

  /** A table that LevelDB cannot read any more ends all writing, until it is out of the way. */
  async #commit(): Promise<void> {
    const { index, damage } = this.#parts;
    try {
      await index.commit();
    } catch (error) {
      if (!isCorruption(error)) throw error;
      damage.report('the index', reason(error));
      await index.renew();
      index.freeze();
      await index.commit();
    }
  }

  /** A record was written: it is committed soon. */
  written(): void {
    const { index, readOnly } = this.#parts;
    if (this.#stopped || readOnly) return;
    if (this.#timer !== null && index.pending !== MANY) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const delay = this.#failed ? AFTER_FAILURE_MS : index.pending >= MANY ? 0 : AFTER_MS;
    this.#timer = setTimeout(() => this.#byTimer(), delay).unref();
  }

  #byTimer(): void {
    this.#timer = null;
    if (this.#parts.index.pending === 0) return;
    this.flush().catch((error: unknown) => {
      if (!this.#failed) this.#parts.log.error(messageOf(error));
      this.#failed = true;
      this.written();
    });
  }

  /** No commit begins by itself any more. */
  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }
}
