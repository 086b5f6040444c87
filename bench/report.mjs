// The report on a terminal: goals with what came of them, then figures, ratios, processor time and requests.
import { floors } from './peers.mjs';

const NARROW = ['dir', 'overlayfs', 'fuse-overlayfs', 'unionfs-fuse', 'mergerfs'];

/** The unit of a row, and by what to multiply for it: of times the one that fits. */
function unitFor(value, row) {
  if (row.value && row.unit !== 's') return [1, row.unit];
  if (value < 1e-3) return [1e6, 'µs'];
  return value < 1 ? [1e3, 'ms'] : [1, 's'];
}

export function figure(value, row) {
  if (value === null || value === undefined) return '–';
  const [factor, unit] = unitFor(value, row);
  return `${digits(value * factor)} ${unit}`;
}

/** The median and, of several rounds, the least and the most in the unit of the median. */
export function spread(found, row) {
  const median = figure(found?.median, row);
  if (!found || found.n < 2) return median;
  const [factor] = unitFor(found.median, row);
  return `${median} (${digits(found.min * factor)}–${digits(found.max * factor)})`;
}

export function digits(value) {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return size > 0 && size < 0.1 ? value.toPrecision(2) : value.toFixed(2);
}

export const perWhat = (row) => (row.value ? row.name : `${row.name}, per ${row.unit}`);

export function range(found) {
  if (found === null) return '–';
  const spread = found.n > 1 ? ` (${digits(found.min)}–${digits(found.max)})` : '';
  return `${digits(found.median)}${spread}`;
}

/** What a floor misses even in its best round is out of reach of any file system that one thread serves by the device. */
const outOfReach = ({ met, floor, most }) => met === false && (floor?.min ?? 0) > most;

export function verdict(goal) {
  if (goal.met === null) return 'not measured';
  if (goal.met) return 'met';
  return outOfReach(goal) ? 'missed, out of reach' : 'missed';
}

export function tally(goals) {
  const known = goals.filter(({ met }) => met !== null);
  const met = known.filter((goal) => goal.met).length;
  const beyond = known.filter(outOfReach).length;
  const more = [
    ...(beyond > 0 ? [`${beyond} out of reach`] : []),
    ...(goals.length > known.length ? [`${goals.length - known.length} not measured`] : []),
  ];
  return `${met} of ${known.length} met${more.map((text) => `, ${text}`).join('')}`;
}

/** Of a goal that is a ratio: the least that is possible. */
export const atBest = ({ floor }) => range(floor ?? null);

function align(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
  return `${[text[0], widths.map((width) => '-'.repeat(width)).join('  '), ...text.slice(1)].join('\n')}\n`;
}

function goalTable(result) {
  const lines = result.rows.flatMap((row) =>
    row.goals.map((goal) => [
      perWhat(row),
      goal.value === null ? '–' : goal.peer ? digits(goal.value) : figure(goal.value, row),
      goal.text,
      atBest(goal),
      verdict(goal),
    ]),
  );
  return lines.length === 0 ? '' : `\n${align([['goal of row', 'is', 'goal', 'at best', ''], ...lines])}`;
}

function table(result, title, names, cell) {
  const shown = names.filter((name) => result.rows.some((row) => row.peers[name]));
  if (shown.length === 0) return '';
  const rows = result.rows.filter((row) => Object.keys(row.peers).length > 0);
  const lines = rows
    .map((row) => [perWhat(row), ...shown.map((name) => cell(row, name))])
    .filter(([, ...cells]) => cells.some((text) => text !== '–'));
  return `\n${title}\n${align([['row', ...shown], ...lines])}`;
}

export const count = (requests) => (requests === null || requests === undefined ? '?' : digits(requests));

function counts(row, name) {
  const found = row.peers[name];
  if (!found?.client) return '–';
  return costText({ ...found, client: found.client.median, daemon: found.daemon.median }, row);
}

export function costText(cost, row) {
  if (!cost) return '–';
  return `${figure(cost.client, row)} + ${figure(cost.daemon, row)}, ${count(cost.requests)}`;
}

const requestsOf = (row, name) => count(row.peers[name]?.requests);

/** What is left to win: the subject and the floors beside fuse-overlayfs, and the requests of each. */
function floorTable({ rows, subject }) {
  const beside = rows.filter((row) => row.floor);
  if (beside.length === 0) return '';
  const shown = floors.filter((name) => beside.some((row) => row.peers[name]));
  const lines = beside.map((row) => [
    perWhat(row),
    range(row.ratios['fuse-overlayfs']?.wall ?? null),
    range(row.floor),
    ...shown.map((name) => range(row.ratios[name]?.wall ?? null)),
    ...[subject, ...shown].map((name) => requestsOf(row, name)),
  ]);
  const by = [...shown.map((name) => `${subject} ÷ ${name}`), 'requests', ...shown.map(() => '')];
  return `\nto fuse-overlayfs, wall: ${subject}, and the best that is possible; requests of ${[subject, ...shown].join(', ')}\n${align([['row', subject, 'at best', ...by], ...lines])}`;
}

export const runText = ({ quick, fresh, rounds }) =>
  `${quick ? 'quick, ' : ''}${fresh ? 'fresh mounts, ' : ''}${rounds} ${rounds === 1 ? 'round' : 'rounds'}`;

export function headLines(result) {
  const { machine, peers, missing, noise, notes } = result;
  const lines = [
    `${machine.date} commit ${machine.commit}${machine.changed ? ' with changes' : ''}, ${machine.cpu} × ${machine.cores}, ` +
      `${machine.memoryMiB} MiB, load ${digits(machine.load)} at start`,
    `${machine.system}, kernel ${machine.kernel}, node ${machine.node}; client: ${result.client}; ` +
      `${runText(result)}, ${result.seconds} s`,
    `versions: ${Object.entries(peers)
      .filter(([, { version }]) => version)
      .map(([name, { version }]) => `${name} ${version}`)
      .join(', ')}`,
    ...Object.entries(missing).map(([name, why]) => `missing: ${name}: ${why}`),
    ...notes.map((note) => `note: ${note}`),
  ];
  const states = noise.map((one) => `${one.row} ${range(one)}`);
  if (states.length > 0) lines.push(`noise, ${result.subject} ÷ itself: ${states.join('; ')}`);
  return [...lines, ...noiseGapLines(result)];
}

const chosen = (result) =>
  result.growth ? ['growth'] : result.rows.filter(({ lacks }) => !lacks).map(({ name }) => name);

/** Some of all rows in few words. */
function among(some, all) {
  const rest = all.filter((name) => !some.includes(name));
  if (rest.length >= some.length || all.length < 3) return some.join('; ');
  return rest.length === 0 ? 'any of these rows' : `any row but ${rest.join('; ')}`;
}

/** `items` by what `key` gives, in the order in which that was first seen. */
function grouped(items, key) {
  const groups = new Map();
  for (const one of items) groups.set(key(one), [...(groups.get(key(one)) ?? []), one]);
  return [...groups];
}

export function noiseGapLines(result) {
  return grouped(result.noiseGaps ?? [], ({ why }) => why).map(([why, gaps]) => {
    const rows = among(
      gaps.map(({ row }) => row),
      chosen(result),
    );
    return `noise not measured: ${rows}: ${why}`;
  });
}

/** Who takes no part in what, and which rows have a figure alone; a line for each reason. */
export function gapLines(result) {
  const absent = (result.absent ?? []).map(({ peer, why, rows }) => ({
    peer,
    key: `no part in ${among(rows, chosen(result))}: `,
    why,
  }));
  const parts = grouped(absent, ({ key, why }) => `${key}\0${why}`).map(([, list]) => {
    const [{ key, why }] = list;
    return `${key}${list.map(({ peer }) => peer).join(', ')}: ${why}`;
  });
  const bare = result.rows.filter((row) => row.bare && Object.keys(row.peers).length > 0);
  const alone = grouped(bare, (row) => row.bare).map(([why, rows]) => {
    return `no processor time, no requests: ${rows.map(({ name }) => name).join('; ')}: ${why}`;
  });
  return [...parts, ...alone];
}

function growthTable({ name, unit, value, by, counts: sizes, peers, costs }) {
  const row = { name, unit, value };
  const grid = (title, lists, text) => {
    const lines = Object.entries(lists).map(([peer, list]) => [peer, ...list.map((one) => text(one, row))]);
    return lines.length === 0 ? '' : `\n${title}\n${align([['', ...sizes.map(String)], ...lines])}`;
  };
  const title = `${perWhat(row)}, by ${by}`;
  const more = grid(`${title}: processor time of client + daemon, requests`, costs ?? {}, costText);
  return `${grid(title, peers, figure)}${more}`;
}

/** One line for each reason, however many peers it holds for. */
export function failureLines(result) {
  const lines = result.rows.flatMap((row) => {
    const failed = grouped(Object.entries(row.failed), ([, why]) => why).map(
      ([why, list]) => `failed: ${row.name}: ${list.map(([peer]) => peer).join(', ')}: ${why}`,
    );
    return row.lacks ? [`not measured: ${row.name}: ${row.lacks}`, ...failed] : failed;
  });
  return [...lines, ...(result.failed ?? []).map((line) => `failed: ${line}`)];
}

export function report(result) {
  const { subject, peers } = result;
  const names = Object.keys(peers);
  const others = names.filter(
    (name) => name !== subject && (NARROW.includes(name) || name.startsWith('kasane-')),
  );
  const said = [...gapLines(result), ...failureLines(result)];
  const goals = result.rows.flatMap((row) => row.goals);
  return [
    `${headLines(result).join('\n')}\n`,
    goalTable(result),
    table(result, 'medians (spread)', names, (row, name) => spread(row.peers[name]?.wall, row)),
    subject
      ? table(
          result,
          `${subject} ÷ peer, wall: below 1 ${subject} is faster; median (spread) of pairs`,
          others,
          (row, name) => range(row.ratios[name]?.wall ?? null),
        )
      : '',
    table(result, 'processor time of client + daemon, requests per operation', names, counts),
    subject ? floorTable(result) : '',
    ...(result.growth ?? []).map(growthTable),
    said.length > 0 ? `\n${said.join('\n')}\n` : '',
    goals.some(({ met }) => met !== null) ? `\ngoals: ${tally(goals)}\n` : '',
  ].join('');
}
