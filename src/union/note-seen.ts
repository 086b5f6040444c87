// What an open for reading tells of who has seen which version (seen.ts). Every open comes here, so what is no news is
// found out from the node alone.
import { readXattrs } from '../branch/copy.ts';
import { isRegular, type Stat } from '../lib/stat.ts';
import { mergeable } from '../merge/policy.ts';
import { dup } from '../sys/file.ts';
import type { Origin } from '../versions/origin.ts';
import { partFd } from './dir-fds.ts';
import { find } from './lookup.ts';
import { type DirPart, learn, type Name, type Node } from './node.ts';
import { originFor } from './origin-list.ts';
import { baseFingerprint, originsOf, printOfNode } from './origins.ts';
import type { Opened } from './passthrough.ts';
import { basePathAt, pathAt } from './place.ts';
import { type Reader, stands } from './seen.ts';
import type { Union } from './union.ts';
import { witnessOf } from './witness.ts';
import { hashXattrs } from './xattr-set.ts';

/**
 * Remembers which version the caller has read; of text of the base a descriptor is kept, too. `shown`: what was the
 * origin of the copy when it was opened, if its writer has set that back. union.stat tells of the file.
 */
export function noteSeen(
  union: Union,
  node: Node,
  callerPid: number,
  opened: Opened,
  shown: Origin | null,
): void {
  const place = node.place;
  const dir = place?.parent.dir;
  if (!place || !dir || dir.parts.length === 0) return;
  const { stat } = union;
  if (!isRegular(stat.mode)) return;
  const shows = shown === null ? showsNow(union, node, opened.layer, stat) : null;
  const noted = node.learned?.noted;
  if (
    noted &&
    noted.shows === shows &&
    noted.place === place &&
    noted.dirPath === dir.basePath &&
    stands(noted.reader, callerPid, noted.version)
  )
    return;
  const reader = noteOpening(union, node, place, callerPid, opened, shown);
  if (reader === null || shows === null) return;
  learn(node).noted = { reader, version: reader.last, shows, place, dirPath: dir.basePath };
}

/** The same object as long as the node shows the same version; null: there is none. */
function showsNow(union: Union, node: Node, layer: number, stat: Stat): object | null {
  if (layer < 0) return originsOf(union, node, stat);
  return node.layer === layer ? printOfNode(union, node, stat) : null;
}

/** null: nothing of the base's. */
function noteOpening(
  union: Union,
  node: Node,
  { parent, name }: Name,
  callerPid: number,
  opened: Opened,
  shown: Origin | null,
): Reader | null {
  const basePath = basePathAt(parent, name);
  const path = parent.dir?.elsewhere ? pathAt(parent, name) : basePath;
  if (path === null || basePath === null) return null;
  const { stat } = union;
  if (opened.layer >= 0) return noteOfBase(union, node, { parent, name }, path, basePath, callerPid, opened);
  const origin = shown ?? originFor(originsOf(union, node, stat).list, basePath);
  if (origin === null) return null;
  const { fingerprint, content, mode, uid, gid, xattrs } = origin;
  const lasting = !union.seen.has(basePath, fingerprint) && mergeable(path, union.config.osTree, stat.size);
  const version = { fingerprint, content, fd: -1, witness: null, mode, uid, gid, xattrs, lasting };
  return union.seen.opened(basePath, callerPid, version);
}

function noteOfBase(
  union: Union,
  node: Node,
  place: Name,
  path: string,
  basePath: string,
  callerPid: number,
  { fd, layer }: Opened,
): Reader {
  const { stat } = union;
  const top = node.layer !== layer && union.layers.length > 1 ? topAt(union, place) : null;
  const { mode, uid, gid } = top?.stat ?? stat;
  const fingerprint =
    node.layer === layer
      ? printOfNode(union, node, stat).hash
      : baseFingerprint(union, top?.layer ?? layer, top?.stat ?? stat);
  const isNew = !union.seen.has(basePath, fingerprint);
  const lasting = isNew && mergeable(path, union.config.osTree, stat.size);
  return union.seen.opened(basePath, callerPid, {
    fingerprint,
    content: union.contents.get(fingerprint) ?? '',
    fd: lasting ? Math.max(dup(fd), -1) : -1,
    witness: witnessOf(stat),
    mode,
    uid,
    gid,
    xattrs: isNew ? hashXattrs(readXattrs(top?.dirFd ?? fd, top === null ? '' : place.name)) : '',
    lasting,
  });
}

/** The base's file at a place, whose bytes may be another's; null: there is none by now. */
function topAt(union: Union, { parent, name }: Name): { stat: Stat; layer: number; dirFd: number } | null {
  const { found } = union;
  if (find(union, parent, name) < 0 || !found.inBase) return null;
  const part = parent.dir?.parts[found.part] as DirPart;
  return { stat: found.baseStat, layer: part.layer, dirFd: partFd(union, parent, part) };
}
