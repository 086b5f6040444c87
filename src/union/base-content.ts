// Contents of base files on the serving thread. Of most files it is their own; where a layer was an overlay once they
// may lie in a layer beneath (branch/base-content.ts).
import type { BaseLayer } from '../branch/base.ts';
import { openBeneath } from '../branch/base.ts';
import {
  findContentBeneath,
  type Holding,
  isNowhere,
  leaveContent,
  newContentPlace,
} from '../branch/base-content.ts';
import { E } from '../lib/errno.ts';
import { putContent } from '../lib/fingerprint.ts';
import { escapeName } from '../lib/names.ts';
import { isRegular, newStat, type Stat } from '../lib/stat.ts';
import { O_NOATIME, O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import { partFd } from './dir-fds.ts';
import type { DirPart, Name, Node } from './node.ts';
import type { Union } from './union.ts';
import { type Witness, witnessOf } from './witness.ts';

/** `stat` is of the file itself. */
export function holdingAt(union: Union, layer: number, dirFd: number, name: string, stat: Stat): Holding {
  if (isBeneath(union, layer, dirFd, name, stat)) return 'beneath';
  return isNowhere(union.layers, dirFd, name, stat) ? 'nowhere' : 'own';
}

function isBeneath(union: Union, layer: number, dirFd: number, name: string, stat: Stat): boolean {
  const { layers, holdings } = union;
  return (
    mayLieBeneath(union, layer, stat) &&
    holdings.liesBeneath(layers, layers[layer] as BaseLayer, dirFd, name, stat)
  );
}

/** Whether a file of a layer may have its content in another: only there is it worth asking. */
function mayLieBeneath({ layers }: Union, layer: number, { mode, size }: Stat): boolean {
  return layer >= 0 && layer < layers.length - 1 && size > 0 && isRegular(mode);
}

const place = newContentPlace();
const contentStat = newStat();

/**
 * Puts into the stat of a base file what is its content's to say, where that lies in a layer beneath. `fd` is of the
 * directory of the layer, `parent.dir.parts[index]`.
 */
export function showContentBeneath(
  union: Union,
  parent: Node,
  index: number,
  fd: number,
  name: string,
  stat: Stat,
): void {
  const parts = parent.dir?.parts ?? [];
  const layer = parts[index]?.layer ?? -1;
  if (!isBeneath(union, layer, fd, name, stat)) return;
  if (findBeneath(union, parent, index, name) < 0) return;
  putContent(stat, place.stat, union.layers[place.layer]?.identity ?? '');
  leaveContent(place);
}

function findBeneath(union: Union, parent: Node, index: number, name: string): number {
  const parts = parent.dir?.parts ?? [];
  const fdOf = (at: number) => partFd(union, parent, parts[at] as DirPart);
  return findContentBeneath(union.layers, parts, name, { from: index, fdOf }, place);
}

/** The same of what a node shows, by its first name: of the content that somebody has open, or else of the one there now. */
export function showContentOf(union: Union, node: Node, dirFd: number, stat: Stat): void {
  const at = node.place;
  const index = at === null || !mayLieBeneath(union, node.layer, stat) ? -1 : indexOf(at, node.layer);
  if (at === null || index < 0) return;
  const [open] = node.handles;
  if (open === undefined) {
    showContentBeneath(union, at.parent, index, dirFd, at.name, stat);
  } else if (isBeneath(union, node.layer, dirFd, at.name, stat) && fstat(open.fd, contentStat) === 0) {
    putContent(stat, contentStat, union.layers[open.layer]?.identity ?? '');
  }
}

/** Which of the parts of its directory a file of a layer lies in; -1: none any more. */
export function indexOf({ parent }: Name, layer: number): number {
  return parent.dir?.parts.findIndex((part) => part.layer === layer) ?? -1;
}

/** A file of the base, open for reading. */
export interface BaseFile {
  /** Of its bytes. */
  fd: number;
  /** Of the file itself, where the bytes are another's; else -1. */
  topFd: number;
  /** Identity of the layer in which the bytes lie. */
  contentLayer: string;
  witness: Witness;
}

/** What tells of the file's metadata. */
export const topOf = ({ fd, topFd }: BaseFile): number => (topFd >= 0 ? topFd : fd);

/** Opening a FIFO or device must not block; the base is never marked as read. */
export function openSource(dirFd: number, name: string): number {
  const fd = openBeneath(dirFd, name, O_RDONLY | O_NONBLOCK | O_NOATIME);
  return fd === -E.EPERM ? openBeneath(dirFd, name, O_RDONLY | O_NONBLOCK) : fd;
}

/**
 * Opens a file of the base, under a name in `parent.dir.parts[index]`; `stat` comes to tell of it. A negative errno;
 * ENODATA: its content is nowhere.
 */
export function openBaseFile(
  union: Union,
  parent: Node,
  index: number,
  name: string,
  stat: Stat,
): BaseFile | number {
  const part = parent.dir?.parts[index];
  const dirFd = part ? partFd(union, parent, part) : -E.ESTALE;
  const fd = dirFd < 0 ? dirFd : openSource(dirFd, name);
  if (!part || fd < 0) return fd;
  const known = fstat(fd, stat);
  const holding = known < 0 || !isRegular(stat.mode) ? 'own' : holdingAt(union, part.layer, fd, '', stat);
  const contentLayer = union.layers[part.layer]?.identity ?? '';
  if (known === 0 && holding === 'own') return { fd, topFd: -1, contentLayer, witness: witnessOf(stat) };
  const file = known < 0 ? known : openBeneathIt(union, parent, index, name, fd, stat, holding);
  if (typeof file === 'number') close(fd);
  return file;
}

function openBeneathIt(
  union: Union,
  parent: Node,
  index: number,
  name: string,
  topFd: number,
  stat: Stat,
  holding: Holding,
): BaseFile | number {
  const error = holding === 'beneath' ? findBeneath(union, parent, index, name) : -E.ENODATA;
  if (error < 0) return error;
  const fd = openSource(place.dirFd, place.name);
  leaveContent(place);
  if (fd < 0) return fd;
  const contentLayer = union.layers[place.layer]?.identity ?? '';
  const known = fstat(fd, contentStat);
  if (known < 0) {
    close(fd);
    return known;
  }
  putContent(stat, contentStat, contentLayer);
  return { fd, topFd, contentLayer, witness: witnessOf(contentStat) };
}

/** Of so many it is said: whoever reads the log knows by then. */
const MOST_SAID = 100;

/** The content of a file is nowhere: EIO, which is said once of each. */
export function sayContentless(union: Union, path: string | null): void {
  const { contentless, host } = union;
  if (path === null || contentless.has(path) || contentless.size >= MOST_SAID) return;
  contentless.add(path);
  const why = 'a copy of metadata alone, whose content no layer of the base has';
  host.log.warn(`${escapeName(path)}: cannot be read: ${why}`);
}
