// How long to try the device again before waiting for it. To wake a sleeping thread costs more than to answer
// a request, so where requests follow each other closely a short spin wins; where they do not it only burns
// time. Each spin that caught a request earns credit for further ones, each in vain costs one.
import * as os from 'node:os';

const DEFAULT_MICROSECONDS = 30;
const MOST_CREDIT = 8;
/** A wait of so many milliseconds, waking included, would have been caught by a spin. */
const SHORT_WAIT = 0.1;

export class Spin {
  readonly #milliseconds: number;
  #credit = 0;

  /** Default: 30 µs, and none where the client has to run on the same processor. */
  constructor(microseconds?: number) {
    const usual = os.availableParallelism() > 1 ? DEFAULT_MICROSECONDS : 0;
    this.#milliseconds = (microseconds ?? usual) / 1000;
  }

  /** Milliseconds. */
  budget(): number {
    return this.#credit > 0 ? this.#milliseconds : 0;
  }

  caught(): void {
    this.#credit = MOST_CREDIT;
  }

  /** The device had to be waited for, so long in all. */
  waited(milliseconds: number): void {
    if (this.#credit > 0) this.#credit--;
    else if (milliseconds < SHORT_WAIT) this.#credit = 1;
  }
}
