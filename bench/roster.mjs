// Which peers this machine has: each is mounted once and asked for a file. The others keep the reason.
import * as fs from 'node:fs';
import { closeCell, openCell, work } from './cell.mjs';
import { peers, subjectOf } from './peers.mjs';
import { placeOn } from './places.mjs';
import { run } from './stage.mjs';

async function versionOf(bench, { version, versionIn }) {
  if (version === undefined) return '';
  const text = await run(bench.stage, version, { seconds: 20 });
  return (versionIn ? versionIn.exec(text)?.[1] : text.trim()) ?? 'unknown version';
}

async function tryOne(bench, peer, place) {
  const version = await versionOf(bench, peer);
  if (peer.command) return version;
  const cell = await openCell(bench, peer, place, {
    prepare: ({ at }) => fs.writeFileSync(`${at.base}/probe`, 'x'),
  });
  try {
    await work(cell, 'read', '.', ['probe']);
  } finally {
    await closeCell(cell);
  }
  return version;
}

/** Peers that this run can use, with their versions; and, by name, why not the others. */
export async function callRoster(bench, names) {
  const place = await placeOn(bench, bench.on ?? 'tmpfs');
  const usable = {};
  const missing = {};
  // What it repeats must be known, wherever it was named.
  const again = names.filter((name) => name === 'kasane-again');
  for (const name of [...names.filter((one) => !again.includes(one)), ...again]) {
    const peer = { ...peers[name], name };
    const subject = subjectOf(usable);
    // The noise is that of the one that goals are about.
    if (name === 'kasane-again' && subject) peer.mount = usable[subject].mount;
    try {
      if (name === 'kasane-again' && !subject) throw new Error('there is no Kasane to run again');
      usable[name] = { ...peer, version: await tryOne(bench, peer, place) };
    } catch (error) {
      if (bench.stage.ended) throw error;
      missing[name] = error.message.replace(/^.*ended with \d+: (kasane: mount: )?/, '');
    }
  }
  const subject = subjectOf(usable);
  if (subject) usable[subject].rounds = Infinity;
  return { usable, missing, subject };
}

/** Whether perf can count the requests of a FUSE connection. */
export async function tryPerf(bench) {
  try {
    const out = `${bench.stage.dir}/perf.out`;
    const event = ['-e', 'fuse:fuse_request_send', '--filter', 'connection==1'];
    await run(bench.stage, ['perf', 'stat', '-x,', '-o', out, '-a', ...event, 'true'], { seconds: 10 });
    return /^\d+,/m.test(fs.readFileSync(out, 'utf8'));
  } catch (error) {
    if (bench.stage.ended) throw error;
    return false;
  }
}

async function compile(bench, name) {
  const binary = `${bench.stage.dir}/${name}`;
  await run(bench.stage, ['cc', '-O2', '-o', binary, `${import.meta.dirname}/${name}.c`]);
  return [binary];
}

/** The command line of the floor so far, or that there is none. */
export async function makeFloor(bench) {
  try {
    const argv = await compile(bench, 'floor');
    return () => argv;
  } catch (error) {
    if (bench.stage.ended) throw error;
    return () => {
      throw error;
    };
  }
}

/** The client: compiled if it can be. */
export async function makeClient(bench) {
  try {
    return { argv: await compile(bench, 'client'), name: 'C, compiled at start' };
  } catch (error) {
    if (bench.stage.ended) throw error;
    const name = `Node, for cc cannot be had (${error.message}): small differences drown in it`;
    return { argv: [process.execPath, `${import.meta.dirname}/client.mjs`], name };
  }
}
