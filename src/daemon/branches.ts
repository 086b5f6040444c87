// Opens what a mount stands on: the layers of the base, the overlay, Kasane's own directories, and looks
// whether all of it will do. Throws FsError with one line for a person.
import * as fs from 'node:fs';
import { type BaseLayer, openBaseLayer } from '../branch/base.ts';
import { readOsRelease } from '../branch/identity.ts';
import { openRecords, releasing } from '../branch/origin-store.ts';
import { type Overlay, openOverlay, probeOverlay } from '../branch/overlay.ts';
import { marksOfBase } from '../branch/whiteouts.ts';
import type { MountOptions } from '../control/mount-options.ts';
import { isWithin, minorOf, readMountInfo } from '../control/mountinfo.ts';
import { resolveOutside } from '../control/resolve.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { newStat } from '../lib/stat.ts';
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../sys/constants.ts';
import { type Rights, rightsOfProcess } from '../sys/creds.ts';
import { fstatfs, newStatfs, openat } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import type { StandIn } from '../union/sides.ts';
import { readIfThere, replaceFile } from '../versions/files.ts';
import type { BaseRecord } from '../versions/types.ts';

export interface OpenBranches {
  layers: BaseLayer[];
  overlay: Overlay;
  stateDir: string;
  /** Not O_PATH: the state directory, its work/ and displaced/. */
  stateFd: number;
  workFd: number;
  displacedFd: number;
  linksFd: number;
  rights: Rights;
  /** Who owns what is brought up, whoever owns it in the base; null: whoever does. */
  standIn: StandIn | null;
  osTree: boolean;
}

export function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

export function stateDirOf(options: Pick<MountOptions, 'state' | 'overlay'>): string {
  return options.state ?? `${options.overlay}/.kasane`;
}

/** Layers and overlay; nothing is written yet. */
export function openLayers(
  options: Pick<MountOptions, 'bases' | 'overlay' | 'state' | 'whiteouts'>,
): Pick<OpenBranches, 'layers' | 'overlay' | 'rights' | 'standIn' | 'osTree'> {
  const rights = rightsOfProcess();
  const marks = marksOfBase(options.whiteouts);
  const layers = options.bases.map((base, index) =>
    openBaseLayer(index, resolveOutside(base, new Set()).path, rights, marks),
  );
  const overlay = openOverlay(options.overlay, prefixOf(stateDirOf(options), rights));
  const standIn = rights.actsForOthers
    ? null
    : { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
  // What the journal told is asked about before the rest of the state is opened.
  openRecords(overlay.origins, stateDirOf(options));
  const osTree = layers.some((layer) => readOsRelease(layer.path) !== null);
  return { layers, overlay, rights, standIn, osTree };
}

/** In the state directory: the kind of attributes that the overlay is made with. */
const ATTRIBUTES_FILE = 'attributes';

/** An overlay keeps its kind, whoever mounts it: the two do not see each other's. */
function prefixOf(stateDir: string, { privileged }: Rights): Overlay['xattrPrefix'] {
  const known = readIfThere(`${stateDir}/${ATTRIBUTES_FILE}`)?.toString('latin1').trim();
  if (known === 'user.') return known;
  if (known === 'trusted.' && !privileged) {
    throw new FsError(E.EPERM, 'the overlay was made with trusted.* attributes: only root can mount it');
  }
  return privileged ? 'trusted.' : 'user.';
}

export function rememberAttributes(stateDir: string, { xattrPrefix }: Overlay): void {
  if (readIfThere(`${stateDir}/${ATTRIBUTES_FILE}`) !== null) return;
  replaceFile(stateDir, ATTRIBUTES_FILE, `${xattrPrefix}\n`);
}

function openDirectory(path: string): number {
  const fd = openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw new FsError(-fd, `${escapeName(path)}: cannot be opened (${errnoName(fd)})`);
  return fd;
}

/** In the state directory: where the base was at the last mount, for those who ask of an overlay alone. */
const BASES_FILE = 'bases';

type Remembered = Pick<MountOptions, 'bases' | 'whiteouts'>;

export function rememberBases(stateDir: string, { bases, whiteouts }: Remembered): void {
  const line = `${JSON.stringify({ bases, whiteouts })}\n`;
  if (readIfThere(`${stateDir}/${BASES_FILE}`)?.toString('utf8') !== line)
    replaceFile(stateDir, BASES_FILE, line);
}

/** Paths of the base's layers; none where nobody has noted them. */
export function rememberedBases(stateDir: string): Remembered {
  const none: Remembered = { bases: [], whiteouts: 'overlayfs' };
  const bytes = readIfThere(`${stateDir}/${BASES_FILE}`);
  if (bytes === null) return none;
  try {
    const noted: unknown = JSON.parse(bytes.toString('utf8'));
    // A list alone is of an earlier version.
    const { bases, whiteouts } = Array.isArray(noted)
      ? { ...none, bases: noted }
      : (noted as Partial<Remembered>);
    if (!Array.isArray(bases) || !bases.every((one) => typeof one === 'string')) return none;
    return { bases, whiteouts: whiteouts === 'oci' ? 'oci' : 'overlayfs' };
  } catch (error) {
    if (error instanceof SyntaxError) return none;
    throw error;
  }
}

/** In the state directory of an exported mount: the minor number that the file system had. */
const DEVICE_FILE = 'device';

/** null: nobody has noted it. */
export function rememberedMinor(stateDir: string): number | null {
  const minor = Number(readIfThere(`${stateDir}/${DEVICE_FILE}`)?.toString('latin1') ?? Number.NaN);
  return Number.isSafeInteger(minor) && minor > 0 ? minor : null;
}

/** Notes the number of what has just been mounted; says so where it could not be the one that it had `before`. */
export function minorNotes(
  { mountPoint, readOnly }: Pick<MountOptions, 'mountPoint' | 'readOnly'>,
  stateDir: string,
  before: number | null,
): string[] {
  const now = minorOf(mountPoint);
  if (now < 0 || now === before) return [];
  if (!readOnly) replaceFile(stateDir, DEVICE_FILE, `${now}\n`);
  return before === null
    ? []
    : [`the device number is another one than before: clients of NFS-Ganesha mount anew`];
}

/** Kasane's own directories, after the store has made and locked them; work/ is emptied of what a crash left. */
export function openState(
  opened: ReturnType<typeof openLayers>,
  stateDir: string,
  readOnly: boolean,
): OpenBranches {
  const stateFd = openDirectory(stateDir);
  const work = `${stateDir}/work`;
  const workFd = openDirectory(work);
  const displacedFd = openDirectory(`${stateDir}/displaced`);
  const linksFd = openDirectory(`${stateDir}/links`);
  const { overlay } = opened;
  const error = openRecords(overlay.origins, stateDir);
  if (error < 0)
    throw new FsError(-error, `${escapeName(stateDir)}/origins: cannot be opened (${errnoName(error)})`);
  if (!readOnly) {
    emptyWork(overlay, work, workFd);
    probeOverlay(overlay, workFd);
  }
  return { ...opened, stateDir, stateFd, workFd, displacedFd, linksFd };
}

/** Somebody has removed it while it is mounted. */
export function overlayIsGone({ overlay, stateFd }: Pick<OpenBranches, 'overlay' | 'stateFd'>): boolean {
  const stat = newStat();
  return [overlay.rootFd, stateFd].some((fd) => fstat(fd, stat) === 0 && stat.nlink === 0);
}

function emptyWork(overlay: Overlay, work: string, workFd: number): void {
  for (const name of fs.readdirSync(bytesOf(work), { encoding: 'buffer' })) {
    const path = Buffer.concat([bytesOf(`${work}/`), name]);
    releasing(overlay.origins, workFd, name.toString('latin1'), () => {
      fs.rmSync(path, { recursive: true, force: true });
      return 0;
    });
  }
}

/** What is remembered of the base, to see next time whether it is the right one. */
export function baseRecords(layers: readonly BaseLayer[]): BaseRecord[] {
  return layers.map((layer) => {
    const release = readOsRelease(layer.path);
    return {
      identity: layer.identity,
      osId: release?.id ?? '',
      osVersion: release?.versionId ?? '',
      rootIno: layer.rootIno,
    };
  });
}

/** For whoever mounts, and for status: what a doubt means. */
export function doubtNote(doubt: string): string {
  return `the base is not accepted: ${doubt}; nothing is merged until kasane reconcile --accept-base`;
}

/** Why a base may not be the one that the overlay's origins speak of; null: it is, or a new tree of the same release. */
export function baseDoubt(known: readonly BaseRecord[], layers: readonly BaseLayer[]): string | null {
  if (known.length === 0) return null;
  for (const [i, now] of baseRecords(layers).entries()) {
    const layer = layers[i] as BaseLayer;
    if (isEmpty(layer.path)) return `${escapeName(layer.path)} is empty`;
    const before = known[i];
    if (before === undefined) return 'it has another number of layers';
    if (before.osId !== now.osId || before.osVersion !== now.osVersion) {
      const was = `${before.osId} ${before.osVersion}`.trim() || 'no OS tree';
      const is = `${now.osId} ${now.osVersion}`.trim() || 'no OS tree';
      return `it was ${was} and is ${is}`;
    }
  }
  return known.length === layers.length ? null : 'it has another number of layers';
}

function isEmpty(path: string): boolean {
  try {
    return fs.readdirSync(bytesOf(path)).length === 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    throw error;
  }
}

/** Whether another tree lies there than at the last mount, so that no fingerprint is to be trusted. */
export function isNewTree(known: readonly BaseRecord[], layers: readonly BaseLayer[]): boolean {
  return layers.some((layer, i) => known[i] !== undefined && known[i]?.identity !== layer.identity);
}

/** What is mounted beneath a base is not entered; one sentence that says so. */
export function submountNotes(layers: readonly BaseLayer[]): string[] {
  const notes: string[] = [];
  for (const { path: base } of layers) {
    const beneath = readMountInfo()
      .map((mount) => mount.mountPoint)
      .filter((point) => point !== base && isWithin(point, base));
    if (beneath.length === 0) continue;
    const names = beneath.slice(0, 3).map(escapeName).join(', ');
    notes.push(`mounts beneath the base are not entered: ${names}${beneath.length > 3 ? ' …' : ''}`);
  }
  return notes;
}

/** Where whiteouts cannot be devices; one sentence that says what that means. */
export function whiteoutNotes({ whiteoutFiles }: Overlay): string[] {
  if (!whiteoutFiles) return [];
  return [
    'the overlay’s file system refuses devices: whiteouts are files there, which overlayfs knows in lower layers only',
  ];
}

/** Whether the bases are guarded by a private read-only mount; one sentence where they are not. */
export function protectionNotes(layers: readonly BaseLayer[]): string[] {
  if (layers.every((layer) => layer.isPrivate)) return [];
  return [
    'the base is reached by plain descriptors, opened for reading: a private read-only mount takes root and Linux 5.12',
  ];
}

const OVERLAYFS_MAGIC = 0x794c7630;

/** How deep file systems are stacked beneath the mount, where the kernel reads files past us: 2 on overlayfs. */
export function backingDepth({ overlay, layers }: Pick<OpenBranches, 'overlay' | 'layers'>): number {
  const space = newStatfs();
  const isStacked = ({ rootFd }: { rootFd: number }) =>
    fstatfs(rootFd, space) === 0 && space.type === OVERLAYFS_MAGIC;
  return isStacked(overlay) || layers.some(isStacked) ? 2 : 1;
}

export function stackNotes(branches: OpenBranches): string[] {
  if (!branches.rights.privileged || backingDepth(branches) < 2) return [];
  return ['a branch lies on overlayfs: overlayfs cannot be mounted on top of this mount'];
}
