// System calls that neither Node nor a common program makes, in a child process.
import * as path from 'node:path';
import { runOk } from './run.ts';

const child = path.join(import.meta.dirname, 'calls-child.mjs');

/** Asks calls-child.mjs. */
export async function call<T>(name: string, argument: unknown, timeout = 60_000): Promise<T> {
  const input = JSON.stringify([name, argument]);
  return JSON.parse(await runOk(process.execPath, [child], { input, timeout })) as T;
}

const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

/** rename(2) with no flags, NOREPLACE or EXCHANGE: the name of the errno, or 'done'. */
export async function renameWith(
  from: string,
  to: string,
  how: 'plainly' | 'noreplace' | 'exchange',
): Promise<string> {
  const flags = how === 'exchange' ? RENAME_EXCHANGE : how === 'noreplace' ? RENAME_NOREPLACE : 0;
  return (await call<{ error?: string }>('rename', { from, to, flags })).error ?? 'done';
}

/** A shell command that lets two names change places. */
export function exchangeCommand(from: string, to: string): string {
  return `echo '${JSON.stringify(['rename', { from, to, flags: RENAME_EXCHANGE }])}' | '${process.execPath}' '${child}'`;
}
