// Child of tree.ts: describes each object beneath argv[2] as a line of JSON. Names are bytes, given in latin1.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';

const root = Buffer.from(process.argv[2]);
const { contents, xattrs } = JSON.parse(process.argv[3]);

const types = new Map([
  [fs.constants.S_IFREG, 'file'],
  [fs.constants.S_IFDIR, 'dir'],
  [fs.constants.S_IFLNK, 'symlink'],
  [fs.constants.S_IFCHR, 'char'],
  [fs.constants.S_IFBLK, 'block'],
  [fs.constants.S_IFIFO, 'fifo'],
  [fs.constants.S_IFSOCK, 'socket'],
]);

function attributes() {
  const found = new Map();
  if (!xattrs) return found;
  const options = {
    cwd: root.toString(),
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'latin1',
  };
  const args = ['-h', '-R', '-P', '-d', '-m', '-', '-e', 'hex', '--absolute-names', '.'];
  let name = '';
  for (const line of execFileSync('getfattr', args, options).split('\n')) {
    if (line.startsWith('# file: ')) name = unescapeOctal(line.slice(8)).replace(/^\.\/?/, '');
    else if (line !== '') found.set(name, [...(found.get(name) ?? []), line]);
  }
  return found;
}

function unescapeOctal(text) {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function hashFile(path) {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(1 << 20);
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOATIME);
  try {
    for (let n = 1; n > 0; ) {
      n = fs.readSync(fd, buffer);
      hash.update(buffer.subarray(0, n));
    }
  } finally {
    fs.closeSync(fd);
  }
  return hash.digest('hex');
}

function describe(full, name, attributesOf) {
  const stat = fs.lstatSync(full, { bigint: true });
  const type = types.get(Number(stat.mode) & fs.constants.S_IFMT);
  const entry = {
    path: name,
    type,
    mode: (Number(stat.mode) & 0o7777).toString(8),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtime: stat.mtimeNs.toString(),
    nlink: Number(stat.nlink),
    ino: stat.ino.toString(),
    xattrs: (attributesOf.get(name) ?? []).sort(),
  };
  if (type === 'char' || type === 'block') entry.rdev = Number(stat.rdev);
  if (type === 'symlink') entry.target = fs.readlinkSync(full, 'buffer').toString('latin1');
  if (type === 'file') entry.size = Number(stat.size);
  if (type === 'file' && contents) entry.content = hashFile(full);
  return entry;
}

const attributesOf = attributes();
const slash = Buffer.from('/');
const lines = [];
function walk(dir, prefix) {
  for (const raw of fs.readdirSync(dir, { encoding: 'buffer' })) {
    const name = prefix + raw.toString('latin1');
    const full = Buffer.concat([dir, slash, raw]);
    const entry = describe(full, name, attributesOf);
    lines.push(JSON.stringify(entry));
    if (entry.type === 'dir') walk(full, `${name}/`);
  }
}
lines.push(JSON.stringify(describe(root, '', attributesOf)));
walk(root, '');
fs.writeFileSync(1, `${lines.join('\n')}\n`);
