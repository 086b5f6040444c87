// Once per run, before any test: what all of them need. Control files of hung connections live in fusectl.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { mountAt } from './lib/mounts.ts';

const CONNECTIONS = '/sys/fs/fuse/connections';

export default function setup(): void {
  const root = process.getuid?.() === 0;
  if (!root || !fs.existsSync(CONNECTIONS) || mountAt(CONNECTIONS) !== null) return;
  spawnSync('mount', ['-t', 'fusectl', 'fusectl', CONNECTIONS], { timeout: 10_000 });
}
