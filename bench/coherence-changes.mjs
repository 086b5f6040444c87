// The changes of coherence.mjs: each of one kind, at a place that fits, and which names then look otherwise.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';

const DIRS = 20;
const FILES = 20;

export function generator(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A content whose first line says how long it is and what the rest hashes to; six times so many lines at most. */
export function version(word, lines = 400) {
  const rest = `${word}\n`.repeat(1 + (word.length % 7) * lines);
  const hash = createHash('md5').update(rest).digest('hex');
  for (let size = rest.length + hash.length + 3; ; size++) {
    const whole = `${size} ${hash}\n${rest}`;
    if (whole.length === size) return whole;
  }
}

/** What a name looks like: attributes, and content, target or names. */
export function lookAt(file) {
  let stat;
  try {
    stat = fs.lstatSync(file, { bigint: true });
  } catch (error) {
    return error.code;
  }
  const { mode, uid, gid, size, mtimeNs, nlink } = stat;
  if (stat.isDirectory()) return `${mode} ${uid} ${gid} ${fs.readdirSync(file).sort().join(' ')}`;
  const what = stat.isSymbolicLink() ? fs.readlinkSync(file) : fs.readFileSync(file, 'latin1');
  return `${mode} ${uid} ${gid} ${size} ${mtimeNs} ${nlink} ${what}`;
}

export function makeTree(base) {
  for (let d = 0; d < DIRS; d++) {
    fs.mkdirSync(path.join(base, `d${d}/sub/deep`), { recursive: true });
    for (let f = 0; f < FILES; f++) fs.writeFileSync(path.join(base, `d${d}/f${f}`), `first ${d} ${f}\n`);
    fs.writeFileSync(path.join(base, `d${d}/sub/deep/x`), 'x\n');
    fs.symlinkSync('first', path.join(base, `d${d}/link`));
  }
  fs.writeFileSync(path.join(base, 'replaced'), version('first'));
}

function replace(base, name, content) {
  fs.writeFileSync(path.join(base, '.next'), content);
  fs.renameSync(path.join(base, '.next'), path.join(base, name));
}

/** Each gets the base, a directory of it, a file in that, and a number; null: it did not fit. */
const kinds = {
  'edit in place': (base, _, file, i) => {
    fs.writeFileSync(path.join(base, file), `in place ${i}\n`.repeat(1 + (i % 50)));
    return [file];
  },
  append: (base, _, file, i) => {
    fs.appendFileSync(path.join(base, file), `more ${i}\n`);
    return [file];
  },
  truncate: (base, _, file) => {
    fs.truncateSync(path.join(base, file), 2);
    return [file];
  },
  'replace by rename': (base, dir, file, i) => {
    replace(base, file, `by rename ${i}\n`.repeat(1 + (i % 400)));
    return [file, dir];
  },
  'replace by a large one': (base, dir, file, i) => {
    replace(base, file, `large ${i}\n`.repeat(8000 + (i % 400)));
    return [file, dir];
  },
  'replace the file that is read': (base, _dir, _file, i) => {
    replace(base, 'replaced', version(`version ${i} ${'x'.repeat(i % 31)}`));
    return ['replaced'];
  },
  remove: (base, dir, file) => {
    fs.rmSync(path.join(base, file));
    return [file, dir];
  },
  add: (base, dir, file, i) => {
    if (fs.existsSync(path.join(base, file))) return null;
    fs.writeFileSync(path.join(base, file), `new ${i}\n`);
    return [file, dir];
  },
  'mkdir, with files': (base, dir) => {
    if (fs.existsSync(path.join(base, dir, 'made'))) return null;
    fs.mkdirSync(path.join(base, dir, 'made/er'), { recursive: true });
    fs.writeFileSync(path.join(base, dir, 'made/er/file'), 'made\n');
    return [dir, `${dir}/made`, `${dir}/made/er/file`];
  },
  'rm -r': (base, dir) => {
    fs.rmSync(path.join(base, dir, 'made'), { recursive: true });
    return [dir, `${dir}/made`, `${dir}/made/er/file`];
  },
  'rename of a file': (base, dir, file) => {
    fs.renameSync(path.join(base, file), path.join(base, dir, 'moved'));
    return [file, `${dir}/moved`, dir];
  },
  'rename of a directory': (base, dir) => {
    const [from, to] = fs.existsSync(path.join(base, dir, 'sub')) ? ['sub', 'bus'] : ['bus', 'sub'];
    fs.renameSync(path.join(base, dir, from), path.join(base, dir, to));
    return [`${dir}/sub/deep/x`, `${dir}/bus/deep/x`, dir];
  },
  chmod: (base, _, file, i) => {
    fs.chmodSync(path.join(base, file), 0o600 | (i & 0o77));
    return [file];
  },
  chown: (base, _, file, i) => {
    fs.chownSync(path.join(base, file), i % 1000, i % 100);
    return [file];
  },
  utimes: (base, _, file, i) => {
    fs.utimesSync(path.join(base, file), i, i + 1);
    return [file];
  },
  'chmod of a directory': (base, dir, _, i) => {
    fs.chmodSync(path.join(base, dir), 0o700 | (i & 0o77));
    return [dir];
  },
  'another link': (base, dir, file, i) => {
    fs.linkSync(path.join(base, file), path.join(base, dir, `hard${i % 5}`));
    return [file, `${dir}/hard${i % 5}`, dir];
  },
  'another symlink': (base, dir, _, i) => {
    fs.symlinkSync(`target ${i}`, path.join(base, '.link'));
    fs.renameSync(path.join(base, '.link'), path.join(base, dir, 'link'));
    return [`${dir}/link`];
  },
};

const names = Object.keys(kinds);

/** Makes one: its kind, and the names that are otherwise now; null where that was not possible at the place. */
export function randomChange(base, random, i) {
  const kind = names[random(names.length)];
  const dir = `d${random(DIRS)}`;
  const file = `${dir}/f${random(FILES)}`;
  try {
    const paths = kinds[kind](base, dir, file, i);
    return paths && { kind, paths };
  } catch (error) {
    if (['ENOENT', 'EEXIST'].includes(error.code)) return null;
    throw error;
  }
}
