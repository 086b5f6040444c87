// The command line of the bench. What cannot be understood is one line that says what to do, and exit code 2.
import { parseArgs } from 'node:util';
import { growthRows } from './growth.mjs';
import { peers } from './peers.mjs';
import { fileSystems } from './places.mjs';

export class UsageError extends Error {}

const known = {
  quick: { type: 'boolean', help: 'small sizes and few rounds: about five minutes' },
  fresh: { type: 'boolean', help: 'mounts that nobody has used before' },
  growth: { type: 'boolean', help: 'instead: a few rows at 1k to 1M files, and at 1 to 32 mounts (below)' },
  only: {
    type: 'string',
    multiple: true,
    value: 'NAME',
    help: 'only rows whose name or key contains NAME; may be repeated',
  },
  peers: { type: 'string', value: 'LIST', help: 'only these, with commas between them' },
  rounds: { type: 'string', value: 'N', help: 'rounds of the main peers (5, quick: 2)' },
  on: {
    type: 'string',
    value: 'FS',
    help: `everything on ${fileSystems.join(', ')} (small files: tmpfs, data: ext4)`,
  },
  where: { type: 'string', value: 'DIR', help: 'folder for images and mounts (/var/tmp)' },
  json: { type: 'string', value: 'FILE', help: 'write everything there as JSON' },
  html: { type: 'string', value: 'FILE', help: 'write a page with charts there' },
  from: {
    type: 'string',
    value: 'FILE',
    help: 'measure nothing: print what a JSON file of an earlier run holds',
  },
  chroot: { type: 'string', value: 'FILE', help: 'tar of a Debian whose apt cache holds what is installed' },
  'make-chroot': { type: 'boolean', help: 'make that tar, from the network, and end' },
  list: { type: 'boolean', help: 'list rows and peers, and end' },
  help: { type: 'boolean', short: 'h', help: 'this' },
};

export function helpText() {
  const lines = Object.entries(known).map(([name, { value, help }]) => {
    const flag = value ? `--${name} ${value}` : `--${name}`;
    return `  ${flag.padEnd(15)} ${help}`;
  });
  const who = Object.entries(peers).map(([name, { about }]) => `  ${name.padEnd(19)} ${about}`);
  return [
    'npm run bench [-- OPTIONS]: Kasane beside other union file systems. As root, on an otherwise idle machine.',
    '',
    ...lines,
    '',
    'Peers; what is missing on this machine is named, and the rest goes on:',
    ...who,
    '',
    'Rows of --growth, in one pass, of mounts that nobody has used; with --quick up to 10k files and 8 mounts:',
    ...Object.entries(growthRows).flatMap(([by, names]) =>
      names.map((name, i) => `  ${(i === 0 ? `by ${by}` : '').padEnd(19)} ${name}`),
    ),
    '',
    'Exit codes: 0 measured (goals may be missed), 1 something failed, 2 usage. How to read it:',
    'native-notes/performance.md.',
    '',
  ].join('\n');
}

/** Throws UsageError. */
export function readOptions(args) {
  let values;
  try {
    const options = Object.fromEntries(
      Object.entries(known).map(([name, { type, multiple, short }]) => [
        name,
        { type, ...(multiple && { multiple }), ...(short && { short }) },
      ]),
    );
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new UsageError(`${error.message.split('\n')[0].replace(/\. To specify.*$/, '')}: see --help`);
  }
  const { rounds, on } = values;
  if (rounds !== undefined && !/^[1-9]\d{0,2}$/.test(rounds))
    throw new UsageError(`--rounds ${rounds}: 1 to 999`);
  if (on !== undefined && !fileSystems.includes(on)) {
    throw new UsageError(`--on ${on}: one of ${fileSystems.join(', ')}`);
  }
  if (values.growth && values.only) throw new UsageError('--growth has rows of its own: leave --only out');
  if (values.growth && (rounds ?? '1') !== '1')
    throw new UsageError('--growth is one pass: leave --rounds out');
  const names = values.peers?.split(',');
  const unknown = names?.find((name) => !Object.hasOwn(peers, name));
  if (unknown !== undefined) {
    throw new UsageError(`--peers ${unknown}: unknown; known are ${Object.keys(peers).join(', ')}`);
  }
  return { where: '/var/tmp', ...values, peers: names ?? Object.keys(peers), named: names !== undefined };
}
