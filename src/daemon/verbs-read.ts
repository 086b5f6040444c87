// Verbs that tell of conflicts and of the history; they change nothing.
import type {
  Conflict,
  ConflictDetail,
  ConflictTarget,
  Done,
  Emit,
  EventRecord,
  EventsRequest,
  LogEntry,
  PathRequest,
} from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import type { ConflictRecord, StoredEvent } from '../versions/types.ts';
import type { MountContext } from './context.ts';
import { expectPath, infoOfSide } from './objects.ts';
import { couldBeUndone, isUndoable } from './path-state.ts';
import { historyOf, placesNow } from './places.ts';

export interface ReadVerbs {
  conflicts(): Promise<Conflict[]>;
  conflict(target: ConflictTarget): Promise<ConflictDetail>;
  log(request: PathRequest, emit: Emit<LogEntry>): Promise<Done>;
  events(request: EventsRequest, emit: Emit<EventRecord>): Promise<Done>;
}

export function readVerbs(context: MountContext): ReadVerbs {
  return {
    conflicts: async () => {
      // What the guest has just removed is in conflict no more.
      await context.bringUpToDate();
      await makeLasting(context);
      return context.store.conflicts.all().map(conflictOf);
    },
    conflict: async (target) => {
      await context.bringUpToDate();
      await makeLasting(context);
      return detailOf(context, openConflict(context, target));
    },
    log: (request, emit) => log(context, request, emit),
    events: (request, emit) => events(context, request, emit),
  };
}

/** Who is told of conflicts may name them afterwards, whatever becomes of the daemon: they are durable before. */
export async function makeLasting({ store, log }: MountContext): Promise<void> {
  try {
    await store.flush();
  } catch (error) {
    // On a full disk, say. They are what they are, and it will be tried again.
    log.warn(`conflicts are told of that are not durable yet: ${messageOf(error)}`);
  }
}

export function conflictOf({ id, rev, kind, path, since }: ConflictRecord): Conflict {
  return { id, rev, kind, path, since };
}

/** The open conflict that is meant. ENOKEY unknown, EALREADY closed, ENODATA the path has none. */
export function openConflict(context: MountContext, target: ConflictTarget): ConflictRecord {
  const { conflicts } = context.store;
  if ('path' in target) {
    const found = conflicts.of(target.path);
    if (found === null)
      throw new FsError(E.ENODATA, `${escapeName(target.path) || '/'}: no conflict is open`);
    return found;
  }
  const found = conflicts.get(target.id);
  if (found === null) throw new FsError(E.ENOKEY, `conflict ${target.id}: unknown`);
  if (found.closed !== null) {
    throw new FsError(
      E.EALREADY,
      `conflict ${target.id}: ${found.closed.how} at revision ${found.closed.rev}`,
    );
  }
  return found;
}

function detailOf(context: MountContext, record: ConflictRecord): ConflictDetail {
  const { store } = context;
  const { merged } = record;
  return {
    ...conflictOf(record),
    reason: record.reason,
    ancestor: infoOfSide(store, record.ancestor),
    overlay: infoOfSide(store, record.overlay),
    base: infoOfSide(store, record.base),
    merged: merged === null ? null : { size: merged.size, markers: merged.markers },
  };
}

async function log(context: MountContext, request: PathRequest, emit: Emit<LogEntry>): Promise<Done> {
  await context.bringUpToDate();
  await expectPath(context, request.path);
  const { events } = context.store;
  // What can be taken back is the last of its object: it is known only at the end.
  const last = new Map<string, number>();
  const list = await historyOf(events, request.path);
  const places = await placesNow(events, list.filter(isUndoable));
  for (const [seq, place] of places) last.set(place, seq);
  for (const event of list) {
    const { detail, conflict, version } = event;
    const place = places.get(event.seq);
    const undoable =
      place !== undefined && last.get(place) === event.seq && couldBeUndone(context, event, place);
    await emit({ ...recordOf(event), detail, conflict, version, undoable });
  }
  return { done: true };
}

function recordOf({ seq, epoch, time, kind, path }: StoredEvent): EventRecord {
  return { seq, epoch, time, kind, path };
}

/** Those there are; with `follow` then those that come, until emit rejects because the caller has gone. */
async function events(context: MountContext, request: EventsRequest, emit: Emit<EventRecord>): Promise<Done> {
  await context.bringUpToDate();
  const { store } = context;
  let next = request.from;
  const tell = async (event: StoredEvent) => {
    if (event.seq < next) return;
    next = event.seq + 1;
    await emit(recordOf(event));
  };
  const come: StoredEvent[] = [];
  let wake = () => {};
  const stop = store.events.subscribe((event) => {
    come.push(event);
    wake();
  });
  try {
    for await (const event of store.events.from(request.from)) await tell(event);
    while (request.follow) {
      for (let event = come.shift(); event !== undefined; event = come.shift()) await tell(event);
      const more = new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (come.length === 0) await more;
    }
  } finally {
    stop();
  }
  return { done: true };
}
