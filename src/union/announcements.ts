// What guests are told of the base by their own inotify. The kernel raises events only for what is done through the
// mount, so a thread of ours, the announcer, does it: calls that are answered without an effect (frontend/
// announced.ts). Here is what waits to be told; announce.ts says how.
import { IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MODIFY, IN_MOVED_TO } from '../sys/constants.ts';
import type { Node } from './node.ts';

/** What the announcer's look-up of a name is to find, while it is about to make or to remove it. */
export interface Pretence {
  gone: boolean;
  /** As in st_mode. */
  type: number;
  /** Of what is gone: its node, or 0. */
  id: number;
}

/** Names that may wait at a time; what is beyond is not told. */
const MOST = 10_000;

export interface Waiting {
  /** Whether there was something before the first change. */
  was: boolean;
  /** All that has happened. */
  mask: number;
  /** The node that has gone; 0: none was known, or it lives on elsewhere. */
  id: number;
  /** We did it: it counts although the overlay has it. */
  own: boolean;
  /** When it was last noted, as `monotonicMs` tells. */
  at: number;
}

/** The same for all threads. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

export class Announcements {
  #waiting = new Map<string, Waiting>();
  #stirring = false;
  /** What has been given out and is not known to have been told. */
  #out: [path: string, waiting: Waiting][] = [];
  /** By key of parent and name; of the batch that is under way. */
  readonly #pretences = new Map<string, Pretence>();
  /** As the kernel tells it of requests; -1: there is nobody. Whatever this thread asks, it changes nothing. */
  announcer = -1;
  /** The name that the announcer looks up in the root, so that it is known by its request. '': it is not awaited. */
  sign = '';
  /** Called when there is something to tell; null: nobody would tell it. */
  stirs: (() => void) | null = null;

  /** `mask`: of an event at a path. `node`: what is known there. */
  note(path: string, mask: number, node: Node | undefined): void {
    if (this.stirs === null) return;
    const before = this.#waiting.get(path);
    // A name that is moved away may live on under another one.
    const id = (mask & IN_DELETE) !== 0 && node ? node.id : 0;
    if (before !== undefined) {
      before.mask |= mask;
      before.at = monotonicMs();
      if (id !== 0) before.id = id;
      return;
    }
    if (this.#waiting.size >= MOST) return;
    const made = (mask & IN_CREATE) !== 0 || ((mask & IN_MOVED_TO) !== 0 && node === undefined);
    this.#waiting.set(path, { was: !made, mask, id, own: false, at: monotonicMs() });
    this.#stir();
  }

  #stir(): void {
    if (this.#stirring) return;
    this.#stirring = true;
    this.stirs?.();
  }

  /** At that time nobody was listening: what is older need not be told. */
  drop(listened: number): void {
    for (const [path, { at }] of this.#waiting) if (at < listened) this.#waiting.delete(path);
    this.#stirring = false;
    if (this.#waiting.size > 0) this.#stir();
  }

  /** Something of a path that was merged, ruled, or put back: by us, in the overlay. */
  noteOwn(path: string, node: Node | undefined): void {
    this.note(path, IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE, node);
    const waiting = this.#waiting.get(path);
    if (waiting !== undefined) waiting.own = true;
  }

  /** The next that waits, with its path, and as a rule no more of it; null: there is none. */
  next(): [path: string, waiting: Waiting] | null {
    for (const entry of this.#waiting) {
      this.#waiting.delete(entry[0]);
      this.#out.push(entry);
      return entry;
    }
    return null;
  }

  /** All that was given out has been told. */
  begin(): void {
    this.#pretences.clear();
    this.#out = [];
  }

  /** The announcer has died. What it was at waits for the next one. */
  again(): void {
    this.announcer = -1;
    this.sign = '';
    this.#stirring = false;
    for (const [path, told] of this.#out) {
      const since = this.#waiting.get(path);
      this.#waiting.set(
        path,
        since === undefined ? told : { ...since, was: told.was, mask: since.mask | told.mask },
      );
    }
    this.begin();
    if (this.#waiting.size > 0) this.#stir();
  }

  /** A batch is given out; an empty one is the last until `stirs` is called again. */
  given(count: number): void {
    this.#stirring = count > 0;
  }

  /** The announcer is about to make or to remove a name. */
  pretend(parentId: number, name: string, pretence: Pretence): void {
    this.#pretences.set(keyOf(parentId, name), pretence);
  }

  /** The announcer's look-up is not to be answered with what there is. */
  pretenceOf(parentId: number, name: string): Pretence | undefined {
    return this.#pretences.get(keyOf(parentId, name));
  }

  /** It has been made: from now on it is found as it is. */
  made(parentId: number, name: string): void {
    this.#pretences.delete(keyOf(parentId, name));
  }

  /** Nothing more is told. What the announcer is at it may go on with. */
  silence(): void {
    this.stirs = null;
    this.#waiting.clear();
    this.#out = [];
  }

  /** The announcer has ended: its number may be another's from now on. */
  ended(): void {
    this.silence();
    this.announcer = -1;
    this.sign = '';
  }
}

function keyOf(parentId: number, name: string): string {
  return `${parentId}/${name}`;
}
