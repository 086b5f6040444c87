// What the demonstration (demo.ts) plays on: a temporary folder with a copy of /etc, two mounts, and a way to
// run commands on them. It uses the command line as a user does, and reaches the mounts through child
// processes with a time limit only. Whatever happens, close() leaves nothing mounted.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

/** What a user starts as `kasane`. */
export const mainFile = path.join(import.meta.dirname, '..', 'main.js');
const OVERLAYFS_MAGIC = 0x794c7630;

/** What the user sees is not what was promised; the message says what. */
export class Broken extends Error {}

export interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

export function say(text = ''): void {
  fs.writeSync(1, `${text}\n`);
}

/** A child with a time limit. Ctrl-C at the terminal does not reach it: it has a process group of its own. */
function run(command: string, args: readonly string[], seconds = 30): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/', detached: true });
    let out = '';
    let err = '';
    const end = (code: number | null) => {
      clearTimeout(timer);
      clearTimeout(last);
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      resolve({ code, out, err });
    };
    let last: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      err += `${command} did not end within ${seconds} s`;
      child.kill('SIGKILL');
      last = setTimeout(() => end(null), 1000);
    }, seconds * 1000);
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
    child.on('error', reject);
    child.on('close', end);
  });
}

export class Stage {
  readonly dir: string;
  readonly base: string;
  #steps = 0;
  #stoppedBy: string | null = null;

  constructor() {
    this.dir = fs.mkdtempSync(path.join(temporaryFolder(), 'kasane-demo-'));
    this.base = path.join(this.dir, 'base');
    fs.mkdirSync(this.base);
  }

  mnt(guest: string, ...names: string[]): string {
    return path.join(this.dir, guest, ...names);
  }

  overlay(guest: string): string {
    return path.join(this.dir, `${guest}.overlay`);
  }

  /** Long names of folders made short, as in the commands shown. */
  short(text: string): string {
    return text.replaceAll(`${this.dir}/`, '');
  }

  /** The next command is not started any more; the one that runs comes to its end. */
  stop(why: string): void {
    this.#stoppedBy ??= why;
  }

  get stoppedBy(): string | null {
    return this.#stoppedBy;
  }

  step(title: string): void {
    this.#steps += 1;
    say(`\n${this.#steps}. ${title}`);
  }

  promise(kept: boolean, text: string): void {
    if (!kept) throw new Broken(`this was promised, and is not so: ${text}`);
    say(`   ✓ ${text}`);
  }

  /** Its output; Broken with what it said unless it ends with one of `codes`. */
  async must(command: string, args: readonly string[], codes: readonly number[] = [0]): Promise<string> {
    if (this.#stoppedBy !== null) throw new Broken(`stopped by ${this.#stoppedBy}`);
    const { code, out, err } = await run(command, args, 60);
    if (code !== null && codes.includes(code)) return out;
    const said = (err.trim() || out.trim()).replaceAll('\n', '; ');
    throw new Broken(`"${quoted([command, ...args])}" ended with ${code ?? 'a time-out'}: ${said}`);
  }

  read(file: string): Promise<string> {
    return this.must('cat', [file]);
  }

  /** Shows the command as a user types it, runs it, shows what it printed. */
  kasane(args: readonly string[], codes?: readonly number[]): Promise<string> {
    const work = () => this.must(process.execPath, [mainFile, ...args], codes);
    return this.#show(quoted(['kasane', ...args]), work);
  }

  shown(command: string, args: readonly string[]): Promise<string> {
    return this.#show(quoted([command, ...args]), () => this.must(command, args));
  }

  async #show(line: string, work: () => Promise<string>): Promise<string> {
    say(`   $ ${this.short(line)}`);
    const out = await work();
    if (out.trim() !== '') say(indent(this.short(out)));
    return out;
  }

  /** Names, types, modes, owners, mtimes and contents of a tree: to prove that nobody wrote to it. */
  fingerprint(dir: string): Promise<string> {
    const script =
      'cd "$1" && { find . -printf "%p %y %m %U %G %T@ %l\\n" | sort; ' +
      'find . -type f -print0 | sort -z | xargs -0 -r sha256sum; } | sha256sum';
    return this.must('sh', ['-c', script, 'sh', dir]);
  }

  /** Puts a new file over the old one as dpkg does: NAME.dpkg-new, owner, mode, mtime, sync, rename. */
  async replaceAsDpkg(file: string, content: string, keepMtime: boolean): Promise<void> {
    const old = fs.statSync(file);
    const temporary = `${file}.dpkg-new`;
    const fd = fs.openSync(temporary, 'wx', 0o600);
    try {
      fs.writeSync(fd, content);
      fs.fchownSync(fd, old.uid, old.gid);
      fs.fchmodSync(fd, old.mode & 0o7777);
      if (keepMtime) await this.must('touch', ['-r', file, temporary]);
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(temporary, file);
  }

  /** Reads again until it is right: OPEN waits for a merge with a limit, and a machine may be slow. */
  async eventually(file: string, right: (seen: string) => boolean): Promise<string> {
    const end = Date.now() + 20_000;
    for (;;) {
      const seen = await this.read(file);
      if (right(seen) || Date.now() > end) return seen;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Kasane's own umount, then the system's, then a detach; the folder goes only when nothing is mounted in it. */
  async close(): Promise<void> {
    const mounted = () => mountedBeneath(this.dir);
    for (const point of mounted()) await run(process.execPath, [mainFile, 'umount', point]);
    for (const point of mounted()) await run('umount', [point]);
    for (const point of mounted()) await run('umount', ['-l', point]);
    if (mounted().length > 0) throw new Broken(`${mounted().join(', ')} could not be unmounted`);
    fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Whiteouts need a file system that is not itself an overlay (as /tmp is in a container). */
function temporaryFolder(): string {
  const usual = os.tmpdir();
  const layered = fs.statfsSync(usual).type === OVERLAYFS_MAGIC;
  return layered && fs.existsSync('/dev/shm') ? '/dev/shm' : usual;
}

function quoted(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`)).join(' ');
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `      ${line}`)
    .join('\n');
}

function mountedBeneath(dir: string): string[] {
  const lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.map((line) => line.split(' ')[4] ?? '').filter((point) => point.startsWith(`${dir}/`));
}
