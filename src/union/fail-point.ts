// Points at which a test lets the daemon die, listed in native-notes/copy-up.md. KASANE_FAIL=NAME switches one
// on, NAME:3 at the third passing, NAME:3:throw to have an error thrown there; without it a point costs one
// comparison.

const [wanted = '', count = '1', how = 'kill'] = (process.env.KASANE_FAIL ?? '').split(':');
let left = Number(count);

/** Returns 0; at the chosen point the process is gone, as by kill -9, or the request meets a mistake of ours. */
export function failPoint(name: string): number {
  if (wanted !== name) return 0;
  left -= 1;
  if (left === 0 && how === 'throw') throw new Error(`fail point ${name}`);
  if (left === 0) process.kill(process.pid, 'SIGKILL');
  return 0;
}
