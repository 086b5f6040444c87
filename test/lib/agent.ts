// A process of the guest that lives through a test: it can keep a file open while the base changes beneath
// it. Calls are those of node:fs (openSync, readSync is readWhole here, fstatSync …), each with a time limit.
import { spawn } from 'node:child_process';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { tracked } from './cleanup.ts';

export interface Agent {
  pid: number;
  /** Rejects with `code` set to the errno's name. Buffers go and come as Buffers; times of stat as strings. */
  call: <T = unknown>(name: string, ...args: unknown[]) => Promise<T>;
  stop: () => Promise<void>;
}

interface Answer {
  value?: unknown;
  code?: string;
  message?: string;
}

export function startAgent(options: { cwd?: string; timeout?: number } = {}): Agent {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'agent-child.mjs')], {
    cwd: options.cwd ?? '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const waiting: {
    resolve: (value: never) => void;
    reject: (error: Error) => void;
    timer: NodeJS.Timeout;
  }[] = [];
  const next = (answer: Answer) => {
    const call = waiting.shift();
    if (call === undefined) return;
    clearTimeout(call.timer);
    if (answer.code === undefined) call.resolve(revive(answer.value) as never);
    else call.reject(Object.assign(new Error(answer.message), { code: answer.code }));
  };
  readline.createInterface({ input: child.stdout }).on('line', (line) => next(JSON.parse(line) as Answer));
  let over = false;
  const gone = { code: 'EAGENT', message: 'the agent has ended' };
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => {
      over = true;
      while (waiting.length > 0) next(gone);
      resolve();
    });
  });
  const stop = tracked(async () => {
    child.kill('SIGKILL');
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 10_000))]);
  });
  const limit = options.timeout ?? 60_000;
  const call = <T>(name: string, ...args: unknown[]) =>
    new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(Object.assign(new Error(`${name} did not return within ${limit} ms`), { code: 'ETIMEDOUT' }));
      }, limit);
      waiting.push({ resolve, reject, timer });
      if (over) return next(gone);
      child.stdin.write(`${JSON.stringify({ name, args: args.map(plain) })}\n`);
    });
  return { pid: child.pid as number, call, stop };
}

function plain(value: unknown): unknown {
  return Buffer.isBuffer(value) ? { b64: value.toString('base64') } : value;
}

function revive(value: unknown): unknown {
  const bytes = value as { b64?: unknown } | null;
  return typeof bytes?.b64 === 'string' ? Buffer.from(bytes.b64, 'base64') : value;
}
