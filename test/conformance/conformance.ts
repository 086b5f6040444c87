// What POSIX and Linux promise of a directory, rule by rule: on any directory, so that a plain one proves that
// the rules are right, and one of a mount that they hold there.
import { spawn } from 'node:child_process';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tracked } from '../lib/cleanup.ts';
import { mainFile } from '../lib/kasane.ts';
import { type Needs, testNeeding } from '../lib/needs.ts';
import { ruleSets } from './rules.mjs';

export type RuleSet = 'short' | 'long';

/** Milliseconds for one rule. */
const limits = { short: 60_000, long: 600_000 };

/** Rules that FUSE lets nobody keep, with what their breach says. */
export const notByFuse: Readonly<Record<string, RegExp>> = {
  'fallocate takes ranges out and puts ranges in, and unshares where there is sharing': /EOPNOTSUPP/,
};

interface Child {
  call: (call: string, set: RuleSet, dir: string, rule?: string) => Promise<void>;
  stop: () => Promise<void>;
}

/** `enter`: a command that runs another one somewhere else, or as somebody else. */
function startChild(enter: readonly string[] = []): Child {
  const file = path.join(import.meta.dirname, 'child.mjs');
  const [command = '', ...args] = [...enter, process.execPath, file, path.dirname(mainFile)];
  const child = spawn(command, args, {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let answered: ((error: Error | null) => void) | null = null;
  readline.createInterface({ input: child.stdout }).on('line', (line) => {
    const { error } = JSON.parse(line) as { error?: string };
    answered?.(error === undefined ? null : new Error(error));
  });
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => {
      answered?.(new Error('the child has ended'));
      resolve();
    });
  });
  const call = (name: string, set: RuleSet, dir: string, rule?: string) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new Error(`${rule ?? name} did not return within ${limits[set]} ms`));
      }, limits[set]);
      answered = (error) => {
        clearTimeout(timer);
        answered = null;
        if (error === null) resolve();
        else reject(error);
      };
      child.stdin.write(`${JSON.stringify({ call: name, set, dir, rule })}\n`);
    });
  const stop = tracked(async () => {
    child.kill('SIGKILL');
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 2000))]);
  });
  return { call, stop };
}

async function once(call: string, set: RuleSet, dir: string, enter: readonly string[] = []): Promise<void> {
  const child = startChild(enter);
  try {
    await child.call(call, set, dir);
  } finally {
    await child.stop();
  }
}

/** Makes in a directory what the rules find there. */
export function populate(dir: string, set: RuleSet = 'short', enter: readonly string[] = []): Promise<void> {
  return once('populate', set, dir, enter);
}

/** Has everything beneath a union's directory copied up. */
export function copyUpAll(dir: string, enter: readonly string[] = []): Promise<void> {
  return once('touchAll', 'long', dir, enter);
}

/** The short rules that do not hold in a populated directory for who is entered as, with what went wrong. */
export async function failing(dir: string, enter: readonly string[]): Promise<Map<string, string>> {
  const failed = new Map<string, string>();
  const child = startChild(enter);
  try {
    for (const { name } of ruleSets.short as { name: string }[]) {
      await child.call('rule', 'short', dir, name).catch((error: Error) => failed.set(name, error.message));
    }
  } finally {
    await child.stop();
  }
  return failed;
}

/**
 * A test for each rule, in the populated directory that `makeDirectory` gives. Needs root. `broken`: rules that are
 * known not to hold there, with what their breach says.
 */
export function conformance(
  name: string,
  makeDirectory: () => Promise<string> | string,
  needs: Needs = {},
  set: RuleSet = 'short',
  broken: Readonly<Record<string, RegExp>> = {},
): void {
  describe(name, () => {
    let child: Child;
    let dir: string;
    beforeAll(async () => {
      dir = await makeDirectory();
      child = startChild();
    });
    afterAll(() => child?.stop());
    for (const { name: rule } of ruleSets[set] as { name: string }[]) {
      const breach = broken[rule];
      const body = async () => {
        const done = child.call('rule', set, dir, rule);
        if (breach === undefined) await done;
        else await expect(done).rejects.toThrow(breach);
      };
      const title = breach === undefined ? rule : `does not hold: ${rule}`;
      testNeeding({ root: true, ...needs }, title, body, limits[set] + 5000);
    }
    const names = (ruleSets[set] as { name: string }[]).map((rule) => rule.name);
    test('rules that are known not to hold are rules', () => {
      expect(Object.keys(broken).filter((rule) => !names.includes(rule))).toEqual([]);
    });
  });
}
