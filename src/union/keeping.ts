// Keeping versions: every version that a guest or the base had under a merge, drop or conflict is put away
// before anything replaces it, so that it can still be shown and put back.
import { isRegular } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { KeptSides, SideRef, VersionRef } from '../versions/types.ts';
import type { View } from './assess.ts';
import { type Branches, type Found, isMetadataOnly, openBase, openOverlayFile, sizeOf } from './sides.ts';
import { xattrPairs } from './xattr-set.ts';

/** A version of an object that can be read now; its content goes to the ancestors. */
export async function keepObject(
  store: Store,
  found: Found,
  open: () => number,
  origins: readonly Origin[],
): Promise<VersionRef> {
  const { rdevMajor, rdevMinor } = found.stat;
  const metadataOnly = isMetadataOnly(found);
  return {
    content: isRegular(found.stat.mode) && !metadataOnly ? await keepContent(store, found, open) : null,
    mode: found.stat.mode,
    uid: found.stat.uid,
    gid: found.stat.gid,
    size: sizeOf(found),
    mtime: found.stat.mtimeSec * 1000 + found.stat.mtimeNsec / 1e6,
    target: found.target,
    xattrs: xattrPairs(found.xattrs),
    ...(origins.length > 0 ? { origin: encodeOrigins(origins).toString('base64') } : {}),
    ...(metadataOnly ? { metadataOnly } : {}),
    ...(rdevMajor + rdevMinor > 0 ? { rdev: [rdevMajor, rdevMinor] as [number, number] } : {}),
  };
}

/** Who follows it has not got it from here, so there is nothing to come back to. */
function withoutContent({ stat, target, xattrs }: Found): VersionRef {
  const { mode, uid, gid, size, mtimeSec, mtimeNsec } = stat;
  const mtime = mtimeSec * 1000 + mtimeNsec / 1e6;
  return { content: null, mode, uid, gid, size, mtime, target, xattrs: xattrPairs(xattrs) };
}

async function keepContent(store: Store, found: Found, open: () => number): Promise<string> {
  if (found.bytes !== null) return store.ancestors.put(found.bytes);
  if (found.content !== null && store.ancestors.has(found.content)) return found.content;
  const fd = open();
  try {
    return await store.ancestors.putFromFile(fd);
  } finally {
    if (fd >= 0) close(fd);
  }
}

/**
 * The ancestor as a version; 'unknown' where nothing is known of its content. Of what is never merged the hash alone is
 * known: then it has no content, for a version that names one promises that it can be shown.
 */
function ancestorRef({ ancestors }: Store, view: View): SideRef {
  const { origin } = view.overlay;
  if (origin === null) return 'unknown';
  const regular = isRegular(origin.mode);
  const content = regular ? view.ancestorContent : null;
  if (regular && content === null) return 'unknown';
  return {
    content: content !== null && ancestors.has(content) ? content : null,
    mode: origin.mode,
    uid: origin.uid,
    gid: origin.gid,
    size: view.ancestorBytes?.length ?? 0,
    mtime: origin.taken * 1000,
    target: null,
    xattrs: view.ancestorXattrs === null ? [] : xattrPairs(view.ancestorXattrs),
  };
}

export interface Sides {
  ancestor: SideRef;
  overlay: SideRef;
  base: SideRef;
}

/** All three sides of a path as versions. */
export async function keepSides(store: Store, branches: Branches, view: View): Promise<Sides> {
  const { overlay, base, path, basePath } = view;
  const own =
    overlay.object === null
      ? null
      : await keepObject(store, overlay.object, () => openOverlayFile(branches, path), overlay.origins);
  const theirs =
    base.object === null
      ? null
      : isMetadataOnly(overlay.object) && base.object.content === null
        ? withoutContent(base.object)
        : await keepObject(store, base.object, () => openBase(branches, basePath), []);
  // Last: one of them may be what the ancestor was.
  return { ancestor: ancestorRef(store, view), overlay: own, base: theirs };
}

/** Numbers for the sides among the versions of the path, so that `show --version` finds them. */
export function numberSides(store: Store, path: string, sides: Sides): KeptSides {
  const number = (side: SideRef) =>
    side === null || side === 'unknown' ? null : store.versions.add(path, side);
  return { ancestor: number(sides.ancestor), base: number(sides.base), overlay: number(sides.overlay) };
}
