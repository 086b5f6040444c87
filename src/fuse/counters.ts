// Counts and latencies per opcode. Plain arrays: one request adds to them in some nanoseconds.
import { opcodeName } from './protocol.ts';

/** The shape that the control socket reports (control/verbs.ts has its twin; siblings import nothing). */
export interface OpcodeCounters {
  opcode: string;
  count: number;
  errors: number;
  seconds: number;
  /** Requests that took at most bounds[i] seconds, not cumulative; one more at the end for the rest. */
  histogram: number[];
}

export class Counters {
  readonly #bounds: readonly number[];
  readonly #byCode = new Map<number, OpcodeCounters>();

  /** `bounds` in seconds, ascending. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  /** `milliseconds` from reading the request to its answer; the result is negative for an error. */
  add(opcode: number, milliseconds: number, result: number): void {
    let row = this.#byCode.get(opcode);
    if (row === undefined) {
      const histogram = new Array<number>(this.#bounds.length + 1).fill(0);
      row = { opcode: opcodeName(opcode), count: 0, errors: 0, seconds: 0, histogram };
      this.#byCode.set(opcode, row);
    }
    const seconds = milliseconds / 1000;
    let i = 0;
    while (i < this.#bounds.length && seconds > (this.#bounds[i] as number)) i++;
    row.count++;
    if (result < 0) row.errors++;
    row.seconds += seconds;
    row.histogram[i] = (row.histogram[i] as number) + 1;
  }

  /** A copy, by opcode number. */
  report(): OpcodeCounters[] {
    const rows = [...this.#byCode].sort(([a], [b]) => a - b);
    return rows.map(([, row]) => ({ ...row, histogram: [...row.histogram] }));
  }
}
