// Edits a base as its owners do, on the disk and in the model of it at once.
import * as fs from 'node:fs';
import type { randomFrom } from '../differential/look.mjs';
import { BaseWatch } from '../lib/versioning.ts';
import { join, type Obj, parentOf, type Tree, type UnionModel } from './union-model.ts';

type Random = ReturnType<typeof randomFrom>;

const LINES = 40;
const MODES = [0o644, 0o600, 0o755, 0o664, 0o640];
/** Nothing is as new as that, so that only what matters tells of a change. */
const OLD = 1_400_000_000;

export class BaseEditor {
  readonly tree: Tree = new Map();
  readonly #dir: string;
  /** What a path was before. */
  readonly #history = new Map<string, Obj[]>();
  #count = 0;
  #watch: BaseWatch | null = null;

  constructor(dir: string) {
    this.#dir = dir;
  }

  populate(): void {
    for (const dir of ['d0', 'd0/d1', 'd1', 'd2']) this.#put(dir, { type: 'dir' });
    for (const dir of ['', 'd0', 'd0/d1', 'd1', 'd2']) {
      for (const name of ['f0', 'f1', 'f2']) this.#put(join(dir, name), this.#newFile());
    }
    this.#watch = new BaseWatch(this.#dir);
  }

  /** Nobody else writes to it. */
  expectUntouched(): void {
    this.#watch?.check();
  }

  /** Of lines that are equally long, so that it can be written over in place. */
  newContent(): string {
    this.#count += 1;
    return Array.from(
      { length: LINES },
      (_, i) => `line ${i} ${String(this.#count).padStart(9, '0')}\n`,
    ).join('');
  }

  /** One line otherwise. */
  changed(content: string, random: Random): string {
    this.#count += 1;
    const lines = content.split('\n');
    const at = random.below(LINES);
    lines[at] = `line ${at} ${String(this.#count).padStart(9, '0')}`;
    return lines.join('\n');
  }

  #newFile(): Obj {
    return { type: 'file', content: this.newContent(), mode: 0o644 };
  }

  /** Puts it there by rename, with an old mtime. */
  #put(path: string, obj: Obj): void {
    const full = `${this.#dir}/${path}`;
    const old = this.tree.get(path);
    if (old !== undefined) this.#history.set(path, [...(this.#history.get(path) ?? []), old]);
    if (old?.type === 'dir' || obj.type === 'dir') fs.rmSync(full, { recursive: true, force: true });
    for (const below of [...this.tree.keys()]) if (below.startsWith(`${path}/`)) this.tree.delete(below);
    this.tree.set(path, obj);
    if (obj.type === 'dir') {
      fs.mkdirSync(full);
      return;
    }
    const temporary = `${full}.dpkg-new`;
    if (obj.type === 'link') fs.symlinkSync(obj.target, temporary);
    else {
      fs.writeFileSync(temporary, obj.content);
      fs.chmodSync(temporary, obj.mode);
      fs.utimesSync(temporary, OLD, OLD);
    }
    fs.renameSync(temporary, full);
  }

  /** Files, but where an overlay has a directory: what is displaced is beyond the model. */
  #fill(dir: string, names: readonly string[], models: readonly UnionModel[]): void {
    for (const path of names.map((name) => join(dir, name))) {
      if (!models.some((model) => model.hasDirectory(path))) this.#put(path, this.#newFile());
    }
  }

  #remove(path: string): void {
    const old = this.tree.get(path);
    if (old !== undefined) this.#history.set(path, [...(this.#history.get(path) ?? []), old]);
    fs.rmSync(`${this.#dir}/${path}`, { recursive: true });
    for (const below of [...this.tree.keys()]) {
      if (below === path || below.startsWith(`${path}/`)) this.tree.delete(below);
    }
  }

  #done(): void {
    this.#watch = new BaseWatch(this.#dir);
  }

  replace(path: string, random: Random): void {
    const old = this.tree.get(path);
    if (old?.type === 'file') this.#put(path, { ...old, content: this.changed(old.content, random) });
    this.#done();
  }

  /** What was done, or null. */
  step(random: Random, models: readonly UnionModel[]): string | null {
    const kinds = ['replace', 'replace', 'in place', 'chmod', 'same again', 'revert', 'delete', 'add', 'add'];
    const rare = ['to link', 'to directory', 'to file', 'delete tree', 'new tree', 'add tree'];
    const kind = random.of([...kinds, ...kinds, ...rare]);
    const did = this.#step(kind, random, models);
    if (did !== null) this.#done();
    return did === null ? null : `${kind} ${did}`;
  }

  #step(kind: string, random: Random, models: readonly UnionModel[]): string | null {
    const paths = [...this.tree];
    // A base that is empty, if for a moment, is taken for one that is not mounted (test/e2e/versioning-base.test.ts).
    const isBare = paths.filter(([path]) => !path.includes('/')).length < 2;
    if (isBare && !kind.startsWith('add')) return null;
    const dirs = paths.filter(([, obj]) => obj.type === 'dir').map(([path]) => path);
    if (kind.startsWith('add')) {
      const names = kind === 'add' ? ['f0', 'f1', 'f2', 'f3'] : ['d0', 'd1', 'd2'];
      const free = ['', ...dirs].flatMap((dir) => names.map((name) => join(dir, name)));
      const path = random.of(free.filter((one) => !this.tree.has(one) && one.split('/').length < 4));
      if (path === undefined || (kind === 'add' && models.some((model) => model.hasDirectory(path))))
        return null;
      this.#put(path, kind === 'add' ? this.#newFile() : { type: 'dir' });
      if (kind === 'add tree') this.#fill(path, ['f0'], models);
      return path;
    }
    if (kind.endsWith('tree')) {
      const path = random.of(dirs);
      if (path === undefined) return null;
      this.#remove(path);
      if (kind === 'delete tree') return path;
      this.#put(path, { type: 'dir' });
      this.#fill(path, ['f0', 'f3'], models);
      return path;
    }
    if (kind === 'revert') return this.#revert(random, models);
    if (kind === 'to file') {
      const others = paths.filter(([path, obj]) => obj.type !== 'file' && /f\d$/.test(path));
      const path = random.of(others)?.[0];
      if (path === undefined || models.some((model) => model.hasDirectory(path))) return null;
      this.#put(path, this.#newFile());
      return path;
    }
    return this.#editFile(kind, random, models);
  }

  #editFile(kind: string, random: Random, models: readonly UnionModel[]): string | null {
    const files = [...this.tree].filter(([, obj]) => obj.type === 'file');
    const copied = new Set(models.flatMap((model) => model.copies()));
    const worth = files.filter(([path]) => copied.has(path));
    const chosen = random.of(worth.length > 0 && random.chance(0.7) ? worth : files);
    if (chosen === undefined) return null;
    const [path, old] = chosen as [string, Obj & { type: 'file' }];
    const content = this.changed(old.content, random);
    const full = `${this.#dir}/${path}`;
    switch (kind) {
      case 'replace':
        this.#put(path, { ...old, content });
        break;
      case 'in place':
        fs.writeFileSync(full, content);
        this.tree.set(path, { ...old, content });
        this.#history.set(path, [...(this.#history.get(path) ?? []), old]);
        for (const model of models) model.overwritten(path);
        break;
      case 'chmod': {
        const mode = random.of(MODES.filter((one) => one !== old.mode)) as number;
        fs.chmodSync(full, mode);
        this.tree.set(path, { ...old, mode });
        break;
      }
      case 'same again':
        this.#put(path, { ...old });
        break;
      case 'delete':
        this.#remove(path);
        break;
      case 'to link':
        this.#count += 1;
        this.#put(path, { type: 'link', target: `nowhere-${this.#count}` });
        break;
      default:
        this.#put(path, { type: 'dir' });
        this.#fill(path, ['f0'], models);
    }
    return path;
  }

  /** What it was once, also if it is gone by now. */
  #revert(random: Random, models: readonly UnionModel[]): string | null {
    const known = [...this.#history].filter(([path, list]) => {
      const [parent, last] = [parentOf(path), list.at(-1)];
      const there = parent === '' || this.tree.get(parent)?.type === 'dir';
      return there && this.tree.get(path)?.type !== 'dir' && last?.type !== 'dir';
    });
    const chosen = random.of(known);
    if (chosen === undefined) return null;
    const [path, list] = chosen;
    const obj = random.of(list.filter((one: Obj) => one.type !== 'dir'));
    if (obj === undefined || models.some((model) => model.hasDirectory(path))) return null;
    this.#put(path, { ...obj });
    return path;
  }
}
