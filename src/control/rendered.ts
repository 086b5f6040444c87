// A file of the control directory whose content is rendered: once per generation of its source, and with a
// new generation and mtime of its own only when the bytes differ. Main thread.

export interface Snapshot {
  /** Grows with each change of the content. */
  generation: number;
  /** When the content became what it is, milliseconds since the epoch. */
  mtimeMs: number;
  content: Buffer;
}

export class RenderedFile {
  readonly #render: () => Promise<Buffer>;
  readonly #now: () => number;
  #snapshot: Snapshot | null = null;
  /** Generation of the source that the snapshot shows. */
  #shown: number | null = null;
  #running: { source: number; done: Promise<Snapshot> } | null = null;

  /** `now`: milliseconds since the epoch. */
  constructor(render: () => Promise<Buffer>, now: () => number) {
    this.#render = render;
    this.#now = now;
  }

  /** The content at generation `source` or a later one. Callers that ask at once share one rendering. */
  async at(source: number): Promise<Snapshot> {
    if (this.#snapshot !== null && this.#shown === source) return this.#snapshot;
    if (this.#running?.source === source) return this.#running.done;
    const done = this.#refresh(source);
    const running = { source, done };
    this.#running = running;
    try {
      return await done;
    } finally {
      if (this.#running === running) this.#running = null;
    }
  }

  async #refresh(source: number): Promise<Snapshot> {
    const content = await this.#render();
    const last = this.#snapshot;
    // A rendering that began earlier and ends later must not put an old content back.
    if (last !== null && this.#shown !== null && this.#shown > source) return last;
    this.#shown = source;
    if (last?.content.equals(content)) return last;
    const snapshot = {
      generation: (last?.generation ?? 0) + 1,
      mtimeMs: Math.max(this.#now(), (last?.mtimeMs ?? 0) + 1),
      content,
    };
    this.#snapshot = snapshot;
    return snapshot;
  }
}

/** Beyond this the lines of what is not remembered any more are dropped. */
const LARGE = 4 * 1024 * 1024;

/** A file that grows at its end: what was rendered once is not rendered again, unless it has become too large. */
export class AppendedFile {
  readonly #more: (append: (line: string) => void, anew: boolean) => Promise<void>;
  readonly #now: () => number;
  #bytes = Buffer.alloc(4096);
  #length = 0;
  #limit = LARGE;
  #generation = 1;
  #mtimeMs: number;
  #shown: number | null = null;
  #running: Promise<void> | null = null;

  /** `more` appends the lines that have come since it was last called, or `anew` all. */
  constructor(more: (append: (line: string) => void, anew: boolean) => Promise<void>, now: () => number) {
    this.#more = more;
    this.#now = now;
    this.#mtimeMs = now();
  }

  async at(source: number): Promise<Snapshot> {
    while (this.#running !== null) await this.#running;
    if (this.#shown !== source) {
      this.#running = this.#refresh(source);
      try {
        await this.#running;
      } finally {
        this.#running = null;
      }
    }
    return {
      generation: this.#generation,
      mtimeMs: this.#mtimeMs,
      content: this.#bytes.subarray(0, this.#length),
    };
  }

  async #refresh(source: number): Promise<void> {
    const before = this.#length;
    const append = (line: string) => this.#append(Buffer.from(line, 'utf8'));
    await this.#more(append, false);
    this.#shown = source;
    if (this.#length === before) return;
    if (this.#length > this.#limit) {
      // Who reads it has what there was.
      this.#bytes = Buffer.alloc(4096);
      this.#length = 0;
      await this.#more(append, true);
      this.#limit = Math.max(LARGE, 2 * this.#length);
    }
    this.#generation += 1;
    this.#mtimeMs = Math.max(this.#now(), this.#mtimeMs + 1);
  }

  #append(line: Buffer): void {
    if (this.#length + line.length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, this.#length + line.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    line.copy(this.#bytes, this.#length);
    this.#length += line.length;
  }
}
