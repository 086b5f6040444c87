// The last step of every change to the overlay: what is about to happen is noted in the journal, then one
// system call makes it seen. A note of what failed is taken back; one that a crash made untrue is found out
// at the next start, which asks whether the last notes have come true.
import type { JournalRecord } from '../versions/journal.ts';
import { failPoint } from './fail-point.ts';
import type { Union } from './union.ts';

/** Notes, then does; what `change` returned, or the negative errno of the journal. `step` names fail points. */
export function publish(
  union: Union,
  step: string,
  notes: readonly JournalRecord[],
  change: () => number,
): number {
  failPoint(`${step}-before-journal`);
  const { journal } = union;
  const before = journal.size;
  let result = 0;
  for (const note of notes) {
    result = journal.append(note);
    if (result < 0) break;
  }
  if (result >= 0) {
    failPoint(`${step}-before-rename`);
    result = change();
  }
  if (result < 0) journal.takeBack(before);
  else {
    failPoint(`${step}-after-rename`);
    for (const { origin } of notes)
      if (origin && origin.ino !== 0) union.numbers.set(origin.ino, origin.path);
  }
  return result;
}
