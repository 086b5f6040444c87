// What the rows work on: a git repository, a C project, a project with packages, a chroot. All but the chroot are
// generated, the same in every run, without the network.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { sharedOn } from './places.mjs';
import { run } from './stage.mjs';

const lines = (count, text) => Array.from({ length: count }, (_, i) => `${text} ${i}\n`).join('');

/** Two branches that differ in a third of the files; packed, so that copying it is quick. */
export function gitTree(bench, place, files) {
  return sharedOn(place, `git-${files}`, async (folder) => {
    const git = (...args) => run(bench.stage, ['git', '-C', folder, ...gitOptions, ...args]);
    const write = (i, text) => {
      const dir = `${folder}/dir${i % 20}/sub${i % 200}`;
      fs.mkdirSync(dir, { recursive: true });
      fs.writeFileSync(`${dir}/file${i}.txt`, lines(40 + (i % 60), text));
    };
    await git('init', '-q', '-b', 'one');
    for (let i = 0; i < files; i += 1) write(i, `line of file ${i}, number`);
    await git('add', '-A');
    await git('commit', '-q', '-m', 'one');
    await git('checkout', '-q', '-b', 'two');
    for (let i = 0; i < files; i += 3) write(i, `changed line of file ${i}, number`);
    await git('commit', '-q', '-a', '-m', 'two');
    await git('gc', '-q');
    await git('checkout', '-q', 'one');
  });
}

/** No configuration of the machine's, no background work, any owner. */
export const gitOptions = [
  ...['-c', 'safe.directory=*', '-c', 'gc.auto=0', '-c', 'maintenance.auto=false'],
  ...['-c', 'user.name=bench', '-c', 'user.email=bench@example.org', '-c', 'core.fsmonitor=false'],
];

export function cProject(_bench, place, units) {
  return sharedOn(place, `c-${units}`, (folder) => {
    const names = Array.from({ length: units }, (_, i) => `unit${i}`);
    fs.mkdirSync(`${folder}/include`);
    for (const name of names) {
      const header = `#pragma once\n#include <stdio.h>\n#include <string.h>\nint ${name}(int);\n`;
      fs.writeFileSync(`${folder}/include/${name}.h`, header);
    }
    names.forEach((name, i) => {
      const used = Array.from({ length: 10 }, (_, k) => names[(i + k) % units]);
      const includes = used.map((one) => `#include "${one}.h"\n`).join('');
      const body = Array.from({ length: 20 }, (_, k) => `  x = x * ${k + 3} + ${used[k % 10]}_${k}(x);\n`);
      const helpers = body.map((_, k) => `static int ${used[k % 10]}_${k}(int x) { return x ^ ${k}; }\n`);
      const text = `${includes}${helpers.join('')}int ${name}(int x) {\n${body.join('')}  return x;\n}\n`;
      fs.writeFileSync(`${folder}/${name}.c`, text);
    });
    const calls = names.map((name) => `  x += ${name}(x);\n`).join('');
    const main = `${names.map((name) => `int ${name}(int);\n`).join('')}int main(void) {\n  int x = 1;\n${calls}  return x == 7;\n}\n`;
    fs.writeFileSync(`${folder}/main.c`, main);
    const objects = ['main', ...names].map((name) => `${name}.o`).join(' ');
    const make = `program: ${objects}\n\t$(CC) -o $@ $^\n%.o: %.c\n\t$(CC) -O1 -Iinclude -MMD -c -o $@ $<\n`;
    fs.writeFileSync(`${folder}/Makefile`, make);
  });
}

/** A lock file whose packages are tarballs beside it, so that npm asks no registry. */
export function npmProject(bench, place, count) {
  return sharedOn(place, `npm-${count}`, async (folder) => {
    const packages = { '': { name: 'project', version: '1.0.0', dependencies: {} } };
    fs.mkdirSync(`${folder}/tarballs`);
    for (let i = 0; i < count; i += 1) {
      const name = `package-${i}`;
      const spec = `file:tarballs/${name}.tgz`;
      await packTarball(bench, folder, name);
      const bytes = fs.readFileSync(`${folder}/tarballs/${name}.tgz`);
      const integrity = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
      packages[''].dependencies[name] = spec;
      packages[`node_modules/${name}`] = { version: '1.0.0', resolved: spec, integrity };
    }
    const json = (file, value) => fs.writeFileSync(`${folder}/${file}`, JSON.stringify(value, null, 2));
    json('package.json', packages['']);
    json('package-lock.json', {
      name: 'project',
      version: '1.0.0',
      lockfileVersion: 3,
      requires: true,
      packages,
    });
  });
}

const FILES_PER_PACKAGE = 60;

async function packTarball(bench, folder, name) {
  const dir = `${folder}/package`;
  for (let i = 0; i < FILES_PER_PACKAGE; i += 1) {
    const sub = `${dir}/lib/part${i % 6}`;
    fs.mkdirSync(sub, { recursive: true });
    fs.writeFileSync(`${sub}/module${i}.js`, lines(20 + i, `export const ${name.replace('-', '')} =`));
  }
  fs.writeFileSync(`${dir}/package.json`, JSON.stringify({ name, version: '1.0.0' }));
  await run(bench.stage, ['tar', '-czf', `${folder}/tarballs/${name}.tgz`, '-C', folder, 'package']);
  fs.rmSync(dir, { recursive: true });
}

/** Files of 1 KiB in 200 directories; the archive lies beside the mounts, not in them. */
export async function smallArchive(bench, place, files) {
  const folder = await sharedOn(place, `archive-${files}`, async (dir) => {
    const tree = path.join(dir, 'small');
    fs.mkdirSync(tree);
    await run(bench.stage, [...bench.client, 'tree', tree, '200', String(Math.ceil(files / 200)), '1024']);
    await run(bench.stage, ['tar', '-cf', path.join(dir, 'small.tar'), '-C', dir, 'small']);
    await run(bench.stage, ['rm', '-rf', tree]);
  });
  return path.join(folder, 'small.tar');
}

/** A folder with a file of so many MiB. */
export function bigFile(bench, place, mebibytes, name = 'big') {
  return sharedOn(place, `${name}-${mebibytes}`, (dir) =>
    run(bench.stage, [...bench.client, 'big', dir, 'big', String(mebibytes)]),
  );
}

const APT_PACKAGES = ['less', 'nano', 'bc', 'tree', 'unzip'];
export const aptInstall = [
  'apt-get',
  'install',
  '-y',
  '-qq',
  '--no-download',
  '--no-install-recommends',
  ...APT_PACKAGES,
];

export const defaultChroot = () =>
  path.join(
    process.env.XDG_CACHE_HOME ?? path.join(process.env.HOME ?? '/root', '.cache'),
    'kasane-bench.tar',
  );

/** `--make-chroot`: a small Debian with the packages in its cache, from the network, once. */
export async function makeChroot(bench, file) {
  const apt = (...args) => ['--customize-hook', `chroot "$1" apt-get ${args.join(' ')}`];
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const argv = [
    'mmdebstrap',
    '--format=tar',
    '--variant=apt',
    '--skip=cleanup/apt',
    '--aptopt=APT::Sandbox::User "root"',
  ];
  const hooks = apt(
    'install',
    '-y',
    '-qq',
    '--download-only',
    '-o',
    'APT::Keep-Downloaded-Packages=true',
    ...APT_PACKAGES,
  );
  await run(bench.stage, [...argv, ...hooks, 'bookworm', `${file}.new`], { seconds: 600 });
  fs.renameSync(`${file}.new`, file);
}
