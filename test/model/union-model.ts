// What a union must be while guest and base both change, by the rules of native-notes/versioning.md: a second, small
// implementation, in memory, of objects and not of files. It knows nothing of src/, but for the merge of text.
// It covers a base that is no OS tree, text files, directories and symlinks, and a guest that reads what it replaces;
// copies are whole, for a copy of metadata alone goes with what the base deletes (test/e2e/metacopy.test.ts).
import { mergeText } from '../../src/merge/index.ts';

export type Obj =
  | { type: 'file'; content: string; mode: number }
  | { type: 'dir' }
  | { type: 'link'; target: string };

/** By path; the root is not in it. */
export type Tree = Map<string, Obj>;

/** What the base had at a path (rule 1): void for an object that lies where another path shows. */
interface Origin {
  path: string;
  /** null: its bytes are gone. */
  obj: Obj | null;
}

type Leaf = Exclude<Obj, { type: 'dir' }>;

type Entry =
  /** `last`: the base's object at the last look. */
  | { kind: 'copy'; obj: Leaf; origin: Origin | null; state: State; last?: Obj | null }
  | { kind: 'whiteout'; origin: Origin; last?: Obj | null }
  /** `origin`: where the base had it when it was brought up; null: it is the guest's own. */
  | { kind: 'dir'; opaque: boolean; redirect: string | null; origin: string | null };

/** versioning.md; own: a name of which the base knows nothing. */
export type State = 'F' | 'C' | 'K' | 'X' | 'W' | 'own';

export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));
export const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1);
export const join = (dir: string, name: string): string => (dir === '' ? name : `${dir}/${name}`);

export function equal(a: Obj, b: Obj): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Type and content, or target. */
function sameBody(a: Obj, b: Obj): boolean {
  if (a.type === 'file' && b.type === 'file') return a.content === b.content;
  return equal(a, b);
}

const modeOf = (obj: Obj): number => (obj.type === 'file' ? obj.mode : 0o777);

function mergeModes(a: Obj | null, o: Obj, b: Obj): number {
  const [was, overlay, base] = [a === null ? null : modeOf(a), modeOf(o), modeOf(b)];
  if (was === null || overlay === base || was === base) return overlay;
  if (was === overlay) return base;
  // Of owner, group and others each: no wider than the base's, where that was tightened.
  return [0o700, 0o070, 0o007].reduce((mode, mask) => {
    const tightened = (was & ~base & mask) !== 0;
    return mode | (overlay & mask & (tightened ? base : mask));
  }, 0);
}

type Outcome =
  | { state: 'C'; obj: Leaf; renew: boolean }
  | { state: 'F' }
  | { state: 'K' | 'own' }
  | { state: 'X'; why: string };

const conflict = (why: string): Outcome => ({ state: 'X', why });

/** A look at a copy (versioning.md, rows "looked at"). `hidden`: without the copy the base's would not be seen. */
export function lookAt(a: Obj | null, o: Leaf, b: Obj | null, hidden: boolean): Outcome {
  if (a === null) {
    if (b === null) return { state: 'own' };
    if (!sameBody(o, b)) return conflict(o.type === b.type ? 'added' : 'type');
    return { state: 'C', obj: o, renew: true };
  }
  if (b === null) {
    return equal(a, o) && !(o.type === 'file' && o.content === '') ? { state: 'F' } : { state: 'K' };
  }
  if (equal(a, b)) return { state: 'C', obj: o, renew: true };
  const [moved, touched, same] = [!sameBody(a, b), !sameBody(a, o), sameBody(o, b)];
  const withMode = (obj: Leaf): Leaf => (obj.type === 'file' ? { ...obj, mode: mergeModes(a, o, b) } : obj);
  if (!moved) return { state: 'C', obj: withMode(o), renew: true };
  if (!touched || same) return follow(a, o, b, hidden, withMode);
  if (a.type !== o.type || a.type !== b.type) return conflict('type');
  if (a.type !== 'file' || o.type !== 'file' || b.type !== 'file') return conflict('text');
  const [was, overlay, base] = [a, o, b].map((obj) => Buffer.from(obj.content)) as [Buffer, Buffer, Buffer];
  const merged = mergeText(was, overlay, base);
  if (merged.conflict) return conflict('text');
  return { state: 'C', obj: withMode({ ...o, content: merged.out.toString() }), renew: true };
}

/** The guest has not changed the content, or to the same: it is the base's to say. */
function follow(a: Obj, o: Leaf, b: Obj, hidden: boolean, withMode: (obj: Leaf) => Leaf): Outcome {
  const retyped = a.type !== b.type;
  if (retyped && !sameBody(o, b) && modeOf(a) !== modeOf(o)) return conflict('type');
  if (b.type === 'dir') return hidden ? conflict('type') : { state: 'F' };
  const result = withMode(b);
  const empty = o.type === 'file' && o.content === '';
  if (!hidden && !empty && (retyped || equal(result, b))) return { state: 'F' };
  return { state: 'C', obj: result, renew: true };
}

function eventOf(origin: Obj | null, base: Obj | null): string {
  if (base === null) return 'base gone';
  if (origin === null) return 'base has the name';
  return equal(origin, base) ? 'base back' : 'base moves';
}

/** The overlay of one guest, over a base that is shared and changes beneath it. */
export class UnionModel {
  readonly #base: Tree;
  readonly #overlay = new Map<string, Entry>();
  /** Of each path of the base the version that was last opened through the mount (rule 2); none after a restart. */
  readonly #seen = new Map<string, Obj | null>();
  /** Versions of the base that were removed, taken or copied here: their content was kept then. */
  readonly #kept = new Set<Obj>();
  readonly #reached: (row: string) => void;

  constructor(base: Tree, reached: (row: string) => void) {
    this.#base = base;
    this.#reached = reached;
  }

  /** Where in the base a name of the union lies, shown or hidden. */
  basePath(path: string): string {
    let base = '';
    let at = '';
    for (const name of path.split('/')) {
      at = join(at, name);
      const entry = this.#overlay.get(at);
      base = entry?.kind === 'dir' && entry.redirect !== null ? entry.redirect : join(base, name);
    }
    return base;
  }

  /** The directory of the base that is shown in one of the union; null: none. */
  #shown(dir: string): string | null {
    if (dir === '') return '';
    const entry = this.#overlay.get(dir);
    const above = this.#shown(parentOf(dir));
    let base = above === null ? null : join(above, nameOf(dir));
    if (entry?.kind === 'dir' && entry.redirect !== null) base = entry.redirect;
    else if (entry?.kind === 'dir' && entry.opaque) base = null;
    return base !== null && this.#base.get(base)?.type === 'dir' ? base : null;
  }

  /** What the base shows at a name, were the overlay's object there not. */
  beneath(path: string): Obj | null {
    const dir = this.#shown(parentOf(path));
    return dir === null ? null : (this.#base.get(join(dir, nameOf(path))) ?? null);
  }

  at(path: string): Obj | null {
    const entry = this.#overlay.get(path);
    if (entry?.kind === 'whiteout') return null;
    if (entry?.kind === 'copy') return entry.obj;
    if (entry?.kind === 'dir') return { type: 'dir' };
    return this.beneath(path);
  }

  state(path: string): State {
    const entry = this.#overlay.get(path);
    if (entry === undefined) return 'F';
    if (entry.kind === 'copy') return entry.state;
    return entry.kind === 'whiteout' ? 'W' : 'C';
  }

  /** The whole union. */
  view(): Tree {
    const found: Tree = new Map();
    const walk = (dir: string) => {
      for (const path of this.#children(dir)) {
        const obj = this.at(path);
        if (obj === null) continue;
        found.set(path, obj);
        if (obj.type === 'dir') walk(path);
      }
    };
    walk('');
    return found;
  }

  #children(dir: string): Set<string> {
    const shown = this.#shown(dir);
    const names = new Set<string>();
    for (const path of this.#overlay.keys()) if (path !== '' && parentOf(path) === dir) names.add(path);
    if (shown !== null) {
      for (const path of this.#base.keys()) {
        if (path !== '' && parentOf(path) === shown) names.add(join(dir, nameOf(path)));
      }
    }
    return names;
  }

  /** For whoever reads a failure. */
  explain(path: string): string {
    const entry = this.#overlay.get(path);
    const origin = entry !== undefined && entry.kind !== 'dir' ? entry.origin : null;
    const base = this.basePath(path);
    return JSON.stringify({
      path,
      kind: entry?.kind,
      state: this.state(path),
      origin,
      base,
      now: this.#base.get(base),
    });
  }

  conflicts(): string[] {
    return [...this.#overlay]
      .filter(([, entry]) => entry.kind === 'copy' && entry.state === 'X')
      .map(([path]) => path)
      .sort();
  }

  /** Somebody reads all that there is: who reads a copy has seen what it was made of. */
  readAll(): void {
    for (const [path, obj] of this.view()) {
      if (obj.type !== 'file') continue;
      const entry = this.#overlay.get(path);
      const base = this.basePath(path);
      if (entry === undefined) this.#seen.set(base, obj);
      else if (entry.kind === 'copy' && entry.origin?.path === base) {
        this.#seen.set(base, entry.origin.obj);
        if (entry.origin.obj !== null) this.#kept.add(entry.origin.obj);
      }
    }
  }

  /** The base writes to a file in place: what was only read of it can not be read again. */
  overwritten(base: string): void {
    const seen = this.#seen.get(base);
    if (seen && !this.#kept.has(seen)) this.#seen.set(base, null);
  }

  /** Whether the overlay has a directory at that place of the base. */
  hasDirectory(base: string): boolean {
    return [...this.#overlay].some(([path, entry]) => entry.kind === 'dir' && this.basePath(path) === base);
  }

  restarted(): void {
    this.#seen.clear();
  }

  #row(path: string, event: string, before: State): void {
    this.#reached(`${before} ${event} ${this.state(path)}`);
  }

  /** Directories above a new object of the overlay are copied up. */
  #need(dir: string): void {
    if (dir === '') return;
    this.#need(parentOf(dir));
    const entry = this.#overlay.get(dir);
    if (entry?.kind === 'dir') return;
    this.#overlay.set(dir, { kind: 'dir', opaque: false, redirect: null, origin: this.basePath(dir) });
  }

  /** The origin of what comes under a name (rules 1, 2, 4, 5). `seen`: the version that the writer has read. */
  #take(path: string, seen: Obj | null): Origin | null {
    const entry = this.#overlay.get(path);
    const base = this.basePath(path);
    if (entry?.kind === 'copy' || entry?.kind === 'whiteout') {
      return entry.origin?.path === base ? entry.origin : null;
    }
    const now = this.#base.get(base);
    if (now === undefined) return null;
    const read = this.#seen.get(base);
    const obj = seen ?? (read === undefined ? now : read);
    if (obj !== null) this.#kept.add(obj);
    return { path: base, obj };
  }

  /** The guest gives a file this content and mode, in place or under a new inode number, having read it. */
  write(path: string, obj: Leaf, seen: Obj | null = null): void {
    const before = this.state(path);
    const shows = this.#overlay.get(path) === undefined ? this.beneath(path) : null;
    const origin = this.#take(path, seen ?? shows);
    this.#need(parentOf(path));
    this.#overlay.set(path, { kind: 'copy', obj, origin, state: origin === null ? 'own' : 'C' });
    if (before === 'X' || before === 'K') this.#keepState(path, before);
    this.#row(path, before === 'W' ? 'created' : 'changed', before);
  }

  #keepState(path: string, state: State): void {
    const entry = this.#overlay.get(path);
    if (entry?.kind === 'copy') entry.state = state;
  }

  /** A conflict is decided: the overlay's stays, or the base's comes in its place. */
  resolve(path: string, take: 'overlay' | 'base'): void {
    const entry = this.#overlay.get(path);
    const base = this.basePath(path);
    const now = this.#base.get(base);
    if (entry?.kind !== 'copy' || now === undefined) return;
    if (take === 'base') this.#overlay.delete(path);
    else {
      entry.origin = { path: base, obj: now };
      entry.state = 'C';
    }
    this.#row(path, `take ${take}`, 'X');
  }

  /** Whether the base's file would be seen without the copy. */
  isShown(path: string): boolean {
    const now = this.#base.get(this.basePath(path));
    const beneath = this.beneath(path);
    return now?.type === 'file' && beneath !== null && equal(now, beneath);
  }

  /** Paths of the base of which the overlay has a copy. */
  copies(): string[] {
    return [...this.#overlay]
      .filter(([, entry]) => entry.kind === 'copy')
      .map(([path]) => this.basePath(path));
  }

  unlink(path: string): void {
    const before = this.state(path);
    const origin = this.#take(path, this.#overlay.get(path) === undefined ? this.beneath(path) : null);
    for (const [at, obj] of this.view()) if (at.startsWith(`${path}/`)) this.#kept.add(obj);
    for (const below of [...this.#overlay.keys()])
      if (below.startsWith(`${path}/`)) this.#overlay.delete(below);
    this.#overlay.delete(path);
    // Also where an opaque directory hides what the base has: the whiteout keeps the origin (rules 1 and 5).
    const base = this.basePath(path);
    const now = this.#base.get(base);
    if (now !== undefined) {
      this.#need(parentOf(path));
      const known = origin ?? { path: base, obj: now };
      this.#overlay.set(path, { kind: 'whiteout', origin: known });
    }
    this.#row(path, 'unlinked', before);
  }

  mkdir(path: string): void {
    const opaque = this.#overlay.get(path)?.kind === 'whiteout';
    this.#need(parentOf(path));
    this.#overlay.set(path, { kind: 'dir', opaque, redirect: null, origin: null });
  }

  /** What it has is new at its new name, and leaves its origin behind. */
  renameFile(from: string, to: string): void {
    const obj = this.at(from) as Leaf;
    this.unlink(from);
    this.write(to, obj);
  }

  /** Whether the model knows what comes of it: nothing that hides the base, or comes from elsewhere, is in it. */
  canMove(dir: string): boolean {
    const inside = [...this.#overlay].filter(([path]) => path === dir || path.startsWith(`${dir}/`));
    const plain = inside.every(([, entry]) => entry.kind !== 'dir' || !entry.opaque);
    const shown = this.#shown(dir) !== null;
    return plain && (shown || inside.every(([, entry]) => entry.kind === 'dir' && entry.redirect === null));
  }

  renameDir(from: string, to: string): void {
    const base = this.#shown(from);
    const origin = { path: this.basePath(from), obj: { type: 'dir' } as Obj };
    const hides = this.#overlay.get(to)?.kind === 'whiteout';
    const inside = [...this.#overlay].filter(([path]) => path === from || path.startsWith(`${from}/`));
    for (const [path] of inside) this.#overlay.delete(path);
    this.#need(parentOf(from));
    this.#need(parentOf(to));
    if (this.#base.has(this.basePath(from))) this.#overlay.set(from, { kind: 'whiteout', origin });
    for (const [path, entry] of inside) this.#overlay.set(to + path.slice(from.length), entry);
    this.#overlay.set(to, { kind: 'dir', opaque: base === null && hides, redirect: base, origin: base });
    this.#reached(base === null ? 'own directory renamed' : 'directory of the base renamed');
  }

  /** Everything stale is looked at, until nothing changes any more. */
  reconcile(): void {
    for (const [path, entry] of [...this.#overlay]) {
      if (entry.kind === 'dir') continue;
      const base = this.basePath(path);
      const now = this.#base.get(base) ?? null;
      const moved = entry.last !== undefined && entry.last !== now;
      entry.last = now;
      if (entry.kind === 'whiteout') {
        if (moved) this.#row(path, now === null ? 'base gone' : 'base moves', 'W');
        continue;
      }
      const before = entry.state;
      const origin = entry.origin?.path === base ? entry.origin : null;
      const beneath = this.beneath(path);
      const hidden = now !== null && (beneath === null || !equal(beneath, now));
      const outcome = lookAt(origin?.obj ?? null, entry.obj, now, hidden);
      // What is in conflict stays so when the base removes its side (kind deleted), till somebody decides.
      const stays = before === 'X' && outcome.state === 'K';
      if (outcome.state === 'F') this.#overlay.delete(path);
      else entry.state = stays ? 'X' : outcome.state;
      if (outcome.state === 'C') {
        entry.obj = outcome.obj;
        entry.origin = { path: base, obj: now as Obj };
      }
      if (moved || before !== this.state(path)) this.#row(path, eventOf(origin?.obj ?? null, now), before);
    }
    const dirs = [...this.#overlay.keys()].sort((a, b) => b.length - a.length);
    for (const path of dirs) {
      if (!this.#isLeft(path)) continue;
      this.#overlay.delete(path);
      this.#reached('directory gone with the base’s');
    }
  }

  /** A directory that the base has removed, and that holds nothing of the guest's. */
  #isLeft(path: string): boolean {
    const entry = this.#overlay.get(path);
    if (entry?.kind !== 'dir' || entry.opaque) return false;
    const place = join(this.basePath(parentOf(path)), nameOf(path));
    if (entry.origin !== place || (entry.redirect ?? place) !== place || this.#base.has(place)) return false;
    const filled = [...this.#overlay.keys()].some((below) => below.startsWith(`${path}/`));
    return !filled && !this.#isUnderOpaque(path);
  }

  #isUnderOpaque(path: string): boolean {
    return [...this.#overlay].some(
      ([above, entry]) => entry.kind === 'dir' && entry.opaque && path.startsWith(`${above}/`),
    );
  }
}
