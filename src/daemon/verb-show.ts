// `show`: the bytes of one side of a path or conflict, or of a version of the history, and what they belong to.
import type { Emit, ShowItem, ShowReport, ShowRequest, Side, SideInfo } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { isRegular, isSymlink } from '../lib/stat.ts';
import { loadContents, type View, viewOf } from '../union/assess.ts';
import { type Found, openBase, openOverlayFile } from '../union/sides.ts';
import { basePathOf } from '../union/walk-overlay.ts';
import type { EventLog } from '../versions/events.ts';
import type { ConflictRecord, VersionRef } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import {
  absentSide,
  assessContext,
  emitBytes,
  emitFile,
  emitKept,
  emitVersion,
  expectPath,
  infoOfFound,
  infoOfVersion,
  typeOf,
} from './objects.ts';
import { type Place, placesOf } from './places.ts';

export async function show(
  context: MountContext,
  request: ShowRequest,
  emit: Emit<ShowItem>,
): Promise<ShowReport> {
  await context.bringUpToDate();
  const { target, what } = request;
  const { conflicts } = context.store;
  const record = 'id' in target ? conflicts.get(target.id) : conflicts.of(target.path);
  if ('id' in target && record === null) throw new FsError(E.ENOKEY, `conflict ${target.id}: unknown`);
  const path = record?.path ?? ('path' in target ? target.path : '');
  const info =
    'version' in what
      ? await showVersion(context, path, what.version, emit)
      : record !== null
        ? await showRecorded(context, record, what.side, emit)
        : await showNow(context, path, what.side, emit);
  return { ...info, path };
}

function missing(path: string, why: string): FsError {
  return new FsError(E.ENOENT, `${escapeName(path) || '/'}: ${why}`);
}

async function showVersion(
  context: MountContext,
  path: string,
  number: number,
  emit: Emit<ShowItem>,
): Promise<SideInfo> {
  const ref = await findVersion(context, path, number);
  if (ref === null) {
    await expectPath(context, path);
    throw new FsError(E.ENOKEY, `${escapeName(path) || '/'}: version ${number} is unknown`);
  }
  const size = await emitVersion(context.store, ref, emit);
  return { ...infoOfVersion(ref), size };
}

/** A version that was recorded under the path, or under one that what is there had before a directory was renamed. */
async function findVersion(
  { store }: MountContext,
  path: string,
  number: number,
): Promise<VersionRef | null> {
  for (const place of await placesOf(store.events, path)) {
    const ref = store.versions.get(place.path, number);
    if (ref === null) continue;
    if (place.path === path || (await isRecorded(store.events, place, number))) return ref;
  }
  return null;
}

/** Else it is a version of what has come to the old path since. */
async function isRecorded(events: EventLog, place: Place, number: number): Promise<boolean> {
  for await (const { seq, version, sides, undo } of events.at(place.path)) {
    const kept = [version, undo?.version, sides?.ancestor, sides?.overlay, sides?.base];
    if (seq < place.before && kept.includes(number)) return true;
  }
  return false;
}

/** Sides as the conflict shows them, at its revision. */
async function showRecorded(
  context: MountContext,
  record: ConflictRecord,
  side: Side,
  emit: Emit<ShowItem>,
): Promise<SideInfo> {
  const { store } = context;
  const { path, merged, overlay } = record;
  if (side === 'merged') {
    if (merged === null) throw missing(path, `conflict ${record.id} has no proposal`);
    const size = await emitKept(store, merged.content, merged.size, emit);
    const like = overlay === null || overlay === 'unknown' ? absentSide : infoOfVersion(overlay);
    return { ...like, type: 'file', target: null, mtime: record.since, size, hash: merged.content };
  }
  const ref = record[side];
  if (ref === null) throw missing(path, `there is none on the side of the ${side}`);
  if (ref === 'unknown') throw missing(path, `nothing is known of the ${side}`);
  const size = await emitVersion(store, ref, emit);
  return { ...infoOfVersion(ref), size };
}

/** Sides of a path that is in no conflict: as they are. */
async function showNow(
  context: MountContext,
  path: string,
  side: Side,
  emit: Emit<ShowItem>,
): Promise<SideInfo> {
  await expectPath(context, path);
  if (side === 'merged') throw missing(path, 'no conflict is open, so nothing is proposed');
  const assess = assessContext(context);
  const { branches } = assess;
  const view = await viewOf(assess, path, basePathOf(branches.overlay, path));
  if (side === 'ancestor') return showAncestor(context, view, emit);
  const { object } = view[side];
  const reachable = side === 'overlay' || branches.layers.length > 0;
  if (object === null) {
    throw missing(path, reachable ? `there is none in the ${side}` : 'the base is not reachable');
  }
  const open = () =>
    side === 'overlay' ? openOverlayFile(branches, path) : openBase(branches, view.basePath);
  return showFound(object, open, emit);
}

async function showFound(found: Found, open: () => number, emit: Emit<ShowItem>): Promise<SideInfo> {
  const info = infoOfFound(found);
  if (info.target !== null) {
    const bytes = Buffer.from(info.target, 'latin1');
    await emitBytes(bytes, emit);
    return { ...info, size: bytes.length };
  }
  return info.type === 'file' ? { ...info, ...(await emitFile(open(), emit)) } : info;
}

async function showAncestor(context: MountContext, view: View, emit: Emit<ShowItem>): Promise<SideInfo> {
  const { origin } = view.overlay;
  if (origin === null || origin.mode === 0) throw missing(view.path, 'it has no ancestor');
  const assess = assessContext(context);
  await loadContents(assess, view);
  const base = view.base.object;
  const content = view.ancestorContent;
  const { mode, uid, gid, taken } = origin;
  const info: SideInfo = {
    type: typeOf(mode),
    mode: mode & 0o7777,
    uid,
    gid,
    size: 0,
    mtime: taken * 1000,
    hash: isRegular(mode) ? content : null,
    target: null,
  };
  if (isRegular(mode) && content !== null && context.store.ancestors.has(content)) {
    return { ...info, size: await emitKept(context.store, content, 0, emit) };
  }
  // Its bytes are not kept; but the base, or the overlay, may still have them.
  const same = [base, view.overlay.object].find(
    (found) => found != null && content !== null && found.content === content,
  );
  if (same && (isRegular(mode) || isSymlink(mode))) {
    const { branches } = assess;
    const open = () =>
      same === base ? openBase(branches, view.basePath) : openOverlayFile(branches, view.path);
    const { size, target } = await showFound(same, open, emit);
    return { ...info, size, target };
  }
  if (isRegular(mode) || isSymlink(mode)) throw missing(view.path, 'the bytes of its ancestor are not kept');
  return info;
}
