// What the serving thread is told of a look: about the sides that were judged, whatever has come since.
import { expect, test } from 'vitest';
import { newStat, type Stat } from '../../src/lib/stat.ts';
import type { View } from '../../src/union/assess.ts';
import { outcome } from '../../src/union/carrying.ts';
import { type LookContext, settled } from '../../src/union/looking.ts';
import type { Verdict } from '../../src/union/node.ts';

/** What is told at the end of a look at a file with this stat; the base has nothing there. */
function told(
  kind: 'pending' | 'kept' | 'conflict' | 'merged',
  stat: Stat | null,
): Verdict | null | undefined {
  let last: Verdict | null | undefined;
  // Nothing else of the context may be asked: what lies there by now is not what was judged.
  const context = { verdict: (_: string, verdict: Verdict | null) => (last = verdict) };
  const view = {
    path: 'f',
    basePath: 'f',
    overlay: { object: stat === null ? null : { stat } },
    base: { object: null, fingerprint: 'of the base' },
  };
  settled(context as unknown as LookContext, view as unknown as View, outcome(kind));
  return last;
}

test('what stays as it is does so for the file as it was judged, not as a guest has written it meanwhile', () => {
  const stat = Object.assign(newStat(), { ino: 7, ctimeSec: 1000, ctimeNsec: 5 });
  const judged = { overlayIno: 7, overlayCtimeSec: 1000, overlayCtimeNsec: 5, fingerprint: 'of the base' };
  for (const kind of ['pending', 'kept', 'conflict'] as const) expect(told(kind, stat)).toMatchObject(judged);
});

test('what was changed, or is no more, is told to be unknown', () => {
  expect(told('merged', newStat())).toBe(null);
  expect(told('conflict', null)).toBe(null);
});
