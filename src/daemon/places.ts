// Where an object has been before a directory above it was renamed: its history and its versions stay under the path
// that they were recorded with.
import { parentPath } from '../lib/names.ts';
import type { EventLog } from '../versions/events.ts';
import type { StoredEvent } from '../versions/types.ts';

export interface Place {
  path: string;
  /** Events of this number and later are not its own. */
  before: number;
}

/** Where what is at a path now has been, the path itself first. */
export async function placesOf(events: EventLog, path: string): Promise<Place[]> {
  const places: Place[] = [{ path, before: Number.POSITIVE_INFINITY }];
  for (let place = places[0]; place !== undefined; ) {
    const earlier: Place | undefined = await placeBefore(events, place);
    if (earlier !== undefined) places.push(earlier);
    place = earlier;
  }
  return places;
}

/** Two directories that changed places are two events, one after the other: of one step. */
function isBack(before: StoredEvent | null, { seq, path, from }: StoredEvent): boolean {
  return before?.seq === seq - 1 && before.from === path && before.path === from;
}

/** Before the last rename of a directory on the way to it. */
async function placeBefore(events: EventLog, { path, before }: Place): Promise<Place | undefined> {
  let found: Place | undefined;
  for (let dir = path; dir !== ''; dir = parentPath(dir)) {
    for await (const event of events.at(dir)) {
      const { from, seq } = event;
      if (from === undefined || seq >= before || seq <= (found?.before ?? 0)) continue;
      const first = isBack(events.get(seq - 1), event) ? seq - 1 : seq;
      found = { path: from + path.slice(dir.length), before: first };
    }
  }
  return found;
}

/** The events of a path and all beneath it, in order, with those of where it was before. */
export async function historyOf(events: EventLog, path: string): Promise<StoredEvent[]> {
  const found = new Map<number, StoredEvent>();
  for (const { path: at, before } of await placesOf(events, path)) {
    for await (const event of events.of(at)) if (event.seq < before) found.set(event.seq, event);
  }
  return [...found.values()].sort((a, b) => a.seq - b.seq);
}

/** Where what each of these events is about is by now, by their numbers. They are in order. */
export async function placesNow(
  events: EventLog,
  list: readonly StoredEvent[],
): Promise<Map<number, string>> {
  const now = new Map<number, string>();
  const [first] = list;
  if (first === undefined) return now;
  let next = 0;
  let before: StoredEvent | null = null;
  let moved = new Set<number>();
  for await (const event of events.from(first.seq)) {
    const { seq, from, path: to } = event;
    for (; (list[next]?.seq ?? seq) < seq; next += 1) now.set(list[next]?.seq ?? 0, list[next]?.path ?? '');
    const settled = isBack(before, event) ? moved : new Set();
    before = event;
    moved = new Set();
    if (from === undefined) continue;
    for (const [about, path] of now) {
      if (settled.has(about) || (path !== from && !path.startsWith(`${from}/`))) continue;
      now.set(about, to + path.slice(from.length));
      moved.add(about);
    }
  }
  for (const { seq, path } of list.slice(next)) now.set(seq, path);
  return now;
}
