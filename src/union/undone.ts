// Was something undone at a path, by a person or by a guest that has put the bytes of before a merge back? The version
// of the base that was refused is pinned in the origin.
import { decodeOrigins } from '../versions/origin.ts';
import type { StoredEvent } from '../versions/types.ts';
import { loadContents, type View } from './assess.ts';
import { base64, type CarryContext, record, stepOf } from './carrying.ts';
import { isPinned, originFor, pinOf } from './origin-list.ts';

/** Events after which it no longer counts what the guest had before an earlier merge. */
const decisive: ReadonlySet<string> = new Set(['merged', 'dropped', 'resolved', 'undone', 'pin-lifted']);

/** Where the base stands to the version that was refused; null: nothing was undone. */
export async function pinnedAt(context: CarryContext, view: View): Promise<'at-pin' | 'past-pin' | null> {
  const { origin } = view.overlay;
  if (origin === null) return null;
  const pin = origin.pin ?? (await putBack(context, view))?.undo?.pin ?? null;
  if (pin === null) return null;
  if (isPinned(pin, view.base.fingerprint)) return 'at-pin';
  await loadContents(context, view);
  const content = view.base.object?.content ?? null;
  return content !== null && content === pin.content ? 'at-pin' : 'past-pin';
}

/**
 * The last merge, if the guest has put back exactly the bytes that it had before. A writer that had not seen the
 * merge has set the origin back, and undoes nothing.
 */
async function putBack(context: CarryContext, view: View): Promise<StoredEvent | null> {
  const { store } = context;
  if ((store.paths.get(view.path)?.lastMerges.length ?? 0) === 0) return null;
  let last: StoredEvent | null = null;
  for await (const event of store.events.of(view.path)) {
    if (event.path === view.path && decisive.has(event.kind)) last = event;
  }
  if (last?.kind !== 'merged' || last.undone !== 0 || last.undo?.version == null) return null;
  if (view.overlay.origin?.content !== last.undo.pin?.content) return null;
  const before = store.versions.get(view.path, last.undo.version);
  if (before?.content == null || last.undo.after.startsWith(before.content)) return null;
  await loadContents(context, view);
  return view.overlay.object?.content === before.content ? last : null;
}

/** What a guest has undone by itself is undone: the origin of before, and the pin. Whether that was so. */
export async function pinIfPutBack(context: CarryContext, view: View): Promise<boolean> {
  const { origin, origins } = view.overlay;
  const last = origin === null || origin.pin !== null ? null : await putBack(context, view);
  if (last === null || last.undo?.pin == null || last.undo.origin === null) return false;
  const list = decodeOrigins(Buffer.from(last.undo.origin, 'base64')) ?? [];
  const own = originFor(list, view.basePath);
  if (own === null) return false;
  const { fingerprint, content } = last.undo.pin;
  const pinned = { ...own, ino: origin?.ino ?? 0, pin: pinOf(fingerprint, content) };
  const others = origins.filter((one) => one !== origin);
  const step = stepOf(view, 'origins', { base: null, origins: base64([...others, pinned]) });
  if ((await context.commit(step)) < 0) return false;
  const detail = `the guest has put back what it had before event ${last.seq} (merged)`;
  const seq = context.store.events.add({ kind: 'undone', path: view.path, detail });
  context.store.events.markUndone(last.seq, seq);
  record(context, view, 'U', detail, seq, false);
  return true;
}
