// Random changes by two guests and by the base beneath them, step by step, each held against a model of the union
// (union-model.ts): what each guest sees, and what is in conflict. A step is a number that seeds all of its choices.
import * as fs from 'node:fs';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import type { Verbs } from '../../src/control/verbs.ts';
import { randomFrom } from '../differential/look.mjs';
import { type Agent, startAgent } from '../lib/agent.ts';
import { kasane, type Layers, type Mount, startMount, withLayers } from '../lib/kasane.ts';
import type { Where } from '../lib/temp.ts';
import { BaseEditor } from './base-editor.ts';
import { equal, join, type Obj, parentOf, type Tree, UnionModel } from './union-model.ts';

const MODES = [0o644, 0o600, 0o755, 0o664, 0o640];
const FILES = ['f0', 'f1', 'f2', 'f3'];
const DIRS = ['d0', 'd1', 'd2'];

/** Points at which a daemon dies in the midst of a merge. */
const deaths = [
  ...['merge-kept', 'merge-built', 'merge-intent', 'commit-before-rename', 'commit-after-rename'],
  ...['merge-recorded', 'merge-durable'],
];

type Random = ReturnType<typeof randomFrom>;

export interface Report {
  steps: number;
  /** Rows of the table of states, with how often each was come to. */
  rows: Map<string, number>;
  deaths: number;
}

class Guest {
  readonly model: UnionModel;
  readonly mnt: string;
  readonly #base: string;
  readonly #overlay: string;
  #mount: Mount | null = null;
  #agent: Agent | null = null;
  #verbs: Verbs | null = null;
  /** It dies in the next merge, or in what else is carried out like one. */
  dies = false;

  constructor(layers: Layers, name: string, base: Tree, reached: (row: string) => void) {
    this.#base = layers.base;
    this.mnt = `${layers.dir}/mnt-${name}`;
    this.#overlay = `${layers.dir}/overlay-${name}`;
    for (const dir of [this.mnt, this.#overlay]) fs.mkdirSync(dir);
    this.model = new UnionModel(base, reached);
  }

  async start(death: string | null): Promise<void> {
    this.dies = death !== null;
    const env = death === null ? {} : { KASANE_FAIL: death };
    const layers = { base: this.#base, overlay: this.#overlay, mountPoint: this.mnt };
    this.#mount = await startMount({ ...layers, env, options: ['--metacopy', 'off'] });
    this.#agent = startAgent();
    this.#verbs = connectVerbs(runtimePaths(this.mnt).socket, { timeoutMs: 120_000 });
  }

  async stop(how: 'umount' | 'kill'): Promise<void> {
    await this.#agent?.stop();
    if (how === 'kill') await this.#mount?.kill();
    else await this.#mount?.umount();
    this.model.restarted();
  }

  async sh(script: string, ...args: string[]): Promise<void> {
    await this.#mount?.sh(`set -e; ${script}`, args);
  }

  async check(): Promise<void> {
    const { code, stdout, stderr } = await kasane(['check', this.#overlay]);
    if (code !== 0) throw new Error(`kasane check: ${stdout}${stderr}`);
  }

  /** Has everything stale looked at; after a death of the daemon in the midst of that again. Whether it died. */
  async reconcile(): Promise<boolean> {
    this.model.reconcile();
    const all = { path: '', dryRun: false, acceptBase: false };
    let died = false;
    try {
      await this.#verbs?.reconcile(all, async () => undefined);
    } catch (error) {
      const over = await Promise.race([
        this.#mount?.ended,
        new Promise((r) => setTimeout(r, 30_000, 'alive')),
      ]);
      if (over !== null) throw error;
      died = true;
      await this.stop('kill');
      await this.start(null);
      await this.#verbs?.reconcile(all, async () => undefined);
    }
    return died;
  }

  async resolve(path: string, take: 'overlay' | 'base'): Promise<void> {
    const open = (await this.#verbs?.conflicts())?.find((one) => one.path === path);
    if (open === undefined) throw new Error(`${path} is not in conflict`);
    const target = { id: open.id };
    await this.#verbs?.resolve({ target, rev: open.rev, take, recursive: false, repeatOk: false });
    this.model.resolve(path, take);
  }

  /** Every difference between the union and the model. */
  async differences(): Promise<string[]> {
    const agent = this.#agent as Agent;
    // Who has opened a control file sees all that the base has done before.
    await agent.call('readFileSync', `${this.mnt}/.kasane/control.last`);
    const tree = new Map(await agent.call<[string, Obj][]>('treeOf', this.mnt));
    const wanted = this.model.view();
    const found: string[] = [];
    for (const path of new Set([...tree.keys(), ...wanted.keys()])) {
      const [is, should] = [tree.get(path), wanted.get(path)];
      if (is === undefined || should === undefined || !equal(is, should)) {
        found.push(`${path}: ${brief(is)} instead of ${brief(should)}`);
      }
    }
    this.model.readAll();
    const open = (await this.#verbs?.conflicts())?.map(({ path }) => path).sort() ?? [];
    const conflicts = this.model.conflicts();
    if (open.join() !== conflicts.join()) {
      const odd = [...open, ...conflicts].filter((path) => !open.includes(path) || !conflicts.includes(path));
      found.push(
        `in conflict: ${open} instead of ${conflicts}; ${odd.map((path) => this.model.explain(path))}`,
      );
    }
    return found;
  }
}

/** Of each line only the number that tells who wrote it. */
function brief(obj: Obj | undefined): string {
  if (obj?.type !== 'file') return JSON.stringify(obj) ?? 'nothing';
  const lines = obj.content.split('\n').map((line) => Number(line.split(' ').at(-1)));
  return `${obj.mode.toString(8)} ${lines.join(' ')}`;
}

/** The files of a union that a guest can work on, and its directories with the root. */
function placesOf(view: Tree): { files: string[]; dirs: string[]; all: Tree } {
  const files = [...view].filter(([, obj]) => obj.type === 'file').map(([path]) => path);
  const dirs = [...view].filter(([, obj]) => obj.type === 'dir').map(([path]) => path);
  return { files, dirs: ['', ...dirs], all: view };
}

function freeName(
  random: Random,
  view: Tree,
  dirs: readonly string[],
  names: readonly string[],
): string | null {
  const free = dirs
    .filter((dir) => dir.split('/').length < 4)
    .flatMap((dir) => names.map((name) => join(dir, name)))
    .filter((path) => !view.has(path));
  return free.length === 0 ? null : random.of(free);
}

/** A change by a guest; what was done, null where there is nothing to do it to. */
async function guestStep(guest: Guest, random: Random, editor: BaseEditor): Promise<string | null> {
  const { files, dirs, all } = placesOf(guest.model.view());
  const kinds = ['in place', 'replace', 'replace', 'create', 'create', 'chmod', 'unlink', 'rename file'];
  const { model } = guest;
  const conflicts = guest.dies ? [] : model.conflicts().filter((path) => model.isShown(path));
  if (conflicts.length > 0 && random.chance(0.25)) {
    const [path, take] = [random.of(conflicts) as string, random.of(['overlay', 'base'] as const)];
    await guest.resolve(path, take);
    return `take ${take} of ${path}`;
  }
  const rare = ['mkdir', 'remove tree', 'empty tree', 'rename tree', 'stale replace', 'touch', 'as the base'];
  const kind = random.of([...kinds, ...kinds, ...rare]);
  if (['create', 'mkdir'].includes(kind)) {
    const path = freeName(random, all, dirs, kind === 'create' ? FILES : DIRS);
    if (path === null) return null;
    if (kind === 'mkdir') {
      await guest.sh('mkdir "$1"', path);
      model.mkdir(path);
      return `mkdir ${path}`;
    }
    const obj = { type: 'file', content: editor.newContent(), mode: 0o644 } as const;
    await guest.sh('printf %s "$2" > "$1"', path, obj.content);
    model.write(path, obj);
    return `create ${path}`;
  }
  if (kind.endsWith('tree')) return treeStep(guest, random, kind, dirs.slice(1), all);
  if (files.length === 0) return null;
  const path = random.of(files);
  const was = all.get(path) as Obj & { type: 'file' };
  return fileStep(guest, random, editor, kind, path, was, freeName(random, all, dirs, FILES));
}

async function fileStep(
  guest: Guest,
  random: Random,
  editor: BaseEditor,
  kind: string,
  path: string,
  was: Obj & { type: 'file' },
  free: string | null,
): Promise<string | null> {
  const { model } = guest;
  const content = editor.changed(was.content, random);
  const temporary = join(parentOf(path), '.new');
  const replace = 'printf %s "$2" > "$3"; chmod "$4" "$3"; mv -f "$3" "$1"';
  switch (kind) {
    case 'in place':
      await guest.sh('cat "$1" > /dev/null; printf %s "$2" 1<> "$1"', path, content);
      model.write(path, { ...was, content });
      break;
    case 'replace':
      await guest.sh(`cat "$1" > /dev/null; ${replace}`, path, content, temporary, was.mode.toString(8));
      model.write(path, { ...was, content });
      break;
    case 'chmod': {
      const mode = random.of(MODES.filter((one) => one !== was.mode));
      await guest.sh('chmod "$2" "$1"', path, mode.toString(8));
      model.write(path, { ...was, mode });
      break;
    }
    case 'unlink':
      await guest.sh('cat "$1" > /dev/null; rm -f "$1"', path);
      model.unlink(path);
      break;
    case 'rename file':
      if (free === null) return null;
      await guest.sh('cat "$1" > /dev/null; mv "$1" "$2"', path, free);
      model.renameFile(path, free);
      return `rename ${path} ${free}`;
    case 'touch':
      // A copy that is as it was.
      await guest.sh('touch "$1"', path);
      model.write(path, was);
      break;
    case 'as the base': {
      const now = editor.tree.get(model.basePath(path));
      if (now?.type !== 'file') return null;
      await guest.sh(`cat "$1" > /dev/null; ${replace}`, path, now.content, temporary, now.mode.toString(8));
      model.write(path, now);
      break;
    }
    default:
      // Somebody reads it, the base moves, and they write what they have made of what they had read.
      if (model.state(path) !== 'F') return null;
      await guest.sh('cat "$1" > /dev/null', path);
      editor.replace(model.basePath(path), random);
      await guest.sh(replace, path, content, temporary, was.mode.toString(8));
      model.write(path, { ...was, content }, was);
  }
  return `${kind} ${path}`;
}

async function treeStep(
  guest: Guest,
  random: Random,
  kind: string,
  dirs: readonly string[],
  all: Tree,
): Promise<string | null> {
  const { model } = guest;
  if (dirs.length === 0) return null;
  const path = random.of(dirs);
  if (kind === 'rename tree') {
    const outside = ['', ...dirs].filter((dir) => dir !== path && !dir.startsWith(`${path}/`));
    const to = freeName(random, all, outside, DIRS);
    if (to === null || !model.canMove(path)) return null;
    await guest.sh('mv "$1" "$2"', path, to);
    model.renameDir(path, to);
    return `rename ${path} ${to}`;
  }
  await guest.sh('rm -rf "$1"', path);
  model.unlink(path);
  if (kind === 'empty tree') {
    await guest.sh('mkdir "$1"', path);
    model.mkdir(path);
  }
  return `${kind} ${path}`;
}

/** Does the steps on a fresh base; what was different and what led to it, or null. */
export async function runSteps(
  steps: readonly number[],
  where: Where,
  report: Report,
): Promise<string | null> {
  return withLayers(async (layers) => {
    const editor = new BaseEditor(layers.base);
    editor.populate();
    const reached = (row: string) => report.rows.set(row, (report.rows.get(row) ?? 0) + 1);
    const guests = ['one', 'two'].map((name) => new Guest(layers, name, editor.tree, reached));
    const log: string[] = [];
    try {
      for (const guest of guests) await guest.start(null);
      for (const seed of steps) {
        const random = randomFrom(seed);
        const did = await oneStep(random, guests, editor, report);
        if (did === null) continue;
        report.steps += 1;
        log.push(did);
        for (const [i, guest] of guests.entries()) {
          // What a guest does concerns nobody else.
          if (did.startsWith('guest') && !did.startsWith(`guest ${i}`) && !did.includes('stale')) continue;
          if (await guest.reconcile()) report.deaths += 1;
          const found = await guest.differences();
          if (found.length > 0) {
            return `guest ${i}: ${found.slice(0, 6).join('\n')}\n--- after\n${log.slice(process.env.KASANE_REPORT ? 0 : -25).join('\n')}`;
          }
        }
        editor.expectUntouched();
      }
      for (const guest of guests) {
        await guest.stop('umount');
        await guest.check();
      }
      return null;
    } finally {
      for (const guest of guests) await guest.stop('umount');
    }
  }, where);
}

async function oneStep(
  random: Random,
  guests: readonly Guest[],
  editor: BaseEditor,
  report: Report,
): Promise<string | null> {
  const which = random.chance(0.75) ? 0 : 1;
  const guest = guests[which] as Guest;
  const turn = random.next();
  if (turn < 0.04) {
    const how = random.of(['umount', 'kill', 'death'] as const);
    const death = how === 'death' ? random.of(deaths) : null;
    await guest.stop(how === 'umount' ? 'umount' : 'kill');
    await guest.start(death);
    report.deaths += how === 'kill' ? 1 : 0;
    return `guest ${which}: ${how} ${death ?? ''}`;
  }
  if (turn < 0.45) {
    const did = editor.step(
      random,
      guests.map(({ model }) => model),
    );
    return did === null ? null : `base: ${did}`;
  }
  const did = await guestStep(guest, random, editor);
  return did === null ? null : `guest ${which}: ${did}`;
}
