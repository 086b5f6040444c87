// Four groups, one after another: unit (pure), union (directory suites), e2e (real mounts, two files at a time: one
// leaves half of two cores idle), long (one at a time: some take ports, limits, or all of the machine).
// `--project NAME` picks; `npm test` runs the first three.
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

const patient = { hookTimeout: 120_000 };
const serial = { ...patient, fileParallelism: false, maxWorkers: 1 };
const paired = { ...patient, maxWorkers: 2 };

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
      group('unit', 0, { testTimeout: 120_000 }),
      group('union', 1, { ...serial, testTimeout: 120_000 }),
      group('e2e', 2, { ...paired, testTimeout: 120_000 }),
      group('long', 3, { ...serial, testTimeout: 1_200_000 }),
    ],
  },
});
