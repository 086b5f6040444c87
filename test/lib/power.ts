// Power loss, simulated: the overlay lies on an ext4 image, which is copied while everybody who writes to it is
// stopped. What the kernel has not written by then is not in the copy. Or the file system itself is shut down
// without flushing its journal. What a guest may find afterwards is written down beforehand.
import * as fs from 'node:fs';
import { FormatFile, readFormat } from '../../src/versions/format.ts';
import { unlessGone } from './proc.ts';
import { run, runOk, waitUntil } from './run.ts';

/** What a file may hold after a power loss; null: it may not be there. */
export class Expectations {
  readonly #may: Map<string, Set<string | null>>;

  constructor(may: Iterable<[string, Set<string | null>]> = []) {
    this.#may = new Map([...may].map(([name, set]) => [name, new Set(set)]));
  }

  /** From now on it may be this, too. */
  may(name: string, ...contents: (string | null)[]): void {
    const set = this.#may.get(name) ?? new Set();
    for (const content of contents) set.add(content);
    this.#may.set(name, set);
  }

  /** It has reached the disk: nothing else may be found. */
  must(name: string, content: string | null): void {
    this.#may.set(name, new Set([content]));
  }

  /** Everything that another one allows, too. */
  alsoMay(other: Expectations): void {
    for (const [name, set] of other.#may) this.may(name, ...set);
  }

  copy(): Expectations {
    return new Expectations(this.#may);
  }

  /** What is not as it may be, a line each; of all names, or of those. */
  async violations(root: string, names: readonly string[] = [...this.#may.keys()]): Promise<string[]> {
    const found: string[] = [];
    for (const name of names) {
      const may = this.#may.get(name) ?? new Set();
      const content = await contentOf(`${root}/${name}`);
      if (may.has(content)) continue;
      const allowed = [...may].map(shorten).join(' or ');
      found.push(`${name} is ${shorten(content)}, not ${allowed}`);
    }
    return found;
  }
}

function shorten(content: string | null): string {
  if (content === null) return 'absent';
  const text = JSON.stringify(content.length > 40 ? `${content.slice(0, 40)}…` : content);
  return `${text} (${content.length} bytes)`;
}

/** By a child: it may be on a mount. null: absent. */
export async function contentOf(file: string): Promise<string | null> {
  const { code, stdout, stderr } = await run('cat', ['--', file]);
  if (code === 0) return stdout;
  if (/No such file or directory|Not a directory/.test(stderr)) return null;
  throw new Error(stderr.trim());
}

/** All threads of a process: between two system calls, or waiting for an answer of one that is. */
function isStopped(pid: number): boolean {
  return fs.readdirSync(`/proc/${pid}/task`).every((tid) => {
    const task = `/proc/${pid}/task/${tid}`;
    const stat = unlessGone(() => fs.readFileSync(`${task}/stat`, 'latin1'), ') T');
    const state = stat.slice(stat.lastIndexOf(')') + 2)[0];
    // Who announces a change of the base does so through the mount, and comes out when that is served again.
    const waits = () => fs.readFileSync(`${task}/stack`, 'latin1').includes('request_wait_answer');
    return state === 'T' || (state === 'D' && waits());
  });
}

/** Copies an image that is in use as the disk is at this moment; the process that writes to it is stopped. */
export async function snapshot(pid: number, image: string, copy: string): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  try {
    // Who is in an fsync comes out of it first.
    if (!(await waitUntil(() => isStopped(pid), 60_000, 2))) throw new Error(`${pid} does not stop`);
    await runOk('cp', ['--sparse=always', image, copy], { timeout: 60_000 });
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

/** As if the machine had been started anew since. */
export function pretendReboot(stateDir: string): void {
  const { format, found } = readFormat(stateDir);
  if (found !== 'whole') throw new Error(`the format file is ${found}`);
  new FormatFile(stateDir, format, true).write({ bootId: 'the boot before' });
}
