// Whether the base is taken for the right one. When it is gone, or many known files are at once, that is no update
// but another base (or none, between umount and mount): nothing is taken for deleted until a person accepts it.
import { baseName, joinPath, parentPath } from '../lib/names.ts';
import type { Conditions } from '../merge/decide.ts';
import type { Store } from '../versions/store.ts';
import { type Branches, isGone, readBase } from './sides.ts';
import { basePathOf } from './walk-overlay.ts';

/** Of the known origins, so many at least and so large a part must be gone for the base to be doubted. */
const VANISHED_LEAST = 100;
const VANISHED_PART = 0.1;
const VANISHED_CHECK_MS = 1000;

export interface AcceptanceParts {
  branches: Branches;
  store: Store;
  /** The base may not be the right one: nothing is merged from now on, until a person accepts it. */
  doubt(why: string): void;
}

export class BaseAcceptance {
  state: Conditions['baseState'] = 'accepted';
  readonly #parts: AcceptanceParts;
  #checked = Number.NEGATIVE_INFINITY;
  /** While it is found out whether many are gone. */
  #checking: Promise<void> | null = null;
  /** Had gone from the base when a person accepted it, by its paths there. */
  readonly #excused = new Set<string>();

  constructor(parts: AcceptanceParts) {
    this.#parts = parts;
  }

  /** A base file is gone, by its path there. Looks that meet while it is found out whether many are wait. */
  async doubtIfVanished(missed: string): Promise<void> {
    if (this.state !== 'accepted' || this.#excused.has(missed)) return;
    this.#checking ??= this.#lookForVanished().finally(() => {
      this.#checking = null;
    });
    await this.#checking;
  }

  async #lookForVanished(): Promise<void> {
    const { branches, doubt } = this.#parts;
    const now = performance.now();
    let known = 0;
    let gone = 0;
    if (now - this.#checked >= VANISHED_CHECK_MS) {
      this.#checked = now;
      for await (const path of this.#knownPaths()) {
        if (this.#excused.has(path)) continue;
        known += 1;
        if (readBase(branches, path).object === null) gone += 1;
      }
    }
    const many = gone >= VANISHED_LEAST && gone > known * VANISHED_PART;
    if (many) doubt(`${gone} of ${known} known files have gone from it at once`);
    else if (branches.layers.some((layer) => isGone(layer))) doubt('it is gone or empty');
  }

  /** A person takes the base as it is: what has gone from it by now, has. */
  async accept(): Promise<void> {
    this.#excused.clear();
    for await (const path of this.#knownPaths()) {
      if (readBase(this.#parts.branches, path).object === null) this.#excused.add(path);
    }
    this.state = 'accepted';
  }

  /** What the base had when something was last decided upon, by its paths there: what pends is not decided. */
  async *#knownPaths(): AsyncGenerator<string> {
    const { branches, store } = this.#parts;
    // By the directory of the union: what lies beneath one that was renamed is elsewhere in the base.
    const dirs = new Map<string, string>();
    for await (const { path, state, baseSeen } of store.paths.under('')) {
      if (baseSeen === '' && state !== 'P') continue;
      const dir = parentPath(path);
      const known = dirs.get(dir) ?? parentPath(basePathOf(branches.overlay, path));
      dirs.set(dir, known);
      yield joinPath(known, baseName(path));
    }
  }
}
