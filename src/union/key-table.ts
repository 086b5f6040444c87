// Small numbers for keys of some words, looked up without allocating anything: every event of a whole file system asks.
// Of a key a hash of 64 bits is kept. Two with the same would share a number, which does no harm here: what is told of
// one makes the union look at the other, too.

const FIRST = 256;

export class KeyTable {
  /** Of number n; those that are free are chained by `#low`. */
  #low = new Uint32Array(FIRST);
  #high = new Uint32Array(FIRST);
  /** Number + 1, or 0: nothing; of twice as many places, a key's from its hash on. */
  #slots = new Int32Array(2 * FIRST);
  /** Numbers from here on have never been given out. */
  #end = 0;
  /** The free one to be given out next, + 1; 0: none. */
  #free = 0;
  #size = 0;
  /** The number that is forgotten and not free, one at a time; -1: none. */
  #forgotten = -1;
  /** The last that was hashed. */
  #h1 = 0;
  #h2 = 0;

  get size(): number {
    return this.#size;
  }

  /** The number of the key in `words` from `at` on; -1: there is none. */
  find(words: Uint32Array, at: number, count: number): number {
    this.#hash(words, at, count);
    return (this.#slots[this.#slotOf()] as number) - 1;
  }

  /** The same; one that is not there is put there. */
  add(words: Uint32Array, at: number, count: number): number {
    const known = this.find(words, at, count);
    if (known >= 0) return known;
    if (this.#size === this.#low.length) this.#grow();
    const free = this.#free - 1;
    const number = free >= 0 ? free : this.#end++;
    if (free >= 0) this.#free = this.#low[free] as number;
    this.#low[number] = this.#h1;
    this.#high[number] = this.#h2;
    this.#slots[this.#slotOf()] = number + 1;
    this.#size += 1;
    return number;
  }

  /** It may be another key's from now on. What is not in the table is left alone. */
  remove(number: number): void {
    if (this.forget(number)) this.free(number);
  }

  /** Its key is found no more, and the number is nobody else's until it is `free`. False: it was not in the table. */
  forget(number: number): boolean {
    const mask = this.#slots.length - 1;
    this.#h1 = this.#low[number] as number;
    this.#h2 = this.#high[number] as number;
    let hole = this.#slotOf();
    if (this.#slots[hole] !== number + 1) return false;
    this.#slots[hole] = 0;
    // What follows without a gap, and would not be found beyond one, moves up.
    for (let at = (hole + 1) & mask; this.#slots[at] !== 0; at = (at + 1) & mask) {
      const home = (this.#low[(this.#slots[at] as number) - 1] as number) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#slots[hole] = this.#slots[at] as number;
      this.#slots[at] = 0;
      hole = at;
    }
    this.#forgotten = number;
    return true;
  }

  /** A forgotten one. */
  free(number: number): void {
    this.#forgotten = -1;
    this.#low[number] = this.#free;
    this.#free = number + 1;
    this.#size -= 1;
  }

  /** Where what was hashed last is, or would be put. */
  #slotOf(): number {
    const mask = this.#slots.length - 1;
    let at = this.#h1 & mask;
    for (;;) {
      const number = (this.#slots[at] as number) - 1;
      if (number < 0 || (this.#low[number] === this.#h1 && this.#high[number] === this.#h2)) return at;
      at = (at + 1) & mask;
    }
  }

  /** Only where no number is free. */
  #grow(): void {
    const [h1, h2] = [this.#h1, this.#h2];
    const length = 2 * this.#low.length;
    const wider = (old: Uint32Array) => {
      const fresh = new Uint32Array(length);
      fresh.set(old);
      return fresh;
    };
    this.#low = wider(this.#low);
    this.#high = wider(this.#high);
    this.#slots = new Int32Array(2 * length);
    for (let number = 0; number < this.#end; number++) {
      if (number === this.#forgotten) continue;
      this.#h1 = this.#low[number] as number;
      this.#h2 = this.#high[number] as number;
      this.#slots[this.#slotOf()] = number + 1;
    }
    this.#h1 = h1;
    this.#h2 = h2;
  }

  #hash(words: Uint32Array, at: number, count: number): void {
    let a = 0x9e3779b9 ^ count;
    let b = 0x85ebca6b;
    for (let i = at; i < at + count; i++) {
      const word = words[i] as number;
      a = Math.imul(a ^ word, 0xcc9e2d51);
      a ^= a >>> 15;
      b = Math.imul(b ^ word, 0x1b873593);
      b = ((b << 13) | (b >>> 19)) ^ a;
    }
    a = Math.imul(a ^ (b >>> 16), 0xc2b2ae35);
    b = Math.imul(b ^ (a >>> 13), 0x27d4eb2f);
    this.#h1 = (a ^ (a >>> 16)) >>> 0;
    this.#h2 = (b ^ (b >>> 15)) >>> 0;
  }
}
