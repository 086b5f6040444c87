// What the object is to be that takes the place of a copy: which bytes, whose times, and whether it needs any content
// of its own. Main thread.
import { errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { isLater, isRegular, S_IFMT } from '../lib/stat.ts';
import type { MergedMetadata } from '../merge/metadata.ts';
import { close } from '../sys/file.ts';
import type { Origin } from '../versions/origin.ts';
import type { Assessed, View } from './assess.ts';
import { type Blueprint, type Built, buildAndSync } from './build.ts';
import type { CarryContext } from './carrying.ts';
import { type Found, isMetadataOnly, openBase, openOverlayFile, sizeOf } from './sides.ts';
import type { XattrSet } from './xattr-set.ts';

/** Whose content it gets. */
export type Source = 'overlay' | 'base' | 'merged';

/** Whether the copy shows the base's content without having it. */
export function leavesContent(
  { shop }: CarryContext,
  { view, decision }: Assessed,
  { xattrs }: MergedMetadata,
  source: Source,
): boolean {
  const base = view.base.object?.stat;
  if (!base || !isRegular(base.mode)) return false;
  if (source === 'overlay') return isMetadataOnly(view.overlay.object);
  const wanted = decision.do === 'take-base' && decision.as === 'metadata-only';
  return wanted && shop.metacopy && base.nlink === 1 && xattrs?.has('security.capability') !== true;
}

/** Of a copy that follows another version from now on the mtime is not older than that. */
export function leftContent(
  { base, overlay }: View,
  source: Source,
): Partial<Blueprint> & { content: { leftOfSize: number } } {
  const stat = (base.object as Found).stat;
  const content = { leftOfSize: stat.size };
  const own = overlay.object?.stat;
  const moved = source === 'overlay' && base.fingerprint !== overlay.origin?.fingerprint;
  const later = own !== undefined && isLater(stat.mtimeSec, stat.mtimeNsec, own.mtimeSec, own.mtimeNsec);
  return moved && later ? { content, mtimeSec: stat.mtimeSec, mtimeNsec: stat.mtimeNsec } : { content };
}

const none: XattrSet = new Map();

export function blueprint(
  from: Found,
  metadata: Pick<MergedMetadata, 'mode' | 'uid' | 'gid' | 'xattrs'>,
  bytes: Buffer | null,
  origins: Origin[],
  source: Source,
): Blueprint {
  const now = Date.now();
  const fresh = source === 'merged';
  const times = fresh
    ? { mtimeSec: Math.floor(now / 1000), mtimeNsec: (now % 1000) * 1_000_000 }
    : { mtimeSec: from.stat.mtimeSec, mtimeNsec: from.stat.mtimeNsec };
  return {
    mode: (from.stat.mode & S_IFMT) | (metadata.mode & 0o7777),
    uid: metadata.uid,
    gid: metadata.gid,
    xattrs: metadata.xattrs ?? none,
    ...times,
    content: bytes,
    target: from.target ?? '',
    rdevMajor: from.stat.rdevMajor,
    rdevMinor: from.stat.rdevMinor,
    origins,
  };
}

/** Builds; a large file is copied from its branch. It may take a name once it is synced. */
export async function buildFrom(
  context: CarryContext,
  view: View,
  temp: string,
  plan: Blueprint,
  from: Found,
  source: Source,
): Promise<Built> {
  if (plan.content !== null || !isRegular(plan.mode)) return buildAndSync(context.shop, temp, plan);
  const fd =
    source === 'base'
      ? openBase(context.branches, view.basePath)
      : openOverlayFile(context.branches, view.path);
  if (fd < 0) throw new FsError(-fd, `${view.path}: cannot be read (${errnoName(fd)})`);
  try {
    return await buildAndSync(context.shop, temp, { ...plan, content: { fd, size: sizeOf(from) } });
  } finally {
    close(fd);
  }
}
