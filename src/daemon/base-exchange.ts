// Which tree the base is. Judges at the start whether it is the one that the origins speak of, opens the tree that
// has come to lie at the base's path, and keeps whether what lies there is accepted.
import { type BaseLayer, baseMoved, openBaseLayer } from '../branch/base.ts';
import { messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import type { Reconciler } from '../union/reconcile.ts';
import type { Store } from '../versions/store.ts';
import { baseDoubt, baseRecords, doubtNote, isNewTree, type OpenBranches } from './branches.ts';
import type { WorkerLink } from './worker-link.ts';

/** How often where the base's paths lead is looked at: who works from the kernel's caches makes no request. */
const CHECK_MS = 500;
/** Between two attempts to open a base whose path leads nowhere. */
const BASE_RETRY_MS = 200;

export interface ExchangeParts {
  readOnly: boolean;
  branches: OpenBranches;
  store: Store;
  log: Log;
  /** For whoever mounts; a sentence each is added. */
  notes: string[];
  reconciler: () => Reconciler;
  link: () => Pick<WorkerLink, 'send' | 'isOver'>;
  /** Before the serving side has another tree. */
  layerComes: (fresh: BaseLayer, old: BaseLayer) => void;
}

export class BaseExchange {
  readonly #parts: ExchangeParts;
  /** Why the base is not accepted, or null. */
  doubt: string | null;
  readonly #reopening = new Set<number>();
  /** Another tree than at the last mount: no fingerprint is to be trusted. */
  readonly isNewTree: boolean;

  constructor(parts: ExchangeParts) {
    this.#parts = parts;
    const { store, branches, notes } = parts;
    const known = store.bases();
    this.doubt = baseDoubt(known, branches.layers);
    this.isNewTree = this.doubt === null && isNewTree(known, branches.layers);
    if (this.doubt !== null) {
      notes.push(doubtNote(this.doubt));
      store.events.add({ kind: 'unaccepted', path: '', detail: this.doubt });
      return;
    }
    if (this.isNewTree)
      notes.push('the base is a new tree of the same release: all copies are compared by content');
    this.#remember();
  }

  #remember(): void {
    const { readOnly, store, branches } = this.#parts;
    if (!readOnly) store.setBases(baseRecords(branches.layers));
  }

  startTimer(): { stop(): void } {
    const timer = setInterval(() => {
      for (const layer of this.#parts.branches.layers) {
        if (baseMoved(layer) !== 0) void this.reopen(layer.index);
      }
    }, CHECK_MS);
    return { stop: () => clearInterval(timer) };
  }

  /** The base's path leads to another tree: that is opened; the old one serves until then. */
  async reopen(index: number): Promise<void> {
    if (this.#reopening.has(index)) return;
    this.#reopening.add(index);
    await this.#openAnew(index).finally(() => this.#reopening.delete(index));
  }

  async #openAnew(index: number): Promise<void> {
    const { branches, log, link } = this.#parts;
    const old = branches.layers[index] as BaseLayer;
    for (;;) {
      const moved = baseMoved(old);
      if (moved === 0) break;
      if (moved === 1) {
        try {
          this.#take(openBaseLayer(index, old.path, branches.rights, old.marks));
          return;
        } catch (error) {
          log.warn(`${escapeName(old.path)}: ${messageOf(error)}`);
        }
      }
      // Absent: the old tree answers with what it still has.
      await new Promise((resolve) => setTimeout(resolve, BASE_RETRY_MS));
      if (link().isOver) return;
    }
    link().send({ kind: 'layer', layer: old });
  }

  #take(layer: BaseLayer): void {
    const { branches, store, log, link, reconciler } = this.#parts;
    this.#parts.layerComes(layer, branches.layers[layer.index] as BaseLayer);
    branches.layers[layer.index] = layer;
    const doubt = baseDoubt(store.bases(), branches.layers);
    this.doubt = doubt;
    log.info(`${escapeName(layer.path)}: another tree lies there now`);
    link().send({ kind: 'layer', layer });
    if (doubt !== null) {
      this.disbelieve(doubt);
      return;
    }
    reconciler().acceptance.state = 'accepted';
    link().send({ kind: 'accepted', accepted: true });
    this.#remember();
  }

  /** Nothing is merged from now on, until a person accepts the base. */
  disbelieve(why: string): void {
    const { store, log, link, reconciler } = this.#parts;
    this.doubt = why;
    reconciler().acceptance.state = 'unaccepted';
    log.warn(`the base is not accepted: ${why}`);
    store.events.add({ kind: 'unaccepted', path: '', detail: why });
    link().send({ kind: 'accepted', accepted: false });
  }

  async accept(): Promise<void> {
    const { store, branches, link, reconciler } = this.#parts;
    store.setBases(baseRecords(branches.layers));
    if (this.doubt === null) return;
    this.doubt = null;
    await reconciler().acceptance.accept();
    store.events.add({ kind: 'accepted', path: '', detail: 'accepted by a person' });
    link().send({ kind: 'accepted', accepted: true });
    await store.flush();
  }
}
