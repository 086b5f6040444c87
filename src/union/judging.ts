// From a view to a decision with the conditions of this moment: whether the base has settled, whether somebody writes,
// what was undone.
import { E } from '../lib/errno.ts';
import { isRegular } from '../lib/stat.ts';
import type { Conditions } from '../merge/decide.ts';
import { F_RDLCK, F_UNLCK } from '../sys/constants.ts';
import { close, setLease } from '../sys/file.ts';
import { type Assessed, assess, type View } from './assess.ts';
import type { Decided } from './carry-out.ts';
import type { Outcome } from './carrying.ts';
import type { LookContext, LookOptions } from './looking.ts';
import { type Branches, openBase, openOverlayFile } from './sides.ts';
import { pinnedAt } from './undone.ts';

/** `beneathMs`: what lies in it waits so long. */
export async function judge(
  context: LookContext,
  view: View,
  options: LookOptions,
  beneathMs = 0,
): Promise<Decided> {
  const { branches, store, settling, acceptance, readOnly } = context;
  const lastMerges = store.paths.get(view.path)?.lastMerges ?? [];
  const ownMs = settling.wait(view.path, view.base, lastMerges, () => openBase(branches, view.basePath));
  const waitMs = Math.max(ownMs, beneathMs);
  const conditions: Conditions = {
    baseState: options.accepted ? 'accepted' : acceptance.state,
    settled: waitMs === 0,
    writer: hasWriter(branches, view),
    setReady: true,
    overlayWritable: readOnly ? 'read-only' : 'yes',
    underOpaque: view.overlay.underOpaque,
    locked: false,
  };
  const pinned = options.unpinned === view.path ? null : await pinnedAt(context, view);
  return { assessed: await assess(context, view, conditions, pinned, context.merger), waitMs };
}

/** The serving thread asks again in the last step; this spares the work. */
function hasWriter(branches: Branches, view: View): boolean {
  // Of anything else nobody can have a lease, and a device may do something when it is opened.
  if (view.overlay.object === null || !isRegular(view.overlay.object.stat.mode)) return false;
  const fd = openOverlayFile(branches, view.path);
  if (fd < 0) return false;
  const lease = setLease(fd, F_RDLCK);
  if (lease === 0) setLease(fd, F_UNLCK);
  close(fd);
  return lease === -E.EAGAIN || lease === -E.EBUSY;
}

/** What carrying a decision out would come to. */
export function planned(assessed: Assessed): Outcome {
  const { decision } = assessed;
  const detail =
    decision.do === 'conflict' || decision.do === 'pending'
      ? decision.reason
      : decision.do === 'kept'
        ? decision.detail
        : '';
  const outcomes = {
    current: 'current',
    pinned: 'current',
    pending: 'pending',
    kept: 'kept',
    drop: 'dropped',
    adopt: 'adopted',
    'take-base': 'merged',
    'merge-text': 'merged',
    metadata: 'merged',
    displace: 'conflict',
    conflict: 'conflict',
  } as const;
  const kind = decision.do === 'conflict' ? decision.kind : decision.do === 'displace' ? 'type' : null;
  return { outcome: outcomes[decision.do], detail, retryMs: null, ...(kind === null ? {} : { kind }) };
}
