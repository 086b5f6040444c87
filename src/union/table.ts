// The node table: mints NodeIds, counts the kernel's references, finds the node of an object or of a place,
// and drops what nobody refers to any more. Knows nothing of system calls but closing what it drops.
import type { Stat } from '../lib/stat.ts';
import { S_IFDIR, S_IFMT } from '../lib/stat.ts';
import { close } from '../sys/file.ts';
import type { IdentityLog } from '../versions/identity-log.ts';
import type { DirState, Handle, HandleId, Name, Node, NodeId } from './node.ts';
import { ROOT_ID } from './node.ts';

/** Where new NodeIds come from: the next one of a block that is reserved durably. */
export type MintNodeId = () => number;

export function newDirState(): DirState {
  return {
    children: new Map(),
    overlayFd: -1,
    hasOverlay: false,
    overlayIno: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    opaque: false,
    ownOpaque: false,
    redirect: null,
    parts: [],
    version: 0,
  };
}

export class NodeTable {
  readonly root: Node;
  readonly #nodes = new Map<number, Node>();
  /** Non-directories by inode number: [0] the overlay's, [1 + layer] the base's. */
  readonly #objects: Map<number, Node>[] = [];
  readonly #handles = new Map<number, Handle>();
  readonly #mint: MintNodeId;
  /** Of an exported mount: ids by place, beyond what the kernel remembers. */
  readonly identity: IdentityLog | null;
  #nextHandle = 1;
  /** Sets (of accounts) that are being copied up together. */
  readonly copying = new Set<string>();

  constructor(mint: MintNodeId, layers: number, identity: IdentityLog | null = null) {
    this.#mint = mint;
    this.identity = identity;
    for (let i = 0; i <= layers; i++) this.#objects.push(new Map());
    this.root = this.#make(ROOT_ID, S_IFDIR);
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
    return this.#nodes.get(id);
  }

  handle(id: number): Handle | undefined {
    return this.#handles.get(id);
  }

  #make(id: number, type: number): Node {
    const node: Node = {
      id: id as NodeId,
      type,
      lookups: 0,
      names: [],
      dir: type === S_IFDIR ? newDirState() : null,
      layer: -1,
      ino: 0,
      btimeSec: 0,
      btimeNsec: 0,
      handles: new Set(),
      dataSynced: false,
      origins: null,
      compared: null,
      orphanFd: -1,
      cachedAt: null,
      busy: null,
    };
    this.#nodes.set(id, node);
    return node;
  }

  /** A new node at a place. For a non-directory `show` must follow. */
  create(type: number, parent: Node, name: string): Node {
    const known = this.identity?.at(parent.id, name, type) ?? 0;
    // One that is in use shows another object: the base has replaced it, and who has it open keeps it.
    const id = known !== 0 && !this.#nodes.has(known) ? known : this.#mint();
    const before = this.child(parent, name);
    if (before) this.#leave(before, parent, name);
    const node = this.#make(id, type);
    this.link(node, parent, name);
    return node;
  }

  /** A node by the id that an old handle has, for what another node shows, too. It is found by its id alone. */
  alias(id: number, type: number, place: Name, of: Node): Node {
    const node = this.#make(id, type);
    node.names.push(place);
    node.layer = of.layer;
    node.ino = of.ino;
    node.btimeSec = of.btimeSec;
    node.btimeNsec = of.btimeNsec;
    return node;
  }

  /** A new non-directory without a place (O_TMPFILE). `show` and a handle must follow. */
  createUnnamed(type: number): Node {
    return this.#make(this.#mint(), type);
  }

  child(parent: Node, name: string): Node | undefined {
    return parent.dir?.children.get(name);
  }

  /** Records that `node` is found at this place too; whoever was there loses the place. */
  link(node: Node, parent: Node, name: string): void {
    const before = parent.dir?.children.get(name);
    if (before === node) return;
    if (before) this.unlink(before, parent, name);
    parent.dir?.children.set(name, node);
    node.names.push({ parent, name });
    this.identity?.link(node.id, node.type, parent.id, name);
  }

  /** Forgets a place of a node; a node without places and references goes when the kernel forgets it. */
  unlink(node: Node, parent: Node, name: string): void {
    this.identity?.unlink(node.id, parent.id, name);
    this.#leave(node, parent, name);
  }

  #leave(node: Node, parent: Node, name: string): void {
    if (parent.dir?.children.get(name) === node) parent.dir.children.delete(name);
    const at = node.names.findIndex((place) => place.parent === parent && place.name === name);
    if (at >= 0) node.names.splice(at, 1);
    this.#dropIfUnused(node);
  }

  /** The node of a non-directory object, if it is known: same branch, inode number and birth. */
  ofObject(layer: number, stat: Stat): Node | undefined {
    const node = this.#objects[layer + 1]?.get(stat.ino);
    if (!node) return undefined;
    const same =
      node.btimeSec === stat.btimeSec &&
      node.btimeNsec === stat.btimeNsec &&
      node.type === (stat.mode & S_IFMT);
    return same ? node : undefined;
  }

  /** Says which object a non-directory node shows from now on. */
  show(node: Node, layer: number, stat: Stat): void {
    this.hide(node);
    node.layer = layer;
    node.ino = stat.ino;
    node.btimeSec = stat.btimeSec;
    node.btimeNsec = stat.btimeNsec;
    node.origins = null;
    node.compared = null;
    node.cachedAt = null;
    this.#objects[layer + 1]?.set(stat.ino, node);
  }

  /** The node's object can no longer be found by its inode number (removed, or about to be replaced). */
  hide(node: Node): void {
    const objects = this.#objects[node.layer + 1];
    if (objects?.get(node.ino) === node) objects.delete(node.ino);
  }

  forget(id: number, count: number): void {
    const node = this.#nodes.get(id);
    if (!node) return;
    node.lookups -= count;
    this.#dropIfUnused(node);
  }

  #dropIfUnused(node: Node): void {
    if (node === this.root || node.lookups > 0 || node.handles.size > 0 || node.busy !== null) return;
    if (node.dir !== null && node.dir.children.size > 0) return;
    if (!this.#nodes.delete(node.id)) return;
    this.hide(node);
    this.closeDirectory(node);
    if (node.orphanFd >= 0) close(node.orphanFd);
    for (const place of node.names.splice(0)) {
      if (place.parent.dir?.children.get(place.name) === node) place.parent.dir.children.delete(place.name);
      this.#dropIfUnused(place.parent);
    }
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

  addHandle(node: Node, fd: number, flags: number, writable: boolean, layer: number): Handle {
    const handle: Handle = { id: this.#nextHandle++ as HandleId, node, fd, flags, writable, layer };
    this.#handles.set(handle.id, handle);
    node.handles.add(handle);
    return handle;
  }

  removeHandle(handle: Handle): void {
    if (!this.#handles.delete(handle.id)) return;
    const { node, fd } = handle;
    node.handles.delete(handle);
    handle.fd = -1;
    // The last way to a file that has been removed, but that the kernel may still ask for.
    const last = node.handles.size === 0 && node.names.length === 0 && node.orphanFd < 0 && node.lookups > 0;
    if (last) node.orphanFd = fd;
    else if (fd >= 0) close(fd);
    this.#dropIfUnused(node);
  }
}

/** Path of a node from the root of the union; null when it has no place any more. */
export function pathOf(node: Node): string | null {
  let path = '';
  let current = node;
  while (current.id !== ROOT_ID) {
    const place = current.names[0];
    if (!place) return null;
    path = path === '' ? place.name : `${place.name}/${path}`;
    current = place.parent;
  }
  return path;
}
