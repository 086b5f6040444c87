// What is measured, as data: scenes, each with a base of its own and steps that run one after another in one
// mount (in use before, where the scene says `used`); each step is a row. `args(size)` is the workload for the client;
// `warm` runs it, or others, before the clock, `cold` drops the caches first. `peers` limits a row to these, and `why` says
// why; `without` names who is left out, each with why. A goal is at most so much of a peer's wall (or
// cpu: client and daemon together).
import * as fs from 'node:fs';
import * as path from 'node:path';
import { make } from './cell.mjs';
import {
  aptInstall,
  bigFile,
  cProject,
  gitOptions,
  gitTree,
  npmProject,
  smallArchive,
} from './materials.mjs';
import { NOBODY } from './peers.mjs';
import { run } from './stage.mjs';

/** Per option: a whole run, --quick. Files are in directories of 100. */
export const sizes = {
  full: {
    files: 10_000,
    stats: 50_000,
    opens: 10_000,
    creates: 3000,
    archive: 20_000,
    own: 2000,
    data: 512,
    randoms: 600_000,
    git: 4000,
    units: 60,
    packages: 40,
    copyUp: 1024,
    guests: 500,
    known: 100_000,
    idle: 30,
    updates: 20,
  },
  quick: {
    files: 2000,
    stats: 10_000,
    opens: 2000,
    creates: 500,
    archive: 2000,
    own: 400,
    data: 64,
    randoms: 100_000,
    git: 600,
    units: 12,
    packages: 8,
    copyUp: 128,
    guests: 64,
    known: 50_000,
    idle: 4,
    updates: 5,
  },
};

const of = (peer, most, metric = 'wall') => ({ peer, most, metric });
const tree = (size) => [size.files / 100, 100];

async function smallBase(cell) {
  const { bench, at } = cell;
  const { size } = bench;
  await make(bench, 'tree', `${at.base}/tree`, ...tree(size), 1024);
  for (const name of ['gone', 'modes', 'owners'])
    await make(bench, 'tree', `${at.base}/${name}`, 20, size.own / 20, 1024);
  fs.mkdirSync(`${at.base}/into`);
  cell.archive = await smallArchive(bench, cell.place, size.archive);
}

const small = {
  key: 'small',
  on: 'tmpfs',
  used: true,
  prepare: smallBase,
  steps: [
    {
      key: 'walk-cold',
      name: 'walk with stat, cold',
      unit: 'name',
      cold: true,
      work: () => ['walk', 'tree'],
      goals: [of('fuse-overlayfs', 0.7)],
    },
    {
      key: 'walk-warm',
      name: 'walk with stat, warm',
      unit: 'name',
      warm: true,
      work: () => ['walk', 'tree'],
      goals: [of('fuse-overlayfs', 1), of('overlayfs', 0.95)],
    },
    {
      key: 'lstat',
      name: 'lstat storm',
      unit: 'call',
      warm: ({ size }) => ['lstat', 'tree', ...tree(size), size.files],
      work: ({ size }) => ['lstat', 'tree', ...tree(size), size.stats],
      goals: [
        of('fuse-overlayfs', 1),
        of('overlayfs', 0.9),
        { ...of('fuse-overlayfs-t0', 0.6), subject: 'kasane-check' },
      ],
    },
    {
      key: 'open',
      name: 'open+read+close of small base files',
      unit: 'file',
      warm: ({ size }) => ['open', 'tree', ...tree(size), size.files],
      work: ({ size }) => ['open', 'tree', ...tree(size), size.opens],
      goals: [of('fuse-overlayfs', 0.5)],
    },
    {
      key: 'create',
      name: 'create+unlink',
      unit: 'pair',
      work: ({ size }) => ['create', 'into', size.creates, 0],
      goals: [of('fuse-overlayfs', 0.25)],
    },
    {
      key: 'create-write',
      name: 'create+write+unlink',
      unit: 'file',
      work: ({ size }) => ['create', 'into', size.creates, 4096],
      goals: [of('fuse-overlayfs', 0.3)],
    },
    {
      key: 'untar',
      name: 'untar of small files',
      unit: 'file',
      operations: (size) => size.archive,
      work: ({ archive }) => ['run', 'into', 'tar', '-xf', archive],
      goals: [of('fuse-overlayfs', 0.35)],
    },
    {
      key: 'rm',
      name: 'rm -r of them',
      unit: 'file',
      needs: 'untar',
      operations: (size) => size.archive,
      work: () => ['run', 'into', 'rm', '-r', 'small'],
      goals: [of('fuse-overlayfs', 0.45)],
    },
    {
      key: 'rm-base',
      name: 'rm -r of files of the base',
      unit: 'file',
      operations: (size) => size.own,
      work: () => ['run', '.', 'rm', '-r', 'gone'],
    },
    {
      key: 'chmod',
      name: 'chmod -R of files of the base',
      unit: 'file',
      operations: (size) => size.own,
      work: () => ['run', '.', 'chmod', '-R', 'g+w', 'modes'],
    },
    {
      key: 'chown',
      name: 'chown -R of files of the base',
      unit: 'file',
      without: { 'kasane-user': 'an ordinary user may not chown' },
      operations: (size) => size.own,
      work: () => ['run', '.', 'chown', '-R', String(NOBODY), 'owners'],
    },
  ],
};

/** The big file is moved into the base and out again: writing it anew for each peer would take longer than all. */
const data = {
  key: 'data',
  on: 'ext4',
  async prepare(cell) {
    cell.big = path.join(await bigFile(cell.bench, cell.place, cell.bench.size.data), 'big');
    fs.renameSync(cell.big, `${cell.at.base}/big`);
  },
  finish: (cell) => fs.renameSync(`${cell.at.base}/big`, cell.big),
  steps: [
    {
      key: 'write',
      name: 'sequential write',
      unit: 'MiB',
      // In a virtual machine memory costs whoever touches it first, many times what is measured.
      warm: [
        ({ size }) => ['write-away', '.', 'away', size.data, 1],
        ({ size }) => ['write-away', '.', 'away', 1, size.creates / 10],
      ],
      work: ({ size }) => ['write', '.', 'new', size.data],
      goals: [of('dir', 1.05), of('dir', 1.05, 'cpu')],
    },
    {
      key: 'read',
      name: 'sequential read',
      unit: 'MiB',
      warm: true,
      work: () => ['read', '.', 'big'],
      goals: [of('dir', 1.05), of('dir', 1.05, 'cpu')],
    },
    {
      key: 'random',
      name: '4k random read',
      unit: 'read',
      work: ({ size }) => ['random', '.', 'big', size.randoms],
      goals: [of('dir', 1.05), of('dir', 1.05, 'cpu')],
    },
    {
      key: 'mmap',
      name: 'read through mmap',
      unit: 'MiB',
      warm: true,
      work: () => ['mmap', '.', 'big'],
      goals: [of('dir', 1.1), of('dir', 1.1, 'cpu')],
    },
  ],
};

const copyInto = (from) => async (cell) => {
  const folder = await from(cell.bench, cell.place, cell.bench.size);
  await run(cell.bench.stage, ['cp', '-a', folder, `${cell.at.base}/project`]);
};

const lacksCommand =
  (...commands) =>
  () => {
    const has = (name) => (process.env.PATH ?? '').split(':').some((dir) => fs.existsSync(`${dir}/${name}`));
    const gone = commands.find((name) => !has(name));
    return gone ? `${gone}: not installed` : null;
  };

const asProject = [of('fuse-overlayfs', 0.6)];

const git = {
  key: 'git',
  on: 'tmpfs',
  used: true,
  lacks: lacksCommand('git'),
  rounds: 3,
  prepare: copyInto((bench, place, size) => gitTree(bench, place, size.git)),
  steps: [
    {
      key: 'git-status',
      name: 'git status of a large tree',
      unit: 'run',
      warm: true,
      work: () => ['run', 'project', 'git', ...gitOptions, 'status', '--short'],
      goals: asProject,
    },
    {
      key: 'git-checkout',
      name: 'git checkout of another branch',
      unit: 'run',
      work: () => ['run', 'project', 'git', ...gitOptions, 'checkout', '-q', 'two'],
      goals: asProject,
    },
  ],
};

const compile = {
  key: 'compile',
  on: 'tmpfs',
  used: true,
  lacks: lacksCommand('make', 'cc'),
  rounds: 2,
  prepare: copyInto((bench, place, size) => cProject(bench, place, size.units)),
  steps: [
    {
      key: 'compile',
      name: 'compile of a C project',
      unit: 'run',
      work: () => ['run', 'project', 'make', '-s', '-j2', 'CC=cc'],
      goals: asProject,
    },
  ],
};

const npm = {
  key: 'npm',
  on: 'tmpfs',
  used: true,
  lacks: lacksCommand('npm'),
  rounds: 2,
  prepare: copyInto((bench, place, size) => npmProject(bench, place, size.packages)),
  steps: [
    {
      key: 'npm',
      name: 'npm ci --offline',
      unit: 'run',
      env: ({ dir }) => ({ HOME: dir }),
      work: ({ dir }) => [
        'run',
        'project',
        'npm',
        'ci',
        '--offline',
        '--ignore-scripts',
        '--no-audit',
        '--no-fund',
        '--loglevel=error',
        `--cache=${dir}/work`,
      ],
      goals: asProject,
    },
  ],
};

const apt = {
  key: 'apt',
  on: 'tmpfs',
  used: true,
  rounds: 2,
  lacks: (bench) =>
    fs.existsSync(bench.chroot)
      ? null
      : `no chroot at ${bench.chroot}: npm run bench -- --make-chroot makes it`,
  prepare: (cell) => run(cell.bench.stage, ['tar', '-xf', cell.bench.chroot, '-C', cell.at.base]),
  steps: [
    {
      key: 'apt',
      name: 'apt-get install in a chroot',
      unit: 'run',
      without: { 'kasane-user': 'an ordinary user may not chroot' },
      env: () => ({ DEBIAN_FRONTEND: 'noninteractive' }),
      work: () => ['run', '.', 'chroot', '.', ...aptInstall],
      goals: asProject,
    },
  ],
};

const remembering = {
  key: 'remembering',
  on: 'tmpfs',
  rounds: 3,
  prepare: (cell) => make(cell.bench, 'tree', `${cell.at.base}/tree`, ...tree(cell.bench.size), 0),
  steps: [
    {
      key: 'walk-export',
      name: 'walk, cold, of what --export remembers',
      unit: 'name',
      peers: ['kasane', 'kasane-check', 'kasane-export'],
      why: 'it sets --export beside notify and check',
      cold: true,
      work: () => ['walk', 'tree'],
    },
  ],
};

export const steppedScenes = [small, data, git, compile, npm, apt, remembering];
