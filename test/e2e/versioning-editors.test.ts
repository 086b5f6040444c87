// Editors and their like on real mounts, with updates of the base amidst their steps: see lib/editors.ts. The two
// updates that are hardest to notice; test/long has all.
import { editors, editorTest } from '../lib/editors.ts';

for (const name of Object.keys(editors)) editorTest(name, ['replace, same mtime', 'in place']);
