// Who has read which version of a text of the base: what the next daemon has to know of processes that go on when
// this one ends, for an editor that has read an older version must not count as having seen a newer one (rule 2 of
// native-notes/versioning.md). The serving thread writes it when it has nobody to answer; nothing is synced, for no
// process outlives the machine. Layout in native-notes/index-format.md.
import * as fs from 'node:fs';
import { crc32 } from 'node:zlib';
import { AT_FDCWD, O_APPEND, O_CLOEXEC, O_CREAT, O_WRONLY } from '../sys/constants.ts';
import { close, openat, write } from '../sys/file.ts';
import { readIfThere } from './files.ts';
import { bootId } from './format.ts';

export interface SeenRecord {
  /** In the base. */
  path: string;
  /** Thread that opened it. */
  tid: number;
  /** Milliseconds since the epoch. */
  time: number;
  fingerprint: string;
  content: string;
  mode: number;
  uid: number;
  gid: number;
  xattrs: string;
}

const FILE = 'seen';
const OLD = 'seen.old';
/** Then the file becomes the old one, in whose place it comes: so much is known at least. */
const MOST = 4 * 1024 * 1024;
/** So many records wait to be written at most. */
const MOST_WAITING = 64;
/** USER_HZ. */
const TICK_MS = 10;
/** The clock of process times counts from a whole second. */
const SLACK_MS = 2000;

export class SeenLog {
  readonly #dir: string;
  #fd = -1;
  #bytes = 0;
  #waiting: SeenRecord[] = [];
  readonly #onWaiting: () => void;

  /** `onWaiting`: there is something for `flush`, where nobody calls it of his own accord. */
  constructor(stateDir: string, onWaiting = () => {}) {
    this.#dir = stateDir;
    this.#onWaiting = onWaiting;
  }

  /** What processes that still live have read, in order; then the log is begun anew. Throws errors of node:fs. */
  take(): SeenRecord[] {
    const alive = aliveSince();
    const found: SeenRecord[] = [];
    for (const name of [OLD, FILE]) {
      const bytes = readIfThere(`${this.#dir}/${name}`);
      if (bytes !== null) found.push(...recordsIn(bytes).filter((one) => alive(one.tid, one.time)));
      fs.rmSync(this.#inBytes(name), { force: true });
    }
    for (const record of found) this.append(record);
    this.flush();
    // Now, because it may not come into the overlay once that is unmounted.
    if (this.#fd < 0) this.#begin();
    return found;
  }

  append(record: SeenRecord): void {
    this.#waiting.push(record);
    if (this.#waiting.length >= MOST_WAITING) this.flush();
    else if (this.#waiting.length === 1) this.#onWaiting();
  }

  /** Writes what waits. A full disk costs the next daemon the knowledge, and nobody an error. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    if (this.#fd < 0 && !this.#begin()) {
      this.#waiting = [];
      return;
    }
    this.#putWaiting();
    if (this.#bytes < MOST) return;
    this.#end();
    fs.renameSync(this.#inBytes(FILE), this.#inBytes(OLD));
  }

  /** The overlay is unmounted: it may be looked at, or removed, so no name comes into it any more. */
  close(): void {
    if (this.#fd >= 0 && this.#waiting.length > 0) this.#putWaiting();
    this.#end();
  }

  #putWaiting(): void {
    this.#bytes += this.#put(this.#waiting);
    this.#waiting = [];
  }

  #end(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    this.#bytes = 0;
  }

  #begin(): boolean {
    const flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    this.#fd = openat(AT_FDCWD, `${this.#dir}/${FILE}`, flags, 0o600);
    if (this.#fd < 0) return false;
    // Also ends what a crash cut off.
    this.#bytes = this.#put(bootId());
    return true;
  }

  #put(value: readonly SeenRecord[] | string): number {
    const json = JSON.stringify(value);
    const bytes = Buffer.from(`\n${json} ${sumOf(json)}`, 'utf8');
    write(this.#fd, bytes, 0, bytes.length);
    return bytes.length;
  }

  #inBytes(name: string): Buffer {
    return Buffer.from(`${this.#dir}/${name}`, 'latin1');
  }
}

function sumOf(json: string): string {
  return crc32(`\n${json}`).toString(16);
}

/** Of this boot, as far as they are whole. */
function recordsIn(bytes: Buffer): SeenRecord[] {
  const found: SeenRecord[] = [];
  const now = bootId();
  let ofNow = false;
  for (const line of bytes.toString('utf8').split('\n')) {
    const cut = line.lastIndexOf(' ');
    const json = line.slice(0, Math.max(cut, 0));
    if (sumOf(json) !== line.slice(cut + 1)) continue;
    const value = JSON.parse(json) as SeenRecord[] | string;
    if (typeof value === 'string') ofNow = value === now;
    else if (ofNow) found.push(...value);
  }
  return found;
}

/** null: there is no such thread. */
function statusOf(tid: number): string | null {
  try {
    return tid === 0 ? null : fs.readFileSync(`/proc/${tid}/stat`, 'latin1');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}

/** Whether a thread that did something at that time is still there, and not another one with its number. */
function aliveSince(): (tid: number, time: number) => boolean {
  const booted = Number(/^btime (\d+)$/m.exec(fs.readFileSync('/proc/stat', 'latin1'))?.[1] ?? 0) * 1000;
  const started = new Map<number, number | null>();
  return (tid, time) => {
    let at = started.get(tid);
    if (at === undefined) {
      const stat = statusOf(tid);
      const ticks = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
      at = ticks === undefined ? null : booted + Number(ticks) * TICK_MS;
      started.set(tid, at);
    }
    return at !== null && at <= time + SLACK_MS;
  };
}
