// Merges one text, away from the threads that have others to answer, and says what came of it.
import { parentPort, workerData } from 'node:worker_threads';
import { mergeText } from '../merge/index.ts';

export interface MergeInput {
  ancestor: Uint8Array;
  overlay: Uint8Array;
  base: Uint8Array;
}

const { ancestor, overlay, base } = workerData as MergeInput;
parentPort?.postMessage(mergeText(ancestor, overlay, base));
