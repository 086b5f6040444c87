// The report on a terminal: goals with what came of them, then figures, ratios, processor time and requests.
import { floors } from './peers.mjs';

const NARROW = ['dir', 'overlayfs', 'fuse-overlayfs', 'unionfs-fuse', 'mergerfs'];

/** In the unit of a row: of times the one that fits. */
export function figure(value, row) {
  if (value === null || value === undefined) return '–';
  if (row.value && row.unit !== 's') return `${digits(value)} ${row.unit}`;
  return time(value);
}

export function digits(value) {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return size > 0 && size < 0.1 ? value.toPrecision(2) : value.toFixed(2);
}

function time(seconds) {
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  return seconds < 1 ? `${digits(seconds * 1e3)} ms` : `${digits(seconds)} s`;
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

function counts(row, name) {
  const found = row.peers[name];
  if (!found?.client) return '–';
  return `${figure(found.client.median, row)} + ${figure(found.daemon.median, row)}, ${requestsOf(row, name)}`;
}

const requestsOf = (row, name) => {
  const requests = row.peers[name]?.requests ?? null;
  return requests === null ? '?' : digits(requests);
};

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
  `${quick ? 'quick, ' : ''}${fresh ? 'fresh mounts, ' : ''}${rounds} rounds`;

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
  return lines;
}

function growthTables(growth) {
  return growth
    .map(({ name, unit, value: isValue, by, counts: sizes, peers }) => {
      const row = { name, unit, value: isValue };
      const lines = Object.entries(peers).map(([peer, values]) => [
        peer,
        ...values.map((value) => figure(value, row)),
      ]);
      return `\n${perWhat(row)}, by ${by}\n${align([['', ...sizes.map(String)], ...lines])}`;
    })
    .join('');
}

/** One line for each reason, however many peers it holds for. */
export function failureLines(result) {
  return result.rows.flatMap((row) => {
    const byReason = Object.entries(row.failed).reduce(
      (map, [peer, why]) => map.set(why, [...(map.get(why) ?? []), peer]),
      new Map(),
    );
    const failed = [...byReason].map(([why, names]) => `failed: ${row.name}: ${names.join(', ')}: ${why}`);
    return row.lacks ? [`not measured: ${row.name}: ${row.lacks}`, ...failed] : failed;
  });
}

export function report(result) {
  const { subject, peers } = result;
  const names = Object.keys(peers);
  const others = names.filter(
    (name) => name !== subject && (NARROW.includes(name) || name.startsWith('kasane-')),
  );
  const failures = failureLines(result);
  const goals = result.rows.flatMap((row) => row.goals);
  return [
    `${headLines(result).join('\n')}\n`,
    goalTable(result),
    table(result, 'medians', names, (row, name) => figure(row.peers[name]?.wall?.median, row)),
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
    growthTables(result.growth ?? []),
    failures.length > 0 ? `\n${failures.join('\n')}\n` : '',
    goals.some(({ met }) => met !== null) ? `\ngoals: ${tally(goals)}\n` : '',
  ].join('');
}
