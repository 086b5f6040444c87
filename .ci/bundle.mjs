// Joins the modules of dist/ into few: Node takes about a millisecond to load one, and a mount loads four hundred.
// What comes out lies in dist/chunks/, and over the entries that tsc has made, which did the same. All other modules
// stay, for whoever imports one; packages are not joined. A build without this step works as well, and starts later.
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

await build({
  cwd: root,
  input: Object.fromEntries(entries.map((entry) => [entry, path.join(root, 'src', `${entry}.ts`)])),
  platform: 'node',
  external: (id) => !id.startsWith('.') && !path.isAbsolute(id),
  output: {
    dir: path.join(root, 'dist'),
    // As deep as the folders of src/: what is found from a file's own place is found from there, too.
    chunkFileNames: 'chunks/[name].js',
  },
});
