// The verbs of an overlay that is not mounted.
import { notThereYet } from '../control/protocol.ts';
import type { OpenOffline } from '../control/verbs.ts';

export const openOffline: OpenOffline = async () => {
  throw notThereYet('an overlay that is not mounted');
};
