// The serving side's ears: what tells it of changes of the base. That may change while the mount goes on; until all is
// carried over both are listened to.
import type { BaseLayer } from '../branch/base.ts';
import { stackOf } from '../lib/errors.ts';
import { isPassing, PAUSE_MS, pause } from '../lib/passing.ts';
import { IN_Q_OVERFLOW } from '../sys/constants.ts';
import { fsidWords } from '../sys/file.ts';
import { onBaseEvent } from '../union/base-events.ts';
import { carryWatches } from '../union/change-over.ts';
import { type EventSource, eventSource, type SourceSpec } from '../union/event-sources.ts';
import type { Union } from '../union/union.ts';
import type { ManyWatches } from '../union/watches.ts';
import type { Host } from './host.ts';
import type { ServingStart } from './messages.ts';

/** Watches that are carried over at a time: some milliseconds, in which nobody is answered. */
const CARRIED = 100;

type HeardStart = Pick<ServingStart, 'watcher' | 'layers' | 'overlay' | 'stateFd' | 'workFd' | 'linksFd'>;

export class Ears {
  source: EventSource | null;
  #former: EventSource | null = null;
  readonly #fsids = new WeakMap<BaseLayer, readonly number[]>();

  readonly #start: HeardStart;

  constructor(start: HeardStart) {
    this.#start = start;
    this.source = start.watcher === null ? null : this.#open(start.watcher);
  }

  /** To be waited for; -1: nothing is. */
  get fd(): number {
    return this.source?.fd ?? -1;
  }

  /** Takes note of everything that has been told by now. What is lost by a mistake may have been anything. */
  hear(union: Union, host: Pick<Host, 'send' | 'log'>): void {
    const take = (watch: number, mask: number, name: string) => onBaseEvent(union, watch, mask, name);
    try {
      const error = this.#former?.hear(take) || this.source?.hear(take) || 0;
      if (error === 0) return;
      // It is still there to be read.
      if (isPassing(error)) pause(PAUSE_MS);
      else this.#deafen(union, host, error);
    } catch (error) {
      host.log.error(`an event of the base: ${stackOf(error)}`);
      lost(union);
    }
  }

  #deafen(union: Union, host: Pick<Host, 'send'>, error: number): void {
    this.source = null;
    this.#former = null;
    lost(union);
    host.send({ kind: 'deaf', error });
  }

  many(at: number, host: Pick<Host, 'send'>): ManyWatches | null {
    return at === Number.POSITIVE_INFINITY
      ? null
      : { at, call: (full) => host.send({ kind: 'many-watches', full }) };
  }

  change(union: Union, watcher: SourceSpec, manyAt: number, host: Pick<Host, 'send' | 'log'>): void {
    // One former at a time.
    while (this.#former !== null && this.carry(union, host));
    this.#former = this.source;
    this.source = this.#open(watcher);
    union.watches.exchange(this.source, this.many(manyAt, host));
    for (const { dir } of union.table.nodes()) {
      if (dir !== null && dir.overlayFd >= 0) union.watches.ignore(dir.overlayFd);
    }
  }

  /** False: nothing is watched by the former any more. */
  carry(union: Union, host: Pick<Host, 'send' | 'log'>): boolean {
    const more = carryWatches(union, CARRIED, () => this.hear(union, host));
    if (!more) this.#former = null;
    return more;
  }

  #open(watcher: SourceSpec): EventSource {
    const { layers, overlay, stateFd, workFd, linksFd } = this.#start;
    const own = fsidWords(overlay.rootFd).join();
    const shared = layers.some((layer) => fsidWords(layer.rootFd).join() === own);
    const source = eventSource(watcher, { fsidOf: (index) => this.#fsidOf(index), shared });
    for (const fd of [stateFd, workFd, linksFd]) source.ignore(fd);
    return source;
  }

  #fsidOf(index: number): readonly number[] {
    const layer = this.#start.layers[index];
    if (layer === undefined) return [0, 0];
    const known = this.#fsids.get(layer);
    if (known !== undefined) return known;
    const words = fsidWords(layer.rootFd);
    this.#fsids.set(layer, words);
    return words;
  }
}

function lost(union: Union): void {
  onBaseEvent(union, -1, IN_Q_OVERFLOW, '');
}
