// All rules of conformance.ts. A rule has a name, `before` (what is there when the directory is made: in the
// base, where the rule is to be proven on what came from there) and `run`. Both get the context of
// child.mjs.
import { dataRules } from './data.mjs';
import { directoryRules } from './directories.mjs';
import { eventRules } from './events.mjs';
import { lockRules } from './locks.mjs';
import { longRules } from './long.mjs';
import { metadataRules } from './metadata.mjs';
import { nameRules } from './names.mjs';
import { randomRules } from './random.mjs';
import { rightsRules } from './rights.mjs';

export const ruleSets = {
  short: [
    ...nameRules,
    ...directoryRules,
    ...rightsRules,
    ...dataRules,
    ...lockRules,
    ...eventRules,
    ...randomRules,
    ...metadataRules,
  ],
  /** What takes minutes. */
  long: longRules,
};
