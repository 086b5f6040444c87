// What the commands have to do with the terminal: output, the one form of an error line, and how a command's
// outcome becomes the process's exit code.
import * as fs from 'node:fs';
import { EXIT, type ExitCode, exitCodeOf } from '../control/exit-codes.ts';
import { type Json, jsonText } from '../control/json.ts';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { pause } from '../lib/passing.ts';

export interface Io {
  out(text: string): void;
  outBytes(bytes: Uint8Array): Promise<void>;
  /** One line for a person. */
  err(line: string): void;
  /** Replaces the last progress line; nothing where stderr is no terminal. */
  progress(line: string): void;
  json(value: Json): void;
}

export function terminalIo(): Io {
  let progressLength = 0;
  const clear = () => {
    if (progressLength > 0) writeAll(2, `\r${' '.repeat(progressLength)}\r`);
    progressLength = 0;
  };
  const io: Io = {
    out(text) {
      clear();
      writeAll(1, text);
    },
    async outBytes(bytes) {
      clear();
      writeAll(1, bytes);
    },
    err(line) {
      clear();
      writeAll(2, `${line}\n`);
    },
    progress(line) {
      if (!process.stderr.isTTY) return;
      clear();
      const width = (process.stderr.columns ?? 80) - 1;
      const shown = line.slice(0, width);
      writeAll(2, shown);
      progressLength = shown.length;
    },
    json: (value) => io.out(jsonText(value)),
  };
  return io;
}

/** Blocking, so that nothing is lost at exit. Whoever has closed the pipe (`| head`) wants no more: EPIPE. */
function writeAll(fd: number, what: string | Uint8Array): void {
  const bytes = typeof what === 'string' ? Buffer.from(what, 'utf8') : what;
  let offset = 0;
  while (offset < bytes.length) {
    try {
      offset += fs.writeSync(fd, bytes, offset);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EPIPE') throw new OutputClosed();
      // A terminal or pipe that somebody else made non-blocking: wait a little, without spinning.
      if (code !== 'EAGAIN') throw error;
      pause(5);
    }
  }
}

/** Nobody reads our output any more; the command ends quietly. */
export class OutputClosed extends Error {}

/** A mistake in how the command was called. */
export function usage(message: string): FsError {
  return new FsError(E.EINVAL, message);
}

/** Prints what went wrong as `kasane: verb: message` and says with which code to end. Never a stack trace. */
export function reportError(io: Pick<Io, 'err'>, verb: string, error: unknown): ExitCode {
  if (error instanceof OutputClosed) return EXIT.ok;
  const message = oneLine(messageOf(error));
  io.err(
    verb === '' || message.startsWith(`${verb}: `) ? `kasane: ${message}` : `kasane: ${verb}: ${message}`,
  );
  if (error instanceof FsError) return exitCodeOf(error.errno);
  const code = (error as NodeJS.ErrnoException).code;
  const errno = typeof code === 'string' && code in E ? E[code as keyof typeof E] : E.EIO;
  return exitCodeOf(errno);
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
