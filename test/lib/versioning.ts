// A guest whose base is updated while it works: what the tests of versioning share. The base is watched, so that
// whatever writes to it, other than the test itself, fails the test.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { dpkgReplace, editInPlace } from './base-update.ts';
import { caughtUp, type Mount, withLayers, withMount } from './kasane.ts';
import { runOk, waitUntil } from './run.ts';

/** How somebody updates a file of the base. */
export const updateKinds = ['replace', 'replace, same mtime', 'in place', 'in place, same mtime'] as const;
export type UpdateKind = (typeof updateKinds)[number];

export interface OpenConflict {
  id: number;
  rev: number;
  kind: string;
  path: string;
}

export interface Guest {
  mount: Mount;
  /** The mount point, the base, the overlay, and a folder beside them for whatever else. */
  mnt: string;
  base: string;
  overlay: string;
  dir: string;
  /** Path in the mount. */
  at: (name: string) => string;
  /** Content as somebody sees it who opens it now, which waits for a merge. */
  read: (name: string) => Promise<string>;
  exists: (name: string) => Promise<boolean>;
  /** Updates a file of the base. */
  update: (name: string, content: string, kind?: UpdateKind) => Promise<void>;
  /** Whatever else is done to the base. */
  changeBase: (work: () => Promise<unknown> | unknown, unchecked?: boolean) => Promise<void>;
  conflicts: () => Promise<OpenConflict[]>;
  /** Paths in conflict with their kinds, sorted: `etc/passwd record`. From the control directory. */
  conflictList: () => Promise<string[]>;
  /** Events of a path, in order, by `kasane log`. */
  events: (name: string) => Promise<string[]>;
  /** What the overlay itself has: null where it has nothing, 'whiteout', or the content. */
  raw: (name: string) => string | null;
  kasane: Mount['kasane'];
}

/** Every entry with all that a write would move: inode number, times (but atime), owner, mode, content. */
export function snapshot(dir: string): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (full: string, name: string): void => {
    const stat = fs.lstatSync(full, { bigint: true });
    const { ino, mode, uid, gid, nlink, size, mtimeNs, ctimeNs } = stat;
    const content = stat.isFile()
      ? createHash('sha256').update(fs.readFileSync(full)).digest('hex')
      : stat.isSymbolicLink()
        ? fs.readlinkSync(full)
        : '';
    found.set(name, [ino, mode, uid, gid, nlink, size, mtimeNs, ctimeNs, content].join(' '));
    if (!stat.isDirectory()) return;
    for (const entry of fs.readdirSync(full)) visit(`${full}/${entry}`, `${name}/${entry}`);
  };
  visit(dir, '');
  return found;
}

/** Notices writes to a base that are not the test's own. */
export class BaseWatch {
  readonly #dir: string;
  #known: Map<string, string>;
  #last: Promise<unknown> = Promise.resolve();

  constructor(dir: string) {
    this.#dir = dir;
    this.#known = snapshot(dir);
  }

  check(): void {
    const now = snapshot(this.#dir);
    const names = new Set([...now.keys(), ...this.#known.keys()]);
    const moved = [...names].filter((name) => now.get(name) !== this.#known.get(name));
    if (moved.length > 0) throw new Error(`the base was written to: ${moved.join(', ')}`);
  }

  /** One change at a time. `unchecked`: the tree may be another by now. */
  changing(work: () => Promise<unknown> | unknown, unchecked = false): Promise<void> {
    const run = this.#last.then(async () => {
      if (!unchecked) this.check();
      await work();
      this.#known = snapshot(this.#dir);
    });
    this.#last = Promise.allSettled([run]);
    return run;
  }
}

export interface GuestSpec {
  /** Files of the base before the mount, by path; a value of null makes a directory. */
  files: Record<string, string | null>;
  options?: readonly string[];
  env?: Record<string, string>;
  where?: 'disk' | 'memory';
}

export function writeFiles(dir: string, files: Record<string, string | null>): void {
  for (const [name, content] of Object.entries(files)) {
    const full = path.join(dir, name);
    fs.mkdirSync(content === null ? full : path.dirname(full), { recursive: true });
    if (content !== null) fs.writeFileSync(full, content);
  }
}

/** A mount on a base with these files, for the time of `body`. */
export function withGuest<T>(spec: GuestSpec, body: (guest: Guest) => Promise<T>): Promise<T> {
  return withLayers(async (layers) => {
    writeFiles(layers.base, spec.files);
    const watch = new BaseWatch(layers.base);
    const { options = [], env = {} } = spec;
    const result = await withMount({ ...layers, options, env }, (mount) =>
      body(guestOf(mount, watch, layers.dir)),
    );
    watch.check();
    return result;
  }, spec.where ?? 'disk');
}

/** The same for a mount that the test has made itself. */
export function guestOf(mount: Mount, watch: BaseWatch, dir: string): Guest {
  const { base, overlay } = mount;
  const at = (name: string) => path.join(mount.dir, name);
  const changing: Guest['changeBase'] = async (work, unchecked) => {
    await watch.changing(work, unchecked);
    await caughtUp(mount.dir);
  };
  return {
    mount,
    mnt: mount.dir,
    base,
    overlay,
    dir,
    at,
    read: mount.read,
    exists: async (name) => (await mount.sh('[ -e "$1" ] && echo yes || echo no', [at(name)])) === 'yes\n',
    update: (name, content, kind = 'replace') =>
      changing(() => updateFile(path.join(base, name), content, kind)),
    changeBase: changing,
    conflicts: () => openConflicts(mount, mount.dir),
    conflictList: async () => {
      const lines = (await mount.read('.kasane/conflicts')).split('\n').filter((line) => line !== '');
      return lines.map((line) => line.split('\t').slice(1).reverse().join(' ')).sort();
    },
    events: async (name) => {
      const { stdout, stderr } = await mount.kasane(['log', '--json', at(name)]);
      if (stdout === '') throw new Error(stderr);
      return (JSON.parse(stdout) as { kind: string }[]).map((event) => event.kind);
    },
    raw: (name) => rawOf(path.join(overlay, name)),
    kasane: mount.kasane,
  };
}

async function openConflicts(mount: Mount, where: string): Promise<OpenConflict[]> {
  const { code, stdout, stderr } = await mount.kasane(['conflicts', '--json', where]);
  if (code !== 0 && code !== 1) throw new Error(`kasane conflicts ended with ${code}: ${stderr}`);
  return JSON.parse(stdout) as OpenConflict[];
}

function rawOf(file: string): string | null {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) return null;
  if (stat.isCharacterDevice() && stat.rdev === 0) return 'whiteout';
  return stat.isSymbolicLink() ? fs.readlinkSync(file) : fs.readFileSync(file, 'utf8');
}

export async function updateFile(file: string, content: string, kind: UpdateKind): Promise<void> {
  if (kind === 'replace') return dpkgReplace(file, content);
  if (kind === 'replace, same mtime') return dpkgReplace(file, content, { keepMtime: true });
  const { mtimeNs } = fs.statSync(file, { bigint: true });
  editInPlace(file, content);
  if (kind === 'in place') return;
  const nanoseconds = String(mtimeNs % 1_000_000_000n).padStart(9, '0');
  await runOk('touch', ['-d', `@${mtimeNs / 1_000_000_000n}.${nanoseconds}`, file]);
}

/** Twenty lines, some of them said otherwise: far enough apart that changes to line 3 and 15 never meet. */
export function text(changes: Record<number, string> = {}): string {
  const lines = Array.from({ length: 20 }, (_, i) => changes[i + 1] ?? `line ${i + 1}`);
  return `${lines.join('\n')}\n`;
}

/** Where the base changes it, and where the guest does. */
export const BASE_LINE = 3;
export const GUEST_LINE = 15;

/** Stops a tool in the middle: it runs `script` (a shell command) and goes on when `between` is done. */
export interface Gate {
  script: string;
  /** Waits until the tool is there, does `work`, and lets it go on. */
  pass: (work: () => Promise<void>) => Promise<void>;
}

let gates = 0;

export function makeGate(dir: string): Gate {
  const name = path.join(dir, `gate-${gates++}`);
  return {
    script: `touch ${name}.ready; while [ ! -e ${name}.go ]; do sleep 0.02; done`,
    pass: async (work) => {
      if (!(await waitUntil(() => fs.existsSync(`${name}.ready`))))
        throw new Error('the tool never came to its gate');
      await work();
      fs.writeFileSync(`${name}.go`, '');
    },
  };
}

/** Does the tool's work, with the gate passed meanwhile; both are waited for. */
export async function throughGate(
  gate: Gate,
  between: () => Promise<void>,
  tool: Promise<unknown>,
): Promise<void> {
  const passing = gate.pass(between);
  await Promise.all([tool, passing]);
}

/** Whether the guest's base is accepted, as `status` has it. */
export async function baseState(guest: Guest): Promise<string> {
  const { stdout } = await guest.kasane(['status', '--json', guest.mnt]);
  const report = JSON.parse(stdout) as { base: string } | { base: string }[];
  return (Array.isArray(report) ? (report[0] as { base: string }) : report).base;
}
