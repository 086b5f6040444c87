// What the kernel's events about watched directories of the base mean for the union: its own state is refreshed, and
// what the kernel keeps of it is taken back. All that was answered before an event is handled has gone out before the
// notification does.
import { isDirectory } from '../lib/stat.ts';
import {
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_IGNORED,
  IN_MODIFY,
  IN_MOVE_SELF,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_Q_OVERFLOW,
  IN_UNMOUNT,
} from '../sys/constants.ts';
import { partFd } from './dir-fds.ts';
import { expireAll, expireBeneath, expireNode, expirePlace } from './expiry.ts';
import { failPoint } from './fail-point.ts';
import { find, forgetPlace, instantiate } from './lookup.ts';
import { type DirPart, IN_BASE, IN_OVERLAY, NONE, type Node, placesOf, ROOT_ID, WHITEOUT } from './node.ts';
import { pathAt } from './place.ts';
import type { Union } from './union.ts';

const COMES = IN_CREATE | IN_MOVED_TO;
const GOES = IN_DELETE | IN_MOVED_FROM;
const COMES_OR_GOES = COMES | GOES;
const OF_CONTENT = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB;
const OF_ITSELF = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;

/** One event. `name` is '' where it is about the watched object itself. */
export function onBaseEvent(union: Union, watch: number, mask: number, name: string): void {
  failPoint('base-event');
  union.forgetFound();
  if ((mask & IN_Q_OVERFLOW) !== 0) {
    union.changes.lose();
    expireAll(union);
    return;
  }
  const nodes = union.watches.of(watch);
  if ((mask & IN_IGNORED) !== 0) union.watches.gone(watch);
  const several = (mask & COMES) !== 0 && (mask & GOES) !== 0;
  for (const node of nodes) {
    if (node.dir !== null) node.dir.flat = false;
    if (several) noteSeveral(union, node, mask, name);
    else noteChange(union, node, mask, name);
    // Nothing has changed by that: who wrote before has been noticed.
    if ((mask & IN_CLOSE_WRITE) !== 0) continue;
    if (node.dir === null) expireNode(union, node, (mask & IN_MODIFY) !== 0);
    else if (name === '') ofDirectory(union, node, mask);
    else if (name.startsWith('.wh.')) hidingChanged(union, node);
    else if ((mask & COMES_OR_GOES) !== 0) nameChanged(union, node, name);
    else expirePlace(union, node, name, true);
  }
}

/** What fanotify tells as one: what came last is told last. */
function noteSeveral(union: Union, node: Node, mask: number, name: string): void {
  const there = find(union, node, name) === 0 && union.found.inBase;
  noteChange(union, node, mask & ~(there ? COMES : GOES), name);
  noteChange(union, node, mask & ~(there ? GOES : COMES), name);
}

/** For the list of events, and for guests. Of a directory itself inotify tells twice, by the watch above, too. */
function noteChange(union: Union, node: Node, mask: number, name: string): void {
  if (node.dir === null) {
    if ((mask & OF_CONTENT) === 0) return;
    for (const place of placesOf(node)) noteAt(union, place.parent, place.name, mask, node);
  } else if (name === '') {
    if ((mask & IN_ATTRIB) === 0) return;
    if (node.id === ROOT_ID) union.changes.note('', mask, true);
    for (const place of placesOf(node)) {
      if (place.parent.dir?.opaque === false) noteAt(union, place.parent, place.name, mask, node);
    }
  } else if (!node.dir.opaque) {
    noteAt(union, node, name, mask, union.table.child(node, name));
  }
}

function noteAt(union: Union, parent: Node, name: string, mask: number, known: Node | undefined): void {
  const path = pathAt(parent, name);
  if (path === null) return;
  if ((mask & IN_CLOSE_WRITE) === 0) union.changes.note(path, mask, known !== undefined);
  union.announcements.note(path, mask, known);
}

function ofDirectory(union: Union, node: Node, mask: number): void {
  const itself = (mask & (OF_ITSELF | IN_IGNORED)) !== 0;
  if (itself && node.id === ROOT_ID) for (const layer of union.layers) union.host.baseMoved(layer.index);
  // By an attribute a directory of one layer hides, or has elsewhere, what the layers beneath have at its name. Fanotify
  // tells of that here alone.
  if (itself || ((mask & IN_ATTRIB) !== 0 && union.layers.length > 1)) refresh(union, node);
  // Somebody may stand in it, or have it open.
  if (itself || (mask & IN_ATTRIB) !== 0) union.kernel.changed(node, itself);
}

/** A file that hides a name, or all names, of the layers beneath. */
function hidingChanged(union: Union, node: Node): void {
  refresh(union, node);
  expireBeneath(union, node);
}

/** A name has come, gone, or leads to another object. */
function nameChanged(union: Union, parent: Node, name: string): void {
  const child = union.table.child(parent, name);
  union.kernel.expire(parent, name);
  // Who has a file open keeps it, with its bytes.
  if (child && child.handles.size > 0) union.kernel.renamed(child);
  else if (child) union.kernel.changed(child, true);
  union.kernel.changed(parent, true);
  if (child?.dir) {
    refresh(union, child);
    return;
  }
  if (find(union, parent, name) < 0) return;
  const { state, inBase } = union.found;
  if (inBase) noteLinks(union, parent, name);
  else if (child && (state === NONE || state === WHITEOUT)) forgetPlace(union, parent, name);
}

/** What of the base a directory shows now: its names are expired where that has changed, or where it is gone. */
function refresh(union: Union, node: Node): void {
  const place = node.place;
  if (!place || node.dir === null) return;
  const error = find(union, place.parent, place.name);
  const { state, stat } = union.found;
  const there = error === 0 && (state === IN_BASE || state === IN_OVERLAY) && isDirectory(stat.mode);
  if (!there || instantiate(union, place.parent, place.name) !== node) expireBeneath(union, node);
}

/** A file that is known has got one more name, or one less: by that it can change without an event here. */
function noteLinks(union: Union, parent: Node, name: string): void {
  const { baseStat, part } = union.found;
  if (isDirectory(baseStat.mode) || baseStat.nlink < 2) return;
  const at = parent.dir?.parts[part] as DirPart;
  const node = union.table.ofObject(at.layer, baseStat);
  const fd = partFd(union, parent, at);
  if (!node || fd < 0) return;
  union.watches.file(node, fd, name, at.layer);
  expireNode(union, node, true);
}
