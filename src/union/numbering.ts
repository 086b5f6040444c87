// The inode number of what a merge, a resolution or an undo puts in the place of a file: that file's, so that a client
// of NFS, which takes another number for another file, goes on with the handle that it has. The file system gives the
// number out again, so it is kept as that of the path (identity.ts). Main thread.
import { readBeneath } from '../branch/listing.ts';
import { NUMBERS } from '../branch/numbers.ts';
import { isDirectory, type Stat } from '../lib/stat.ts';
import { type Origin, pathHash } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { View } from './assess.ts';
import type { CarryContext } from './carrying.ts';
import { ownIno } from './identity.ts';
import { numberIn } from './origin-list.ts';

/**
 * The origins of what takes the place of the overlay's object under the names of `views`. If that has others, it goes on
 * showing its number there, and what comes has one of its own.
 */
export function numbered(
  { store, linksFd }: Pick<CarryContext, 'store' | 'linksFd'>,
  view: View,
  origins: readonly Origin[],
  views: readonly View[] = [view],
): Origin[] {
  const { object } = view.overlay;
  const { known } = store.numbers;
  // What comes back where nothing is may have left its number with others, which show it.
  if (object === null) {
    const own = pathHash(view.basePath);
    return origins.map((one) => ((known.get(one.ino) ?? own) === own ? one : { ...one, ino: 0 }));
  }
  if (isDirectory(object.stat.mode)) return [...origins];
  if (hasOtherNames(linksFd, object.stat, views.length)) return origins.map((one) => ({ ...one, ino: 0 }));
  const shown = numberIn(view.overlay.origins) || ownIno(known, object.stat.ino);
  const names = views.map(({ basePath }) => pathHash(basePath));
  return origins.map((one) => (one.ino !== 0 || names.includes(one.path) ? { ...one, ino: shown } : one));
}

/** Whether an object has more names in the overlay than so many. */
function hasOtherNames(linksFd: number, { ino, nlink }: Stat, names: number): boolean {
  const others = nlink - names;
  return others > 1 || (others === 1 && !liesIn(linksFd, ino));
}

/** The number of a copy that loses some names to the base's file, and shows it under others from then on; else 0. */
export function numberLeft({ linksFd }: Pick<CarryContext, 'linksFd'>, view: View, names: number): number {
  const { object, origins } = view.overlay;
  if (object === null || isDirectory(object.stat.mode)) return 0;
  return hasOtherNames(linksFd, object.stat, names) ? numberIn(origins) : 0;
}

/** Whether links/ has a link to the object. */
function liesIn(linksFd: number, ino: number): boolean {
  let found = false;
  readBeneath(linksFd, (_, one) => {
    found ||= one === ino;
  });
  return found;
}

/** A number of the overlay's that an object has taken over is nobody else's from now on. Buffered. */
export function keepNumbers({ numbers }: Store, origins: readonly Origin[]): void {
  for (const one of origins) if (one.ino < NUMBERS) numbers.take(one);
}
