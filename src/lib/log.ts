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
  const writer = (level: LogLevel) => {
    if (logLevels.indexOf(level) < least) return () => {};
    return (message: string) => {
      const time = new Date().toISOString();
      fs.writeSync(config.fd, `${time} ${level} ${config.prefix}: ${message}\n`);
    };
  };
  return { debug: writer('debug'), info: writer('info'), warn: writer('warn'), error: writer('error') };
}
