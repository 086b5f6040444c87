// `diff`: every object that the guest has changed, by its three sides.
import type { DiffItem, DiffReport, DiffSide, Emit, PathRequest } from '../control/verbs.ts';
import { isRegular, isSymlink } from '../lib/stat.ts';
import { looksBinary, MAX_TEXT } from '../merge/policy.ts';
import { type AssessContext, type View, viewOf } from '../union/assess.ts';
import { AGAIN } from '../union/carrying.ts';
import { untilStill } from '../union/look-object.ts';
import {
  type Found,
  fillContent,
  isMetadataOnly,
  openBase,
  openOverlayFile,
  sizeOf,
} from '../union/sides.ts';
import { walkFrom } from '../union/walk-overlay.ts';
import type { MountContext } from './context.ts';
import { absentSide, assessContext, expectPath, infoOfFound, typeOf, unknownSide } from './objects.ts';
import { hiddenBeneath } from './survey.ts';

const absent: DiffSide = { ...absentSide, content: null, unkept: false };
const unknown: DiffSide = { ...unknownSide, content: null, unkept: false };

export async function diff(
  context: MountContext,
  request: PathRequest,
  emit: Emit<DiffItem>,
): Promise<DiffReport> {
  await context.bringUpToDate();
  await expectPath(context, request.path);
  const assess = assessContext(context);
  const { branches } = assess;
  let looked = 0;
  const opaque: { path: string; basePath: string }[] = [];
  for await (const entry of walkFrom(branches.overlay, request.path)) {
    looked += 1;
    if (entry.opaque) opaque.push(entry);
    const item = await itemAt(assess, entry.path, entry.basePath);
    if (item !== null) await emit(item);
  }
  // What an opaque directory hides, the guest has removed.
  const told = new Set<string>();
  for (const dir of opaque) {
    for await (const { path, basePath } of hiddenBeneath(branches, dir)) {
      if (told.has(path)) continue;
      told.add(path);
      looked += 1;
      const item = await itemAt(assess, path, basePath);
      if (item !== null) await emit(item);
    }
  }
  return { looked };
}

/** null: it differs neither from its ancestor nor does its base. */
async function itemAt(assess: AssessContext, path: string, basePath: string): Promise<DiffItem | null> {
  const item = await untilStill(() => itemNow(assess, path, basePath));
  if (item !== AGAIN) return item;
  return { path, ancestor: unknown, overlay: unknown, base: unknown, changing: true };
}

async function itemNow(assess: AssessContext, path: string, basePath: string): Promise<DiffItem | null> {
  const view = await viewOf(assess, path, basePath);
  const { branches } = assess;
  const own = await sideOf(view.overlay.object, () => openOverlayFile(branches, path));
  const reachable = branches.layers.length > 0;
  const base = reachable ? await sideOf(view.base.object, () => openBase(branches, basePath)) : unknown;
  const overlay = follows(view, base) ? { ...own, ...contentOf(base) } : own;
  const ancestor = await ancestorOf(assess, view, overlay, base);
  const changed = ancestor.type !== 'unknown' && differ(ancestor, overlay);
  const moved = base.type !== 'unknown' && differ(ancestor.type === 'unknown' ? overlay : ancestor, base);
  return changed || moved ? { path, ancestor, overlay, base, changing: false } : null;
}

async function sideOf(found: Found | null, open: () => number): Promise<DiffSide> {
  if (found === null) return absent;
  const keep = sizeOf(found) <= MAX_TEXT;
  // Who looks on is shown something of what is just written to, and not refused all else.
  await fillContent(found, open, keep, { asRead: true });
  return { ...infoOfFound(found), content: textOf(found.bytes), unkept: false };
}

function textOf(bytes: Buffer | null): string | null {
  return bytes === null || looksBinary(bytes) ? null : bytes.toString('base64');
}

async function ancestorOf(
  assess: AssessContext,
  view: View,
  overlay: DiffSide,
  base: DiffSide,
): Promise<DiffSide> {
  const { origin, foreignCopy, object, state } = view.overlay;
  if (origin === null || origin.mode === 0) {
    // The guest's own, unless somebody else has copied, hidden or removed it.
    const own = object !== null && !foreignCopy && overlay.type !== 'dir';
    return own || (state === 'object' && view.base.object === null) ? absent : unknown;
  }
  const { mode, uid, gid } = origin;
  const content = view.ancestorContent ?? (origin.fingerprint === view.base.fingerprint ? base.hash : null);
  const side: DiffSide = {
    type: typeOf(mode),
    mode: mode & 0o7777,
    uid,
    gid,
    size: 0,
    mtime: origin.taken * 1000,
    hash: isRegular(mode) ? content : null,
    target: null,
    content: null,
    unkept: false,
  };
  // The guest has changed nothing of the content, whatever the base had then.
  if (isRegular(mode) && follows(view, base)) return { ...side, ...contentOf(base) };
  if (content === null) return { ...side, unkept: isRegular(mode) };
  const twins = [
    { found: view.overlay.object, side: overlay },
    { found: view.base.object, side: base },
  ];
  const twin = twins.find(({ found }) => found?.content === content)?.side;
  if (isSymlink(mode)) return { ...side, target: twin?.target ?? null };
  if (!isRegular(mode)) return side;
  if (twin !== undefined) return { ...side, size: twin.size, content: twin.content };
  const bytes = await assess.store.ancestors.get(content);
  if (bytes === null) return { ...side, unkept: true };
  return { ...side, size: bytes.length, content: textOf(bytes) };
}

/** A copy of metadata alone has the base's content. */
function follows(view: View, base: DiffSide): boolean {
  return isMetadataOnly(view.overlay.object) && base.type === 'file';
}

function contentOf({ size, hash, content }: DiffSide): Pick<DiffSide, 'size' | 'hash' | 'content'> {
  return { size, hash, content };
}

/** What a person would call a difference; times are none. */
function differ(a: DiffSide, b: DiffSide): boolean {
  if (a.type !== b.type) return true;
  if (a.type === 'absent') return false;
  if (a.type !== 'symlink' && (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid)) return true;
  if (a.type === 'symlink') return a.target !== b.target;
  return a.type === 'file' && (a.hash === null || a.hash !== b.hash);
}
