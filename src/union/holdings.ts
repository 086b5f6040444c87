// Which files of the base have their content in a layer beneath, as found out lately: to ask costs a system call, and most
// hold their own.
import type { BaseLayer } from '../branch/base.ts';
import { liesBeneath } from '../branch/base-content.ts';
import type { Stat } from '../lib/stat.ts';

const SLOTS = 4096;
/** What has changed a moment ago may change again without another ctime. */
const YOUNG_MS = 100;

export class Holdings {
  readonly #ino = new Float64Array(SLOTS);
  readonly #sec = new Float64Array(SLOTS);
  readonly #nsec = new Float64Array(SLOTS);
  /** Twice the layer, one more where it lies beneath, and one: 0 where nothing is known. */
  readonly #what = new Int32Array(SLOTS);

  /** `stat` is of the file itself. */
  liesBeneath(
    layers: readonly BaseLayer[],
    layer: BaseLayer,
    dirFd: number,
    name: string,
    stat: Stat,
  ): boolean {
    const { ino, ctimeSec, ctimeNsec } = stat;
    const slot = ino % SLOTS;
    const what = (this.#what[slot] as number) - 1;
    const isKnown =
      what >> 1 === layer.index &&
      this.#ino[slot] === ino &&
      this.#sec[slot] === ctimeSec &&
      this.#nsec[slot] === ctimeNsec;
    if (isKnown) return (what & 1) === 1;
    const beneath = liesBeneath(layers, layer, dirFd, name, stat);
    if (Date.now() - (ctimeSec * 1000 + ctimeNsec / 1e6) < YOUNG_MS) return beneath;
    this.#ino[slot] = ino;
    this.#sec[slot] = ctimeSec;
    this.#nsec[slot] = ctimeNsec;
    this.#what[slot] = layer.index * 2 + (beneath ? 1 : 0) + 1;
    return beneath;
  }

  clear(): void {
    this.#what.fill(0);
  }
}
