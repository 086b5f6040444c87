// Stands in for client.c where there is no C compiler: the same workloads, the same line of JSON. Node adds some
// microseconds to each call, which hides differences; the report says which of the two it was. Relative paths.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';

const [work, dir, ...words] = process.argv.slice(2);
const n = words.map(Number);
process.chdir(dir);

const buffer = Buffer.alloc(1 << 20, 'k');

function cpuOfSelf() {
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  return (userCPUTime + systemCPUTime) / 1e6;
}

/** In clock ticks, for Node tells nothing of children. */
function cpuOfChildren() {
  const fields = fs
    .readFileSync('/proc/self/stat', 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

function timed(operations, body, cpu = cpuOfSelf) {
  const used = cpu();
  const start = process.hrtime.bigint();
  const counted = body();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const result = { seconds, cpu: cpu() - used, operations: operations ?? counted };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

const namesOf = (dirs, files) =>
  Array.from({ length: dirs * files }, (_, i) => `${Math.floor(i / files)}/file${i % files}`);

function create(name, bytes) {
  const fd = fs.openSync(name, 'wx');
  if (bytes > 0) fs.writeSync(fd, buffer, 0, bytes);
  fs.closeSync(fd);
}

function statAll(names, count) {
  for (let i = 0; i < count; i += 1) fs.lstatSync(names[i % names.length]);
}

function openAll(names, count) {
  for (let i = 0; i < count; i += 1) {
    const fd = fs.openSync(names[i % names.length], 'r');
    fs.readSync(fd, buffer, 0, 4096);
    fs.closeSync(fd);
  }
}

function timedNames(all) {
  const names = namesOf(n[0], n[1]);
  timed(n[2], () => all(names, n[2]));
}

function walk(at) {
  let found = 0;
  for (const name of fs.readdirSync(at)) {
    const path = `${at}/${name}`;
    found += 1 + (fs.lstatSync(path).isDirectory() ? walk(path) : 0);
  }
  return found;
}

function readWhole(name) {
  let bytes = 0;
  const fd = fs.openSync(name, 'r');
  for (let got = 1; got > 0; bytes += got) got = fs.readSync(fd, buffer);
  fs.closeSync(fd);
  return bytes / 2 ** 20;
}

function writeWhole(name, mebibytes) {
  const fd = fs.openSync(name, 'wx');
  for (let i = 0; i < mebibytes; i += 1) fs.writeSync(fd, buffer);
  fs.closeSync(fd);
}

function storm(names) {
  statAll(names, names.length);
  let done = 0;
  const ended = () => {
    try {
      return fs.readSync(0, buffer, 0, 1, null) === 0;
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      return false;
    }
  };
  timed(null, () => {
    do {
      statAll(names, names.length);
      done += names.length;
    } while (!ended());
    return done;
  });
}

function awaitTexts(name, one, other) {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    const text = fs.readFileSync(name, 'latin1');
    if (text.includes(one) && text.includes(other)) return;
  }
  throw new Error(`${name}: was not merged within 10 s`);
}

const workloads = {
  tree() {
    for (let i = 0; i < n[0]; i += 1) fs.mkdirSync(String(i));
    for (const name of namesOf(n[0], n[1])) create(name, n[2]);
  },
  big: () => writeWhole(words[0], n[1]),
  lstat: () => timedNames(statAll),
  open: () => timedNames(openAll),
  create: () =>
    timed(n[0], () => {
      for (let i = 0; i < n[0]; i += 1) {
        create(`new${i % 50}`, n[1]);
        fs.unlinkSync(`new${i % 50}`);
      }
    }),
  walk: () => timed(null, () => walk('.')),
  read: () => timed(null, () => readWhole(words[0])),
  write: () => timed(n[1], () => writeWhole(words[0], n[1])),
  'write-away': () =>
    timed(n[1] * n[2], () => {
      for (let i = 0; i < n[2]; i += 1) {
        writeWhole(words[0], n[1]);
        fs.unlinkSync(words[0]);
      }
    }),
  random() {
    const fd = fs.openSync(words[0], 'r');
    const blocks = Math.floor(fs.fstatSync(fd).size / 4096);
    let state = 1;
    timed(n[1], () => {
      for (let i = 0; i < n[1]; i += 1) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        fs.readSync(fd, buffer, 0, 4096, (state % blocks) * 4096);
      }
    });
  },
  mmap() {
    throw new Error('mmap: needs a C compiler');
  },
  'copy-up': () =>
    timed(1, () => {
      const fd = fs.openSync(words[0], 'r+');
      fs.writeSync(fd, 'x', 0);
      fs.fdatasyncSync(fd);
      fs.closeSync(fd);
    }),
  storm: () => storm(namesOf(n[0], n[1])),
  await: () => timed(1, () => awaitTexts(words[0], words[1], words[2])),
  cpu: () => process.stdout.write(`${n.reduce((sum, pid) => sum + ticksOf(pid).own, 0)}\n`),
  run: () =>
    timed(
      1,
      () => {
        const { status, error } = spawnSync(words[0], words.slice(1), { stdio: ['ignore', 2, 2] });
        if (error || status !== 0) throw new Error(`${words[0]} ended with ${error?.code ?? status}`);
      },
      cpuOfChildren,
    ),
};

if (!Object.hasOwn(workloads, work)) throw new Error(`${work}: no such workload`);
workloads[work]();
