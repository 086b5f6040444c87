// Four groups, one after another: unit (pure), union (directory suites), e2e (real mounts, one file at a
// time), long. `--project NAME` picks; `npm test` runs the first three.
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

function group(name, order, more) {
  return {
    extends: true,
    test: {
      name,
      include: [`test/${name}/**/*.test.ts`],
      sequence: { groupOrder: order },
      setupFiles: ['test/setup.ts'],
      ...more,
    },
  };
}

const serial = { fileParallelism: false, maxWorkers: 1, hookTimeout: 120_000 };

export default defineConfig({
  root,
  cacheDir: path.join(root, 'node_modules', '.vite'),
  test: {
    pool: 'forks',
    globalSetup: ['test/setup-global.ts'],
    reporters: ['default', path.join(root, '.ci', 'tally.mjs')],
    passWithNoTests: true,
    allowOnly: false,
    teardownTimeout: 30_000,
    projects: [
      group('unit', 0, { testTimeout: 30_000 }),
      group('union', 1, { ...serial, testTimeout: 120_000 }),
      group('e2e', 2, { ...serial, testTimeout: 120_000 }),
      group('long', 3, { ...serial, testTimeout: 1_200_000 }),
    ],
  },
});
