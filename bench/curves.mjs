// A chart of curves as SVG: both axes logarithmic, one curve for each peer, its name at its end.
const WIDTH = 360;
const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 96;
const TOP = 12;
const BOTTOM = 24;
const LABEL_HEIGHT = 12;

/** Peers of a family share its colour; the dashes tell them apart. */
const dashes = ['', '5 3', '2 2', '8 3 2 3', '1 3'];

/** Powers of ten that lie in the range. */
function decades(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += 1) found.push(10 ** power);
  return found;
}

/** Names that would lie upon each other are moved apart, downward, and up again from the bottom. */
function spread(labels) {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i += 1)
    labels[i].y = Math.max(labels[i].y, labels[i - 1].y + LABEL_HEIGHT);
  let floor = HEIGHT - BOTTOM + 4;
  for (const label of labels.toReversed()) {
    label.y = Math.min(label.y, floor);
    floor = label.y - LABEL_HEIGHT;
  }
  return labels;
}

export function curves({ counts, peers }, familyOf, text) {
  const lines = Object.entries(peers).map(([name, values]) => ({
    name,
    points: values.flatMap((value, i) => (value > 0 ? [[counts[i], value]] : [])),
  }));
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  if (values.length === 0) return '';
  const [low, high] = [Math.min(...values) / 1.2, Math.max(...values) * 1.2];
  const across = Math.log(counts.at(-1) / counts[0]) || 1;
  const x = (count) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(count / counts[0])) / across;
  const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * Math.log(high / value)) / Math.log(high / low);
  const ticks = decades(low, high);
  const grid = (ticks.length > 0 ? ticks : [low * 1.2, high / 1.2]).map((value) => {
    const at = y(value).toFixed(1);
    return `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}"/><text x="${LEFT - 5}" y="${Number(at) + 4}" text-anchor="end">${text(value)}</text>`;
  });
  const below = counts.map((count) => {
    const label = count >= 1e6 ? `${count / 1e6}M` : count >= 1000 ? `${count / 1000}k` : count;
    return `<text x="${x(count).toFixed(1)}" y="${HEIGHT - 8}" text-anchor="middle">${label}</text>`;
  });
  const seen = {};
  const drawn = lines
    .filter(({ points }) => points.length > 0)
    .map(({ name, points }) => {
      const family = familyOf(name);
      seen[family] = (seen[family] ?? -1) + 1;
      const dash = dashes[seen[family] % dashes.length];
      const path = points.map(([count, value]) => `${x(count).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
      return {
        curve: `<polyline class="curve" style="stroke:var(--${family})" stroke-dasharray="${dash}" points="${path}"/>`,
        label: { name, family, x: x(points.at(-1)[0]) + 5, y: y(points.at(-1)[1]) + 4 },
      };
    });
  const labels = spread(drawn.map(({ label }) => label)).map(
    (label) =>
      `<text x="${label.x.toFixed(1)}" y="${label.y.toFixed(1)}" style="fill:var(--${label.family})">${label.name}</text>`,
  );
  const parts = [...grid, ...below, ...drawn.map(({ curve }) => curve), ...labels];
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">${parts.join('')}</svg>`;
}
