// Differences between sides for a person, in unified form. diff(1) computes them: it is essential on Debian,
// and its output is what people and tools know.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { DiffItem, DiffSide } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { shown } from './paths.ts';

type SideName = 'ancestor' | 'overlay' | 'base';

/** From one side of an object to another: metadata line by line, then the content. Empty if nothing differs. */
export async function sideDiff(item: DiffItem, from: SideName, to: SideName): Promise<Buffer> {
  const a = item[from];
  const b = item[to];
  const name = shown(item.path);
  const head: string[] = [];
  if (a.type !== b.type) head.push(`type ${from} ${a.type}, ${to} ${b.type}`);
  else {
    if (a.mode !== b.mode) head.push(`mode ${from} ${octal(a.mode)}, ${to} ${octal(b.mode)}`);
    if (a.uid !== b.uid) head.push(`uid ${from} ${a.uid}, ${to} ${b.uid}`);
    if (a.gid !== b.gid) head.push(`gid ${from} ${a.gid}, ${to} ${b.gid}`);
  }
  let body: Buffer = Buffer.alloc(0);
  if (a.type === 'symlink' || b.type === 'symlink') {
    if (a.target !== b.target) head.push(`target ${from} ${target(a)}, ${to} ${target(b)}`);
  } else if (a.type === 'file' || b.type === 'file') {
    const binary = isBinary(a) || isBinary(b);
    if (binary && !(a.hash === b.hash && a.hash !== null))
      head.push(
        a.unkept || b.unkept
          ? `content ${a.hash === null || b.hash === null ? 'may differ' : 'differs'}: the ancestor’s is not kept`
          : `binary content differs: ${a.size}, ${b.size} bytes`,
      );
    if (!binary) body = await unified(bytes(a), bytes(b), `${from}/${name}`, `${to}/${name}`);
  }
  if (head.length === 0 && body.length === 0) return body;
  return Buffer.concat([Buffer.from([`# ${name}`, ...head.map((line) => `# ${line}`), ''].join('\n')), body]);
}

function isBinary(side: DiffSide): boolean {
  return side.type === 'file' && side.content === null;
}

function bytes(side: DiffSide): Buffer {
  return Buffer.from(side.content ?? '', 'base64');
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

function target(side: DiffSide): string {
  return side.target === null ? '-' : shown(side.target);
}

/** Output of `diff -u`; empty where the bytes are equal. */
async function unified(a: Buffer, b: Buffer, labelA: string, labelB: string): Promise<Buffer> {
  if (a.equals(b)) return Buffer.alloc(0);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kasane-diff-'));
  try {
    const files = [path.join(dir, 'a'), path.join(dir, 'b')] as const;
    fs.writeFileSync(files[0], a, { mode: 0o600 });
    fs.writeFileSync(files[1], b, { mode: 0o600 });
    const args = ['-u', '--text', '--label', labelA, '--label', labelB, '--', ...files];
    return await new Promise((resolve, reject) => {
      execFile('diff', args, { encoding: 'buffer', maxBuffer: 256 * 1024 * 1024 }, (error, stdout) => {
        const code = (error as { code?: unknown } | null)?.code ?? 0;
        if (code === 0 || code === 1) resolve(stdout);
        else if (code === 'ENOENT')
          reject(new FsError(E.EOPNOTSUPP, 'diff is not installed: install diffutils'));
        else reject(error);
      });
    });
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
