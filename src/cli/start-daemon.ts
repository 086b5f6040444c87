// Starts the daemon of a mount in a session of its own and waits until it serves. The options go through its
// stdin, exact to the byte; its command line names base, overlay and mount point for people and `ps`. It says
// one line on descriptor 3: it serves, or why not.
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { type MountOptions, READY_FD, type ReadyMessage } from '../control/mount-options.ts';
import { ensureRuntimeDir, runtimePaths } from '../control/registry.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { bytesOf, shown } from './paths.ts';

export interface Started {
  pid: number;
  notes: string[];
  /** Where the daemon's log goes, for a person. */
  log: string;
}

/**
 * MiB in which each thread keeps what is new to it. By default that grows to 16 and stays resident; what a daemon
 * makes is gone after one request. native-notes/performance.md, "Memory and start".
 */
const NODE_OPTIONS = ['--max-semi-space-size=1'];

export async function startDaemon(options: MountOptions): Promise<Started> {
  ensureRuntimeDir();
  const log = openLog(options);
  const main = path.join(import.meta.dirname, '..', 'main.js');
  const words = ['--base', options.bases.join(':'), '--overlay', options.overlay, options.mountPoint];
  const stdio: StdioOptions = ['pipe', log.target, log.target, 'pipe'];
  const args = [...NODE_OPTIONS, ...process.execArgv, main, 'daemon', ...words.map(utf8)];
  const child = spawn(process.execPath, args, {
    cwd: '/',
    env: environment(),
    detached: true,
    stdio,
  });
  log.close();
  const stop = () => child.kill('SIGTERM');
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    const stdin = child.stdin as Writable;
    // A daemon that dies at once leaves EPIPE here; the line that is missing on READY_FD says it better.
    stdin.on('error', () => stdin.destroy());
    stdin.end(JSON.stringify(options));
    const message = await readyMessage(child, log.name);
    if (!message.ready) throw new FsError(message.errno, message.message);
    return { pid: child.pid ?? 0, notes: message.notes, log: log.name };
  } finally {
    process.removeListener('SIGINT', stop);
    process.removeListener('SIGTERM', stop);
    child.unref();
  }
}

/** Ours, without certificates: Node reads them before anything else, for 40 ms, and a daemon has nobody to trust. */
function environment(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  return env;
}

/** For eyes only: bytes that are no UTF-8 become replacement characters. */
function utf8(text: string): string {
  return Buffer.from(text, 'latin1').toString('utf8');
}

async function readyMessage(child: ChildProcess, logName: string): Promise<ReadyMessage> {
  const pipe = child.stdio[READY_FD] as Readable;
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    child.once('exit', (code, signal) =>
      resolve(signal === null ? `ended with ${code}` : `was ended by ${signal}`),
    );
  });
  let text = '';
  for await (const chunk of pipe) {
    text += String(chunk);
    if (text.includes('\n')) break;
  }
  pipe.destroy();
  const line = text.split('\n')[0] ?? '';
  if (line !== '') return JSON.parse(line) as ReadyMessage;
  return { ready: false, errno: E.EIO, message: `daemon ${await ended} before it served: see ${logName}` };
}

interface LogTarget {
  target: number | Writable;
  name: string;
  close(): void;
}

/** --log FILE; else syslog, through logger(1), which ends with the daemon; else a file beside the socket. */
function openLog(options: MountOptions): LogTarget {
  if (options.log === null && fs.existsSync('/dev/log') && fs.existsSync('/usr/bin/logger')) {
    const tag = `kasane[${utf8(options.mountPoint)}]`;
    const logger = spawn('/usr/bin/logger', ['-t', tag, '-p', 'daemon.info'], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    logger.unref();
    return { target: logger.stdin, name: 'syslog', close: () => void logger.stdin.destroy() };
  }
  const file = options.log ?? runtimePaths(options.mountPoint).log;
  const fd = fs.openSync(bytesOf(file), 'a', 0o600);
  return { target: fd, name: shown(file), close: () => fs.closeSync(fd) };
}
