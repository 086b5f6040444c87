// Changes of the base that have settled come into the list of events. The serving side knows what the base does to
// what is in use; here it is asked when that has come to rest.
import { messageOf } from '../lib/errors.ts';
import { type Log, sayingOnce } from '../lib/log.ts';
import type { Settled } from '../union/base-changes.ts';
import type { Store } from '../versions/store.ts';

/** Between two questions, even where nothing has to settle. */
const LEAST_MS = 20;

export class ChangeList {
  readonly #store: Store;
  readonly #settleMs: number;
  readonly #ask: (settleMs: number) => Promise<Settled | null>;
  readonly #trouble: ReturnType<typeof sayingOnce>;
  #timer: NodeJS.Timeout | undefined;

  /** `ask` gives null once the mount has ended. */
  constructor(store: Store, settleMs: number, ask: (settleMs: number) => Promise<Settled | null>, log: Log) {
    this.#store = store;
    this.#settleMs = settleMs;
    this.#ask = ask;
    this.#trouble = sayingOnce(log.error);
  }

  /** The base has begun to change something. */
  stirs(): void {
    this.#later(this.#settleMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #later(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#take(), Math.max(ms, LEAST_MS));
    this.#timer.unref();
  }

  async #take(): Promise<void> {
    const settled = await this.#ask(this.#settleMs);
    if (settled === null) return;
    if (settled.nextMs >= 0) this.#later(settled.nextMs);
    if (settled.changes.length === 0) return;
    const { events } = this.#store;
    try {
      events.bumpEpoch();
      for (const change of settled.changes) events.tell(change);
      this.#trouble.over();
    } catch (error) {
      // A full disk, on which no numbers can be reserved.
      this.#trouble.say(`changes of the base are not listed: ${messageOf(error)}`);
    }
  }
}
