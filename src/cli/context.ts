// What every command file works with: the terminal, and a way to say how it ended.
import type { Command } from 'commander';
import type { ExitCode } from '../control/exit-codes.ts';
import type { Io } from './io.ts';

export interface Context {
  io: Io;
  finish(code: ExitCode): void;
}

/** Adds a command to the program; one per file. */
export type AddCommand = (program: Command, context: Context) => void;

/** A commander action that ends with the code which `work` returns. */
export function ending<Args extends unknown[]>(
  context: Context,
  work: (...args: Args) => Promise<ExitCode>,
): (...args: Args) => Promise<void> {
  return async (...args) => context.finish(await work(...args));
}

/** The example at the end of a command's help. */
export function example(...lines: string[]): string {
  return `\nExample:\n${lines.map((line) => `  ${line}\n`).join('')}`.trimEnd();
}

export const JSON_OPTION = ['--json', 'print JSON'] as const;
