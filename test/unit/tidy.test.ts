// Keeps the shape of the code by machine, with plain text scanning. When it complains, split or move the
// code: the limits are not to be raised.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  cyclesIn,
  emptyCatches,
  functionLengths,
  importsOf,
  layerOf,
  layers,
  skipsWithoutReason,
  withoutComments,
} from '../lib/scan.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const read = (file: string) => fs.readFileSync(path.join(root, file), 'utf8');

function tracked(): string[] {
  const git = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
  });
  if (git.status !== 0) return listed('').filter((file) => !/^(node_modules|dist|\.git)\//.test(file));
  const names = git.stdout.toString().split('\0');
  return names.filter((file) => file !== '' && fs.existsSync(path.join(root, file)));
}

/** For a copy without git. */
function listed(dir: string): string[] {
  const entries = fs.readdirSync(path.join(root, dir), { withFileTypes: true });
  return entries.flatMap((entry) => {
    const name = path.posix.join(dir, entry.name);
    if (!entry.isDirectory()) return [name];
    return ['node_modules', 'dist', '.git'].includes(name) ? [] : listed(name);
  });
}

const files = tracked();
const sources = files.filter((file) => file.startsWith('src/') && file.endsWith('.ts'));
const code = files.filter((file) => /^(src|test|bench|\.ci)\/.*\.(ts|mjs)$/.test(file));
const graph = new Map(sources.map((file) => [file, importsOf(file, read(file))]));

describe('layers', () => {
  test('every source lies in a layer, and imports files that exist', () => {
    const wrong = sources.filter((file) => layerOf(file) === null);
    for (const [file, imports] of graph) {
      for (const target of imports) if (!graph.has(target)) wrong.push(`${file} -> ${target}`);
    }
    expect(wrong).toEqual([]);
  });

  test('imports go downward only, and siblings never import each other', () => {
    const wrong: string[] = [];
    for (const [file, imports] of graph) {
      for (const target of imports) {
        const from = layerOf(file);
        const to = layerOf(target);
        if (from === null || to === null || from.folder === to.folder) continue;
        if (to.rank >= from.rank) wrong.push(`${file} -> ${target}`);
      }
    }
    expect(wrong, `lowest first: ${layers.map((group) => group.join(' ')).join(' < ')}`).toEqual([]);
  });

  test('no import is part of a cycle', () => {
    expect(cyclesIn(graph)).toEqual([]);
  });

  test('nobody outside sys/ calls foreign functions', () => {
    const wrong = sources.filter((file) => !file.startsWith('src/sys/') && /['"]koffi['"]/.test(read(file)));
    expect(wrong).toEqual([]);
  });
});

describe('files', () => {
  test('every source can be reached from a command, a script or an export of the package', () => {
    const manifest = JSON.parse(read('package.json')) as Record<string, unknown>;
    const named = JSON.stringify([manifest.bin, manifest.exports, manifest.scripts]).matchAll(
      /dist\/([\w/-]+)\.js/g,
    );
    const open = [...named].map((match) => `src/${match[1]}.ts`);
    const reached = new Set<string>();
    for (let file = open.pop(); file !== undefined; file = open.pop()) {
      if (reached.has(file)) continue;
      reached.add(file);
      open.push(...(graph.get(file) ?? []));
    }
    expect(sources.filter((file) => !reached.has(file))).toEqual([]);
  });

  test('no file has more than 600 lines', () => {
    const long = code.map((file) => `${file}: ${read(file).split('\n').length - 1}`);
    expect(long.filter((line) => Number(line.split(': ')[1]) > 600)).toEqual([]);
  });

  test('no function has more than 80 lines', () => {
    const long = sources.flatMap((file) =>
      functionLengths(read(file))
        .filter((found) => found.lines > 80)
        .map((found) => `${file}:${found.line} ${found.name}: ${found.lines}`),
    );
    expect(long).toEqual([]);
  });

  test('every source says at its head what it is for', () => {
    const bare = sources.filter((file) => !/^(#!.*\n)?\/[/*]/.test(read(file)));
    expect(bare).toEqual([]);
  });

  test('the top level holds what it is to hold', () => {
    const allowed = new Set(
      'package.json package-lock.json tsconfig.json src native-notes test bench README.md LICENSE'.split(' '),
    );
    const top = new Set(files.map((file) => file.split('/')[0] as string));
    expect([...top].filter((name) => !name.startsWith('.') && !allowed.has(name))).toEqual([]);
  });

  test('the lock file names no registry, and is not behind package.json', () => {
    const lock = JSON.parse(read('package-lock.json')) as {
      packages: Record<string, Record<string, unknown>>;
    };
    expect(Object.entries(lock.packages).filter(([, entry]) => 'resolved' in entry)).toEqual([]);
    const manifest = JSON.parse(read('package.json')) as Record<string, unknown>;
    for (const kind of ['dependencies', 'optionalDependencies', 'devDependencies']) {
      expect(lock.packages['']?.[kind]).toEqual(manifest[kind]);
    }
  });
});

describe('habits', () => {
  test('no catch is empty, and no promise is silenced', () => {
    const found = code.flatMap((file) => emptyCatches(read(file)).map((line) => `${file}:${line}`));
    expect(found).toEqual([]);
  });

  test('no test is skipped, focused or put off', () => {
    const tests = files.filter((file) => file.endsWith('.test.ts'));
    const found = tests.flatMap((file) => skipsWithoutReason(read(file)).map((line) => `${file}:${line}`));
    expect(found, 'testNeeding skips with a reason').toEqual([]);
  });

  test('no test file lies outside the four groups', () => {
    const stray = files.filter(
      (file) => /\.test\.\w+$/.test(file) && !/^test\/(unit|union|e2e|long)\//.test(file),
    );
    expect(stray).toEqual([]);
  });

  test('no enum, namespace, decorator or default export', () => {
    const banned = /^\s*(export )?(const )?(enum|namespace) |^export default |^\s*@\w+\(/m;
    expect(sources.filter((file) => banned.test(withoutComments(read(file))))).toEqual([]);
  });
});

describe('the scan itself', () => {
  test('finds imports, exports from, workers and dynamic imports, but not types of packages', () => {
    const text = [
      "import { a } from './a.ts';",
      "import type { B } from '../lib/b.ts';",
      "export { c } from './c.ts';",
      "import {\n  d,\n} from './d.ts';",
      "new Worker(new URL('./worker.js', import.meta.url));",
      "await import('./lazy.ts');",
      "import * as fs from 'node:fs';",
      "// import { x } from './x.ts';",
    ].join('\n');
    const found = importsOf('src/cli/main.ts', text).map((file) => file.replace('src/', ''));
    expect(found).toEqual(['cli/a.ts', 'lib/b.ts', 'cli/c.ts', 'cli/d.ts', 'cli/worker.ts', 'cli/lazy.ts']);
  });

  test('finds cycles, empty catches, skips and long functions', () => {
    const cyclic = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['b']],
      ['d', ['a']],
    ]);
    expect(cyclesIn(cyclic)).toEqual(['b -> c -> b']);
    expect(emptyCatches('try {\n} catch {\n}\nx.catch(() => {});\ncatch (e) { // why\n}')).toEqual([2, 4, 5]);
    expect(emptyCatches('try {\n} catch (e) {\n  report(e);\n}')).toEqual([]);
    expect(skipsWithoutReason("test.skip('a');\nit.only('b');\ndescribe.todo('c');\ntest('d');")).toEqual([
      1, 2, 3,
    ]);
    const text =
      "function a() {\n  const s = '}';\n  if (s) {\n  }\n}\nexport async function b(\n  x,\n) {\n}\n";
    expect(functionLengths(text)).toEqual([
      { name: 'a', line: 1, lines: 5 },
      { name: 'b', line: 6, lines: 4 },
    ]);
  });
});
