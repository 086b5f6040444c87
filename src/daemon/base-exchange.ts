// Which tree the base is. Judges at the start whether it is the one that the origins speak of, opens the tree that
// has come to lie at the base's path, and keeps whether what lies there is accepted.
import { type BaseLayer, baseMoved, openBaseLayer } from '../branch/base.ts';
import type { MountOptions } from '../control/mount-options.ts';
import { isWithin } from '../control/mountinfo.ts';
import { resolveOutside } from '../control/resolve.ts';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import type { Reconciler } from '../union/reconcile.ts';
import { errnoOf } from '../versions/files.ts';
import type { Store } from '../versions/store.ts';
import { baseDoubt, baseRecords, isNewTree, type OpenBranches } from './branches.ts';
import type { WorkerLink } from './worker-link.ts';

/** How often where the base's paths lead is looked at: who works from the kernel's caches makes no request. */
const CHECK_MS = 500;
/** Between two attempts to open a base whose path leads nowhere. */
const BASE_RETRY_MS = 200;

const REMOTE_NOW =
  'the base has come to lie on a remote file system: mount anew, or what others change there may show late';

export interface ExchangeParts {
  branches: OpenBranches;
  /** Of the mount, with paths as somebody typed them of the bases alone. */
  options: Pick<MountOptions, 'bases' | 'overlay' | 'mountPoint' | 'readOnly'>;
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
      store.events.add({ kind: 'unaccepted', path: '', detail: this.doubt });
      return;
    }
    if (this.isNewTree)
      notes.push('the base is a new tree of the same release: all copies are compared by content');
    this.#remember();
  }

  #remember(): void {
    const { options, store, branches } = this.#parts;
    if (!options.readOnly) store.setBases(baseRecords(branches.layers));
  }

  startTimer(): { stop(): void } {
    const timer = setInterval(() => {
      for (const layer of this.#parts.branches.layers) {
        if (this.#place(layer).moved !== 0) void this.reopen(layer.index);
      }
    }, CHECK_MS);
    return { stop: () => clearInterval(timer) };
  }

  /** Where the path that was typed leads to by now, without looking into our own mount; `moved` as of baseMoved. */
  #place(layer: BaseLayer): { path: string; moved: number } {
    const { bases, mountPoint } = this.#parts.options;
    try {
      const { path } = resolveOutside(bases[layer.index] as string, new Set([mountPoint]));
      return { path, moved: path === layer.path ? baseMoved(layer) : 1 };
    } catch (error) {
      // Links in a circle, or a server that is away.
      return { path: layer.path, moved: -errnoOf(error) };
    }
  }

  /** Throws FsError EINVAL: a link on the way leads into what the mount writes to, or above it. */
  #refuseNested(path: string): void {
    const { options, branches } = this.#parts;
    const nested = [options.overlay, branches.stateDir, options.mountPoint].find(
      (dir) => isWithin(path, dir) || isWithin(dir, path),
    );
    if (nested === undefined) return;
    throw new FsError(
      E.EINVAL,
      `leads to ${escapeName(path)}, which is no base: ${escapeName(nested)} is not apart`,
    );
  }

  /** The base's path leads to another tree: that is opened; the old one serves until then. */
  async reopen(index: number): Promise<void> {
    if (this.#reopening.has(index)) return;
    this.#reopening.add(index);
    try {
      await this.#openAnew(index);
    } catch (error) {
      this.#parts.log.error(`the base is not opened anew: ${messageOf(error)}`);
    } finally {
      this.#reopening.delete(index);
    }
  }

  async #openAnew(index: number): Promise<void> {
    const { branches, log, link } = this.#parts;
    const old = branches.layers[index] as BaseLayer;
    let said = '';
    for (;;) {
      const { path, moved } = this.#place(old);
      if (moved === 0) break;
      if (moved === 1) {
        try {
          this.#refuseNested(path);
          this.#take(openBaseLayer(index, path, branches.rights, old.marks));
          return;
        } catch (error) {
          const why = messageOf(error);
          if (why !== said) log.warn(`${escapeName(this.#parts.options.bases[index] as string)}: ${why}`);
          said = why;
        }
      }
      // Absent: the old tree answers with what it still has.
      await new Promise((resolve) => setTimeout(resolve, BASE_RETRY_MS));
      if (link().isOver) return;
    }
    link().send({ kind: 'layer', layer: old });
  }

  #take(layer: BaseLayer): void {
    const { branches, store, log, link, notes, reconciler } = this.#parts;
    const old = branches.layers[layer.index] as BaseLayer;
    this.#parts.layerComes(layer, old);
    branches.layers[layer.index] = layer;
    if (layer.isRemote && !old.isRemote) notes.push(REMOTE_NOW);
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
    try {
      this.#remember();
    } catch (error) {
      // On a full disk. The next mount takes it for a new tree then, and compares by content.
      log.warn(`which base this is cannot be written down: ${messageOf(error)}`);
    }
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
