// Contents that are to be put away, collected on the serving thread: the main thread is told of many at once, for to
// wake it costs more than to write one down.

/** So many bytes, or contents, do not wait for more. */
const MOST_BYTES = 256 * 1024;
const MOST = 256;
const FIRST_SIZE = 16 * 1024;

/** Plain data. */
export interface Kept {
  hashes: string[];
  /** Where each one ends in `bytes`. */
  ends: number[];
  bytes: Uint8Array;
}

export class KeepBatch {
  #bytes = Buffer.allocUnsafeSlow(FIRST_SIZE);
  #length = 0;
  #hashes: string[] = [];
  #ends: number[] = [];

  get isEmpty(): boolean {
    return this.#hashes.length === 0;
  }

  get isFull(): boolean {
    return this.#length >= MOST_BYTES || this.#hashes.length >= MOST;
  }

  /** The bytes are copied. */
  add(bytes: Uint8Array, hash: string): void {
    const end = this.#length + bytes.length;
    if (end > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
    this.#hashes.push(hash);
    this.#ends.push(end);
  }

  /** What has been added; the batch is empty again. */
  take(): Kept {
    const kept = {
      hashes: this.#hashes,
      ends: this.#ends,
      bytes: new Uint8Array(this.#bytes.subarray(0, this.#length)),
    };
    if (this.#bytes.length > FIRST_SIZE) this.#bytes = Buffer.allocUnsafeSlow(FIRST_SIZE);
    this.#length = 0;
    this.#hashes = [];
    this.#ends = [];
    return kept;
  }
}

/** Each content of a batch with its hash. */
export function* eachKept({ hashes, ends, bytes }: Kept): Generator<[hash: string, bytes: Uint8Array]> {
  let start = 0;
  for (const [i, hash] of hashes.entries()) {
    const end = ends[i] as number;
    yield [hash, bytes.subarray(start, end)];
    start = end;
  }
}
