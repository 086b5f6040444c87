// Editors and their like on real mounts, with every kind of update of the base amidst their steps: see
// lib/editors.ts.
import { editors, editorTest } from '../lib/editors.ts';
import { updateKinds } from '../lib/versioning.ts';

for (const name of Object.keys(editors)) editorTest(name, updateKinds);
