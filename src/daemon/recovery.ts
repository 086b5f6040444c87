// What the last daemon left undone, finished or taken back before anybody is served: an index that was lost is
// rebuilt from the origins in the overlay, and merges that a crash cut off are recorded if their file is there.
import type { Overlay } from '../branch/overlay.ts';
import type { Log } from '../lib/log.ts';
import { setxattr } from '../sys/xattr.ts';
import { basePathOf, entryAt, walkOverlay } from '../union/walk-overlay.ts';
import type { JournalRecord } from '../versions/journal.ts';
import { encodeOrigins, type Origin } from '../versions/origin.ts';
import type { Store } from '../versions/store.ts';
import type { NewEvent } from '../versions/types.ts';
import type { OpenBranches } from './branches.ts';

/**
 * Whether what the journal announced has come true. A whiteout that a rename left behind and that has no origin
 * yet gets the one that its note carries.
 */
export function happened(overlay: Overlay, record: JournalRecord): boolean {
  const { kind, path, origin, from } = record;
  const entry = entryAt(overlay, path);
  switch (kind) {
    case 'whiteout':
      if (entry?.kind !== 'whiteout') return false;
      if (origin && entry.origins.length === 0) completeWhiteout(overlay, path, origin);
      return true;
    case 'copy-up':
    case 'taken':
      return entry?.kind === 'object' && entry.origins.some((one) => one.path === origin?.path);
    case 'renamed':
      return entry?.kind === 'dir' && (from === undefined || entryAt(overlay, from)?.kind !== 'dir');
    case 'removed':
      return entry?.kind !== 'object';
    case 'added':
    case 'content':
      return true;
  }
}

function completeWhiteout(overlay: Overlay, path: string, origin: Origin): void {
  const dirFd = openDirectoryBeneath(overlay.rootFd, parentPath(path));
  if (dirFd < 0) return;
  setxattr(dirFd, baseName(path), overlay.origin, encodeOrigins([origin]), 0);
  close(dirFd);
}

/** One sentence for each thing that was done; for the user. */
export async function recover(store: Store, branches: OpenBranches, log: Log): Promise<string[]> {
  const notes: string[] = [];
  if (store.readOnly) return notes;
  const { recovered } = store;
  if (recovered.formatDamaged) notes.push('the format file was damaged and has been written anew');
  for (const line of recovered.indexDamaged) notes.push(line);
  if (recovered.torn) log.info('the journal ended in the middle of a record');
  if (recovered.indexMissing || recovered.uncleanBoot) {
    const count = await rebuild(store, branches);
    store.rebuildDone();
    if (recovered.indexMissing) {
      notes.push(`the index was missing and has been rebuilt from ${count} origins in the overlay`);
      store.events.add({ kind: 'rebuilt', path: '', detail: `${count} origins` });
    }
  }
  const finished = await finishIntents(store, branches);
  if (finished > 0) log.info(`${finished} merges that were cut off are recorded now`);
  await store.flush();
  return notes;
}

/** Puts a record for each origin; one that agrees with it already stays. */
async function rebuild(store: Store, branches: OpenBranches): Promise<number> {
  let count = 0;
  for await (const entry of walkOverlay(branches.overlay)) {
    if (entry.origins.length === 0) continue;
    count += 1;
    store.rebuild(entry.path, entry.origins, entry.kind === 'whiteout');
  }
  return count;
}

interface Intent {
  what: string;
  base: string;
  event: Omit<NewEvent, 'kind'>;
}

/** A merge whose file came to its name is a merge; one whose file did not has never been. */
async function finishIntents(store: Store, branches: OpenBranches): Promise<number> {
  let finished = 0;
  for (const { path, data } of await store.intents.all()) {
    const intent = data as Intent;
    const overlay = readOverlay(branches, path, path);
    const dropped = intent.what === 'drop';
    const done = dropped ? overlay.state === 'none' : overlay.origin?.fingerprint === intent.base;
    if (done && intent.event?.path === path) {
      const detail = 'recorded after a crash';
      store.events.add({ ...intent.event, kind: dropped ? 'dropped' : 'merged', detail });
      if (dropped) store.paths.delete(path);
      finished += 1;
    }
    store.intents.drop(path);
  }
  return finished;
}

/** Hashes of all contents that origins in the overlay name: they are the truth, whatever the index knows. */
export async function neededAncestors(store: Store, overlay: Overlay): Promise<Set<string>> {
  const needed = new Set<string>();
  for await (const entry of walkOverlay(overlay)) {
    for (const origin of entry.origins) {
      needed.add(origin.content);
      if (origin.pin !== null) needed.add(origin.pin.content);
      if (origin.xattrs !== '') needed.add(store.ancestors.findByPrefix(origin.xattrs) ?? '');
    }
  }
  return needed;
}
