// All rules of conformance.ts. A rule has a name, `before` (what is there when the directory is made: in the
// base, where the rule is to be proven on what came from there) and `run`. Both get the context of
// conformance-child.mjs.
import { dataRules } from './conformance-data.mjs';
import { directoryRules } from './conformance-directories.mjs';
import { longRules } from './conformance-long.mjs';
import { metadataRules } from './conformance-metadata.mjs';
import { nameRules } from './conformance-names.mjs';
import { randomRules } from './conformance-random.mjs';
import { rightsRules } from './conformance-rights.mjs';

export const ruleSets = {
  short: [...nameRules, ...directoryRules, ...rightsRules, ...dataRules, ...randomRules, ...metadataRules],
  /** What takes minutes. */
  long: longRules,
};
