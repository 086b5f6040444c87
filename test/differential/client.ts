// A client of the random differential test: a process (child.mjs) that does operations, so that a hung mount hangs
// that, and not the test.
import { type ChildProcess, spawn } from 'node:child_process';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { tracked } from '../lib/cleanup.ts';
import { repository } from '../lib/kasane.ts';

export interface Client {
  ask: <T>(command: string, args?: Record<string, unknown>) => Promise<T>;
  stop: () => Promise<void>;
}

export function startClient(timeout: number): Client {
  const script = path.join(import.meta.dirname, 'child.mjs');
  const child: ChildProcess = spawn(process.execPath, [script], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const stop = tracked(async () => {
    child.kill('SIGKILL');
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 3000))]);
  });
  const lines = readline.createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const replies = lines[Symbol.asyncIterator]();
  const ask = async <T>(command: string, args: Record<string, unknown> = {}): Promise<T> => {
    child.stdin?.write(`${JSON.stringify({ command, ...args })}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${command} took more than ${timeout} ms`)), timeout);
    });
    try {
      const { value, done } = await Promise.race([replies.next(), late]);
      if (done) throw new Error(`the client ended in ${command}`);
      const reply = JSON.parse(value as string) as T & { error?: string };
      if (reply.error !== undefined) throw new Error(reply.error);
      return reply;
    } finally {
      clearTimeout(timer);
    }
  };
  return { ask, stop };
}

/** Shows a client its two trees, or one alone with `union` null. */
export async function openTrees(
  client: Client,
  trees: { union: string | null; plain: string; client?: number | null },
): Promise<void> {
  await client.ask('open', {
    dist: path.join(repository, 'dist'),
    client: null,
    report: process.env.KASANE_REPORT ?? null,
    ...trees,
  });
}
