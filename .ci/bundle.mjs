// Joins the modules of dist/, and of the packages that are JavaScript alone, into few: Node takes about a millisecond to
// load one, and a mount loads five hundred. What comes out lies in dist/chunks/, and over the entries that tsc has made,
// which did the same. All other modules stay, for whoever imports one. A build without this step works as well, and
// starts later.
import { builtinModules } from 'node:module';
import * as path from 'node:path';
import { build } from 'rolldown';

const root = path.dirname(import.meta.dirname);
const entries = [
  'main',
  'daemon/serve-worker',
  'daemon/notifier-worker',
  'daemon/announcer-worker',
  'union/merge-worker',
];

/** They find what is compiled by their own place. */
const apart = ['koffi', 'fuse-native'];

/** LevelDB itself: from where `level` is, which alone is sure to have it. */
const BINDING = '\0classic-level-binding';
const levelBinding = {
  name: 'level-binding',
  resolveId: (id, importer) =>
    id === './binding' && importer?.includes('/node_modules/classic-level/') ? BINDING : null,
  load: (id) =>
    id === BINDING
      ? `import { createRequire } from 'node:module';
         const level = createRequire(import.meta.url).resolve('level');
         const binding = createRequire(level)('classic-level/binding.js');
         export { binding as 'module.exports' };`
      : null,
};

await build({
  cwd: root,
  input: Object.fromEntries(entries.map((entry) => [entry, path.join(root, 'src', `${entry}.ts`)])),
  platform: 'node',
  external: [...builtinModules, /^node:/, ...apart],
  plugins: [levelBinding],
  output: {
    dir: path.join(root, 'dist'),
    // As deep as the folders of src/: what is found from a file's own place is found from there, too.
    chunkFileNames: 'chunks/[name].js',
  },
});
