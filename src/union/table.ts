// The node table: mints NodeIds, counts the kernel's references, finds the node of an object or of a place,
// and drops what nobody refers to any more. Knows nothing of system calls but closing what it drops.
import type { LayerDir } from '../branch/descent.ts';
import type { Stat } from '../lib/stat.ts';
import { inPlace, S_IFDIR, S_IFMT } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import type { IdentityLog } from '../versions/identity-log.ts';
import { IdTable } from './id-table.ts';
import { NOT_TOLD } from './kernel-view.ts';
import { markOf } from './mark.ts';
import {
  type DirPart,
  type DirState,
  type Handle,
  type HandleId,
  type Name,
  NO_NUMBER,
  type Node,
  type NodeId,
  placesOf,
  ROOT_ID,
} from './node.ts';
import { pathOf } from './place.ts';

/** Where new NodeIds come from: the next one of a block that is reserved durably. */
export type MintNodeId = () => number;

/** The number by which an object of a layer is known; layer -1 is the overlay. */
export type InoOf = (layer: number, stat: Stat) => number;

export function newDirState(): DirState {
  return {
    children: new Map(),
    overlayFd: -1,
    hasOverlay: false,
    overlayIno: NO_NUMBER,
    whiteoutsIn: NO_NUMBER,
    ctimeSec: NO_NUMBER,
    ctimeNsec: 0,
    opaque: false,
    ownOpaque: false,
    redirect: null,
    basePath: '',
    parts: [],
    watched: false,
    flat: false,
    lookedInto: NO_NUMBER,
    elsewhere: false,
    absent: null,
    version: 0,
  };
}

/**
 * The directories of the base that a node shows, not opened yet. Elements are pushed, for all arrays of parts are to be
 * of one kind to V8: what `map` makes is of another before it is compiled than after, and each new kind costs the code
 * that has met the others alone.
 */
export function partsFor(dirs: readonly LayerDir[]): DirPart[] {
  const parts: DirPart[] = [];
  for (const { layer, path, ino } of dirs) parts.push({ layer, path, ino: inPlace(ino), fd: -1, watch: -1 });
  return parts;
}

/** What most nodes have: a set of their own for each would take as much memory as the rest of the node. */
const NO_HANDLES: ReadonlySet<Handle> = new Set();
const NO_PLACES: readonly Name[] = [];

export class NodeTable {
  readonly root: Node;
  readonly #nodes = new IdTable();
  /** Further ids of nodes, from old handles: of objects that these have replaced. Their references count there, too. */
  readonly #aliases = new Map<number, { node: Node; lookups: number }>();
  /** Non-directories by inode number: [0] the overlay's, [1 + layer] the base's. */
  readonly #objects: Map<number, Node>[] = [];
  readonly #handles = new Map<number, Handle>();
  readonly #mint: MintNodeId;
  readonly #inoOf: InoOf;
  /** Of an exported mount: ids by place, beyond what the kernel remembers. */
  readonly identity: IdentityLog | null;
  #nextHandle = 1;
  /** What was closed last, of an object that has a name: who removes that next needs a descriptor of it. */
  #lingering: { node: Node; fd: number } | null = null;
  /** Called with each node that goes. */
  onDrop: (node: Node) => void = () => {};
  /** Sets (of accounts) that are being copied up together. */
  readonly copying = new Set<string>();

  constructor(mint: MintNodeId, inoOf: InoOf, identity: IdentityLog | null = null) {
    this.#mint = mint;
    this.#inoOf = inoOf;
    this.identity = identity;
    this.root = this.draft(S_IFDIR);
    this.#register(this.root, ROOT_ID);
    this.root.lookups = 1;
  }

  get size(): number {
    return this.#nodes.size;
  }

  get handleCount(): number {
    return this.#handles.size;
  }

  nodes(): IterableIterator<Node> {
    return this.#nodes.values();
  }

  get(id: number): Node | undefined {
    return this.#nodes.get(id) ?? this.#aliases.get(id)?.node;
  }

  handle(id: number): Handle | undefined {
    return this.#handles.get(id);
  }

  /** A node without an id: what it shows has to be said, and then `enter`, or `createUnnamed`. */
  draft(type: number): Node {
    return {
      id: 0 as NodeId,
      type,
      lookups: 0,
      place: null,
      others: NO_PLACES,
      dir: type === S_IFDIR ? newDirState() : null,
      layer: -1,
      ino: 0,
      btimeSec: 0,
      btimeNsec: 0,
      handles: NO_HANDLES,
      backing: null,
      locks: null,
      mayBeMapped: false,
      successor: null,
      dataSynced: false,
      learned: null,
      orphanFd: -1,
      dataFd: -1,
      cachedAt: undefined,
      toldSize: NOT_TOLD,
      answeredSize: NOT_TOLD,
      revokedIn: 0,
      watch: -1,
      toldIn: 0,
      answeredAt: -1000,
      busy: null,
    };
  }

  #register(node: Node, id: number): void {
    node.id = id as NodeId;
    this.#nodes.set(id, node);
  }

  /** Gives a new node its place, and the id that its object had there before, if `isSame` says so of the mark. */
  enter(node: Node, parent: Node, name: string, isSame: (mark: string) => boolean): void {
    const before = this.child(parent, name);
    if (before) this.leave(before, parent, name);
    const known = this.#knownId(node, parent, name, isSame);
    this.#register(node, known === 0 ? this.#mint() : known);
    this.#attach(node, parent, name);
    if (known === 0) this.#remember(node, parent, name);
  }

  #knownId(node: Node, parent: Node, name: string, isSame: (mark: string) => boolean): number {
    if (this.identity === null) return 0;
    const at = { parent: parent.id, name };
    for (const id of [...this.identity.at(at)].reverse()) {
      // One that is in use shows what was here before: who has that open keeps it.
      if (this.get(id)) continue;
      const same = this.identity.get(id)?.type === node.type && isSame(this.identity.markAt(id, at));
      if (same) return id;
      this.identity.unlink(id, at);
    }
    return 0;
  }

  #remember(node: Node, parent: Node, name: string): void {
    const mark = this.identity === null ? '' : markOf(node, parent, name);
    this.identity?.link(node.id, node.type, { parent: parent.id, name, mark });
  }

  /** A new non-directory without a place (O_TMPFILE). `show` and a handle must follow. */
  createUnnamed(type: number): Node {
    const node = this.draft(type);
    this.#register(node, this.#mint());
    return node;
  }

  /** One more id for what a node shows: an old handle has it. */
  alias(id: number, node: Node): void {
    this.#aliases.set(id, { node, lookups: 0 });
  }

  /** The object of a node has been replaced, and nobody has it open: its ids are those of the new one now. */
  retire(node: Node, by: Node): void {
    let { lookups } = node;
    for (const alias of this.#aliases.values()) {
      if (alias.node !== node) continue;
      alias.node = by;
      lookups -= alias.lookups;
    }
    this.#aliases.set(node.id, { node: by, lookups });
    by.lookups += node.lookups;
    node.lookups = 0;
    this.#dropIfUnused(node);
  }

  /** Counts the reference that the kernel gets by a reply with this id. */
  refer(node: Node, id: number): void {
    node.lookups += 1;
    const alias = this.#aliases.get(id);
    if (alias) alias.lookups += 1;
  }

  child(parent: Node, name: string): Node | undefined {
    return parent.dir?.children.get(name);
  }

  /** Records that `node` is found at this place too; whoever was there is so no more. */
  link(node: Node, parent: Node, name: string): void {
    if (this.child(parent, name) === node) return;
    this.attach(node, parent, name);
    this.#remember(node, parent, name);
  }

  /** The same, where the identity log knows already. */
  attach(node: Node, parent: Node, name: string): void {
    const before = this.child(parent, name);
    if (before === node) return;
    if (before) this.leave(before, parent, name);
    // A directory above an old place may have gone since.
    while (node.place !== null && pathOf(node.place.parent) === null) this.#setPlaces(node, node.others);
    this.#attach(node, parent, name);
  }

  #attach(node: Node, parent: Node, name: string): void {
    parent.dir?.children.set(name, node);
    const place = { parent, name };
    if (node.place === null) {
      node.place = place;
      // What was kept of an object without a name may lie in another branch than what the name leads to later.
      this.letGoKept(node);
    } else node.others = [...node.others, place];
  }

  #setPlaces(node: Node, places: readonly Name[]): void {
    node.place = places[0] ?? null;
    node.others = places.length > 1 ? places.slice(1) : NO_PLACES;
  }

  /** Of several places the one by which the object is reached from now on; none where the node is not known there. */
  putFirst(node: Node, parent: Node, name: string): void {
    const first = node.others.find((one) => one.parent === parent && one.name === name);
    if (first !== undefined) this.#setPlaces(node, [first, ...placesOf(node).filter((one) => one !== first)]);
  }

  /** What was at this place has been removed: no id leads there any more. */
  unlink(node: Node, parent: Node, name: string): void {
    this.identity?.vacate({ parent: parent.id, name });
    this.leave(node, parent, name);
  }

  /** A place shows another object than this node; ids lead to that one. A node without places and references goes. */
  leave(node: Node, parent: Node, name: string): void {
    if (parent.dir?.children.get(name) === node) parent.dir.children.delete(name);
    const left = placesOf(node).filter((place) => place.parent !== parent || place.name !== name);
    this.#setPlaces(node, left);
    this.#dropIfUnused(node);
  }

  /** The node of a non-directory object, if it is known: same branch, inode number and birth. */
  ofObject(layer: number, stat: Stat): Node | undefined {
    const node = this.#objects[layer + 1]?.get(this.#inoOf(layer, stat));
    return node && this.shows(node, layer, stat) ? node : undefined;
  }

  /** Whether a node that is no directory shows this very object. */
  shows(node: Node, layer: number, stat: Stat): boolean {
    return (
      node.dir === null &&
      node.layer === layer &&
      node.ino === this.#inoOf(layer, stat) &&
      node.type === (stat.mode & S_IFMT) &&
      node.btimeSec === stat.btimeSec &&
      node.btimeNsec === stat.btimeNsec
    );
  }

  /**
   * Another tree has come in place of a layer. Its objects are none of those that were shown, even where nothing
   * tells them apart: two images of a file system can differ in a byte alone. What is open has been parted before.
   */
  estrange(layer: number): void {
    for (const node of this.#nodes.values()) {
      if (node.learned !== null) node.learned.compared = null;
      if (node.dir !== null || node.layer !== layer || node.place === null) continue;
      this.hide(node);
      node.btimeSec = Number.NaN;
    }
  }

  /** Says which object a non-directory node shows from now on. */
  show(node: Node, layer: number, stat: Stat): void {
    const { btimeSec, btimeNsec } = stat;
    this.#showAs(node, layer, { ino: this.#inoOf(layer, stat), btimeSec, btimeNsec });
  }

  #showAs(node: Node, layer: number, stat: Pick<Node, 'ino' | 'btimeSec' | 'btimeNsec'>): void {
    this.hide(node);
    // What was kept of it lies in the base: a copy must not be changed there.
    if (layer < 0 && node.layer >= 0) this.letGoKept(node);
    node.layer = layer;
    node.ino = inPlace(stat.ino);
    node.btimeSec = inPlace(stat.btimeSec);
    node.btimeNsec = stat.btimeNsec;
    node.learned = null;
    if (node.cachedAt !== undefined) node.cachedAt = null;
    this.#objects[layer + 1] ??= new Map();
    this.#objects[layer + 1]?.set(node.ino, node);
  }

  /** Gives the object of a node, and its places, to a new one. Who has the old one open keeps what is open there. */
  divide(node: Node): Node {
    const fresh = this.draft(node.type);
    this.#register(fresh, this.#mint());
    this.#showAs(fresh, node.layer, node);
    const places = placesOf(node);
    for (const place of places) place.parent.dir?.children.set(place.name, fresh);
    this.#setPlaces(fresh, places);
    this.#setPlaces(node, NO_PLACES);
    fresh.orphanFd = node.orphanFd;
    node.orphanFd = -1;
    fresh.locks = node.locks;
    node.locks = null;
    node.successor = fresh;
    this.hold(fresh);
    return fresh;
  }

  /** What is open stays as it is; under its names another object will be found, whatever its number. */
  part(node: Node): void {
    this.hide(node);
    for (const { parent, name } of placesOf(node)) this.leave(node, parent, name);
  }

  /** The node's object can no longer be found by its inode number (removed, or about to be replaced). */
  hide(node: Node): void {
    const objects = this.#objects[node.layer + 1];
    if (objects?.get(node.ino) === node) objects.delete(node.ino);
    if (this.#lingering?.node === node) this.endLingering();
  }

  forget(id: number, count: number): void {
    const node = this.get(id);
    if (!node) return;
    const alias = this.#aliases.get(id);
    if (alias) alias.lookups -= count;
    if (alias && alias.lookups <= 0) this.#aliases.delete(id);
    node.lookups -= count;
    this.#dropIfUnused(node);
  }

  #dropIfUnused(node: Node): void {
    if (node === this.root || node.lookups > 0 || node.handles.size > 0 || node.busy !== null) return;
    if (node.dir !== null && node.dir.children.size > 0) return;
    if (!this.#nodes.delete(node.id)) return;
    this.hide(node);
    this.onDrop(node);
    this.closeDirectory(node);
    this.letGoKept(node);
    if (node.successor !== null) this.letGo(node.successor);
    const places = placesOf(node);
    this.#setPlaces(node, NO_PLACES);
    for (const place of places) {
      if (place.parent.dir?.children.get(place.name) === node) place.parent.dir.children.delete(place.name);
      this.#dropIfUnused(place.parent);
    }
  }

  /** The descriptors by which an object is reached that has no name. */
  letGoKept(node: Node): void {
    if (node.orphanFd >= 0) close(node.orphanFd);
    node.orphanFd = -1;
    if (node.dataFd >= 0) close(node.dataFd);
    node.dataFd = -1;
  }

  /** A reference of our own: the node stays while something inside works with it. */
  hold(node: Node): void {
    node.lookups += 1;
  }

  letGo(node: Node): void {
    node.lookups -= 1;
    this.#dropIfUnused(node);
  }

  /** Drops a node that became unused by other means than FORGET (a job ended, a handle closed). */
  release(node: Node): void {
    this.#dropIfUnused(node);
  }

  closeDirectory(node: Node): void {
    const dir = node.dir;
    if (!dir) return;
    if (dir.overlayFd >= 0) close(dir.overlayFd);
    dir.overlayFd = -1;
    for (const part of dir.parts) {
      if (part.fd >= 0) close(part.fd);
      part.fd = -1;
    }
  }

  addHandle(
    node: Node,
    fd: number,
    flags: number,
    { writable, layer, through }: Pick<Handle, 'writable' | 'layer' | 'through'>,
  ): Handle {
    const id = this.#nextHandle++ as HandleId;
    const handle: Handle = {
      id,
      node,
      fd,
      through,
      direct: false,
      writeFd: -1,
      flags,
      writable,
      layer,
    };
    this.#handles.set(handle.id, handle);
    if (node.handles === NO_HANDLES) node.handles = new Set();
    (node.handles as Set<Handle>).add(handle);
    return handle;
  }

  removeHandle(handle: Handle): void {
    if (!this.#handles.delete(handle.id)) return;
    const { node, fd, writeFd, through } = handle;
    if (node.handles.size > 1) (node.handles as Set<Handle>).delete(handle);
    else node.handles = NO_HANDLES;
    handle.fd = -1;
    if (writeFd >= 0) close(writeFd);
    // The last way to a file that has been removed, but that the kernel may still ask for.
    const gone = node.place === null && node.successor === null;
    const last = gone && node.handles.size === 0 && node.lookups > 0;
    // Of a copy it is no more than the content: what is changed by its descriptor must not be the base's.
    const ofBase = node.layer < 0 && handle.layer >= 0;
    if (last && !ofBase && node.orphanFd < 0) node.orphanFd = fd;
    else if (last && ofBase && node.dataFd < 0) node.dataFd = fd;
    else if (through && handle.layer < 0 && node.place !== null) this.#linger(node, fd);
    else if (fd >= 0) close(fd);
    this.#dropIfUnused(node);
  }

  /** Past us all descriptors are for reading: nobody is kept from anything by one that stays. */
  #linger(node: Node, fd: number): void {
    this.endLingering();
    this.#lingering = { node, fd };
  }

  /** The descriptor of the object that was closed a moment ago, which is the caller's now; -1: there is none. */
  takeLingering(node: Node): number {
    const { node: of, fd } = this.#lingering ?? { node: null, fd: -1 };
    if (of !== node) return -1;
    this.#lingering = null;
    return fd;
  }

  endLingering(): void {
    if (this.#lingering !== null) close(this.#lingering.fd);
    this.#lingering = null;
  }
}
