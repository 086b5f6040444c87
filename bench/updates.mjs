// What one update of a configuration file costs a guest that has edited it: from the rename in the base to the
// merged bytes read through the mount, which Kasane has by then synced, renamed and recorded. Beside it the way
// of the paper: base and overlay under Mercurial, a commit in the base, pull, merge and commit in the guest.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { closeCell, openCell, work } from './cell.mjs';
import { run } from './stage.mjs';

const conffile = (changed) =>
  Array.from({ length: 200 }, (_, i) => `${changed[i] ?? `key${i} = ${i}`}\n`).join('');
const GUEST = { 20: 'guest = yes' };
const UPDATE = { 150: 'update = yes' };

function replace(file, text) {
  const fd = fs.openSync(`${file}.dpkg-new`, 'wx');
  fs.writeSync(fd, text);
  fs.fsyncSync(fd);
  fs.closeSync(fd);
  fs.renameSync(`${file}.dpkg-new`, file);
}

async function measureKasane(bench, peer, place, record) {
  const { updates } = bench.size;
  // As other rows: the first updates of a daemon are those of code that has just been loaded.
  const before = bench.fresh ? 0 : updates;
  const names = Array.from({ length: before + updates }, (_, i) => `conf/${i}`);
  const prepare = ({ at }) => {
    fs.mkdirSync(`${at.base}/conf`);
    for (const name of names) fs.writeFileSync(path.join(at.base, name), conffile({}));
  };
  const cell = await openCell(bench, peer, place, { prepare, options: ['--settle', '0'] });
  try {
    const edit = 'for f in conf/*; do sed -i "s/^key20 = .*/guest = yes/" "$f"; done';
    await work(cell, 'run', '.', ['sh', '-c', edit]);
    for (const [i, name] of names.entries()) {
      replace(path.join(cell.at.base, name), conffile(UPDATE));
      const { seconds } = await work(cell, 'await', '.', [name, 'guest = yes', 'update = yes']);
      if (i >= before) record('conffile', { wall: seconds });
    }
  } finally {
    await closeCell(cell);
  }
}

/** /etc and /lib of the paper had 136 MB: here 3,000 files of 45 KiB beside the one. */
async function measureMercurial(bench, place, record) {
  const dir = path.join(place.dir, 'mercurial');
  const [base, guest] = [`${dir}/base`, `${dir}/guest`];
  const files = bench.quick ? 200 : 3000;
  const hg = (at, ...args) => ['hg', '-q', '-R', at, '--config', 'ui.username=bench', ...args];
  const command = (...argv) => run(bench.stage, argv, { seconds: 300, env: { HGRCPATH: '' } });
  fs.mkdirSync(base, { recursive: true });
  try {
    for (let i = 0; i < files; i += 1) {
      fs.mkdirSync(`${base}/lib/${i % 50}`, { recursive: true });
      fs.writeFileSync(`${base}/lib/${i % 50}/file${i}`, `${i} of a library, and more of it\n`.repeat(1400));
    }
    fs.writeFileSync(`${base}/conf`, conffile({}));
    await command('hg', 'init', base);
    await command(...hg(base, 'commit', '-A', '-m', 'base'));
    await command('hg', '-q', 'clone', '--pull', base, guest);
    fs.writeFileSync(`${guest}/conf`, conffile(GUEST));
    await command(...hg(guest, 'commit', '-m', 'guest'));
    fs.writeFileSync(`${base}/conf`, conffile(UPDATE));
    const before = performance.now();
    await command(...hg(base, 'commit', '-m', 'update'));
    await command(...hg(guest, 'pull'));
    await command(...hg(guest, 'merge'));
    await command(...hg(guest, 'commit', '-m', 'merge'));
    record('conffile', { wall: (performance.now() - before) / 1000 });
  } finally {
    await run(bench.stage, ['rm', '-rf', dir]);
  }
}

export const conffileScene = {
  key: 'conffile',
  on: 'ext4',
  rounds: 1,
  peers: ['kasane', 'kasane-check', 'mercurial'],
  why: 'only Kasane and Mercurial merge, and of Kasane notify and check are measured',
  rows: [
    {
      key: 'conffile',
      name: 'conffile update, durable',
      unit: 's',
      value: true,
      bare: 'the client asks again and again, and the daemon answers, until the update is there',
      goals: [{ most: 0.015 }, { peer: 'mercurial', most: 0.02, metric: 'wall' }],
    },
  ],
  measure: (bench, peer, place, record) =>
    peer.command ? measureMercurial(bench, place, record) : measureKasane(bench, peer, place, record),
};
