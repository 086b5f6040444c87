// The report as one page for a browser: self-contained, no scripts, nothing from outside.
import * as fs from 'node:fs';
import { curves } from './curves.mjs';
import {
  atBest,
  costText,
  count,
  digits,
  failureLines,
  figure,
  gapLines,
  noiseGapLines,
  perWhat,
  range,
  runText,
  spread,
  tally,
  verdict,
} from './report.mjs';

const css = fs.readFileSync(`${import.meta.dirname}/page.css`, 'utf8');

export const escaped = (text) =>
  String(text).replace(
    /[&<>"]/g,
    (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char],
  );

const familyOf = (result, name) => result.peers[name]?.family ?? 'other';

function goals(result) {
  const rows = result.rows.flatMap((row) =>
    row.goals.map((goal) => {
      const is = goal.value === null ? '–' : goal.peer ? digits(goal.value) : figure(goal.value, row);
      const kind = goal.met === null ? 'unknown' : goal.met ? 'met' : 'missed';
      const mark = { unknown: '', met: '✓ ', missed: '✗ ' }[kind];
      return `<tr><td>${escaped(row.name)}</td><td class="figure">${is}</td><td>${escaped(goal.text)}</td><td class="figure">${atBest(goal)}</td><td class="${kind}">${mark}${verdict(goal)}</td></tr>`;
    }),
  );
  if (rows.length === 0) return '';
  return `<h2>Goals</h2>
<p class="big">${tally(result.rows.flatMap((row) => row.goals))}</p>
<p>What ${escaped(result.subject ?? 'Kasane')} takes, divided by what the peer takes in the same round (median of the rounds), or the figure itself. At best: the same of the floor, which only answers requests.</p>
<div class="card scroll"><table><tr><th>Row</th><th class="figure">is</th><th>goal</th><th class="figure">at best</th><th></th></tr>${rows.join('')}</table></div>`;
}

function barsOf(result, row) {
  const found = Object.entries(row.peers).filter(([, { wall }]) => wall !== null);
  const most = Math.max(...found.map(([, { wall }]) => wall.max));
  const percent = (value) => `${((100 * Math.max(0, value)) / most).toFixed(2)}%`;
  return found
    .map(([name, { wall }]) => {
      const extent = `left:${percent(wall.min)};width:${percent(wall.max - wall.min)}`;
      const line = wall.n > 1 ? `<i class="spread" style="${extent}"></i>` : '';
      const bar = `<b class="bar ${familyOf(result, name)}" style="width:${percent(wall.median)}"></b>`;
      return `<span>${escaped(name)}</span><span class="track" title="${spread(wall, row)}">${bar}${line}</span><span class="number">${figure(wall.median, row)}</span>`;
    })
    .join('');
}

function detailsOf(row) {
  const lines = Object.entries(row.peers).map(([name, found]) => {
    const cpu = found.client
      ? `${figure(found.client.median, row)} + ${figure(found.daemon.median, row)}</td><td class="figure">${count(found.requests)}`
      : '–</td><td class="figure">–';
    const ratio = row.ratios[name] ? range(row.ratios[name].wall) : '–';
    return `<tr><td>${escaped(name)}</td><td class="figure">${spread(found.wall, row)}</td><td class="figure">${ratio}</td><td class="figure">${cpu}</td></tr>`;
  });
  const head =
    '<tr><th></th><th class="figure">median (spread)</th><th class="figure">ratio to it</th><th class="figure">CPU, client + daemon</th><th class="figure">requests</th></tr>';
  return `<details><summary>spread, ratios, processor time, requests</summary><div class="scroll"><table>${head}${lines.join('')}</table></div></details>`;
}

/** In words, for the bars do not tell it. */
function reach(result, row) {
  const own = row.ratios['fuse-overlayfs']?.wall;
  if (!row.floor || !own) return '';
  return `<small>${escaped(result.subject)} ÷ fuse-overlayfs: ${range(own)}; at best: ${range(row.floor)}</small>`;
}

function card(result, row) {
  if (Object.keys(row.peers).length === 0) return '';
  const unit = row.value ? '' : ` <span class="soft">per ${escaped(row.unit)}</span>`;
  return `<div class="card"><h3>${escaped(row.name)}${unit}</h3><small>on ${escaped(row.place)}</small>
<div class="bars">${barsOf(result, row)}</div>${reach(result, row)}${detailsOf(row)}</div>`;
}

function figures(result) {
  const cards = result.rows.map((row) => card(result, row)).join('\n');
  if (cards.trim() === '') return '';
  const legend = [
    ['kasane', 'Kasane'],
    ['fuse', 'other FUSE file systems'],
    ['kernel', 'in the kernel'],
    ['floor', 'the least that the device takes'],
    ['other', 'another way'],
  ].map(([family, name]) => `<i class="dot ${family}"></i>${name}`);
  return `<h2>Figures</h2><p>Shorter is better. A bar is the median, the thin line the spread of its rounds. <br><small>${legend.join('')}</small></p>
<div class="cards">${cards}</div>`;
}

/** What the curves do not show, by count: processor time of client and daemon, requests. */
function growthCosts({ counts, costs }, row) {
  const peers = Object.entries(costs ?? {});
  if (peers.length === 0) return '';
  const head = counts.map((one) => `<th class="figure">${one}</th>`).join('');
  const lines = peers.map(([name, list]) => {
    const cells = list.map((cost) => `<td class="figure">${costText(cost, row)}</td>`).join('');
    return `<tr><td>${escaped(name)}</td>${cells}</tr>`;
  });
  return `<details><summary>processor time of client + daemon, requests</summary><div class="scroll"><table><tr><th></th>${head}</tr>${lines.join('')}</table></div></details>`;
}

function growth(result) {
  if (!result.growth?.length) return '';
  const cards = result.growth.map((one) => {
    const row = { name: one.name, unit: one.unit, value: one.value };
    const drawn = curves(
      one,
      (name) => familyOf(result, name),
      (value) => figure(value, row),
    );
    return `<div class="card"><h3>${escaped(perWhat(row))}</h3><small>by ${escaped(one.by)}; both axes grow tenfold by equal steps</small>${drawn}${growthCosts(one, row)}</div>`;
  });
  return `<h2>Growth</h2><div class="cards">${cards.join('\n')}</div>`;
}

function machineTable(result) {
  const { machine } = result;
  const seconds = `${Math.floor(result.seconds / 60)} min ${result.seconds % 60} s`;
  const lines = [
    ['when', machine.date],
    ['commit', `${machine.commit}${machine.changed ? ', with changes that are not committed' : ''}`],
    [
      'machine',
      `${machine.cpu} × ${machine.cores}, ${machine.memoryMiB} MiB, load ${digits(machine.load)} at the start`,
    ],
    ['system', `${machine.system}, kernel ${machine.kernel}, Node ${machine.node}`],
    ['client', result.client],
    ['run', `${runText(result)}, ${seconds}`],
    ...Object.entries(result.peers).map(([name, { about, version }]) => [name, `${about} ${version}`]),
    ...Object.entries(result.missing).map(([name, why]) => [name, `missing: ${why}`]),
  ];
  const rows = lines.map(([name, text]) => `<tr><td>${escaped(name)}</td><td>${escaped(text)}</td></tr>`);
  return `<h2>Machine and versions</h2><div class="card scroll"><table>${rows.join('')}</table></div>`;
}

function noise(result) {
  const lines = result.noise.map((one) => `<li>${escaped(one.row)}: ${range(one)}</li>`);
  const notes = [...result.notes, ...noiseGapLines(result), ...gapLines(result), ...failureLines(result)].map(
    (line) => `<li>${escaped(line)}</li>`,
  );
  const said = notes.length > 0 ? `<h2>Notes</h2><ul>${notes.join('')}</ul>` : '';
  if (lines.length === 0) return said;
  return `<h2>Noise</h2><p>${escaped(result.subject)} measured a second time in each round, as if it were a peer; were there no noise, each would be 1.</p><ul>${lines.join('')}</ul>${said}`;
}

export function page(result) {
  const { machine } = result;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kasane beside its peers, ${escaped(machine.date.slice(0, 10))}</title>
<style>
${css}</style>
</head>
<body>
<h1>Kasane beside its peers</h1>
<p class="soft">${escaped(machine.date.slice(0, 16).replace('T', ' '))} UTC, commit ${escaped(machine.commit)}, ${escaped(machine.cpu)} × ${machine.cores}, Linux ${escaped(machine.kernel)}</p>
${goals(result)}
${figures(result)}
${growth(result)}
${noise(result)}
${machineTable(result)}
</body>
</html>
`;
}
