// Where files of the base have their contents, as found out lately: to ask costs a system call, and most hold their own.
import type { BaseLayer } from '../branch/base.ts';
import { type Holding, holdingOf } from '../branch/base-content.ts';
import type { Stat } from '../lib/stat.ts';

const SLOTS = 4096;
const kinds: readonly Holding[] = ['own', 'beneath', 'nowhere'];
/** What has changed a moment ago may change again without another ctime. */
const YOUNG_MS = 100;

export class Holdings {
  readonly #ino = new Float64Array(SLOTS);
  readonly #sec = new Float64Array(SLOTS);
  readonly #nsec = new Float64Array(SLOTS);
  /** Layer and kind, plus one. */
  readonly #what = new Int32Array(SLOTS);

  of(layers: readonly BaseLayer[], layer: BaseLayer, dirFd: number, name: string, stat: Stat): Holding {
    const { ino, ctimeSec, ctimeNsec } = stat;
    const slot = ino % SLOTS;
    const what = (this.#what[slot] as number) - 1;
    const isKnown =
      Math.trunc(what / kinds.length) === layer.index &&
      this.#ino[slot] === ino &&
      this.#sec[slot] === ctimeSec &&
      this.#nsec[slot] === ctimeNsec;
    if (what >= 0 && isKnown) return kinds[what % kinds.length] as Holding;
    const holding = holdingOf(layers, layer, dirFd, name, stat);
    if (Date.now() - (ctimeSec * 1000 + ctimeNsec / 1e6) < YOUNG_MS) return holding;
    this.#ino[slot] = ino;
    this.#sec[slot] = ctimeSec;
    this.#nsec[slot] = ctimeNsec;
    this.#what[slot] = layer.index * kinds.length + kinds.indexOf(holding) + 1;
    return holding;
  }

  clear(): void {
    this.#what.fill(0);
  }
}
