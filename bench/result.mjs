// From samples to a result: medians with their spread, ratios of the subject to every peer taken within rounds,
// whether goals are met, and whether they can be. Pure. The result is what goes into the JSON file and what reports are
// made from.
import { absence, floors } from './peers.mjs';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function summary(values) {
  if (values.length === 0 || values.some((value) => value === null || value === undefined)) return null;
  return { median: median(values), min: Math.min(...values), max: Math.max(...values), n: values.length };
}

const metrics = {
  wall: (sample) => sample.wall,
  cpu: (sample) => (sample.client === undefined ? null : sample.client + sample.daemon),
  client: (sample) => sample.client,
  daemon: (sample) => sample.daemon,
};

/** Round by round, so that what slowed a whole round down does not count; over the medians where rounds differ. */
export function ratio(own, other, metric) {
  const read = metrics[metric];
  const rounds = (samples) => samples.map((sample) => sample.round);
  const single = (samples) => new Set(rounds(samples)).size === samples.length;
  const values = (samples) => samples.map(read).filter((value) => value !== null && value !== undefined);
  if (values(own).length === 0 || values(other).length === 0) return null;
  if (!single(own) || !single(other)) return summary([median(values(own)) / median(values(other))]);
  const pairs = own.flatMap((sample) => {
    const match = other.find(({ round }) => round === sample.round);
    return match && read(match) > 0 ? [read(sample) / read(match)] : [];
  });
  return summary(pairs);
}

/** What the better of the floors takes, divided by what a peer takes: no file system can be below it. */
function possible(samples, peer, metric) {
  const ratios = floors.map((name) =>
    samples[name] && samples[peer] ? ratio(samples[name], samples[peer], metric) : null,
  );
  const known = ratios.filter((found) => found !== null);
  return known.length === 0 ? null : known.reduce((one, other) => (other.median < one.median ? other : one));
}

function goalResult(goal, row, samples, defaultSubject) {
  const subject = goal.subject ?? defaultSubject;
  const own = samples[subject];
  const text = goal.peer
    ? `${goal.subject ? `${subject}: ` : ''}≤ ${goal.most} of ${goal.peer}${goal.metric === 'cpu' ? ' (CPU)' : ''}`
    : `≤ ${goal.most < 0.1 ? `${goal.most * 1000} ms` : `${goal.most} ${row.unit}`}`;
  const floor = goal.peer ? possible(samples, goal.peer, goal.metric) : null;
  const base = { ...goal, subject, text, floor };
  if (!own) return { ...base, value: null, met: null };
  if (!goal.peer) {
    const value = median(own.map(metrics.wall));
    return { ...base, value, met: value <= goal.most };
  }
  const found = samples[goal.peer] ? ratio(own, samples[goal.peer], goal.metric) : null;
  return { ...base, value: found?.median ?? null, met: found === null ? null : found.median <= goal.most };
}

export function rowResult(row, store, subject) {
  const samples = store.samples[row.key] ?? {};
  const found = {};
  for (const [peer, list] of Object.entries(samples)) {
    const counted = list
      .map(({ requests }) => requests)
      .filter((value) => value !== null && value !== undefined);
    found[peer] = {
      ...Object.fromEntries(Object.entries(metrics).map(([name, read]) => [name, summary(list.map(read))])),
      requests: counted.length === 0 ? null : median(counted),
      samples: list,
    };
  }
  const compared = {};
  for (const peer of Object.keys(samples)) {
    if (peer === subject || !samples[subject]) continue;
    compared[peer] = Object.fromEntries(
      ['wall', 'cpu'].map((metric) => [metric, ratio(samples[subject], samples[peer], metric)]),
    );
  }
  return {
    key: row.key,
    name: row.name,
    unit: row.unit,
    value: row.value === true,
    cold: row.cold === true,
    place: store.places[row.key] ?? null,
    peers: found,
    ratios: compared,
    floor: possible(samples, 'fuse-overlayfs', 'wall'),
    goals: (row.goals ?? []).map((goal) => goalResult(goal, row, samples, subject)),
    failed: store.failed[row.key] ?? {},
    lacks: store.lacks[row.key] ?? null,
    bare: row.bare ?? null,
  };
}

/** Who of these peers takes no part in which rows: an entry for each reason. */
export function absencesIn(scenes, names) {
  return names.flatMap((peer) => {
    const rowsBy = new Map();
    for (const { scene, rows } of scenes) {
      for (const row of rows) {
        const why = absence(peer, scene, row);
        if (why !== null) rowsBy.set(why, [...(rowsBy.get(why) ?? []), row.name]);
      }
    }
    return [...rowsBy].map(([why, rows]) => ({ peer, why, rows }));
  });
}

const AGAIN = 'kasane-again';

/** How far the subject is from itself: the median and the worst of its pairs, by row. */
export function noiseOf(rows) {
  return rows.flatMap((row) => {
    const wall = row.ratios[AGAIN]?.wall;
    return wall ? [{ row: row.name, ...wall }] : [];
  });
}

/** The rows of which that is not known, each with why. */
export function noiseGaps(rows, { missing, usable, absent }) {
  const why = ({ name }) => {
    if (Object.hasOwn(missing, AGAIN)) return `${AGAIN} is missing`;
    if (!Object.hasOwn(usable, AGAIN)) return `${AGAIN} is not among the peers`;
    const left = absent.some((one) => one.peer === AGAIN && one.rows.includes(name));
    return left ? `${AGAIN} takes no part` : 'it failed';
  };
  const measured = rows.filter((row) => Object.keys(row.peers).length > 0);
  return measured.filter((row) => !row.ratios[AGAIN]?.wall).map((row) => ({ row: row.name, why: why(row) }));
}
