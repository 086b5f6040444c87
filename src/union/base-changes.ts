// What the base has done beneath objects in use, until it has come to rest: for the list of events. Several changes of
// a name before that are one, and what has come and gone again is none.
import { IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO } from '../sys/constants.ts';

/** As they stand in the list of events; lost: nobody knows what has changed. */
export type BaseChangeKind = 'base-added' | 'base-changed' | 'base-replaced' | 'base-removed' | 'base-lost';

export interface Settled {
  changes: { path: string; kind: BaseChangeKind }[];
  /** Milliseconds until the next may have come to rest; -1: there is none. */
  nextMs: number;
}

/** Names that may be on the move at a time; what is beyond is lost. */
const MOST = 10_000;

interface Change {
  /** Before the first change, and after the last. */
  was: boolean;
  is: boolean;
  replaced: boolean;
  /** performance.now() of the last. */
  at: number;
}

export class BaseChanges {
  readonly #changes = new Map<string, Change>();
  #lost = false;
  #stirring = false;
  /** Called when there is something to be asked for, and then not before all has been taken. */
  readonly #stirs: () => void;

  constructor(stirs: () => void) {
    this.#stirs = stirs;
  }

  /** An event at a path. `known`: somebody uses the object; of what nobody uses only the coming is of interest. */
  note(path: string, mask: number, known: boolean): void {
    const comes = (mask & (IN_CREATE | IN_MOVED_TO)) !== 0;
    const goes = (mask & (IN_DELETE | IN_MOVED_FROM)) !== 0;
    const before = this.#changes.get(path);
    if (before === undefined) {
      if (!comes && !known) return;
      const was = known || !comes;
      this.#add(path, { was, is: !goes, replaced: comes && was, at: performance.now() });
      return;
    }
    before.at = performance.now();
    if (comes) before.replaced ||= before.was;
    if (comes || goes) before.is = comes;
  }

  /** The whole base is another one. */
  exchanged(): void {
    this.#add('', { was: true, is: true, replaced: true, at: performance.now() });
  }

  /** Events were lost. */
  lose(): void {
    this.#lost = true;
    this.#stir();
  }

  /** Takes out what has not changed for so long. */
  settled(ms: number): Settled {
    const now = performance.now();
    const changes: Settled['changes'] = this.#lost ? [{ path: '', kind: 'base-lost' }] : [];
    this.#lost = false;
    let nextMs = -1;
    for (const [path, change] of this.#changes) {
      const wait = change.at + ms - now;
      if (wait > 0) {
        nextMs = nextMs < 0 ? wait : Math.min(nextMs, wait);
        continue;
      }
      this.#changes.delete(path);
      if (change.was || change.is) changes.push({ path, kind: kindOf(change) });
    }
    this.#stirring = nextMs >= 0;
    return { changes, nextMs };
  }

  #add(path: string, change: Change): void {
    if (this.#changes.size < MOST) this.#changes.set(path, change);
    else this.#lost = true;
    this.#stir();
  }

  #stir(): void {
    if (this.#stirring) return;
    this.#stirring = true;
    this.#stirs();
  }
}

function kindOf({ was, is, replaced }: Change): BaseChangeKind {
  if (!was) return 'base-added';
  if (!is) return 'base-removed';
  return replaced ? 'base-replaced' : 'base-changed';
}
