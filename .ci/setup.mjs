// Sets up what is missing, so that `npm start` or `npm test` may be the first command in a fresh clone:
// dependencies by the lock file, then the build. Does nothing, quickly, where all is there. Plain Node without
// dependencies; has to parse on Node 18 (Debian 12's own), to which it only says what is needed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const bundler = path.join(root, '.ci', 'bundle.mjs');

function fail(message) {
  fs.writeSync(2, `kasane ${message}\n`);
  process.exit(1);
}

function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  fail(`needs Node >= 20.19, and this is v${process.versions.node}: install a newer Node and try again`);
}

function readJson(name) {
  try {
    return JSON.parse(fs.readFileSync(path.join(root, name), 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

/** What npm would have to install: the first package of the lock file that is not there in that version. */
function missingPackage() {
  const wanted = readJson('package-lock.json').packages;
  for (const [folder, entry] of Object.entries(wanted)) {
    if (folder === '' || entry.optional || entry.peer) continue;
    const have = readJson(`${folder}/package.json`);
    if (have === null || have.version !== entry.version) return folder.replace(/^.*node_modules\//, '');
  }
  return null;
}

/**
 * npm's configuration of the call that started us comes in through the environment, so every setting that
 * would spoil this install is named: NODE_ENV=production and omit (tsc is a development dependency), -g and
 * --prefix of a global install, -s (hides why it failed). Scripts stay off: no package that is needed has one,
 * fuse-native's would compile, and our own `prepare` would run this again.
 */
function install() {
  const missing = missingPackage();
  if (missing === null) return;
  fs.writeSync(2, `kasane: installing dependencies by package-lock.json (${missing} is missing)\n`);
  const args = [
    'ci',
    '--include=dev',
    '--include=optional',
    '--global=false',
    `--prefix=${root}`,
    '--dry-run=false',
  ];
  args.push('--ignore-scripts', '--package-lock-only=false', '--loglevel=error', '--no-audit', '--no-fund');
  const npm = process.env.npm_execpath;
  const [command, first] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  const { status, error } = spawnSync(command, [...first, ...args], { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) fail(`could not be set up: npm did not start (${error.message})`);
  if (status !== 0) fail(`could not be set up: npm ci failed with ${status}; its messages are above`);
}

function filesUnder(folder) {
  const found = [];
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) found.push(...filesUnder(name));
    else found.push(name);
  }
  return found.sort();
}

function sourceHash() {
  const hash = createHash('sha256');
  for (const file of [...filesUnder(path.join(root, 'src')), path.join(root, 'tsconfig.json'), bundler]) {
    hash
      .update(`${path.relative(root, file)}\0`)
      .update(fs.readFileSync(file))
      .update('\0');
  }
  return hash.digest('hex');
}

/** Output of sources that are gone would still be found by an import. */
function dropOrphans(dist) {
  for (const file of filesUnder(dist)) {
    const stem = path.relative(dist, file).replace(/\.(d\.ts|js)$/, '');
    if (file.endsWith('.stamp') || fs.existsSync(path.join(root, 'src', `${stem}.ts`))) continue;
    fs.rmSync(file);
  }
}

function runStep(name, tool, ...args) {
  const { status, error } = spawnSync(tool, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) fail(`could not be built: ${name} did not start (${error.message})`);
  if (status !== 0) fail(`could not be built: ${name} failed with ${status}; its messages are above`);
}

function build() {
  const dist = path.join(root, 'dist');
  const stamp = path.join(dist, '.stamp');
  const hash = sourceHash();
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === hash) return;
  fs.rmSync(stamp, { force: true });
  runStep('tsc', path.join(root, 'node_modules', '.bin', 'tsc'), '-p', root);
  dropOrphans(dist);
  runStep('the bundler', process.execPath, bundler);
  const main = path.join(dist, 'main.js');
  if (fs.existsSync(main)) fs.chmodSync(main, 0o755);
  fs.writeFileSync(stamp, hash);
}

requireNode();
install();
if (!process.argv.includes('--no-build')) build();
