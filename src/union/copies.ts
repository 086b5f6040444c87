// Copy-ups of large files that are under way, for status: each takes as long as its disk does.

export interface CopyProgress {
  /** In the union. */
  readonly path: string;
  /** Bytes, with holes that were passed over. */
  done: number;
  readonly size: number;
}

export class Copies {
  readonly #underWay = new Set<CopyProgress>();
  /** Grows with whatever happens here. */
  changes = 0;

  get all(): readonly CopyProgress[] {
    return [...this.#underWay];
  }

  /** `copy` tells how far it has come. */
  async during<T>(
    path: string,
    size: number,
    copy: (reached: (done: number) => void) => Promise<T>,
  ): Promise<T> {
    const progress: CopyProgress = { path, done: 0, size };
    this.#underWay.add(progress);
    this.changes += 1;
    try {
      return await copy((done) => {
        progress.done = done;
        this.changes += 1;
      });
    } finally {
      this.#underWay.delete(progress);
      this.changes += 1;
    }
  }
}
