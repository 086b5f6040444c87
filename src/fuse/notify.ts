// Notifications: what tells the kernel that something it keeps is out of date. Many are packed one behind the
// other; each is one write(2) to the device, and only by a thread that never serves, but for a STORE
// and for a listing that is dropped at its end (native-notes/fuse.md).
import { putI64, putU64 } from './codec.ts';

const HEADER = 16;
const INVAL_INODE = 2;
const INVAL_ENTRY = 3;
const STORE = 4;
/** What precedes the bytes of a STORE. */
export const STORE_ROOM = HEADER + 24;
export const INODE_SIZE = HEADER + 24;
const ENTRY_SIZE = HEADER + 16;
/** The name is looked up anew when it is next used; without this what is mounted on it would be detached. */
const EXPIRE_ONLY = 1;
/** Beside a code, until it is read: to be told now and again, and to be told after a while. */
export const AGAIN = 0x100;
export const LATE = 0x200;
const FIRST_SIZE = 4096;

/** Packed notifications, for `forEachNotification`. */
export class NotifyBatch {
  #buffer = Buffer.allocUnsafe(FIRST_SIZE);
  #view = viewOf(this.#buffer);
  #length = 0;

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** The attributes of a node, and with `pages` its pages, are out of date; of a directory the listing. */
  inode(nodeId: number, pages: boolean, late = false): void {
    const at = this.#begin(INODE_SIZE, late ? INVAL_INODE | LATE : INVAL_INODE);
    putInode(this.#view, at + HEADER, nodeId, pages);
  }

  /** A name in a directory is to be looked up anew; what is mounted there stays. */
  expire(parentId: number, name: string, again = false): void {
    const at = this.#begin(ENTRY_SIZE + name.length + 1, again ? INVAL_ENTRY | AGAIN : INVAL_ENTRY);
    putU64(this.#view, at + HEADER, parentId);
    this.#view.setUint32(at + HEADER + 8, name.length, true);
    this.#view.setUint32(at + HEADER + 12, EXPIRE_ONLY, true);
    this.#buffer.write(name, at + ENTRY_SIZE, 'latin1');
    this.#buffer[at + ENTRY_SIZE + name.length] = 0;
  }

  /** What has been added; the batch is empty again. */
  take(): Uint8Array {
    const bytes = Uint8Array.prototype.slice.call(this.#buffer, 0, this.#length);
    this.#length = 0;
    if (this.#buffer.length > FIRST_SIZE) {
      this.#buffer = Buffer.allocUnsafe(FIRST_SIZE);
      this.#view = viewOf(this.#buffer);
    }
    return bytes;
  }

  #begin(size: number, code: number): number {
    const at = this.#length;
    if (at + size > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(at + size, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
      this.#view = viewOf(larger);
    }
    this.#length = at + size;
    putHead(this.#view, at, size, code);
    return at;
  }
}

function putInode(view: DataView, at: number, nodeId: number, pages: boolean): void {
  putU64(view, at, nodeId);
  putI64(view, at + 8, pages ? 0 : -1);
  putI64(view, at + 16, 0);
}

/** That a directory's listing is out of date, as a message of its own. */
export function putDropped(view: DataView, nodeId: number): void {
  putHead(view, 0, INODE_SIZE, INVAL_INODE);
  putInode(view, HEADER, nodeId, true);
}

/** A fuse_out_header without a unique number: the kernel takes `error` for the code. */
function putHead(view: DataView, at: number, size: number, code: number): void {
  view.setUint32(at, size, true);
  view.setInt32(at + 4, code, true);
  putU64(view, at + 8, 0);
}

/** The head of a STORE of the first `length` bytes of a file, which follow it. */
export function putStore(view: DataView, nodeId: number, length: number): void {
  putHead(view, 0, STORE_ROOM + length, STORE);
  putU64(view, HEADER, nodeId);
  putU64(view, HEADER + 8, 0);
  view.setUint32(HEADER + 16, length, true);
  view.setUint32(HEADER + 20, 0, true);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/**
 * Calls `each` with the place and size of every notification of a batch, which is as the kernel wants it then, and
 * with AGAIN, LATE or 0. Once for a batch.
 */
export function forEachNotification(
  batch: Uint8Array,
  each: (at: number, size: number, when: number) => void,
): void {
  const view = viewOf(batch);
  for (let at = 0; at < batch.length; ) {
    const size = view.getUint32(at, true);
    const code = view.getInt32(at + 4, true);
    const when = code & (AGAIN | LATE);
    view.setInt32(at + 4, code - when, true);
    each(at, size, when);
    at += size;
  }
}

/** What a single notification is about: a node, or a directory and a name in it. */
export function keyOf(one: Uint8Array): string {
  const words = Buffer.from(one.buffer, one.byteOffset, one.length);
  const end = words.readInt32LE(4) === INVAL_INODE ? HEADER + 8 : words.length;
  return words.toString('latin1', 4, end);
}
