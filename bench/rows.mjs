// What is measured. `prepare` fills a fresh base; `size` is the number of operations (or MiB) for a full and a
// quick run. A row with `cold` has the mount made anew and the kernel's caches dropped before it.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';

const TREE_DIRS = 40;
const FILES_PER_DIR = 50;
const TREE_FILES = TREE_DIRS * FILES_PER_DIR;

function makeTree(base) {
  const content = Buffer.alloc(4096, 'a line of text in a file of the base\n');
  for (let dir = 0; dir < TREE_DIRS; dir += 1) {
    fs.mkdirSync(`${base}/tree/${dir}`, { recursive: true });
    for (let file = 0; file < FILES_PER_DIR; file += 1)
      fs.writeFileSync(`${base}/tree/${dir}/file${file}`, content);
  }
  fs.mkdirSync(`${base}/into`);
}

/** The archive lies beside the mount, not in it. */
function makeTreeAndTar(base, dir) {
  makeTree(base);
  execFileSync('tar', ['-cf', `${dir}/tree.tar`, '-C', base, 'tree']);
}

function makeBig(base, _dir, size) {
  fs.mkdirSync(`${base}/into`);
  const buffer = Buffer.alloc(1 << 20, 'big');
  const fd = fs.openSync(`${base}/big`, 'wx');
  for (let i = 0; i < size; i += 1) fs.writeSync(fd, buffer);
  fs.closeSync(fd);
}

function makeEmpty(base) {
  fs.mkdirSync(`${base}/into`);
}

export const rows = [
  { name: 'stat storm', workload: 'stat', unit: 'op', size: [60_000, 10_000], prepare: makeTree },
  { name: 'open+read+close', workload: 'open', unit: 'op', size: [20_000, 4000], prepare: makeTree },
  { name: 'create+unlink', workload: 'create', unit: 'op', size: [5000, 1000], prepare: makeTree },
  { name: 'untar', workload: 'untar', unit: 'file', size: [TREE_FILES, TREE_FILES], prepare: makeTreeAndTar },
  {
    name: 'walk, cold',
    workload: 'walk',
    unit: 'file',
    size: [TREE_FILES, TREE_FILES],
    prepare: makeTree,
    cold: true,
  },
  {
    name: 'walk, warm',
    workload: 'walk',
    unit: 'file',
    size: [TREE_FILES, TREE_FILES],
    prepare: makeTree,
    twice: true,
  },
  {
    name: 'rm -r, base’s files',
    workload: 'remove',
    unit: 'file',
    size: [TREE_FILES, TREE_FILES],
    prepare: makeTree,
  },
  {
    name: 'rm -r, own files',
    workload: 'remove-own',
    unit: 'file',
    size: [TREE_FILES, TREE_FILES],
    prepare: makeTreeAndTar,
  },
  { name: 'sequential read', workload: 'read', unit: 'MiB', size: [512, 64], prepare: makeBig },
  { name: 'sequential write', workload: 'write', unit: 'MiB', size: [512, 64], prepare: makeEmpty },
];

export const conffileRow = { name: 'conffile update', workload: 'conffile', unit: 'update', size: [20, 5] };
