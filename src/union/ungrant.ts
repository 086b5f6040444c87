// Set-id bits and file capabilities of a copy of metadata alone, whose content is the base's. Where its metadata cannot
// be merged (a conflict, an undo), those of the guest's do not go over to bytes that they were not given to.
import { parentPath } from '../lib/names.ts';
import { S_ISGID, S_ISUID, type Stat } from '../lib/stat.ts';
import { contentBound } from '../merge/metadata.ts';
import type { View } from './assess.ts';
import { build, discard, syncNames } from './build.ts';
import { AGAIN, type CarryContext, failed, type Outcome, stepOf } from './carrying.ts';
import type { CommitRequest } from './commit.ts';
import { numbered } from './numbering.ts';
import { blueprint, leftContent } from './plan.ts';
import { type Found, isMetadataOnly } from './sides.ts';
import type { XattrSet } from './xattr-set.ts';

export interface Ungranted {
  /** 0o7777. */
  mode: number;
  xattrs: XattrSet;
}

/** What the copy may keep over the base's content of now; null: all it has. */
export function ungranted(view: View): Ungranted | null {
  const { object, origin } = view.overlay;
  const base = view.base.object;
  if (object === null || base === null || !isMetadataOnly(object)) return null;
  if (origin !== null && origin.fingerprint === view.base.fingerprint) return null;
  const mode = object.stat.mode & 0o7777 & ~(setidOf(object.stat) & ~grantedBy(base.stat, object.stat));
  const xattrs = new Map([...object.xattrs].filter(([name, value]) => mayStay(name, value, base)));
  return mode === (object.stat.mode & 0o7777) && xattrs.size === object.xattrs.size ? null : { mode, xattrs };
}

const setidOf = ({ mode }: Stat): number => mode & (S_ISUID | S_ISGID);

/** The base's own go with its owner alone. */
function grantedBy(base: Stat, { uid, gid }: Stat): number {
  return base.uid === uid && base.gid === gid ? setidOf(base) : 0;
}

function mayStay(name: string, value: Buffer, base: Found): boolean {
  return !contentBound.has(name) || base.xattrs.get(name)?.equals(value) === true;
}

/** The copy without them, as a step; when that is taken, the path is looked at anew. Throws FsError as build does. */
export async function ungrantStep(
  context: CarryContext,
  view: View,
  { mode, xattrs }: Ungranted,
): Promise<{
  step: CommitRequest;
  taken: () => Promise<typeof AGAIN>;
  refused: (result: number) => Outcome | typeof AGAIN;
}> {
  const object = view.overlay.object as Found;
  const { uid, gid } = object.stat;
  const temp = context.tempName();
  const origins = numbered(context, view, view.overlay.origins);
  await build(context.shop, temp, {
    ...blueprint(object, { mode, uid, gid, xattrs }, null, origins, 'overlay'),
    ...leftContent(view, 'overlay'),
  });
  return {
    step: stepOf(view, 'replace', { temp }),
    taken: async () => {
      await syncNames(context.shop, context.branches.overlay, parentPath(view.path));
      const detail = 'set-id bits and capabilities taken off: the base has another content beneath them';
      context.store.events.add({ kind: 'kept', path: view.path, detail });
      return AGAIN;
    },
    refused: (result) => {
      discard(context.shop, temp);
      return failed(context, view, result);
    },
  };
}
