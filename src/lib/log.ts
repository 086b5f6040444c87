// Log lines, written with writeSync: console.* in a worker that blocks in a system call prints only at exit.
// Every thread makes its own logger from the same plain configuration.
import * as fs from 'node:fs';

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogConfig {
  /** Open descriptor that lines go to; shared by all threads of the process. */
  fd: number;
  level: LogLevel;
  /** Put before each line, e.g. the name of the thread. */
  prefix: string;
}

export type Log = Record<LogLevel, (message: string) => void>;

export function makeLog(config: LogConfig): Log {
  const least = logLevels.indexOf(config.level);
  let lost = 0;
  const write = (line: string) => {
    try {
      const missing = lost === 0 ? '' : ` (${lost} lines before this could not be written)`;
      fs.writeSync(config.fd, `${line}${missing}\n`);
      lost = 0;
    } catch {
      // Its disk is full, or its reader has gone: no reason to fail in what is being done.
      lost += 1;
    }
  };
  const writer = (level: LogLevel) => {
    if (logLevels.indexOf(level) < least) return () => {};
    return (message: string) => write(`${new Date().toISOString()} ${level} ${config.prefix}: ${message}`);
  };
  return { debug: writer('debug'), info: writer('info'), warn: writer('warn'), error: writer('error') };
}

/** For what is tried again and again: a trouble is said when it begins, and when it becomes another. */
export function sayingOnce(write: (message: string) => void): { say(message: string): void; over(): void } {
  let said = '';
  return {
    say: (message) => {
      if (message !== said) write(message);
      said = message;
    },
    over: () => {
      said = '';
    },
  };
}
