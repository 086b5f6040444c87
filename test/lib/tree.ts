// A tree as plain data, read by a child process: to prove that a base was not touched, and that two trees are
// the same. Names are latin1 strings, as inside Kasane.
import { createHash } from 'node:crypto';
import * as path from 'node:path';
import { parentPath } from '../../src/lib/names.ts';
import { hasCommand } from './needs.ts';
import { runOk } from './run.ts';

export interface TreeEntry {
  path: string;
  type: 'file' | 'dir' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket';
  /** Octal permission bits. */
  mode: string;
  uid: number;
  gid: number;
  /** Nanoseconds. */
  mtime: string;
  nlink: number;
  ino: string;
  /** name=0xhex, sorted; empty without the program getfattr. */
  xattrs: string[];
  rdev?: number;
  target?: string;
  size?: number;
  /** SHA-256, hex. */
  content?: string;
}

export type Tree = Map<string, TreeEntry>;

export async function readTree(
  dir: string,
  options: { contents?: boolean; timeout?: number } = {},
): Promise<Tree> {
  const child = path.join(import.meta.dirname, 'tree-child.mjs');
  const wants = { contents: options.contents ?? true, xattrs: hasCommand('getfattr') };
  const args = [child, dir, JSON.stringify(wants)];
  const lines = await runOk(process.execPath, args, { timeout: options.timeout ?? 300_000 });
  const entries = lines
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as TreeEntry);
  return new Map(entries.map((entry) => [entry.path, entry]));
}

export interface Compare {
  /** Whole subtrees that do not count, such as '.kasane'. */
  ignore?: readonly string[];
  /** Default: true. Never for directories if 'files'. */
  mtime?: boolean | 'files';
  /** Default: false, for trees that are not the same one. */
  ino?: boolean;
  /** Default: true, never for directories (file systems count differently). */
  nlink?: boolean;
  /** Xattrs that do not count. */
  ignoreXattrs?: RegExp;
}

function comparable(entry: TreeEntry, compare: Compare): string {
  const { ino, nlink, mtime, xattrs, ...rest } = entry;
  const dir = entry.type === 'dir';
  const kept = xattrs.filter((line) => !compare.ignoreXattrs?.test(line));
  return JSON.stringify({
    ...rest,
    xattrs: kept,
    ...(compare.ino ? { ino } : {}),
    ...(compare.nlink === false || dir ? {} : { nlink }),
    ...(compare.mtime === false || (dir && compare.mtime === 'files') ? {} : { mtime }),
  });
}

function ignored(name: string, compare: Compare): boolean {
  return (compare.ignore ?? []).some((top) => name === top || name.startsWith(`${top}/`));
}

/** One line for each difference, none if the trees are the same. */
export function diffTrees(left: Tree, right: Tree, compare: Compare = {}): string[] {
  const found: string[] = [];
  for (const name of [...new Set([...left.keys(), ...right.keys()])].sort()) {
    if (ignored(name, compare)) continue;
    const a = left.get(name);
    const b = right.get(name);
    const was = a === undefined ? 'absent' : comparable(a, compare);
    const is = b === undefined ? 'absent' : comparable(b, compare);
    if (was !== is) found.push(`${name || '.'}: ${was} / ${is}`);
  }
  return found;
}

/** Of all directories of a tree: those whose links are not two and one for each in them, nor 1 where that `mayBeOne`. */
export function wrongLinks(
  directories: readonly Pick<TreeEntry, 'path' | 'nlink'>[],
  mayBeOne: (path: string) => boolean = () => false,
): string[] {
  const counts = new Map(directories.map(({ path: name }) => [name, 2]));
  for (const { path: name } of directories) {
    if (name !== '') counts.set(parentPath(name), (counts.get(parentPath(name)) ?? 0) + 1);
  }
  return directories
    .filter(({ path: name, nlink }) => nlink !== counts.get(name) && !(nlink === 1 && mayBeOne(name)))
    .map(({ path: name, nlink }) => `${name || '.'}: ${nlink}, not ${counts.get(name)}`);
}

/** A hash over names, types, modes, owners, mtimes, inode numbers, xattrs and contents. */
export async function hashTree(dir: string, compare: Compare = {}): Promise<string> {
  const tree = await readTree(dir);
  const hash = createHash('sha256');
  for (const name of [...tree.keys()].sort()) {
    if (!ignored(name, compare))
      hash.update(comparable(tree.get(name) as TreeEntry, { ino: true, ...compare }));
  }
  return hash.digest('hex');
}

/** Runs `body` and proves that it left the base as it was (the test itself may update it inside `update`). */
export async function withBaseUntouched<T>(base: string, body: () => Promise<T>): Promise<T> {
  const before = await readTree(base);
  const result = await body();
  const changes = diffTrees(before, await readTree(base), { ino: true });
  if (changes.length > 0) throw new Error(`the base was written to:\n${changes.join('\n')}`);
  return result;
}
