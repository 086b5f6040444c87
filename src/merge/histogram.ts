// Histogram diff (from JGit, where it extends patience diff): hold on to the longest common run of lines
// whose rarest line is as rare as can be in the old file, then do the same on either side of it. Regions whose
// common lines are all frequent, and everything left once the work allowed is used up, go to Myers' algorithm.
import { type Marks, markAll, type Region } from './marks.ts';
import { markByMyers } from './myers.ts';
import { newScratch, type Scratch } from './sift.ts';

/** A line more frequent than this in the old part of a region is nothing to hold on to. */
const MOST_OCCURRENCES = 64;
/** Work allowed: steps for each line of the two files, beside a free share that small files never use up. */
const STEPS_PER_LINE = 8;
const FREE_STEPS = 1_000_000;

interface Index {
  oldIds: Int32Array;
  newIds: Int32Array;
  /** Of each id, in the region looked at: the first occurrence in the old file, and how many there are. */
  first: Int32Array;
  count: Int32Array;
  /** The next line of the old file with the same id, -1 if there is none in the region. */
  next: Int32Array;
  /** For Myers' algorithm. */
  scratch: Scratch;
  stepsLeft: number;
}

type Found = Region | 'nothing common' | 'only frequent lines' | 'too costly';

export function markByHistogram(
  oldIds: Int32Array,
  newIds: Int32Array,
  marks: Marks,
  whole: Region,
  idCount: number,
): void {
  const lines = whole.oldHigh - whole.oldLow + whole.newHigh - whole.newLow;
  const index: Index = {
    oldIds,
    newIds,
    first: new Int32Array(idCount),
    count: new Int32Array(idCount),
    next: new Int32Array(oldIds.length),
    scratch: newScratch(idCount),
    stepsLeft: FREE_STEPS + STEPS_PER_LINE * lines,
  };
  const open: Region[] = [whole];
  for (let region = open.pop(); region !== undefined; region = open.pop()) {
    const { oldLow, oldHigh, newLow, newHigh } = region;
    if (oldLow === oldHigh || newLow === newHigh) {
      markAll(marks, region);
      continue;
    }
    const found = commonRun(index, region);
    if (found === 'nothing common') {
      markAll(marks, region);
    } else if (typeof found === 'string') {
      markByMyers(oldIds, newIds, marks, region, index.scratch);
    } else {
      open.push({ oldLow, oldHigh: found.oldLow, newLow, newHigh: found.newLow });
      open.push({ oldLow: found.oldHigh, oldHigh, newLow: found.newHigh, newHigh });
    }
  }
}

function commonRun(index: Index, region: Region): Found {
  index.stepsLeft -= region.oldHigh - region.oldLow + region.newHigh - region.newLow;
  if (index.stepsLeft <= 0) return 'too costly';
  const { oldIds, first, count, next } = index;
  for (let i = region.oldHigh - 1; i >= region.oldLow; i--) {
    const id = oldIds[i]!;
    next[i] = count[id] === 0 ? -1 : first[id]!;
    first[id] = i;
    count[id]!++;
  }
  const found = rarestRun(index, region);
  for (let i = region.oldLow; i < region.oldHigh; i++) count[oldIds[i]!] = 0;
  return found;
}

function rarestRun(index: Index, region: Region): Found {
  const { newIds, first, count, next } = index;
  let best: Region | null = null;
  let bestRarity = MOST_OCCURRENCES + 1;
  let anyCommon = false;
  for (let j = region.newLow; j < region.newHigh; ) {
    const occurrences = count[newIds[j]!]!;
    let after = j + 1;
    if (occurrences > 0) anyCommon = true;
    if (occurrences > 0 && occurrences <= bestRarity && occurrences <= MOST_OCCURRENCES) {
      for (let i = first[newIds[j]!]!; i >= 0; ) {
        const { run, rarity } = grow(index, region, i, j);
        if (run.newHigh > after) after = run.newHigh;
        const longer = best === null || run.oldHigh - run.oldLow > best.oldHigh - best.oldLow;
        if (longer || rarity < bestRarity) {
          best = run;
          bestRarity = rarity;
        }
        while (i >= 0 && i < run.oldHigh) i = next[i]!;
      }
      if (index.stepsLeft <= 0) return 'too costly';
    }
    j = after;
  }
  if (best !== null) return best;
  return anyCommon ? 'only frequent lines' : 'nothing common';
}

/** The common run around a pair of equal lines, and how often its rarest line occurs. */
function grow(index: Index, region: Region, i: number, j: number): { run: Region; rarity: number } {
  const { oldIds, newIds, count } = index;
  let rarity = count[oldIds[i]!]!;
  let oldLow = i;
  let newLow = j;
  while (oldLow > region.oldLow && newLow > region.newLow && oldIds[oldLow - 1] === newIds[newLow - 1]) {
    oldLow--;
    newLow--;
    rarity = Math.min(rarity, count[oldIds[oldLow]!]!);
  }
  let oldHigh = i + 1;
  let newHigh = j + 1;
  while (oldHigh < region.oldHigh && newHigh < region.newHigh && oldIds[oldHigh] === newIds[newHigh]) {
    rarity = Math.min(rarity, count[oldIds[oldHigh]!]!);
    oldHigh++;
    newHigh++;
  }
  index.stepsLeft -= oldHigh - oldLow;
  return { run: { oldLow, oldHigh, newLow, newHigh }, rarity };
}
