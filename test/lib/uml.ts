// User Mode Linux: a guest's kernel without virtualization. Its root is a directory of the host's (hostfs).
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import type { Duplex } from 'node:stream';
import { tracked } from './cleanup.ts';
import { waitUntil } from './run.ts';

export interface Uml {
  /** What it has written to its console so far. */
  console: () => string;
  isOver: () => boolean;
  /** Resolves when it has shut down. */
  ended: Promise<void>;
  /** Descriptor 3 of the kernel. */
  line: Duplex;
  stop: () => Promise<void>;
}

/** The kernel's command line. */
function wordsFor(root: string, id: string, words: readonly string[]): string[] {
  const first = ['root=/dev/root', 'rootfstype=hostfs', `rootflags=${root}`, `umid=${id}`];
  return [...first, ...words, 'con=null', 'con0=null,fd:1', 'quiet'];
}

let barred: string | null | undefined;

/**
 * Kernels before 6.13 have room for so many registers of a process, and AMX has more: there the first process of a guest
 * cannot be started. One that ends at once is tried, once.
 */
export function umlBarred(): string | null {
  if (barred !== undefined) return barred;
  const args = wordsFor('/', `kasane-probe-${process.pid}`, ['ro', 'init=/bin/true', 'mem=64M']);
  const { stdout } = spawnSync('linux.uml', args, { input: '', encoding: 'latin1', timeout: 30_000 });
  const lacksRoom = (stdout ?? '').includes('set fp regs failed');
  barred = lacksRoom ? 'this User Mode Linux has no room for the registers of this processor' : null;
  return barred;
}

/** Boots, with these words for the kernel besides. Taken down at the end of the test file at the latest. */
export function startUml(root: string, id: string, words: readonly string[]): Uml {
  const child: ChildProcess = spawn('linux.uml', wordsFor(root, id, words), {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    // A group of its own: its helper processes end with it.
    detached: true,
  });
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  child.stderr?.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  const line = child.stdio[3] as Duplex;
  // The end of the guest is the end of the line.
  line.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') throw error;
  });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const isOver = () => child.exitCode !== null || child.signalCode !== null;
  const stop = tracked(async () => {
    if (!isOver() && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    await ended;
  });
  return { console: () => text, isOver, ended, line, stop };
}

export interface Shell {
  /** A bash script with `set -euo pipefail`; its output. Anything but exit code 0 rejects with what it said. */
  sh: (script: string, args?: readonly string[]) => Promise<string>;
}

/** What runs as the first process: one script a line, as base64; a line of the answer has its exit code and output. */
const init = `#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /run/kernel/lib
ln -s /usr/lib/uml/modules /run/kernel/lib/modules
ip link set lo up
exec 8<>/dev/ttyS0
stty raw -echo <&8
cd /run
echo ready >&8
while read -r line <&8; do
  base64 -d <<< "$line" > /run/script
  bash -euo pipefail /run/script > /run/output 2>&1 < /dev/null 8>&-
  echo "$? $(base64 -w0 /run/output)" >&8
done
`;

/**
 * A guest for the time of `body` that is this machine with another kernel: the root is the host's, read-only, and what
 * is written lies in memory (/run), or on `disks`, images that it has as /dev/ubda, /dev/ubdb and so on.
 */
export async function withHostGuest<T>(
  dir: string,
  disks: readonly string[],
  body: (guest: Shell) => Promise<T>,
): Promise<T> {
  fs.writeFileSync(`${dir}/init`, init, { mode: 0o755 });
  const words = ['mem=512M', 'ro', `init=${dir}/init`, `uml_dir=${dir}`, 'ssl0=fd:3'];
  const uml = startUml('/', 'guest', [...words, ...disks.map((file, i) => `ubd${i}=${file}`)]);
  try {
    return await body({ sh: talk(uml) });
  } catch (error) {
    if (error instanceof Error) error.message += `\n--- console\n${uml.console().slice(-3000)}`;
    throw error;
  } finally {
    await uml.stop();
  }
}

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

function talk({ line, isOver }: Uml): Shell['sh'] {
  let heard = '';
  line.on('data', (chunk: Buffer) => (heard += chunk.toString('latin1')));
  const nextLine = async (): Promise<string> => {
    await waitUntil(() => heard.includes('\n') || isOver(), 240_000);
    const end = heard.indexOf('\n');
    if (end < 0) throw new Error('the guest does not answer');
    const said = heard.slice(0, end);
    heard = heard.slice(end + 1);
    return said;
  };
  let isReady = false;
  return async (script, args = []) => {
    if (!isReady) await nextLine();
    isReady = true;
    const whole = `set -- ${args.map(quoted).join(' ')}\n${script}\n`;
    line.write(`${Buffer.from(whole).toString('base64')}\n`);
    const [code, output = ''] = (await nextLine()).split(' ');
    const text = Buffer.from(output, 'base64').toString();
    if (code !== '0') throw new Error(`${script}\nended with ${code}: ${text}`);
    return text;
  };
}
