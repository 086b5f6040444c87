// One look at a time for each path, or set of paths that is reconciled as one.
import { setOf } from '../merge/policy.ts';

export class LookQueue {
  /** The last work on each path or set that is under way. */
  readonly #last = new Map<string, Promise<unknown>>();
  /** Looks that have others made first, for which they must not stand in the way. */
  readonly #preparing = new Set<Promise<unknown>>();

  /** Runs `work` when no other on the path (or its set) is under way. */
  exclusively<T>(path: string, work: () => Promise<T>): Promise<T> {
    const key = setOf(path)?.id ?? path;
    const before = this.#last.get(key) ?? Promise.resolve();
    const run = before.then(work, work);
    this.#last.set(key, run);
    const done = () => {
      if (this.#last.get(key) === run) this.#last.delete(key);
    };
    run.then(done, done);
    return run;
  }

  /** Something that will queue later on. */
  preparing<T>(look: Promise<T>): Promise<T> {
    this.#preparing.add(look);
    return look.finally(() => this.#preparing.delete(look));
  }

  /** All that waits is done. */
  async idle(): Promise<void> {
    while (this.#last.size + this.#preparing.size > 0)
      await Promise.allSettled([...this.#last.values(), ...this.#preparing]);
  }
}
