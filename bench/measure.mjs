// The order of a run: round by round, scene by scene, peer by peer, the peers in an order that rotates. Samples
// are kept by row, peer and round, so that ratios can be taken within a round.
import { closeCell, dropCaches, measured, openCell, work } from './cell.mjs';
import { absence } from './peers.mjs';
import { placeOn } from './places.mjs';
import { beInUse, fillUsed } from './used.mjs';

export function createSamples() {
  return { samples: {}, failed: {}, lacks: {}, places: {} };
}

function keep(store, row, peer, sample) {
  store.samples[row] ??= {};
  store.samples[row][peer] ??= [];
  store.samples[row][peer].push(sample);
}

function fail(store, row, peer, reason) {
  store.failed[row] ??= {};
  store.failed[row][peer] ??= reason;
}

export const rowsOf = (scene) => scene.steps ?? scene.rows;

/** Steps that are wanted, and those that they build on. */
function stepsFor(scene, wanted, peer) {
  const asked = scene.steps.filter((step) => wanted(step) && absence(peer, scene, step) === null);
  return scene.steps.filter((step) => asked.includes(step) || asked.some((one) => one.needs === step.key));
}

async function takeStep(cell, step, times) {
  const { size } = cell.bench;
  const context = { size, archive: cell.archive, dir: cell.dir };
  const [name, folder, ...args] = step.work(context);
  const options = { env: step.env?.(context) };
  for (const warm of step.warm === true ? [step.work] : [step.warm ?? []].flat()) {
    const [warmName, warmFolder, ...warmArgs] = warm(context);
    await work(cell, warmName, warmFolder, warmArgs, options);
  }
  if (step.cold) await dropCaches(cell);
  // Counting costs a little, and the number hardly changes.
  return measured(cell, step.operations?.(size), times === 0, (before) =>
    work(cell, name, folder, args, { ...options, before }),
  );
}

/** What fails in a peer is a result, too: it is named, and the other steps go on. */
async function playSteps(bench, scene, name, place, round, store, wanted) {
  const { stage, usable } = bench;
  const steps = stepsFor(scene, wanted, name);
  const { finish } = scene;
  const used = scene.used && !bench.fresh;
  const prepare = async (cell) => {
    await scene.prepare?.(cell);
    if (used) await fillUsed(cell);
  };
  const cell = await openCell(bench, usable[name], place, { prepare, finish });
  try {
    if (used) await beInUse(cell);
    for (const step of steps) {
      try {
        keep(store, step.key, name, { round, ...(await takeStep(cell, step, round)) });
      } catch (error) {
        if (stage.ended) throw error;
        fail(store, step.key, name, error.message);
        if (/did not end within/.test(error.message)) throw error;
      }
    }
  } finally {
    await closeCell(cell);
  }
}

async function play(bench, scene, name, round, store, wanted) {
  const place = await placeOn(bench, bench.on ?? scene.on);
  for (const row of rowsOf(scene)) store.places[row.key] = place.name;
  if (scene.steps) return playSteps(bench, scene, name, place, round, store, wanted);
  const record = (row, sample) => keep(store, row, name, { round, ...sample });
  return scene.measure(bench, bench.usable[name], place, record, round === 0);
}

/** [scene, peer, round] in the order of the run. */
export function planOf(bench, scenes, wanted) {
  const plan = [];
  const names = Object.keys(bench.usable);
  for (let round = 0; round < bench.rounds; round += 1) {
    for (const scene of scenes) {
      const rows = rowsOf(scene).filter(wanted);
      const inIt = names.filter(
        (name) =>
          round < Math.min(scene.rounds ?? Infinity, bench.usable[name].rounds) &&
          rows.some((row) => absence(name, scene, row) === null),
      );
      inIt.forEach((_, i) => {
        plan.push({ scene, name: inIt[(i + round) % inIt.length], round });
      });
    }
  }
  return plan;
}

export async function measureAll(bench, scenes, wanted, progress) {
  const store = createSamples();
  const able = scenes.filter((scene) => {
    const lack = scene.lacks?.(bench) ?? null;
    if (lack !== null) for (const row of rowsOf(scene)) store.lacks[row.key] = lack;
    return lack === null;
  });
  const plan = planOf(bench, able, wanted);
  for (const [done, { scene, name, round }] of plan.entries()) {
    const first = rowsOf(scene).find(wanted);
    progress(done, plan.length, `round ${round + 1}, ${scene.key}: ${name}`);
    try {
      await play(bench, scene, name, round, store, wanted);
    } catch (error) {
      if (bench.stage.ended) throw error;
      fail(store, first.key, name, error.message);
    }
  }
  progress(plan.length, plan.length, 'done');
  return store;
}
