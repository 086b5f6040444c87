// Child of agent.ts: a process that keeps descriptors open between calls. One line of JSON in, one out.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as readline from 'node:readline';
import { changeStorm } from './base-storm.mjs';
import { lookAt } from './look.mjs';

const own = {
  lookAt,
  changeStorm,
  /** Looks at a tree that changes meanwhile, for that many milliseconds. */
  lookStorm(path, probes, milliseconds) {
    const end = performance.now() + milliseconds;
    while (performance.now() < end) {
      try {
        lookAt(path, probes);
      } catch (error) {
        if (error.code === undefined) throw error;
      }
    }
    return null;
  },
  /** All of an open file from its start. */
  readWhole(fd) {
    const chunks = [];
    const buffer = Buffer.allocUnsafe(1 << 16);
    for (let at = 0, n = 1; n > 0; at += n) {
      n = fs.readSync(fd, buffer, 0, buffer.length, at);
      chunks.push(Buffer.from(buffer.subarray(0, n)));
    }
    return Buffer.concat(chunks);
  },
  /** Repeats lstat of each path for that many milliseconds: count and longest stall. */
  statStorm(paths, milliseconds) {
    const end = performance.now() + milliseconds;
    let count = 0;
    let longest = 0;
    for (let last = performance.now(); last < end; ) {
      fs.lstatSync(paths[count++ % paths.length]);
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }
    return { count, longest };
  },
  /** Reads files in turn until the last of them holds `word`, or the time is over: for each pass, which held it. */
  readTogether(paths, word, milliseconds) {
    const end = performance.now() + milliseconds;
    const passes = new Set();
    for (let last = '0'; performance.now() < end && last.includes('0'); passes.add(last)) {
      last = paths.map((path) => (fs.readFileSync(path, 'utf8').includes(word) ? '1' : '0')).join('');
    }
    return [...passes];
  },
  /** Writes a file in place, with one letter after another, for that many milliseconds. */
  rewriteStorm(path, size, milliseconds) {
    const end = performance.now() + milliseconds;
    const fd = fs.openSync(path, 'r+');
    for (let i = 0; performance.now() < end; i++) {
      const letters = Buffer.alloc(size, 'abcdefghij'[i % 10]);
      for (let at = 0; at < size; ) at += fs.writeSync(fd, letters, at, Math.min(65_536, size - at), at);
    }
    fs.closeSync(fd);
    return null;
  },
  /** Asks for paths, whether they are there or not, for that many milliseconds. */
  statStormLoose(paths, milliseconds) {
    const end = performance.now() + milliseconds;
    for (let i = 0; performance.now() < end; i++) fs.existsSync(paths[i % paths.length]);
    return null;
  },
  /** Renames new files with these contents in turn over a file, for that many milliseconds: how often. */
  replaceStorm(path, contents, milliseconds) {
    const end = performance.now() + milliseconds;
    let count = 0;
    for (; performance.now() < end; count += 1) {
      fs.writeFileSync(`${path}.next`, contents[count % contents.length]);
      fs.renameSync(`${path}.next`, path);
    }
    return count;
  },
  /** Looks at names again and again for that many milliseconds, whether there is anything or not. */
  lookAgain(paths, milliseconds) {
    const end = performance.now() + milliseconds;
    while (performance.now() < end) for (const path of paths) fs.existsSync(path);
  },
  /**
   * Opens and reads a file again and again for that many milliseconds. Each of its versions says in its first line
   * how long it is and what its rest hashes to: what is read must be one of them, with the size that fstat tells. It is
   * read by one read(2): a second would ask anew how long it is.
   */
  readVersions(path, milliseconds) {
    const end = performance.now() + milliseconds;
    const whole = Buffer.allocUnsafe(1 << 20);
    const seen = new Set();
    const problems = [];
    let count = 0;
    for (; performance.now() < end && problems.length < 5; count += 1) {
      try {
        const fd = fs.openSync(path);
        const before = fs.fstatSync(fd).size;
        const bytes = whole.subarray(0, fs.readSync(fd, whole));
        const after = fs.fstatSync(fd).size;
        fs.closeSync(fd);
        const at = bytes.indexOf(10);
        const [size, hash] = bytes.subarray(0, at).toString().split(' ');
        const right =
          createHash('md5')
            .update(bytes.subarray(at + 1))
            .digest('hex') === hash;
        if (right && [bytes.length, before, after].every((one) => one === Number(size))) seen.add(hash);
        else
          problems.push(
            `${path}: ${size} ${hash}: ${bytes.length} bytes, fstat ${before} ${after}, ${right ? 'whole' : 'torn'}`,
          );
      } catch (error) {
        problems.push(error.message);
      }
    }
    return { count, versions: seen.size, problems };
  },
  /** All beneath a directory: path, type, mode and content or target. */
  treeOf(dir) {
    const found = [];
    const walk = (prefix) => {
      for (const entry of fs.readdirSync(`${dir}/${prefix}`, { withFileTypes: true })) {
        const path = `${prefix}${entry.name}`;
        const full = `${dir}/${path}`;
        if (entry.isSymbolicLink()) found.push([path, { type: 'link', target: fs.readlinkSync(full) }]);
        else if (entry.isDirectory()) {
          found.push([path, { type: 'dir' }]);
          walk(`${path}/`);
        } else {
          // Opened first: that may wait for a merge, and stat does not.
          const fd = fs.openSync(full);
          const content = own.readWhole(fd).toString('latin1');
          found.push([path, { type: 'file', content, mode: fs.fstatSync(fd).mode & 0o7777 }]);
          fs.closeSync(fd);
        }
      }
    };
    walk('');
    return found;
  },
  setIds(uid, gid) {
    process.setgroups([]);
    process.setgid(gid);
    process.setuid(uid);
    return null;
  },
};

const reviver = (_, value) =>
  value !== null && typeof value === 'object' && typeof value.b64 === 'string'
    ? Buffer.from(value.b64, 'base64')
    : value;

function plain(value) {
  if (Buffer.isBuffer(value)) return { b64: value.toString('base64') };
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof fs.Dirent || value === undefined) return value?.name ?? null;
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]));
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { name, args } = JSON.parse(line, reviver);
  let answer;
  try {
    const call = own[name] ?? fs[name] ?? process[name] ?? (await import('./agent-calls.mjs')).calls[name];
    answer = { value: plain(call(...args)) };
  } catch (error) {
    answer = { code: error.code ?? 'EUNKNOWN', message: error.message };
  }
  fs.writeSync(1, `${JSON.stringify(answer)}\n`);
}
