// What a test needs of the machine. Without it the test is skipped with the reason; in CI it fails, but for what nobody
// could install.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { type TestContext, test } from 'vitest';

export interface Needs {
  root?: boolean;
  fuse?: boolean;
  /** Programs on the PATH. */
  commands?: readonly string[];
  /** Names as in /proc/filesystems. */
  filesystems?: readonly string[];
  loop?: boolean;
  /** Why it cannot be on this machine, whatever is installed; null: it can. Then it is skipped in CI, too. */
  barred?: () => string | null;
}

const inCi = process.env.CI !== undefined && process.env.CI !== '' && process.env.CI !== 'false';

/** What is missing, as a reason for a person; null if nothing is. */
export function missing(needs: Needs): string | null {
  const lacks: string[] = [];
  if (needs.root && process.getuid?.() !== 0) lacks.push('root');
  if (needs.fuse && !fs.existsSync('/dev/fuse')) lacks.push('/dev/fuse');
  if (needs.loop && !fs.existsSync('/dev/loop-control')) lacks.push('/dev/loop-control');
  for (const command of needs.commands ?? []) if (!hasCommand(command)) lacks.push(`the program ${command}`);
  for (const name of needs.filesystems ?? []) if (!hasFilesystem(name)) lacks.push(`the file system ${name}`);
  return lacks.length === 0 ? null : `needs ${lacks.join(', ')}`;
}

export function hasCommand(name: string): boolean {
  const dirs = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
  return dirs.some((dir) => dir !== '' && fs.existsSync(`${dir}/${name}`));
}

function hasFilesystem(name: string): boolean {
  const known = () => new RegExp(`\\t${name}$`, 'm').test(fs.readFileSync('/proc/filesystems', 'utf8'));
  if (known()) return true;
  if (process.getuid?.() === 0) spawnSync('modprobe', ['-q', name], { timeout: 10_000 });
  return known();
}

/** A test that is skipped with the reason, or fails in CI, where something is missing. */
export function testNeeding(
  needs: Needs,
  name: string,
  body: (context: TestContext) => Promise<void> | void,
  timeout?: number,
): void {
  test(
    name,
    async (context) => {
      const lack = missing(needs);
      if (lack !== null && inCi) throw new Error(`in CI a missing prerequisite is a failure: ${lack}`);
      if (lack !== null) context.skip(lack);
      const bar = needs.barred?.() ?? null;
      // .ci/tally.mjs knows these words.
      if (bar !== null) context.skip(`cannot be on this machine: ${bar}`);
      await body(context);
    },
    timeout,
  );
}

/** A test on a real mount. */
export function mountTest(
  name: string,
  body: (context: TestContext) => Promise<void> | void,
  options: Needs & { timeout?: number } = {},
): void {
  const { timeout, ...needs } = options;
  testNeeding({ root: true, fuse: true, ...needs }, name, body, timeout ?? 120_000);
}
