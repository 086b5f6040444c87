// Which of the kernel's two ways tells a mount of changes of its base, from its start to its end. inotify watches each
// directory that is visited, and all that root runs share its limits; fanotify, for root alone, takes a mark on the
// whole file system, and tells of everything that happens there.
import * as fs from 'node:fs';
import type { BaseLayer } from '../branch/base.ts';
import type { MountOptions } from '../control/mount-options.ts';
import { countMounts } from '../control/registry.ts';
import { E, errnoName } from '../lib/errno.ts';
import type { Log } from '../lib/log.ts';
import { escapeName } from '../lib/names.ts';
import { fanotifyInit, fanotifyMark, keyOfEvents } from '../sys/fanotify.ts';
import { close, fsidWords } from '../sys/file.ts';
import { inotifyInit } from '../sys/poll.ts';
import type { SourceSpec } from '../union/event-sources.ts';
import type { WorkerLink } from './worker-link.ts';

/** For status. */
export interface WatcherReport {
  by: 'inotify' | 'fanotify' | 'none';
  why: string;
}

export interface WatcherParts {
  wish: MountOptions['watch'];
  /** Root of the machine, who alone may have fanotify. */
  privileged: boolean;
  layers: readonly BaseLayer[];
  log: Log;
  /** A sentence for status and log. */
  say: (note: string) => void;
  /** Nothing tells of changes any more: the errno of inotify, negative. */
  lost: (error: number) => void;
  link: () => Pick<WorkerLink, 'send' | 'carryWatches'>;
}

/** Of each limit of inotify so much, all mounts of the host together. */
const SHARE = 4;

export class BaseWatcher {
  readonly #parts: WatcherParts;
  #spec: SourceSpec | null = null;
  #why = '';
  /** Why fanotify cannot be had; it is not tried again. */
  #refused: string | null = null;
  /** Why there is neither, a negative errno of inotify; 0: there is one. */
  readonly error: number;

  constructor(parts: WatcherParts) {
    this.#parts = parts;
    const first = this.#whyFanotifyFirst();
    const taken = first !== null && this.#startFanotify(first);
    if (first !== null && !taken && parts.wish.by === 'fanotify') {
      this.#parts.say(`fanotify cannot be had: ${this.#refused}`);
    }
    this.error = taken ? 0 : this.#startInotify();
  }

  /** For the serving side. */
  get spec(): SourceSpec | null {
    return this.#spec;
  }

  report(): WatcherReport {
    return this.#spec === null
      ? { by: 'none', why: 'nothing can be watched' }
      : { by: this.#spec.by, why: this.#why };
  }

  /** At so many watches the other is to take over. */
  get manyAt(): number {
    const { wish, privileged } = this.#parts;
    const mayChange = wish.by === 'auto' && privileged && this.#refused === null;
    if (!mayChange || this.#spec?.by !== 'inotify') return Number.POSITIVE_INFINITY;
    return wish.at ?? Math.floor(limitOf('max_user_watches') / SHARE / (countMounts() + 1));
  }

  /** There are many watches; or, `full`, no more can be had. */
  tooMany(full: boolean): void {
    if (this.#spec?.by !== 'inotify') return;
    const { wish } = this.#parts;
    const limit = `${SYSCTL}max_user_watches`;
    const past = wish.by === 'auto' && wish.at !== null ? `${wish.at} watches` : `a quarter of ${limit}`;
    const fd = this.#openFanotify();
    if (fd < 0) {
      this.#why = `fanotify cannot take over: ${this.#refused}`;
      this.#parts.say(this.#why);
      return;
    }
    this.#take({ by: 'fanotify', fd }, full ? `${limit} is met` : `past ${past}`);
  }

  /** It is not to be. */
  close(): void {
    if (this.#spec !== null) close(this.#spec.fd);
    this.#spec = null;
  }

  /** Before the serving side has another tree of the base. */
  layerComes(fresh: BaseLayer, old: BaseLayer): void {
    const spec = this.#spec;
    if (spec?.by !== 'fanotify') return;
    const why = markLayer(spec.fd, fresh);
    if (why === null) {
      const left = idOf(old);
      const needed = [fresh, ...this.#parts.layers.filter((layer) => layer !== old)];
      if (!needed.some((layer) => idOf(layer) === left)) fanotifyMark(spec.fd, old.rootFd, false);
      return;
    }
    this.#refused = why;
    const fd = inotifyInit();
    if (fd < 0) {
      this.#parts.lost(fd);
      return;
    }
    this.#parts.say(`inotify watches again: ${why}`);
    this.#take({ by: 'inotify', fd }, `fanotify cannot be had any more: ${why}`);
  }

  /** Where fanotify is to be there from the start. */
  #whyFanotifyFirst(): string | null {
    const { wish, privileged } = this.#parts;
    if (wish.by === 'fanotify') return 'asked for';
    if (wish.by === 'inotify' || !privileged) return null;
    const limit = limitOf('max_user_instances');
    return countMounts() >= limit / SHARE ? `past a quarter of ${SYSCTL}max_user_instances` : null;
  }

  /** 0, or why there is nothing: a negative errno. */
  #startInotify(): number {
    const { wish, privileged } = this.#parts;
    const fd = inotifyInit();
    if (fd >= 0) {
      this.#spec = { by: 'inotify', fd };
      const refused = `fanotify cannot be had: ${this.#refused}`;
      this.#why = wish.by === 'fanotify' ? refused : wish.by === 'inotify' ? 'asked for' : FEW;
      return 0;
    }
    const mayChange = wish.by === 'auto' && privileged && fd === -E.EMFILE;
    return mayChange && this.#startFanotify(`${SYSCTL}max_user_instances is met`) ? 0 : fd;
  }

  #startFanotify(why: string): boolean {
    const fd = this.#openFanotify();
    if (fd < 0) return false;
    this.#spec = { by: 'fanotify', fd };
    this.#why = why;
    return true;
  }

  /** The descriptor, with a mark on each file system of the base; -1, and why, where not all can have one. */
  #openFanotify(): number {
    if (this.#refused !== null) return -1;
    const fd = fanotifyInit();
    if (fd < 0) {
      this.#refused = initRefused(fd);
      return -1;
    }
    for (const layer of this.#parts.layers) this.#refused ??= markLayer(fd, layer);
    if (this.#refused === null) return fd;
    close(fd);
    return -1;
  }

  /** The new one is heard from now on; the former until all that it watches has been carried over. */
  #take(spec: SourceSpec, why: string): void {
    const former = this.#spec;
    const link = this.#parts.link();
    this.#spec = spec;
    this.#why = why;
    this.#parts.log.info(`${spec.by} watches the base: ${why}`);
    link.send({ kind: 'watcher', watcher: spec, manyAt: Number.POSITIVE_INFINITY });
    if (former !== null) void carryAll(link, former.fd);
  }
}

async function carryAll(link: Pick<WorkerLink, 'carryWatches'>, fd: number): Promise<void> {
  while (await link.carryWatches());
  // On another thread: where there were many watches it takes its time.
  fs.close(fd, () => {});
}

const SYSCTL = 'fs.inotify.';
const FEW = 'few directories are watched';

function limitOf(name: 'max_user_watches' | 'max_user_instances'): number {
  return Number(fs.readFileSync(`/proc/sys/fs/inotify/${name}`, 'latin1'));
}

const idOf = (layer: BaseLayer) => fsidWords(layer.rootFd).join();

function initRefused(error: number): string {
  if (error === -E.EPERM) return 'only root may';
  if (error === -E.EINVAL || error === -E.ENOSYS) return 'this kernel tells no names (Linux 5.9 does)';
  if (error === -E.EMFILE) return 'fs.fanotify.max_user_groups is met';
  return errnoName(error);
}

/** null, or why the file system of a layer cannot be watched as a whole. */
function markLayer(fd: number, layer: BaseLayer): string | null {
  const path = escapeName(layer.path);
  // What it unites may get other handles when it is written to.
  if (layer.parts === 'all') return `${path} lies on overlayfs`;
  const error = fanotifyMark(fd, layer.rootFd, true);
  if (error === -E.EXDEV) return `${path} lies in a subvolume`;
  if (error === -E.ENODEV) return `${path} lies on a file system without an id`;
  if (error === -E.EOPNOTSUPP) return `${path} lies on a file system without file handles`;
  if (error === -E.EPERM) return 'only root of the machine may';
  if (error < 0) return `${path}: ${errnoName(error)}`;
  return keyOfEvents(layer.rootFd, '', [0, 0]) < 0
    ? `${path} lies on a file system without file handles`
    : null;
}
