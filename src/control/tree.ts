// The control directory `/.kasane`: names, modes, true sizes, contents, and the file that takes verbs. Main
// thread, asynchronous; knows nothing of FUSE and never waits for a merge. The front end serves it with
// direct I/O: GETATTR from stat(), READDIR from list(), OPEN from open() and READ from its handle.
// Paths are relative to `.kasane`, root ''. All functions return negative errnos for what is not there.
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { createCommandRunner } from './commands.ts';
import { conflictJson, jsonText, statusJson } from './json.ts';
import { metricsText } from './metrics.ts';
import { AppendedFile, RenderedFile, type Snapshot } from './rendered.ts';
import { conflictInfo, conflictLine, eventLine, statusText } from './text.ts';
import type { Conflict, ConflictDetail, Side, Verbs } from './verbs.ts';

export interface ControlSources {
  verbs: Verbs;
  /** Grows whenever status, conflicts, their sides or events may have changed; cheap to ask. */
  generation(): number;
  /** Milliseconds since the epoch. */
  now(): number;
  /** One line for the log. */
  warn(message: string): void;
}

export interface ControlStat {
  kind: 'dir' | 'file';
  /** Permission bits. Owner is the mount's owner. */
  mode: number;
  size: number;
  nlink: number;
  /** Changes only when the content does, milliseconds since the epoch. */
  mtimeMs: number;
  generation: number;
  /** Small integer, unique and stable within this directory. */
  ino: number;
}

export interface ControlEntry {
  name: string;
  kind: 'dir' | 'file';
  ino: number;
}

export interface ControlHandle {
  /** Bytes of the content as it was at open (at offset 0: as it is now), so that who reads it to its end has one
   *  rendering. At the end of events it looks whether there is more by now: `tail -f` goes on. */
  read(offset: number, length: number): Promise<Buffer | number>;
}

export interface ControlTree {
  stat(path: string): Promise<ControlStat | number>;
  list(path: string): Promise<ControlEntry[] | number>;
  /** The whole content now. EFBIG: a side larger than 64 MiB (`kasane show` streams it). */
  read(path: string): Promise<Buffer | number>;
  open(path: string): Promise<ControlHandle | number>;
  /** Takes one verb; returns the bytes taken. What went wrong stands in control.last. */
  write(path: string, bytes: Uint8Array): Promise<number>;
}

const SIDE_LIMIT = 64 * 1024 * 1024;
/** How old metrics may be: each look at them would otherwise be a rendering. */
const METRICS_AGE_MS = 1000;

const topFiles = {
  status: { ino: 2, mode: 0o644 },
  'status.json': { ino: 3, mode: 0o600 },
  conflicts: { ino: 4, mode: 0o600 },
  'conflicts.json': { ino: 5, mode: 0o600 },
  events: { ino: 6, mode: 0o600 },
  metrics: { ino: 7, mode: 0o644 },
  control: { ino: 8, mode: 0o600 },
  'control.last': { ino: 9, mode: 0o600 },
} as const;
type TopFile = keyof typeof topFiles;

const ROOT_INO = 1;
const CONFLICT_INO = 10;
const CONFLICT_FIRST = 16;
/** info first: its number in the list is its place among the inodes of a conflict. */
const conflictFiles = ['info', 'ancestor', 'overlay', 'base', 'merged'] as const;
type ConflictFile = (typeof conflictFiles)[number];
const conflictIno = (id: number, file: ConflictFile | null) =>
  CONFLICT_FIRST + id * 8 + (file === null ? 0 : 1 + conflictFiles.indexOf(file));

/** The path of an object of the control directory by its inode number; null: no object has it. */
export function controlPathOf(ino: number): string | null {
  if (ino === ROOT_INO) return '';
  if (ino === CONFLICT_INO) return 'conflict';
  const top = Object.entries(topFiles).find(([, file]) => file.ino === ino);
  if (top !== undefined) return top[0];
  if (ino < CONFLICT_FIRST) return null;
  const id = Math.floor((ino - CONFLICT_FIRST) / 8);
  const which = (ino - CONFLICT_FIRST) % 8;
  if (which === 0) return `conflict/${id}`;
  const file = conflictFiles[which - 1];
  return file === undefined ? null : `conflict/${id}/${file}`;
}

type Place =
  | { at: 'root' }
  | { at: 'top'; file: TopFile }
  | { at: 'conflict' }
  | { at: 'id'; id: number }
  | { at: 'side'; id: number; file: ConflictFile };

function placeOf(path: string): Place | null {
  if (path === '') return { at: 'root' };
  const parts = path.split('/');
  const first = parts[0] as string;
  if (first !== 'conflict') {
    return parts.length === 1 && Object.hasOwn(topFiles, first)
      ? { at: 'top', file: first as TopFile }
      : null;
  }
  if (parts.length === 1) return { at: 'conflict' };
  const digits = parts[1] as string;
  if (!/^[1-9]\d{0,14}$/.test(digits) && digits !== '0') return null;
  const id = Number(digits);
  if (parts.length === 2) return { at: 'id', id };
  const file = conflictFiles.find((one) => one === parts[2]);
  return parts.length === 3 && file !== undefined ? { at: 'side', id, file } : null;
}

export function createControlTree(sources: ControlSources): ControlTree {
  const tree = new Tree(sources);
  const guarded = async <T>(work: () => Promise<T | number>): Promise<T | number> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof FsError) return -error.errno;
      sources.warn(`control directory: ${messageOf(error)}`);
      return -E.EIO;
    }
  };
  return {
    stat: (path) => guarded(() => tree.stat(path)),
    list: (path) => guarded(() => tree.list(path)),
    read: (path) => guarded(() => tree.read(path)),
    open: (path) => guarded(() => tree.open(path, guarded)),
    write: (path, bytes) => guarded(() => tree.write(path, bytes)) as Promise<number>,
  };
}

type Guard = <T>(work: () => Promise<T | number>) => Promise<T | number>;

interface DetailFile {
  detail: ConflictDetail;
  /** Generation of the sources that it shows. */
  shown: number;
  info: RenderedFile;
  /** What each side was, and since when: the mtime of its file. */
  since: Map<Side, { signature: string; mtimeMs: number; generation: number }>;
}

class Tree {
  readonly #sources: ControlSources;
  readonly #files: Record<Exclude<TopFile, 'control'>, RenderedFile | AppendedFile>;
  readonly #commands: ReturnType<typeof createCommandRunner>;
  readonly #details = new Map<number, DetailFile>();
  readonly #started: number;
  #conflicts: { shown: number; list: Conflict[] } | null = null;
  #idsChanged: { ids: string; mtimeMs: number };
  #metricsAt = Number.NEGATIVE_INFINITY;
  #metricsTurn = 0;

  constructor(sources: ControlSources) {
    const { verbs, now } = sources;
    this.#sources = sources;
    this.#started = now();
    this.#idsChanged = { ids: '', mtimeMs: this.#started };
    this.#commands = createCommandRunner(verbs, sources.warn);
    const rendered = (text: () => Promise<string>) =>
      new RenderedFile(async () => Buffer.from(await text(), 'utf8'), now);
    let next = 0;
    this.#files = {
      status: rendered(async () => statusText(await verbs.status(), 'everyone')),
      'status.json': rendered(async () => jsonText(statusJson(await verbs.status()))),
      conflicts: rendered(async () => (await this.#list()).map(conflictLine).join('')),
      'conflicts.json': rendered(async () => jsonText((await this.#list()).map(conflictJson))),
      events: new AppendedFile(async (append, anew) => {
        if (anew) next = 0;
        await verbs.events({ from: next, follow: false }, (event) => {
          if (event.seq < next) return;
          next = event.seq + 1;
          append(eventLine(event));
        });
      }, now),
      metrics: rendered(async () => metricsText(await verbs.metrics())),
      'control.last': rendered(async () => this.#commands.last()),
    };
  }

  async stat(path: string): Promise<ControlStat | number> {
    const place = placeOf(path);
    if (place === null) return -E.ENOENT;
    switch (place.at) {
      case 'root':
        return directory(0o755, ROOT_INO, 3, this.#started);
      case 'conflict': {
        const list = await this.#list();
        return directory(0o700, CONFLICT_INO, 2 + list.length, this.#idsChanged.mtimeMs);
      }
      case 'id': {
        const known = await this.#detail(place.id);
        return directory(0o700, conflictIno(place.id, null), 2, known.detail.since);
      }
      case 'top': {
        const { ino, mode } = topFiles[place.file];
        if (place.file === 'control') {
          return { kind: 'file', mode, size: 0, nlink: 1, mtimeMs: this.#started, generation: 1, ino };
        }
        return fileStat(await this.#snapshot(place.file), mode, ino);
      }
      case 'side':
        return this.#statSide(place.id, place.file);
    }
  }

  async list(path: string): Promise<ControlEntry[] | number> {
    const place = placeOf(path);
    if (place === null) return -E.ENOENT;
    switch (place.at) {
      case 'root': {
        const files = Object.entries(topFiles).map(
          ([name, { ino }]): ControlEntry => ({ name, kind: 'file', ino }),
        );
        return [...files, { name: 'conflict', kind: 'dir', ino: CONFLICT_INO }];
      }
      case 'conflict':
        return (await this.#list()).map(({ id }) => ({
          name: String(id),
          kind: 'dir',
          ino: conflictIno(id, null),
        }));
      case 'id': {
        const { detail } = await this.#detail(place.id);
        return conflictFiles
          .filter((file) => file === 'info' || sideSize(detail, file) !== null)
          .map((name) => ({ name, kind: 'file', ino: conflictIno(place.id, name) }));
      }
      default:
        return -E.ENOTDIR;
    }
  }

  async read(path: string): Promise<Buffer | number> {
    const place = placeOf(path);
    if (place === null) return -E.ENOENT;
    if (place.at === 'top') {
      return place.file === 'control' ? Buffer.alloc(0) : (await this.#snapshot(place.file)).content;
    }
    if (place.at !== 'side') return -E.EISDIR;
    const { detail, info, shown } = await this.#detail(place.id);
    if (place.file === 'info') return (await info.at(shown)).content;
    const size = sideSize(detail, place.file);
    if (size === null) return -E.ENOENT;
    if (size > SIDE_LIMIT) return -E.EFBIG;
    const parts: Buffer[] = [];
    await this.#sources.verbs.show({ target: { id: place.id }, what: { side: place.file } }, ({ data }) => {
      parts.push(Buffer.from(data, 'base64'));
    });
    return Buffer.concat(parts);
  }

  async open(path: string, guarded: Guard): Promise<ControlHandle | number> {
    const first = await this.read(path);
    if (typeof first === 'number') return first;
    const place = placeOf(path);
    const grows = place?.at === 'top' && place.file === 'events';
    let content = first;
    let fresh = true;
    return {
      read: (offset, length) =>
        guarded(async () => {
          if (!fresh && (offset === 0 || (grows && offset >= content.length))) {
            const now = await this.read(path);
            // A conflict that was closed meanwhile: whoever has it open reads on in what there was.
            if (typeof now !== 'number') content = now;
          }
          fresh = false;
          return content.subarray(offset, offset + length);
        }),
    };
  }

  async write(path: string, bytes: Uint8Array): Promise<number> {
    const place = placeOf(path);
    if (place === null) return -E.ENOENT;
    if (place.at !== 'top') return place.at === 'side' ? -E.EACCES : -E.EISDIR;
    if (place.file !== 'control') return -E.EACCES;
    const result = await this.#commands.run(bytes);
    return result < 0 ? result : bytes.length;
  }

  /** The file of the top level as it is now; of metrics as of a second ago at most. */
  #snapshot(file: Exclude<TopFile, 'control'>): Promise<Snapshot> {
    if (file === 'metrics') {
      const now = this.#sources.now();
      if (now - this.#metricsAt >= METRICS_AGE_MS || now < this.#metricsAt) {
        this.#metricsAt = now;
        this.#metricsTurn += 1;
      }
      return this.#files.metrics.at(this.#metricsTurn);
    }
    if (file === 'control.last') return this.#files[file].at(this.#commands.generation());
    return this.#files[file].at(this.#sources.generation());
  }

  async #list(): Promise<Conflict[]> {
    const shown = this.#sources.generation();
    if (this.#conflicts?.shown !== shown) {
      const list = await this.#sources.verbs.conflicts();
      this.#conflicts = { shown, list };
      const ids = list.map(({ id }) => id).join();
      if (ids !== this.#idsChanged.ids) this.#idsChanged = { ids, mtimeMs: this.#sources.now() };
      const open = new Set(list.map(({ id }) => id));
      for (const id of this.#details.keys()) if (!open.has(id)) this.#details.delete(id);
    }
    return this.#conflicts.list;
  }

  /** Throws ENOENT where no such conflict is open. */
  async #detail(id: number): Promise<DetailFile> {
    const shown = this.#sources.generation();
    const list = await this.#list();
    if (!list.some((one) => one.id === id)) throw new FsError(E.ENOENT, `no conflict ${id}`);
    const known = this.#details.get(id);
    if (known?.shown === shown) return known;
    let detail: ConflictDetail;
    try {
      detail = await this.#sources.verbs.conflict({ id });
    } catch (error) {
      // Closed since the list was made.
      if (error instanceof FsError && (error.errno === E.ENOKEY || error.errno === E.EALREADY)) {
        throw new FsError(E.ENOENT, error.message, error);
      }
      throw error;
    }
    const file: DetailFile = known ?? {
      detail,
      shown,
      info: new RenderedFile(async () => Buffer.from(conflictInfo(file.detail), 'utf8'), this.#sources.now),
      since: new Map(),
    };
    file.detail = detail;
    file.shown = shown;
    this.#details.set(id, file);
    return file;
  }

  async #statSide(id: number, name: ConflictFile): Promise<ControlStat | number> {
    const known = await this.#detail(id);
    const ino = conflictIno(id, name);
    if (name === 'info') return fileStat(await known.info.at(known.shown), 0o400, ino);
    const size = sideSize(known.detail, name);
    if (size === null) return -E.ENOENT;
    const signature = JSON.stringify([known.detail.rev, known.detail[name]]);
    let since = known.since.get(name);
    if (since?.signature !== signature) {
      const mtimeMs = since === undefined ? known.detail.since : this.#sources.now();
      since = { signature, mtimeMs, generation: (since?.generation ?? 0) + 1 };
      known.since.set(name, since);
    }
    return {
      kind: 'file',
      mode: 0o400,
      size,
      nlink: 1,
      mtimeMs: since.mtimeMs,
      generation: since.generation,
      ino,
    };
  }
}

/** Bytes that a side's file has; null: it has none, the side being absent, a directory or a device. */
function sideSize(detail: ConflictDetail, side: Side): number | null {
  const info = detail[side];
  if (info === null) return null;
  if (!('type' in info)) return info.size;
  if (info.type === 'symlink') return info.target?.length ?? info.size;
  return info.type === 'file' ? info.size : null;
}

function directory(mode: number, ino: number, nlink: number, mtimeMs: number): ControlStat {
  return { kind: 'dir', mode, size: 0, nlink, mtimeMs, generation: 1, ino };
}

function fileStat(snapshot: Snapshot, mode: number, ino: number): ControlStat {
  return {
    kind: 'file',
    mode,
    size: snapshot.content.length,
    nlink: 1,
    mtimeMs: snapshot.mtimeMs,
    generation: snapshot.generation,
    ino,
  };
}
