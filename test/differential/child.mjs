// Child of differential.ts: does random operations twice, on the union and on a plain copy of its base, and
// compares what comes of each. Operations are [kind, number]: the number seeds all choices, which are made by a
// model of the plain tree, so that most operations are possible. One line of JSON in, one out.
import * as fs from 'node:fs';
import * as readline from 'node:readline';
import { pathToFileURL } from 'node:url';
import { handleOperations } from './handles.mjs';
import { describeStat, listEntries, randomFrom, typeOf, xattrsOf } from './look.mjs';
import { libcFor, mapOperations, unmapAll } from './maps.mjs';
import { pathOperations } from './paths.mjs';
import { newTally, shared, verify } from './shared.mjs';

const TMPFS_MAGIC = 0x01021994;

const load = (dist, file) => import(pathToFileURL(`${dist}/sys/${file}`).href);

/** One tree or two (then the second is the one to go by), a model of it, and open handles in both. */
async function openWorld({ dist, union, plain, report, client = null }) {
  const files = ['file.js', 'names.js', 'stat.js', 'xattr.js', 'creds.js', 'constants.js', 'ffi.js'];
  const modules = await Promise.all(files.map((file) => load(dist, file)));
  const sys = Object.assign({}, ...modules);
  const { newStat } = await import(pathToFileURL(`${dist}/lib/stat.js`).href);
  const { E } = await import(pathToFileURL(`${dist}/lib/errno.js`).href);
  const names = new Map(Object.entries(E).map(([name, n]) => [-n, name]));
  const world = {
    sys,
    E,
    /** Where the file system counts directories, so does the union. */
    countsDirectories: fs.statSync(plain).nlink > 1,
    zeroes: fs.statfsSync(plain).type !== TMPFS_MAGIC,
    stat: newStat(),
    libc: await libcFor(sys),
    /** Which of two clients this is, if there are two. */
    client,
    shared: client !== null,
    sides: [union, plain].filter(Boolean).map((path, index) => ({ index, path })),
    tallies: [newTally(), newTally()],
    sequence: {},
    /** The step in the midst of which the daemon died. */
    cut: null,
    model: new Map(),
    files: Array.from({ length: 6 }, () => null),
    dirs: Array.from({ length: 3 }, () => null),
    maps: Array.from({ length: 3 }, () => null),
    /** Object of the plain tree (inode number and birth) to st_ino in the union, and back. */
    inos: new Map(),
    errno: (r) => (r < 0 ? (names.get(r) ?? String(r)) : 'ok'),
    log: [],
    reportFile: report,
  };
  for (const side of world.sides) enter(world, side);
  scan(world);
  return world;
}

/** A client has a directory of its own on each side, and one that it shares with the other. */
function enter(world, side) {
  const { sys, client } = world;
  const open = (path) => sys.openat(sys.AT_FDCWD, path, sys.O_PATH | sys.O_DIRECTORY);
  side.root = open(client === null ? side.path : `${side.path}/c${client}`);
  side.shared = client === null ? -1 : open(`${side.path}/shared`);
}

/** The model from the plain tree; directories that come from the base are marked when it is new. */
function scan(world) {
  const { sys, sides, stat } = world;
  const first = world.model.size === 0;
  const found = new Map([['', { type: 'dir', base: true }]]);
  const { root } = sides.at(-1);
  const walk = (path) => {
    for (const name of listNames(world, root, path) ?? []) {
      const child = path === '' ? name : `${path}/${name}`;
      // Where another program shows Kasane's own directory, nobody is to touch it.
      if (child === '.kasane') continue;
      sys.statx(root, child, sys.AT_SYMLINK_NOFOLLOW, stat);
      const type = typeOf(stat.mode);
      found.set(child, { type, base: first || (world.model.get(child)?.base ?? false) });
      if (type === 'dir') walk(child);
    }
  };
  walk('');
  world.model = found;
}

function listNames(world, dirFd, path) {
  const entries = listEntries(world, dirFd, path);
  return typeof entries === 'number' ? null : entries.map((entry) => entry.name);
}

/** st_ino in the union never changes while the object lives, and no two objects share one. */
export function checkIno(world, union, plain) {
  const object = `${plain.ino}:${plain.btimeSec}.${plain.btimeNsec}`;
  const known = world.inos.get(object);
  if (known === undefined) {
    world.inos.set(object, union.ino);
    return null;
  }
  return known === union.ino ? null : `st_ino was ${known} and is ${union.ino}`;
}

function readAll(world, dirFd, path) {
  const { sys, stat } = world;
  const fd = sys.openat(dirFd, path, sys.O_RDONLY | sys.O_NOFOLLOW | sys.O_NONBLOCK);
  if (fd < 0) return fd;
  sys.fstat(fd, stat);
  const bytes = Buffer.alloc(stat.size + 1);
  let at = 0;
  for (let n = 1; n > 0; at += Math.max(n, 0)) {
    n = sys.pread(fd, bytes, at, bytes.length - at, at);
    if (n < 0) at = n - 1;
    if (n < 0) break;
  }
  sys.close(fd);
  return at < 0 ? at : bytes.toString('latin1', 0, at);
}

/** One object as plain data. */
function describe(world, side, path) {
  const { sys, stat } = world;
  const name = path === '' ? '.' : path;
  const error = sys.statx(side.root, name, sys.AT_SYMLINK_NOFOLLOW, stat);
  if (error < 0) return { error: world.errno(error) };
  const entry = describeStat(world, stat);
  const copy = { ...stat };
  entry.xattrs = xattrsOf(world, side.root, name);
  if (entry.type === 'link') entry.target = sys.readlinkat(side.root, name);
  if (entry.type === 'file') entry.content = readAll(world, side.root, name);
  return { entry, stat: copy };
}

/** Every difference between the two trees; also d_ino against st_ino in the union. */
function compareTrees(world) {
  const differences = [];
  const seen = new Map();
  const walk = (path) => {
    const [u, p] = world.sides.map((side) => describe(world, side, path));
    const [left, right] = [JSON.stringify(u.entry ?? u.error), JSON.stringify(p.entry ?? p.error)];
    if (left !== right) differences.push(`${shown(path)}: ${short(left)} / ${short(right)}`);
    if (!u.entry || !p.entry) return;
    const moved = checkIno(world, u.stat, p.stat);
    if (moved !== null) differences.push(`${shown(path)}: ${moved}`);
    const object = `${p.stat.ino}`;
    const other = seen.get(u.stat.ino);
    if (other !== undefined && other !== object)
      differences.push(`${shown(path)}: shares its st_ino with another`);
    seen.set(u.stat.ino, object);
    if (u.entry.type !== 'dir' || p.entry.type !== 'dir') return;
    const [listed, wanted] = world.sides.map((side) => listEntries(world, side.root, path));
    const namesOf = (list) => (typeof list === 'number' ? [world.errno(list)] : list.map((one) => one.name));
    const [have, want] = [namesOf(listed), namesOf(wanted)];
    for (const name of new Set([...have, ...want])) {
      const child = path === '' ? name : `${path}/${name}`;
      if (!have.includes(name) || !want.includes(name)) {
        differences.push(`${shown(child)}: only in the ${have.includes(name) ? 'union' : 'plain tree'}`);
        continue;
      }
      world.sys.statx(world.sides[0].root, child, world.sys.AT_SYMLINK_NOFOLLOW, world.stat);
      const entry = listed.find((one) => one.name === name);
      if (entry.ino !== world.stat.ino) differences.push(`${shown(child)}: d_ino is not st_ino`);
      walk(child);
    }
  };
  walk('');
  return differences;
}

const shown = (path) => JSON.stringify(path);
const short = (text) => (text.length > 400 ? `${text.slice(0, 400)}… (${text.length})` : text);

function resultText(world, result) {
  const { r, ofIno: _, ...rest } = result;
  return short(JSON.stringify({ r: r < 0 ? world.errno(r) : r, ...rest }));
}

class Different extends Error {}

class Cut extends Error {}

/**
 * Runs one step on both sides and compares; the plain side's result. Throws Different, or Cut where the daemon has
 * died. Where the union's result is one that is `allowed`, that is all, and the plain tree is left alone.
 */
function stepOn(world, step) {
  const { sides, E } = world;
  const first = step.run(sides[0]);
  if (sides.length > 1 && (first.r === -E.ENOTCONN || first.r === -E.ECONNABORTED)) {
    world.cut = step;
    throw new Cut(step.text);
  }
  if (step.allowed?.(first)) {
    note(world, `${step.text} -> ${world.errno(first.r)}, which is allowed`);
    world.allowed += 1;
    return first;
  }
  const results = sides.length > 1 ? [first, step.run(sides[1])] : [first];
  note(world, `${step.text} -> ${world.errno(results.at(-1).r)}`);
  return compared(world, step.text, results);
}

function compared(world, text, results) {
  if (results.length === 1) return results[0];
  const [left, right] = results.map((result) => resultText(world, result));
  if (left !== right) throw new Different(`${text}: ${left} in the union, ${right} in the plain tree`);
  const [u, p] = results;
  if (u.ofIno && p.ofIno) {
    const moved = checkIno(world, u.ofIno, p.ofIno);
    if (moved !== null) throw new Different(`${text}: ${moved}`);
  }
  return p;
}

function note(world, line) {
  world.log.push(line);
  if (world.log.length > 60) world.log.shift();
  if (world.reportFile) fs.appendFileSync(world.reportFile, `${line}\n`);
}

function runOperations(world, operations, ops) {
  const mix = {};
  world.allowed = 0;
  let done = 0;
  for (const [at, [kind, seed]] of ops.entries()) {
    mix[kind] ??= { ok: 0, failed: 0 };
    const row = mix[kind];
    try {
      const result = operations[kind](world, randomFrom(seed), {
        step: (step) => stepOn(world, step),
        note: (line) => note(world, line),
        rescan: () => scan(world),
      });
      done += 1;
      if (result.r < 0) row.failed += 1;
      else row.ok += 1;
    } catch (error) {
      const { allowed, log } = world;
      if (error instanceof Cut) return { mix, allowed, done, different: null, cut: error.message, log };
      if (!(error instanceof Different)) throw error;
      return { mix, allowed, done: at, different: `operation ${at}: ${error.message}`, cut: null, log };
    }
  }
  return { mix, allowed: world.allowed, done, different: null, cut: null, log: [] };
}

/** After a crash and a remount: what was cut off has happened, or has not. */
function settleCut(world) {
  const { cut } = world;
  world.cut = null;
  const before = compareTrees(world);
  if (cut === null || before.length === 0) return { differences: before };
  const result = cut.run(world.sides[1]);
  note(world, `${cut.text} -> ${world.errno(result.r)}, cut off`);
  scan(world);
  const after = compareTrees(world);
  if (after.length === 0) return { differences: [] };
  return { differences: [`neither before nor after ${cut.text}`, ...before, 'and', ...after] };
}

function closeHandles(world) {
  unmapAll(world);
  for (const slots of [world.files, world.dirs]) {
    for (const [i, slot] of slots.entries()) {
      if (slot !== null) for (const fd of slot.fds) if (fd >= 0) world.sys.close(fd);
      slots[i] = null;
    }
  }
}

const operations = { ...pathOperations, ...handleOperations, ...mapOperations, shared };
let world = null;

async function answer({ command, ...args }) {
  switch (command) {
    case 'open':
      world = await openWorld(args);
      return { entries: world.model.size };
    case 'run':
      return runOperations(world, operations, args.ops);
    case 'compare':
      return { differences: compareTrees(world) };
    case 'pause':
      // Before a remount: nothing may be in use.
      closeHandles(world);
      for (const fd of [world.sides[0].root, world.sides[0].shared]) if (fd >= 0) world.sys.close(fd);
      return {};
    case 'resume': {
      enter(world, world.sides[0]);
      const settled = settleCut(world);
      scan(world);
      return settled;
    }
    case 'tallies':
      return { tallies: world.tallies };
    case 'verify':
      return {
        problems: world.sides.map((side) =>
          verify(
            world,
            side,
            args.tallies.map((both) => both[side.index]),
          ),
        ),
      };
    default:
      throw new TypeError(`unknown command ${command}`);
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let reply;
  try {
    reply = await answer(JSON.parse(line));
  } catch (error) {
    reply = { error: error.stack };
  }
  fs.writeSync(1, `${JSON.stringify(reply)}\n`);
}
