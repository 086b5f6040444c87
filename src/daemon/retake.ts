// Ancestors are kept in the background, and a crash may come first: what the base still has is taken again.
import { messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import { mergeable } from '../merge/policy.ts';
import { originFor } from '../union/origin-list.ts';
import { fillContent, openBase, readBase } from '../union/sides.ts';
import type { OverlayEntry } from '../union/walk-overlay.ts';
import { encodeXattrs, hashXattrs } from '../union/xattr-set.ts';
import type { Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { OpenBranches } from './branches.ts';

/** Takes the ancestor of an overlay object again, where it is missing and the base has not moved since. */
export async function retakeAncestor(
  store: Store,
  branches: OpenBranches,
  entry: OverlayEntry,
  log: Log,
): Promise<void> {
  const origin = originFor(entry.origins, entry.basePath);
  if (origin === null || !lacksAncestor(store, origin)) return;
  try {
    await retake(store, branches, entry, origin);
  } catch (error) {
    // Without it the file is no worse than one whose base has moved meanwhile.
    log.warn(`${escapeName(entry.path)}: its ancestor is not kept: ${messageOf(error)}`);
  }
}

function lacksAncestor({ ancestors }: Store, { content, xattrs }: Origin): boolean {
  if (content !== '' && !ancestors.has(content)) return true;
  return xattrs !== '' && ancestors.findByPrefix(xattrs) === null;
}

async function retake(
  store: Store,
  branches: OpenBranches,
  { path, basePath }: OverlayEntry,
  origin: Origin,
): Promise<void> {
  const { object, fingerprint } = readBase(branches, basePath);
  if (object === null || fingerprint !== origin.fingerprint) return;
  if (origin.xattrs !== '' && hashXattrs(object.xattrs) === origin.xattrs) {
    await store.ancestors.put(encodeXattrs(object.xattrs));
  }
  if (origin.content === '' || !mergeable(path, branches.osTree, object.stat.size)) return;
  await fillContent(object, () => openBase(branches, basePath), true);
  if (object.bytes !== null && object.content === origin.content) await store.ancestors.put(object.bytes);
}
