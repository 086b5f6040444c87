// Errors that the kernel gives only for the moment, whatever was asked for: memory is short, a signal came. Who is
// asked by the kernel itself cannot give up for these, for somebody waits for the answer.
import { E } from './errno.ts';

const PASSING: ReadonlySet<number> = new Set([-E.EINTR, -E.EAGAIN, -E.ENOMEM, -E.ENOBUFS, -E.EIO]);
/** Between two tries, in milliseconds. */
export const PAUSE_MS = 10;
const cell = new Int32Array(new SharedArrayBuffer(4));

/** `result` is a negative errno that a second try need not give. */
export function isPassing(result: number): boolean {
  return PASSING.has(result);
}

/** The thread does nothing for so long. */
export function pause(milliseconds: number): void {
  Atomics.wait(cell, 0, 0, milliseconds);
}
