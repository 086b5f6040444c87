// Who is measured, as data. `mount` is the command that mounts base and overlay at a point and returns once it
// serves. `rounds` is how many rounds a peer takes part in (Infinity: each); `rows` limits it to these, and `why` says
// why. `user` is who mounts and works there. `family` is what the charts group by; those of `floor` are no
// file systems for use: what they take is the best that is possible by way of the device.
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { keepsAwake } from '../dist/daemon/cpu-latency.js';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const mainFile = path.join(root, 'dist', 'main.js');

export const NOBODY = 65534;

const layers = (at) => `lowerdir=${at.base},upperdir=${at.overlay},workdir=${at.work}`;

const kasane =
  (...options) =>
  (at) => [
    process.execPath,
    mainFile,
    'mount',
    '--base',
    at.base,
    '--overlay',
    at.overlay,
    ...options,
    ...(at.options ?? []),
    at.mnt,
  ];

const asRoot = ['-o', 'suid,dev'];
const ofKasane = { family: 'kasane', version: [process.execPath, mainFile, '--version'], metrics: true };
const notify = kasane('--coherence', 'notify', ...asRoot);

const fuseOverlayfs = {
  family: 'fuse',
  version: ['fuse-overlayfs', '--version'],
  versionIn: /fuse-overlayfs: version (\S+)/,
  fuse: true,
};

/** As the spin of Kasane (src/fuse/spin.ts), in microseconds. */
const SPIN = 30;

const awake = keepsAwake({ cpuLatency: 'auto', transport: 'direct' });

const floor = (spin) => ({
  family: 'floor',
  rounds: Infinity,
  why: 'it answers small files from memory: no disk, no big files, no chroots',
  rows: [
    ...[
      'walk-cold',
      'walk-warm',
      'lstat',
      'open',
      'create',
      'create-write',
      'untar',
      'rm',
      'rm-base',
      'chmod',
    ],
    ...['chown', 'git-status', 'git-checkout', 'compile', 'npm'],
  ],
  mount: (at, bench) => [...bench.floor(), String(spin), spin > 0 && awake ? '1' : '0', at.base, at.mnt],
});

/** Branches as unionfs-fuse and mergerfs take them. */
const branches = (at, low) => `${at.overlay}=RW:${at.base}=${low}`;

export const peers = {
  kasane: { ...ofKasane, rounds: Infinity, about: 'Kasane, coherence notify', mount: notify },
  'kasane-check': {
    ...ofKasane,
    rounds: 3,
    about: 'Kasane, coherence check',
    mount: kasane('--coherence', 'check', ...asRoot),
  },
  'kasane-user': {
    ...ofKasane,
    rounds: 2,
    about: 'Kasane mounted by an ordinary user',
    mount: kasane(),
    user: NOBODY,
  },
  'kasane-fuse-native': {
    ...ofKasane,
    rounds: 1,
    about: 'Kasane over fuse-native',
    mount: kasane('--transport', 'fuse-native', ...asRoot),
  },
  'kasane-again': {
    ...ofKasane,
    rounds: Infinity,
    rows: ['lstat', 'open', 'create', 'read'],
    why: 'it tells the noise of lstat, open, create and read',
    about: 'Kasane once more: what differs from it is noise',
    mount: notify,
  },
  'kasane-sleepy': {
    ...ofKasane,
    rounds: 2,
    rows: ['walk-cold', 'open', 'create', 'create-write', 'untar', 'chmod', 'git-status', 'git-checkout'],
    why: 'it tells what waking processors costs, of a few rows',
    about: 'Kasane with --cpu-latency off: idle processors may sleep',
    mount: kasane('--cpu-latency', 'off', ...asRoot),
  },
  'kasane-export': {
    ...ofKasane,
    rounds: Infinity,
    rows: ['walk-export'],
    why: 'it tells what --export costs',
    about: 'Kasane with --export',
    mount: kasane('--export', ...asRoot),
  },
  dir: {
    family: 'kernel',
    rounds: Infinity,
    about: 'a plain directory (bind mount)',
    mount: (at) => ['mount', '--bind', at.base, at.mnt],
    plain: true,
  },
  overlayfs: {
    family: 'kernel',
    rounds: Infinity,
    about: 'kernel overlayfs',
    version: ['uname', '-r'],
    mount: (at) => ['mount', '-t', 'overlay', 'overlay', '-o', layers(at), at.mnt],
  },
  'fuse-overlayfs': {
    ...fuseOverlayfs,
    rounds: Infinity,
    about: 'fuse-overlayfs',
    mount: (at) => ['fuse-overlayfs', '-o', `${layers(at)},suid,dev`, at.mnt],
  },
  'fuse-overlayfs-t0': {
    ...fuseOverlayfs,
    rounds: 3,
    rows: ['lstat', 'walk-warm'],
    why: 'it is the peer of --coherence check, of what kernels keep',
    about: 'fuse-overlayfs with timeout=0',
    mount: (at) => ['fuse-overlayfs', '-o', `${layers(at)},timeout=0,suid,dev`, at.mnt],
  },
  'unionfs-fuse': {
    family: 'fuse',
    rounds: 1,
    about: 'unionfs-fuse',
    version: ['unionfs', '--version'],
    versionIn: /unionfs-fuse version: (\S+)/,
    fuse: true,
    mount: (at) => [
      'unionfs',
      '-o',
      'cow,allow_other,default_permissions,use_ino,suid,dev',
      branches(at, 'RO'),
      at.mnt,
    ],
  },
  mergerfs: {
    family: 'fuse',
    rounds: 1,
    about: 'mergerfs',
    version: ['mergerfs', '--version'],
    versionIn: /mergerfs (?:version|v)\W*(\S+)/,
    fuse: true,
    mount: (at) => [
      'mergerfs',
      '-o',
      'allow_other,use_ino,category.create=ff,suid,dev',
      branches(at, 'NC'),
      at.mnt,
    ],
  },
  floor: {
    ...floor(SPIN),
    about: 'what the device takes: the requests of Kasane, answered at once from memory',
  },
  'floor-waiting': {
    ...floor(0),
    about: 'the same without a spin, and processors may sleep: it waits for each request',
  },
  mercurial: {
    family: 'other',
    rounds: 1,
    rows: ['conffile'],
    why: 'it is no file system, and only updates a conffile',
    about: 'Mercurial in base and overlay, as in the paper',
    version: ['hg', '--version', '--quiet'],
    versionIn: /version ([^)]+)/,
    command: true,
  },
};

/** The one that goals are about: notify, or the best that there is. */
export const subjectOf = (usable) => Object.keys(usable).find((name) => peers[name].family === 'kasane');

export const floors = Object.keys(peers).filter((name) => peers[name].family === 'floor');

/** Why a peer takes no part in a row of a scene; null where it does. */
export function absence(name, scene, row) {
  const { rows, why } = peers[name];
  if (rows && !rows.includes(row.key)) return why;
  const closed = [scene, row].find((one) => one.peers && !one.peers.includes(name));
  return closed?.why ?? row.without?.[name] ?? null;
}
