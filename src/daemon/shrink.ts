// Gives memory back: after the kernel has forgotten much of what it knew (the caches were dropped), and once it is
// quiet after it has learned much (a walk is over), for what a walk leaves behind is a third garbage. V8 shrinks a
// heap when its thread is idle in the event loop, where the serving worker never is.
import * as v8 from 'node:v8';
import * as vm from 'node:vm';
import { trimMemory } from '../sys/memory.ts';

/** Fewer nodes than this are not worth the pause, which takes some ten milliseconds. */
const MANY = 10_000;

export class Shrinker {
  #most = 0;
  /** Nodes there were at the last collection, or fewer since. */
  #least = 0;
  readonly #collect: () => void;

  constructor() {
    v8.setFlagsFromString('--expose-gc');
    this.#collect = vm.runInNewContext('gc') as () => void;
  }

  /** To be called now and then with the number of nodes: when half of them have gone, their memory goes, too. */
  look(nodes: number): void {
    this.#least = Math.min(this.#least, nodes);
    this.#most = Math.max(this.#most, nodes);
    if (this.#most >= MANY && nodes <= this.#most / 2) this.shrink(nodes);
  }

  /** Whether so many have come that it pays, as soon as nobody would notice the pause. */
  isDue(nodes: number): boolean {
    return nodes >= this.#least + MANY;
  }

  shrink(nodes: number): void {
    this.#most = nodes;
    this.#least = nodes;
    // The first collection brings together what lies between garbage, the second one gives the pages back.
    v8.setFlagsFromString('--compact-on-every-full-gc');
    this.#collect();
    v8.setFlagsFromString('--no-compact-on-every-full-gc');
    this.#collect();
    // What V8's compilers leave there is a tenth of what a first walk of 100,000 names takes.
    trimMemory();
  }
}
