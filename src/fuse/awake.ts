// Keeps idle processors awake while requests follow each other closely. Worker and client sleep in turn, and each
// waking is an interrupt to a processor that has halted: in a virtual machine that is a way through the hypervisor, and
// dearer than the request itself. One that polls is woken by a word in memory.
import { keepAwake } from '../sys/cpu-latency.ts';

/** So many requests in a row, each less than so many milliseconds after the one before, are a stream. */
const STREAM = 16;
const NEAR_MS = 1;
/** It is over when for so many milliseconds none has come. */
const QUIET_MS = 2;

export class Awake {
  readonly #fd: number;
  #near = 0;
  #holds = false;

  /** `fd`: of sys/cpu-latency.ts; -1: processors may do as they like. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Milliseconds to wait for the next request before rest(), or -1: for ever. */
  get patience(): number {
    return this.#holds ? QUIET_MS : -1;
  }

  /** A request came, so many milliseconds after the last. */
  came(after: number): void {
    if (this.#holds || this.#fd < 0) return;
    this.#near = after < NEAR_MS ? this.#near + 1 : 0;
    if (this.#near >= STREAM) this.#hold(true);
  }

  /** None came. */
  rest(): void {
    if (this.#holds) this.#hold(false);
  }

  /** What the kernel refuses costs speed alone, and the next stream asks again. */
  #hold(awake: boolean): void {
    this.#near = 0;
    this.#holds = keepAwake(this.#fd, awake) === 0 && awake;
  }
}
