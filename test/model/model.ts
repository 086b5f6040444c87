// The random test of updates, with seeds that are printed and failures that are shrunk.
import { randomFrom } from '../differential/look.mjs';
import { shrink } from '../differential/operations.ts';
import type { Where } from '../lib/temp.ts';
import { type Report, runSteps } from './random-updates.ts';

const newReport = (): Report => ({ steps: 0, rows: new Map(), deaths: 0 });

/**
 * Runs `runs` sequences of `count` steps (KASANE_SEED, KASANE_RUN and KASANE_OPERATIONS override what is given), and
 * prints which rows of the table of states were come to. A failure is shrunk for KASANE_SHRINK seconds, or 90.
 */
export async function modelRuns(seed: number, runs: number, count: number, where: Where): Promise<Report> {
  const used = Number(process.env.KASANE_SEED ?? seed);
  const length = Number(process.env.KASANE_OPERATIONS ?? count);
  const only = process.env.KASANE_RUN;
  const report = newReport();
  for (let run = 0; run < runs; run += 1) {
    if (only !== undefined && run !== Number(only)) continue;
    const random = randomFrom(used * 1000 + run);
    const steps = Array.from({ length }, () => random.below(0x7fffffff));
    const failure = await runSteps(steps, where, report);
    if (failure === null) continue;
    let last = failure;
    const fails = async (some: readonly number[]) => {
      const again = await runSteps(some, where, newReport());
      last = again ?? last;
      return again !== null;
    };
    const seconds = Number(process.env.KASANE_SHRINK ?? 90);
    const best = await shrink(steps.slice(0, report.steps * 2), fails, seconds * 1000);
    const how = `KASANE_SEED=${used} KASANE_RUN=${run} KASANE_OPERATIONS=${length}`;
    throw new Error(`${how}: ${failure}\n--- shrunk to ${best.length} steps: ${best}\n${last}`);
  }
  const rows = [...report.rows].sort().map(([row, times]) => `${row} ${times}`);
  console.log(
    `model: seed ${used}, ${where}: ${report.steps} steps, ${report.deaths} deaths of a daemon, rows:\n  ${rows.join(', ')}`,
  );
  return report;
}
