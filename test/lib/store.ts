// Stores for tests: a log that is kept, samples of what is stored, and a store in a process of its own, which
// can be killed.
import { type ChildProcess, spawn } from 'node:child_process';
import * as path from 'node:path';
import * as readline from 'node:readline';
import type { Fingerprint } from '../../src/lib/fingerprint.ts';
import type { Log } from '../../src/lib/log.ts';
import type { NewConflict } from '../../src/versions/conflicts.ts';
import { type Origin, pathHash } from '../../src/versions/origin.ts';
import { openStore, type Store } from '../../src/versions/store.ts';
import type { PathRecord, VersionRef } from '../../src/versions/types.ts';
import { tracked } from './cleanup.ts';
import { repository } from './kasane.ts';

export interface KeptLog extends Log {
  lines: string[];
}

export function keepLog(): KeptLog {
  const lines: string[] = [];
  const writer = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  return {
    lines,
    debug: writer('debug'),
    info: writer('info'),
    warn: writer('warn'),
    error: writer('error'),
  };
}

export const hash = (n: number): string => n.toString(16).padStart(32, '0');

export function sampleFingerprint(n = 1): Fingerprint {
  return {
    layer: hash(77),
    ino: 1000 + n,
    size: 3000 + n,
    mtimeSec: 1_700_000_000,
    mtimeNsec: 5,
    ctimeSec: 1_700_000_000,
    ctimeNsec: 6,
    mode: 0o100644,
    uid: 0,
    gid: 0,
    rdevMajor: 0,
    rdevMinor: 0,
  };
}

export function sampleOrigin(of: string, more: Partial<Origin> = {}): Origin {
  return {
    path: pathHash(of),
    mode: 0o100644,
    uid: 0,
    gid: 0,
    ino: 1_234_567,
    content: hash(1),
    fingerprint: hash(2),
    xattrs: '',
    taken: 1_764_000_000,
    torn: false,
    pin: null,
    ...more,
  };
}

export function samplePath(of: string, more: Partial<PathRecord> = {}): PathRecord {
  return {
    path: of,
    state: 'C',
    detail: '',
    fingerprint: sampleFingerprint(),
    baseSeen: hash(2),
    overlaySig: '1 2 3',
    lastMerges: [],
    lastSeq: 0,
    needs: [],
    ...more,
  };
}

export function sampleVersion(content: string | null): VersionRef {
  return { content, mode: 0o100644, uid: 0, gid: 0, size: 3, mtime: 1, target: null, xattrs: [] };
}

export function sampleConflict(of: string, more: Partial<NewConflict> = {}): NewConflict {
  return {
    kind: 'text',
    path: of,
    since: 1,
    reason: 'both sides changed line 3',
    ancestor: null,
    overlay: null,
    base: 'unknown',
    merged: null,
    origin: null,
    baseFingerprint: hash(2),
    ...more,
  };
}

export async function withStore<T>(
  stateDir: string,
  body: (store: Store, log: KeptLog) => Promise<T>,
): Promise<T> {
  const log = keepLog();
  const store = await openStore({ stateDir, log });
  try {
    return await body(store, log);
  } finally {
    await store.close();
  }
}

export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

export interface StoreChild {
  /** The next line that the child writes; rejects at its end. */
  line: () => Promise<string>;
  kill: () => Promise<void>;
  process: ChildProcess;
}

/** Runs store-child.mjs on the built sources. */
export function startStoreChild(args: readonly string[]): StoreChild {
  const script = path.join(import.meta.dirname, 'store-child.mjs');
  const child = spawn(process.execPath, [script, path.join(repository, 'dist'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const kill = tracked(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const line = async () => {
    const next = await lines.next();
    if (next.done === true) throw new Error('the child has ended');
    return next.value;
  };
  return { line, kill, process: child };
}
