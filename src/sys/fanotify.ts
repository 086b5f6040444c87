// fanotify(7) on whole file systems, and file handles, by which its events name directories.
import { E } from '../lib/errno.ts';
import {
  AT_EMPTY_PATH,
  FAN_CLASS_NOTIF,
  FAN_CLOEXEC,
  FAN_EVENT_ON_CHILD,
  FAN_MARK_ADD,
  FAN_MARK_EVICTABLE,
  FAN_MARK_FILESYSTEM,
  FAN_MARK_IGNORE,
  FAN_MARK_IGNORED_SURV_MODIFY,
  FAN_MARK_REMOVE,
  FAN_NONBLOCK,
  FAN_REPORT_DIR_FID,
  FAN_REPORT_FID,
  FAN_REPORT_NAME,
  FAN_UNLIMITED_MARKS,
  FAN_UNLIMITED_QUEUE,
  IN_CHANGES,
  IN_ISDIR,
  O_LARGEFILE,
  O_RDONLY,
} from './constants.ts';
import { native, pinned } from './ffi.ts';
import { NAME_A, putA } from './scratch.ts';

const cInit = native('fanotify_init', 'int', ['uint', 'uint']);
const cMark = native('fanotify_mark', 'int', ['int', 'uint', 'int64_t', 'int', 'uintptr_t']);
const cHandle = native('name_to_handle_at', 'int', ['int', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'int']);

/** With the directory and the name; and of what is no directory the handle of the object itself. */
const REPORT = FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_FID;
const CHANGES = IN_CHANGES | IN_ISDIR;

/** A non-blocking descriptor whose queue has no limit. EPERM: not root. EINVAL: a kernel before 5.9. */
export function fanotifyInit(): number {
  const flags = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS;
  return cInit(flags | REPORT, O_RDONLY | O_LARGEFILE);
}

/** Every change in the file system that a directory lies in is told of from now on; or, `on` false, none. */
export function fanotifyMark(fd: number, dirFd: number, on: boolean): number {
  const flags = (on ? FAN_MARK_ADD : FAN_MARK_REMOVE) | FAN_MARK_FILESYSTEM;
  return putA('.') || cMark(fd, flags, CHANGES, dirFd, NAME_A);
}

/**
 * Of a directory and what lies in it nothing is told from now on, as long as the kernel has it in memory; or, `on` false,
 * it is again. Since 6.0.
 */
export function fanotifyIgnore(fd: number, dirFd: number, on: boolean): number {
  const how = FAN_MARK_IGNORE | FAN_MARK_IGNORED_SURV_MODIFY;
  const flags = on ? FAN_MARK_ADD | how | FAN_MARK_EVICTABLE : FAN_MARK_REMOVE | how;
  return putA('.') || cMark(fd, flags, CHANGES | FAN_EVENT_ON_CHILD, dirFd, NAME_A);
}

const MAX_HANDLE = 128;
/** As it stands in an event: identity of the file system, length and type of the handle, the handle. */
const key = pinned(16 + MAX_HANDLE);
const mountId = pinned(8);
const HANDLE_AT = 2;
/** Since 6.5: of file systems that cannot open by it, too; and what fanotify tells is such a one. */
const AT_HANDLE_FID = 0x200;
let handleFlags = AT_EMPTY_PATH | AT_HANDLE_FID;

/**
 * What events name an object by: `name` in a directory (no link is followed), or with '' what is open. `fsid` as
 * statfs tells it, in its two words. The number of words of `eventKey`, or a negative errno.
 */
export function keyOfEvents(dirFd: number, name: string, fsid: ArrayLike<number>): number {
  const bad = putA(name);
  if (bad !== 0) return bad;
  let error = handleOf(dirFd);
  if (error === -E.EINVAL && (handleFlags & AT_HANDLE_FID) !== 0) {
    handleFlags = AT_EMPTY_PATH;
    error = handleOf(dirFd);
  }
  if (error < 0) return error;
  const bytes = key.u32[HANDLE_AT] as number;
  // Then an event has it next to its name.
  if (bytes % 4 !== 0) return -E.EOPNOTSUPP;
  key.u32[0] = fsid[0] as number;
  key.u32[1] = fsid[1] as number;
  return HANDLE_AT + 2 + bytes / 4;
}

/** Good until the next call of keyOfEvents. */
export const eventKey: Uint32Array = key.u32;

function handleOf(dirFd: number): number {
  key.u32[HANDLE_AT] = MAX_HANDLE;
  return cHandle(dirFd, NAME_A, key.address + HANDLE_AT * 4, mountId.address, handleFlags);
}

/** Room for some thousand events, which are numbers of four bytes but for the names. */
export class FanotifyEvents {
  readonly bytes: Buffer;
  readonly words: Uint32Array;

  constructor(size = 256 * 1024) {
    this.bytes = Buffer.allocUnsafeSlow(size);
    this.words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, size >> 2);
  }
}

const METADATA_BYTES = 24;
const KIND_FID = 1;
const KIND_DIR_NAME = 2;
const KIND_DIR = 3;

export interface FanotifyTaker {
  /** Events were lost. */
  lost(): void;
  /** Whose key begins at that word, with so many words: a number to be told by, or -1 for what is of no interest. */
  find(words: Uint32Array, at: number, count: number): number;
  /** `name` is '' where it is about the object itself. */
  event(found: number, mask: number, name: string): void;
}

/** Goes through what was read. Events of the process `ownPid`, and of what is not found, cost next to nothing. */
export function parseFanotify(
  { bytes, words }: FanotifyEvents,
  length: number,
  ownPid: number,
  taker: FanotifyTaker,
): void {
  for (let at = 0; at < length; at += words[at >> 2] as number) {
    const word = at >> 2;
    // u32 length; u8 version, u8, u16 length of this; u64 mask; s32 descriptor; s32 pid.
    const mask = words[word + 2] as number;
    if (words[word + 5] === ownPid) continue;
    const end = at + (words[word] as number);
    let info = at + METADATA_BYTES;
    if (info >= end) taker.lost();
    // u8 kind, u8, u16 length of this; then the key; then, with some, a name that ends with NUL.
    for (; info < end; info += (words[info >> 2] as number) >>> 16) {
      const kind = bytes[info];
      if (kind !== KIND_FID && kind !== KIND_DIR_NAME && kind !== KIND_DIR) continue;
      const first = (info >> 2) + 1;
      const handleBytes = words[first + HANDLE_AT] as number;
      const found = taker.find(words, first, HANDLE_AT + 2 + (handleBytes >> 2));
      if (found < 0) continue;
      taker.event(found, mask, kind === KIND_DIR_NAME ? nameAt(bytes, info + 20 + handleBytes) : '');
    }
  }
}

/** '.' is the directory itself. */
function nameAt(bytes: Buffer, at: number): string {
  const nul = bytes.indexOf(0, at);
  const itself = nul === at + 1 && bytes[at] === 0x2e;
  return itself ? '' : bytes.toString('latin1', at, nul);
}
