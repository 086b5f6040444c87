// Myers' O(ND) difference algorithm (Algorithmica 1986, section 4b: linear space): the second opinion on a
// merge, and what histogram diff turns to where no line is rare. Which of several shortest diffs it finds is of
// weight, since `git merge-file` has to come to the same one: lines without a partner are left out beforehand
// (see sift.ts), diagonals are tried from the highest down, forward before backward. Where a middle cannot be
// found at a bounded cost, the furthest point reached is taken: a longer diff, but a right one.
import { type Marks, markAll, type Region, trimmed } from './marks.ts';
import { roughRoot, type Scratch, sift } from './sift.ts';

/** A search for a middle gives up after so many edits, or the square root of the lines if that is more. */
const LEAST_COST_CAP = 256;
/** Once a diff has taken so many steps, which only noise does, its searches give up early. */
const MOST_STEPS = 50_000_000;
const HURRIED_COST_CAP = 32;

/** Behind every x: no path from the end has come to the diagonal. */
const UNREACHED = 0x7fffffff;

interface Search {
  a: Int32Array;
  b: Int32Array;
  /** Furthest x on each diagonal x - y, from the start and from the end; index is the diagonal + offset. */
  forward: Int32Array;
  backward: Int32Array;
  offset: number;
  cap: number;
  stepsLeft: number;
}

interface Point {
  x: number;
  y: number;
}

/** The diagonals that paths of a number of edits can end on, every second one of low to high. */
interface Diagonals {
  low: number;
  high: number;
}

export function markByMyers(
  oldIds: Int32Array,
  newIds: Int32Array,
  marks: Marks,
  region: Region,
  scratch: Scratch,
): void {
  const { a, b, rest } = sift(oldIds, newIds, region, scratch);
  const kept: Marks = { old: new Uint8Array(a.ids.length), new: new Uint8Array(b.ids.length) };
  compare(a.ids, b.ids, kept);
  markAll(marks, rest);
  for (let i = 0; i < a.at.length; i++) marks.old[a.at[i]!] = kept.old[i]!;
  for (let i = 0; i < b.at.length; i++) marks.new[b.at[i]!] = kept.new[i]!;
}

function compare(a: Int32Array, b: Int32Array, marks: Marks): void {
  const diagonals = a.length + b.length + 3;
  const search: Search = {
    a,
    b,
    forward: new Int32Array(diagonals),
    backward: new Int32Array(diagonals),
    offset: b.length + 1,
    cap: Math.max(LEAST_COST_CAP, roughRoot(diagonals)),
    stepsLeft: MOST_STEPS,
  };
  const open: Region[] = [{ oldLow: 0, oldHigh: a.length, newLow: 0, newHigh: b.length }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const region = trimmed(a, b, next);
    const { oldLow, oldHigh, newLow, newHigh } = region;
    if (oldLow === oldHigh || newLow === newHigh) {
      markAll(marks, region);
      continue;
    }
    const { x, y } = middle(search, region);
    if ((x === oldLow && y === newLow) || (x === oldHigh && y === newHigh)) {
      markAll(marks, region);
      continue;
    }
    open.push({ oldLow, oldHigh: x, newLow, newHigh: y });
    open.push({ oldLow: x, oldHigh, newLow: y, newHigh });
  }
}

/** A point on a shortest path through the region, or on a good one if the cost cap ended the search. */
function middle(search: Search, region: Region): Point {
  const { forward, backward, offset } = search;
  const cap = search.stepsLeft > 0 ? search.cap : HURRIED_COST_CAP;
  const start = region.oldLow - region.newLow;
  const end = region.oldHigh - region.newHigh;
  const odd = ((start - end) & 1) !== 0;
  let ahead: Diagonals = { low: start, high: start };
  let behind: Diagonals = { low: end, high: end };
  forward[start + offset] = region.oldLow;
  backward[end + offset] = region.oldHigh;
  for (let cost = 1; cost <= cap; cost++) {
    search.stepsLeft -= ahead.high - ahead.low + 1;
    ahead = widened(ahead, region, forward, offset, -1);
    for (let k = ahead.high; k >= ahead.low; k -= 2) {
      const x = stepForward(search, region, k);
      if (odd && k >= behind.low && k <= behind.high && x >= backward[k + offset]!) return { x, y: x - k };
    }
    behind = widened(behind, region, backward, offset, UNREACHED);
    for (let k = behind.high; k >= behind.low; k -= 2) {
      const x = stepBackward(search, region, k);
      if (!odd && k >= ahead.low && k <= ahead.high && x <= forward[k + offset]!) return { x, y: x - k };
    }
  }
  return furthest(search, region, ahead, behind);
}

/** One diagonal more to either side, but for those outside of the region; beyond new ones nothing is reached. */
function widened(
  from: Diagonals,
  region: Region,
  reached: Int32Array,
  offset: number,
  none: number,
): Diagonals {
  const low = from.low > region.oldLow - region.newHigh ? from.low - 1 : from.low + 1;
  const high = from.high < region.oldHigh - region.newLow ? from.high + 1 : from.high - 1;
  if (low < from.low) reached[low - 1 + offset] = none;
  if (high > from.high) reached[high + 1 + offset] = none;
  return { low, high };
}

/** One more edit on diagonal k, then along the equal lines. */
function stepForward(search: Search, region: Region, k: number): number {
  const { a, b, forward, offset } = search;
  const before = forward[k - 1 + offset]!;
  const after = forward[k + 1 + offset]!;
  let x = before >= after ? before + 1 : after;
  while (x < region.oldHigh && x - k < region.newHigh && a[x] === b[x - k]) x++;
  forward[k + offset] = x;
  return x;
}

function stepBackward(search: Search, region: Region, k: number): number {
  const { a, b, backward, offset } = search;
  const before = backward[k - 1 + offset]!;
  const after = backward[k + 1 + offset]!;
  let x = before < after ? before : after - 1;
  while (x > region.oldLow && x - k > region.newLow && a[x - 1] === b[x - k - 1]) x--;
  backward[k + offset] = x;
  return x;
}

/** Of the points reached from either end, the one that leaves the least to do. */
function furthest(search: Search, region: Region, ahead: Diagonals, behind: Diagonals): Point {
  const { oldLow, oldHigh, newLow, newHigh } = region;
  const inside = (x: number, y: number) => x >= oldLow && x <= oldHigh && y >= newLow && y <= newHigh;
  let best: Point = { x: oldLow, y: newLow };
  let gain = 0;
  for (let k = ahead.low; k <= ahead.high; k += 2) {
    const x = search.forward[k + search.offset]!;
    if (!inside(x, x - k) || x + x - k - oldLow - newLow <= gain) continue;
    gain = x + x - k - oldLow - newLow;
    best = { x, y: x - k };
  }
  for (let k = behind.low; k <= behind.high; k += 2) {
    const x = search.backward[k + search.offset]!;
    if (!inside(x, x - k) || oldHigh + newHigh - x - x + k <= gain) continue;
    gain = oldHigh + newHigh - x - x + k;
    best = { x, y: x - k };
  }
  return best;
}
