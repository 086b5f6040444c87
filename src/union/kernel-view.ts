// What the kernel keeps of the union, and how it is told that something of it is out of date. Notifications are only
// collected here: another thread writes them (fuse/notify.ts). The order matters: a name before the node that it
// leads to, for the kernel takes the directory's lock for a name, and so lets a look-up that is under way end first
// (native-notes/fuse.md).
import { performance } from 'node:perf_hooks';
import { NotifyBatch } from '../fuse/notify.ts';
import { inPlace } from '../lib/stat.ts';
import type { Node, PendingWork } from './node.ts';

/** none: the kernel keeps nothing. watched: where every change raises an event. timed: for a time, whatever happens. */
export type Keeping = 'none' | 'watched' | 'timed';

/** Names that are known not to exist, which the kernel may keep at a time. */
const MOST_ABSENT = 50_000;
/** Between two searches for such names whose time is over. */
const FULL_MS = 1000;
/** So long after its answer a name may come into the kernel's cache late (see `expire`), in seconds. */
const LATE = 10;

/** In place of a size that the kernel has been told: none since it was taken back; or one of several. */
export const NOT_TOLD = -1;
const IN_DOUBT = -2;

/** What has been collected: the number of the batch, for who waits until it is written. */
export interface Collected {
  batch: Uint8Array;
  number: number;
}

export class KernelView {
  keeping: Keeping;
  /** How long the kernel may keep things, in milliseconds. */
  readonly #keepMs: number;
  readonly #batch = new NotifyBatch();
  readonly #late = new Set<Node>();
  /** Number of the batch that is being collected; it wraps. */
  #collecting = 1;
  /** Number of the last that was written. Set where there is somebody who writes them. */
  written: () => number = () => this.#collecting;
  /** Number of the last that was written when all requests from before had been read. */
  #drained = 0;
  /** Directories with names that the kernel may know not to exist. */
  readonly #withAbsent = new Set<Node>();
  #absent = 0;
  /** When it is worth while to look again for those whose time is over. */
  #full = 0;
  /** Directories that the kernel has locked for a request which waits: how often. */
  readonly #locked = new Map<number, number>();
  /** Names in such directories, which are told of later. */
  #held: { parent: number; name: string; again: boolean }[] = [];

  constructor(keeping: Keeping, seconds: number) {
    this.keeping = keeping;
    this.#keepMs = seconds * 1000;
  }

  get keeps(): boolean {
    return this.keeping !== 'none';
  }

  /**
   * A name leads, or may lead, to something else. A look-up that revalidates it does so without the directory's lock,
   * so an answer that was given before can come into the kernel's cache after this: then the name is told of again.
   */
  expire(parent: Node, name: string): void {
    if (this.keeping === 'none') return;
    const answered = parent.dir?.children.get(name)?.answeredAt ?? Number.POSITIVE_INFINITY;
    const again = Math.trunc(performance.now() / 1000) - answered <= LATE;
    if (this.#locked.size > 0 && this.#locked.has(parent.id))
      this.#held.push({ parent: parent.id, name, again });
    else this.#batch.expire(parent.id, name, again);
    if (parent.dir?.absent?.delete(name)) this.#absent -= 1;
  }

  /** A look-up is answered with a name that the kernel may keep. */
  answered(node: Node): void {
    node.answeredAt = Math.trunc(performance.now() / 1000);
  }

  /** The attributes of a node have changed; with `content` its bytes too, or a directory's names. */
  changed(node: Node, content: boolean): void {
    if (this.keeping === 'none' || node.id === 0) return;
    this.#batch.inode(node.id, content);
    node.toldSize = NOT_TOLD;
    node.revokedIn = this.#collecting;
    if (content) node.toldIn = this.#collecting;
  }

  /**
   * An open file has got or lost a name. There is no hurry, and something to lose: who has just opened it may be asking
   * how long it is, and the kernel drops an answer to what was asked before this.
   */
  renamed(node: Node): void {
    if (this.keeping !== 'none' && node.id !== 0) this.#batch.inode(node.id, false, true);
  }

  /**
   * The attributes of a node have changed by what a client has asked for, who has been told of most: others are told
   * some milliseconds later, and once for many such changes. Told at once, each of many changes in a directory would cost
   * a batch and a GETATTR of that directory.
   */
  changedLate(node: Node): void {
    if (this.keeping !== 'none') this.#late.add(node);
  }

  get hasLate(): boolean {
    return this.#late.size > 0;
  }

  /** It is later. */
  tellLate(): void {
    if (this.#late.size === 0) return;
    for (const node of this.#late) this.changed(node, false);
    this.#late.clear();
  }

  /** A node shows another object: until the kernel knows, its size and pages are those of the old one. */
  switched(node: Node): void {
    if (node.lookups > 0) this.changed(node, true);
  }

  /** Whether the kernel has still to be told that the content of a node is another: whoever opens it waits for that. */
  mustTell(node: Node): boolean {
    if (node.toldIn === 0) return false;
    if (this.keeping !== 'none' && !this.isWritten(node.toldIn)) return true;
    node.toldIn = 0;
    return false;
  }

  /** There is no request that has not been read. */
  drained(): void {
    this.#drained = this.written();
  }

  /**
   * A request is answered with attributes. One that was sent before they were last taken back is answered in vain: the
   * kernel drops what it is told then. While such a one may still come it is not known which of the answers it took.
   * Whether the kernel may keep the answer: it says that attributes are valid before it writes the size, so one who asks
   * in between would be told that of another version. Where that has come from elsewhere, the next answer is kept.
   */
  attributesTold(node: Node, size: number): boolean {
    const told = inPlace(size);
    const before = node.toldSize;
    const same = node.answeredSize === told || node.answeredSize === NOT_TOLD || !isChangedElsewhere(node);
    node.answeredSize = told;
    if (node.revokedIn !== 0 && isUpTo(node.revokedIn, this.#drained)) node.revokedIn = 0;
    const sure = node.revokedIn === 0 || before === NOT_TOLD || before === told;
    node.toldSize = sure ? told : IN_DOUBT;
    return same;
  }

  /**
   * A file of the base is opened, so long as it is now. Whether the kernel may take it to be of another size; has it been
   * told one, that is taken back.
   */
  mayBelieveOther(node: Node, size: number): boolean {
    if (this.keeping === 'none' || (node.toldSize === size && node.revokedIn === 0)) return false;
    if (node.toldSize !== NOT_TOLD && node.toldSize !== size) this.changed(node, true);
    return true;
  }

  isWritten(batch: number): boolean {
    return isUpTo(batch, this.written());
  }

  /** Whether the kernel may keep it that there is no such name; it is told when one comes. */
  keepAbsent(parent: Node, name: string): boolean {
    const { dir } = parent;
    if (dir === null) return false;
    const now = performance.now();
    if (this.#absent >= MOST_ABSENT && now >= this.#full) this.#dropExpired(now);
    if (this.#absent >= MOST_ABSENT) return false;
    dir.absent ??= new Map();
    if (!dir.absent.has(name)) this.#absent += 1;
    dir.absent.set(name, now + this.#keepMs);
    this.#withAbsent.add(parent);
    return true;
  }

  #dropExpired(now: number): void {
    this.#full = now + FULL_MS;
    for (const node of this.#withAbsent) {
      const absent = node.dir?.absent;
      if (!absent) continue;
      for (const [name, until] of absent) {
        if (until > now) continue;
        absent.delete(name);
        this.#absent -= 1;
      }
      if (absent.size === 0) this.forgetAbsent(node);
    }
  }

  /** The kernel has forgotten the directory. */
  forgetAbsent(node: Node): void {
    if (node.dir === null || node.dir.absent === null) return;
    this.#absent -= node.dir.absent.size;
    node.dir.absent = null;
    this.#withAbsent.delete(node);
  }

  /** A request that waits holds the kernel's lock of these directories: nobody can be told of their names. */
  lock(ids: readonly number[], until: PendingWork): void {
    if (this.keeping === 'none') return;
    for (const id of ids) this.#locked.set(id, (this.#locked.get(id) ?? 0) + 1);
    until.waiting.push(() => this.#unlock(ids));
  }

  #unlock(ids: readonly number[]): void {
    for (const id of ids) {
      const count = (this.#locked.get(id) ?? 1) - 1;
      if (count > 0) this.#locked.set(id, count);
      else this.#locked.delete(id);
    }
    const held = this.#held;
    this.#held = [];
    const parents = new Set<number>();
    for (const one of held) {
      if (this.#locked.has(one.parent)) this.#held.push(one);
      else {
        this.#batch.expire(one.parent, one.name, one.again);
        parents.add(one.parent);
      }
    }
    // What has been told of their listings meanwhile did not wait for who was reading them.
    for (const parent of parents) this.#batch.inode(parent, true);
  }

  /** Everything that is to be told, or null. */
  take(): Collected | null {
    return this.#batch.isEmpty ? null : this.takeAnyway();
  }

  /** The same, even where that is nothing: a number to wait for. */
  takeAnyway(): Collected {
    const number = this.#collecting;
    this.#collecting = (number + 1) | 0 || 1;
    return { batch: this.#batch.take(), number };
  }
}

/** A file whose content is the base's, or was changed by the daemon: not by a client, of which the kernel would know. */
function isChangedElsewhere({ dir, layer, learned, toldIn }: Node): boolean {
  return dir === null && (layer >= 0 || toldIn !== 0 || (learned?.metacopy ?? null) !== null);
}

/** Of numbers of batches, which wrap. */
function isUpTo(batch: number, last: number): boolean {
  return ((batch - last) | 0) <= 0;
}
