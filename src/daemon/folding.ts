// Brings what the guest has done from the journal into the index: the serving thread closes its journal file, the
// store takes it in. Once a second, and when somebody needs to know.
import { E, errnoName } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { type Log, sayingOnce } from '../lib/log.ts';
import type { Store } from '../versions/store.ts';

/** What the guest did stands in the index within this time. */
const FOLD_MS = 1000;

export class Folding {
  readonly #store: Store;
  readonly #rotate: () => Promise<string | number>;
  readonly #failed: () => void;
  readonly #trouble: ReturnType<typeof sayingOnce>;
  #last: Promise<void> | null = null;
  /** It has not begun. */
  #next: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;

  /** `rotate` closes the journal file and names it; '' where nothing was written, or a negative errno. */
  constructor(store: Store, rotate: () => Promise<string | number>, failed: () => void, log: Log) {
    this.#store = store;
    this.#rotate = rotate;
    this.#failed = failed;
    this.#trouble = sayingOnce(log.error);
  }

  /** One fold at a time; whoever asks meanwhile gets one that begins after the asking. */
  #fold(): Promise<void> {
    if (this.#next !== null) return this.#next;
    const run = (this.#last ?? Promise.resolve()).then(async () => {
      this.#next = null;
      const name = await this.#rotate();
      if (typeof name === 'number') {
        if (name !== -E.ESHUTDOWN) throw new FsError(-name, `cannot switch the journal: ${errnoName(name)}`);
      } else if (name !== '') {
        await this.#store.foldJournal(name);
      }
    });
    // Said below; the next fold finds the same journal.
    this.#last = run.catch(() => this.#failed());
    this.#next = run;
    return run;
  }

  /** A failure is logged. */
  async fold(): Promise<void> {
    try {
      await this.#fold();
      this.#trouble.over();
    } catch (error) {
      this.#trouble.say(`folding the journal: ${messageOf(error)}`);
    }
  }

  startTimer(): void {
    this.#timer = setInterval(() => void this.fold(), FOLD_MS);
  }

  /** No fold begins by itself any more, and none is under way when it resolves. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#last;
  }
}
