// What a resolution comes to on disk: the origin that it leaves, and the steps that put an object in place.

import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { isDirectory, isRegular, S_IFREG } from '../lib/stat.ts';
import { type ContentFrom, type MergedMetadata, mergeMetadata } from '../merge/metadata.ts';
import { alike } from '../merge/path-state.ts';
import type { View } from '../union/assess.ts';
import { build, onDisk } from '../union/build.ts';
import { originFromBase, withOrigin } from '../union/carry-out.ts';
import type { CarryContext } from '../union/carrying.ts';
import { base64, stepOf } from '../union/carrying.ts';
import type { CommitRequest } from '../union/commit.ts';
import { numbered, numberLeft } from '../union/numbering.ts';
import { blueprint, buildFrom } from '../union/plan.ts';
import { ancestorSide, type Found, meantBy, sideOf } from '../union/sides.ts';
import { builtSignature, contentSignature } from '../union/signature.ts';
import { encodeXattrs, hashXattrs, type XattrSet } from '../union/xattr-set.ts';
import { type Origin, pathHash } from '../versions/origin.ts';
import type { ConflictRecord, PathRecord, PathState } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import { contentOfVersion } from './objects.ts';
import { shownBase, versionOfFound } from './path-state.ts';

/** What is to be put in place. */
export interface Wanted {
  take: 'overlay' | 'base' | 'merged' | 'file';
  /** Of 'file'. */
  bytes: Buffer | null;
  rev: number | null;
}

/** The base at the conflict's rev, as an origin. Its attributes are kept, for the next merge of them. */
export async function originAtRevision(
  carry: CarryContext,
  record: ConflictRecord,
  view: View,
): Promise<Origin | null> {
  const { base } = record;
  const current = alike(shownBase(record, view), versionOfFound(view.base.object));
  const keepXattrs = async (xattrs: XattrSet) => {
    if (xattrs.size > 0) await carry.store.ancestors.put(encodeXattrs(xattrs));
  };
  if (current) {
    if (view.base.object !== null) await keepXattrs(view.base.object.xattrs);
    return originFromBase(view);
  }
  if (base === null || base === 'unknown') return null;
  const xattrs = new Map(base.xattrs.map(([name, value]) => [name, Buffer.from(value, 'base64')]));
  await keepXattrs(xattrs);
  return {
    path: pathHash(view.basePath),
    mode: base.mode,
    uid: base.uid,
    gid: base.gid,
    ino: view.overlay.origin?.ino ?? 0,
    content: contentOfVersion(base) ?? '',
    fingerprint: record.baseFingerprint,
    xattrs: hashXattrs(xattrs),
    taken: Math.floor(Date.now() / 1000),
    torn: false,
    pin: null,
  };
}

export interface Plan {
  steps: CommitRequest[];
  after: string;
  origins: Origin[];
  /** A directory goes to displaced/. */
  displaced: boolean;
  /** The number that a copy goes on showing under its other names, 0 for none. */
  left: number;
}

export async function planFor(
  carry: CarryContext,
  record: ConflictRecord,
  view: View,
  wanted: Wanted,
  follows: boolean,
  own: Origin | null,
  temp: string,
): Promise<Plan> {
  const { object } = view.overlay;
  const origins = withOrigin(view, own);
  if (wanted.take === 'overlay') {
    const step = stepOf(view, 'origins', { origins: base64(origins) });
    return { steps: [step], after: contentSignature(object), origins, displaced: false, left: 0 };
  }
  const displaced = object !== null && isDirectory(object.stat.mode);
  const away = stepOf(view, 'displace', { temp: String(record.id), displacedFd: carry.displacedFd });
  if (follows && object === null) return { steps: [], after: '', origins: [], displaced: false, left: 0 };
  if (follows) {
    const left = numberLeft(carry, view, 1);
    return { steps: [displaced ? away : stepOf(view, 'drop')], after: '', origins: [], displaced, left };
  }
  const placed = numbered(carry, view, origins);
  const content =
    wanted.take === 'base'
      ? await buildBase(carry, view, placed, temp)
      : await buildBytes(carry, record, view, placed, temp, wanted.bytes ?? (await proposed(carry, record)));
  const place = stepOf(view, 'replace', { temp });
  const steps = displaced ? [away, { ...place, overlay: null }] : [place];
  return { steps, after: builtSignature(carry.shop, temp, content), origins: placed, displaced, left: 0 };
}

async function proposed(carry: CarryContext, record: ConflictRecord): Promise<Buffer> {
  const bytes = record.merged === null ? null : await carry.store.ancestors.get(record.merged.content);
  if (bytes === null) throw new FsError(E.EUCLEAN, `conflict ${record.id}: what was proposed is damaged`);
  return bytes;
}

/** Under an opaque directory the base does not show by itself. */
async function buildBase(
  carry: CarryContext,
  view: View,
  origins: Origin[],
  temp: string,
): Promise<string | null> {
  const from = view.base.object as Found;
  if (isDirectory(from.stat.mode)) {
    const name = escapeName(view.path);
    throw new FsError(
      E.EOPNOTSUPP,
      `${name}: a directory of the base cannot be taken where its names are hidden`,
    );
  }
  const { mode, uid, gid } = from.stat;
  const plan = blueprint(from, { mode, uid, gid, xattrs: from.xattrs }, from.bytes, origins, 'base');
  await onDisk(carry.shop, temp, await buildFrom(carry, view, temp, plan, from, 'base'));
  return from.content;
}

/**
 * What was decided upon are bytes. Of owner, permissions and attributes the changes of both sides count, as in any merge;
 * where they meet, and where the ancestor's are not known, they are the overlay's. null: there are no two files.
 */
function mergedWithBase(
  { branches }: CarryContext,
  { base }: ConflictRecord,
  view: View,
  from: ContentFrom,
): MergedMetadata | null {
  const { object, origin } = view.overlay;
  const regular = object !== null && isRegular(object.stat.mode);
  if (!regular || base === null || base === 'unknown' || !isRegular(base.mode)) return null;
  const xattrs = new Map(base.xattrs.map(([name, value]) => [name, Buffer.from(value, 'base64')]));
  const { mode, uid, gid, size, content } = base;
  const shown = { type: S_IFREG, mode: mode & 0o7777, uid, gid, size, rdev: 0, content };
  const merged = mergeMetadata(
    ancestorSide(origin, view.ancestorContent),
    meantBy(sideOf(object), origin, branches.standIn),
    { ...shown, xattrs: hashXattrs(xattrs) },
    from,
    () => ({ ancestor: view.ancestorXattrs, overlay: object.xattrs, base: xattrs }),
  );
  return 'conflict' in merged ? null : merged;
}

/** A regular file with these bytes. */
async function buildBytes(
  carry: CarryContext,
  record: ConflictRecord,
  view: View,
  origins: Origin[],
  temp: string,
  bytes: Buffer,
): Promise<string> {
  const like = [view.overlay.object, view.base.object].find((found) => found && isRegular(found.stat.mode));
  const content = await carry.store.ancestors.put(bytes);
  const same = like?.content === content;
  const now = Date.now();
  const merged = mergedWithBase(carry, record, view, same ? 'overlay' : 'merged');
  const { mode, uid, gid, xattrs } = merged ?? {
    // Set-id bits and capabilities were given to other bytes.
    mode: (like?.stat.mode ?? 0o644) & (same ? 0o7777 : 0o1777),
    uid: like?.stat.uid ?? 0,
    gid: like?.stat.gid ?? 0,
    xattrs: new Map([...(like?.xattrs ?? [])].filter(([name]) => same || name !== 'security.capability')),
  };
  await build(carry.shop, temp, {
    mode: S_IFREG | mode,
    uid,
    gid,
    xattrs: xattrs ?? new Map(),
    mtimeSec: Math.floor(now / 1000),
    mtimeNsec: (now % 1000) * 1_000_000,
    content: bytes,
    target: '',
    rdevMajor: 0,
    rdevMinor: 0,
    origins,
  });
  return content;
}

export function recordOf(
  context: MountContext,
  view: View,
  state: PathState,
  after: string,
  origin: Origin | null,
): PathRecord {
  const before = context.store.paths.get(view.path);
  const needs = [origin?.content ?? '', origin?.pin?.content ?? ''].filter((hash) => hash !== '');
  return {
    path: view.path,
    state,
    detail: '',
    fingerprint: null,
    baseSeen: view.base.fingerprint,
    overlaySig: after,
    lastMerges: before?.lastMerges ?? [],
    lastSeq: 0,
    needs: [...new Set(needs)],
  };
}
