// From one event source to another without losing an event: the new one watches first, what the former still has to tell
// is heard, and then its watch goes. A few at a time, for each directory has to be opened.
import { openDirectoryBeneath, statAt } from '../branch/base.ts';
import { branchIno } from '../branch/numbers.ts';
import { newStat } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import { partFd } from './dir-fds.ts';
import { expireBeneath, expireNode } from './expiry.ts';
import type { DirPart, Node } from './node.ts';
import type { Union } from './union.ts';

const stat = newStat();

/** `hear` takes note of all that both have to tell by now. False: nothing of the former is left. */
export function carryWatches(union: Union, most: number, hear: () => void): boolean {
  const { watches } = union;
  const batch = watches.ofFormer(most);
  for (const watch of batch) {
    for (const node of watches.of(watch)) {
      for (const part of node.dir?.parts ?? []) if (part.watch === watch) carryDirectory(union, node, part);
      if (node.watch === watch) carryFile(union, node);
    }
  }
  hear();
  watches.letFormer(batch);
  return batch.length > 0;
}

function carryDirectory(union: Union, node: Node, part: DirPart): void {
  const opened = part.fd < 0 ? openAgain(union, part) : -1;
  const carried = union.watches.carryDirectory(node, part, part.fd < 0 ? opened : part.fd);
  if (opened >= 0) close(opened);
  if (carried || node.dir === null) return;
  node.dir.watched = false;
  expireBeneath(union, node);
}

/** By its path, if that still leads to the directory that is watched. */
function openAgain(union: Union, part: DirPart): number {
  const fd = openDirectoryBeneath(union.layers[part.layer]?.rootFd ?? -1, part.path);
  if (fd < 0) return fd;
  if (fstat(fd, stat) === 0 && branchIno(union.layers, part.layer, stat) === part.ino) return fd;
  close(fd);
  return -1;
}

/** By a name that it still has; what is a copy of metadata alone watches its content. */
function carryFile(union: Union, node: Node): void {
  const { parent, name } = node.place ?? { parent: null, name: '' };
  for (const part of parent?.dir?.parts ?? []) {
    const fd = partFd(union, parent as Node, part);
    if (fd < 0 || statAt(fd, name, stat) < 0) continue;
    const same =
      node.layer < 0 ? stat.ino === node.learned?.contentIno : union.table.shows(node, part.layer, stat);
    if (same && union.watches.carryFile(node, fd, name, part.layer)) return;
  }
  node.watch = -1;
  expireNode(union, node, true);
}
