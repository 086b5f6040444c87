// What can only be known by walking the overlay: how large it is, what has moved in the base, what it hides. A
// survey is kept for a while, for a monitor asks often; the longer one took, the longer it serves.
import { type BaseLayer, openDirectoryBeneath, statAt } from '../branch/base.ts';
import { descendPath, rootsOf } from '../branch/descent.ts';
import { readNames } from '../branch/listing.ts';
import { isWhiteout, takenName } from '../branch/whiteouts.ts';
import { isWithin } from '../control/mountinfo.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { fingerprintOf, hashFingerprint } from '../lib/fingerprint.ts';
import { joinPath } from '../lib/names.ts';
import { isDirectory, newStat } from '../lib/stat.ts';
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { close, reopen } from '../sys/file.ts';
import { originFor } from '../union/origin-list.ts';
import { type Branches, type InBase, lookInBase, openOverlayFile } from '../union/sides.ts';
import { entryAt, type OverlayEntry, walkOverlay } from '../union/walk-overlay.ts';
import type { MountContext } from './context.ts';

export interface Survey {
  /** Objects of the overlay that have an origin for their place. */
  copies: number;
  whiteouts: number;
  /** Names of the base beneath opaque directories that the overlay does not have. */
  hidden: number;
  /** Copies whose base is not what their origin says. */
  stale: number;
  /** Allocated. */
  bytes: number;
  redirects: boolean;
  /** Copies of metadata alone, and those among them whose content is gone from the base. */
  metadataOnly: number;
  withoutContent: number;
}

const AGE_MS = 1000;
/** A survey serves so many times as long as it took, whatever has happened since. */
const AGE_FACTOR = 20;

/** One survey at a time; `changed` is any number that grows when the guest or Kasane has done something. */
export class Surveyor {
  readonly #context: MountContext;
  #kept: { survey: Survey; changed: number; at: number; took: number } | null = null;
  #running: Promise<Survey> | null = null;

  constructor(context: MountContext) {
    this.#context = context;
  }

  async now(changed: number): Promise<Survey> {
    const kept = this.#kept;
    if (kept !== null) {
      const age = performance.now() - kept.at;
      if (age < kept.took * AGE_FACTOR || (kept.changed === changed && age < AGE_MS)) return kept.survey;
    }
    this.#running ??= this.#take(changed).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #take(changed: number): Promise<Survey> {
    const began = performance.now();
    const survey = await surveyOf(this.#context.reconciler.context.branches);
    const at = performance.now();
    this.#kept = { survey, changed, at, took: at - began };
    return survey;
  }
}

async function surveyOf(branches: Branches): Promise<Survey> {
  const survey: Survey = {
    copies: 0,
    whiteouts: 0,
    hidden: 0,
    stale: 0,
    bytes: 0,
    redirects: false,
    metadataOnly: 0,
    withoutContent: 0,
  };
  const opaque: { path: string; basePath: string }[] = [];
  for await (const entry of walkOverlay(branches.overlay)) {
    const { path, basePath, kind, stat } = entry;
    survey.bytes += stat.blocks * 512;
    if (path !== basePath) survey.redirects = true;
    if (entry.metacopy !== null) {
      survey.metadataOnly += 1;
      if (branches.layers.length > 0 && !hasContent(branches, entry)) survey.withoutContent += 1;
    }
    if (kind === 'whiteout') survey.whiteouts += 1;
    if (entry.opaque && !opaque.some((above) => isWithin(path, above.path))) opaque.push({ path, basePath });
    const origin = originFor(entry.origins, basePath);
    if (kind === 'whiteout' || origin === null) continue;
    survey.copies += 1;
    if (branches.layers.length > 0 && fingerprintAt(branches, basePath) !== origin.fingerprint)
      survey.stale += 1;
  }
  for (const dir of opaque) for await (const _ of hiddenBeneath(branches, dir)) survey.hidden += 1;
  return survey;
}

/** Whether a copy of metadata alone has a content; true of any other object. */
export function hasContent(branches: Branches, { path, metacopy }: OverlayEntry): boolean {
  if (metacopy === null) return true;
  const fd = openOverlayFile(branches, path);
  if (fd >= 0) close(fd);
  return fd !== -E.EIO;
}

/** Hash of the fingerprint of what the base has at a path; '' where it has nothing, or cannot be read. */
export function fingerprintAt(branches: Branches, basePath: string): string {
  let found: InBase | null;
  try {
    found = lookInBase(branches, basePath);
  } catch (error) {
    if (error instanceof FsError) return '';
    throw error;
  }
  if (found === null) return '';
  close(found.dirFd);
  return hashFingerprint(fingerprintOf(found.stat, found.layer.identity));
}

/** Names of the base beneath a directory of the overlay that is opaque, as far as the overlay has none there. */
export async function* hiddenBeneath(
  branches: Branches,
  dir: { path: string; basePath: string },
): AsyncGenerator<{ path: string; basePath: string }> {
  const open = [dir];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const [name, isDir] of namesOfBase(branches, next.basePath)) {
      const at = { path: joinPath(next.path, name), basePath: joinPath(next.basePath, name) };
      const own = entryAt(branches.overlay, at.path);
      if (own === null) yield at;
      if (isDir && (own === null || own.kind === 'dir')) open.push(at);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Names in a directory of the base, and whether each is a directory; of all layers. */
function namesOfBase({ layers }: Branches, basePath: string): Map<string, boolean> {
  const names = new Map<string, boolean>();
  const gone = new Set<string>();
  const stat = newStat();
  for (const { layer, path } of descendPath(layers, rootsOf(layers), basePath)) {
    const { rootFd, marks } = layers[layer] as BaseLayer;
    const pathFd = openDirectoryBeneath(rootFd, path);
    if (pathFd < 0) continue;
    const fd = reopen(pathFd, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(pathFd);
    if (fd < 0) continue;
    const taken: string[] = [];
    readNames(fd, (name) => {
      const away = takenName(marks, name);
      if (away !== null) taken.push(away);
      if (gone.has(name) || names.has(name) || statAt(fd, name, stat) < 0) return;
      if (isWhiteout(marks, fd, name, stat)) gone.add(name);
      else names.set(name, isDirectory(stat.mode));
    });
    for (const name of taken) gone.add(name);
    close(fd);
  }
  return names;
}
