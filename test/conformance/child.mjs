// Child of conformance.ts: carries out rules in a directory, so that a hung file system hangs this process and
// not the test. One line of JSON in, one out.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as readline from 'node:readline';
import { pathToFileURL } from 'node:url';
import { ruleSets } from './rules.mjs';

const TMPFS_MAGIC = 0x01021994;

/** Everything of sys/ as one object, and what the rules need of libc beyond it. */
async function loadSystem(dist) {
  const load = (file) => import(pathToFileURL(`${dist}/${file}`).href);
  const files = ['file.js', 'names.js', 'stat.js', 'xattr.js', 'constants.js', 'poll.js', 'ffi.js'];
  const modules = await Promise.all(files.map((file) => load(`sys/${file}`)));
  const sys = Object.assign({}, ...modules);
  const { newStat } = await load('lib/stat.js');
  const { E } = await load('lib/errno.js');
  const { default: koffi } = await import('koffi');
  const mmap = sys.native('mmap', 'int64_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']);
  const munmap = sys.native('munmap', 'int', ['uintptr_t', 'size_t']);
  const msync = sys.native('msync', 'int', ['uintptr_t', 'size_t', 'int']);
  const fcntl = sys.native('fcntl', 'int', ['int', 'int', 'uintptr_t']);
  // For who does not ask for all that can be told.
  const statxOf = sys.native('statx', 'int', ['int', 'uintptr_t', 'int', 'uint', 'uintptr_t']);
  // Places in a listing may be beyond what a number holds.
  const seekTo = sys.native('lseek', 'int64_t', ['int', 'int64_t', 'int']);
  const viewAt = (address, length) => Buffer.from(koffi.view(BigInt(address), length));
  return { ...sys, newStat, E, mmap, munmap, msync, fcntl, statxOf, seekTo, viewAt };
}

/** What a rule is given. Paths are absolute, as strings (latin1 for the functions of sys/). */
function contextFor(sys, dir) {
  const names = new Map(Object.entries(sys.E).map(([name, number]) => [-number, name]));
  const c = {
    sys,
    fs,
    assert,
    dir,
    /** It can neither zero, take out nor put in ranges, and does not notice stores into maps. */
    onTmpfs: fs.statfsSync(dir).type === TMPFS_MAGIC,
    equal: assert.deepEqual,
    ok: assert.ok,
    at: (name) => (name === '' ? dir : `${dir}/${name}`),
    put: (name, content = name) => fs.writeFileSync(c.at(name), content),
    get: (name) => fs.readFileSync(c.at(name), 'latin1'),
    list: (name = '') => fs.readdirSync(c.at(name)).sort(),
    /** What statx tells, without following a link; throws the errno's name. */
    stat: (name) => {
      const out = sys.newStat();
      c.did(sys.statx(sys.AT_FDCWD, c.at(name), sys.AT_SYMLINK_NOFOLLOW, out));
      return out;
    },
    fstat: (fd) => {
      const out = sys.newStat();
      c.did(sys.fstat(fd, out));
      return out;
    },
    mode: (name) => (c.stat(name).mode & 0o7777).toString(8),
    exists: (name) => sys.statx(sys.AT_FDCWD, c.at(name), sys.AT_SYMLINK_NOFOLLOW, sys.newStat()) === 0,
    open: (name, flags, mode = 0o644) => c.did(sys.openat(sys.AT_FDCWD, c.at(name), flags, mode)),
    close: (fd) => c.did(sys.close(fd)),
    /** The result, if it is none of failure. */
    did: (result) => {
      if (typeof result === 'number' && result < 0)
        throw new Error(`failed with ${names.get(result) ?? result}`);
      return result;
    },
    /** Proves that the call fails with that errno: thrown by node:fs, or returned. */
    fails: (errno, call) => {
      let result;
      try {
        result = call();
      } catch (error) {
        if (error.code === undefined) throw error;
        return assert.equal(error.code, errno);
      }
      assert.ok(typeof result === 'number' && result < 0, `no ${errno}, but success`);
      assert.equal(names.get(result), errno);
    },
    rename: (from, to, flags = 0) => sys.renameat2(sys.AT_FDCWD, c.at(from), sys.AT_FDCWD, c.at(to), flags),
    setxattr: (name, attr, value, flags = 0) =>
      sys.setxattr(sys.AT_FDCWD, c.at(name), attr, Buffer.from(value), flags),
    getxattr: (name, attr) => {
      const value = sys.getxattr(sys.AT_FDCWD, c.at(name), attr);
      return Buffer.isBuffer(value) ? value.toString('latin1') : value;
    },
    listxattr: (name) => {
      const list = c.did(sys.listxattr(sys.AT_FDCWD, c.at(name)));
      return list.toString('latin1').split('\0').filter(Boolean).sort();
    },
    as: (uid, gid, groups, work) => asUser(uid, gid, groups, work),
  };
  return c;
}

/** As another user, for the file system: this process has one thread that matters. */
function asUser(uid, gid, groups, work) {
  process.setgroups(groups);
  process.setegid(gid);
  process.seteuid(uid);
  try {
    return work();
  } finally {
    process.seteuid(0);
    process.setegid(0);
    process.setgroups([]);
  }
}

/** A directory for each rule of a set, with what it finds there. One that cannot be made keeps none of the others. */
function populate(sys, set, dir) {
  const errors = [];
  for (const [i, rule] of ruleSets[set].entries()) {
    const own = `${dir}/r${i}`;
    fs.mkdirSync(own);
    process.umask(0o022);
    try {
      rule.before?.(contextFor(sys, own));
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** Every path beneath a directory, in latin1, the directory first. */
function pathsBeneath(dir) {
  const entries = fs.readdirSync(Buffer.from(dir, 'latin1'), { withFileTypes: true, encoding: 'buffer' });
  const found = [dir];
  for (const entry of entries) {
    const path = `${dir}/${entry.name.toString('latin1')}`;
    if (entry.isDirectory()) found.push(...pathsBeneath(path));
    else found.push(path);
  }
  return found;
}

/** Brings everything in a union's directory into its overlay, and changes nothing. */
function touchAll(sys, dir) {
  const stat = sys.newStat();
  for (const path of pathsBeneath(dir)) {
    sys.statx(sys.AT_FDCWD, path, sys.AT_SYMLINK_NOFOLLOW, stat);
    const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = stat;
    const error = sys.utimensat(sys.AT_FDCWD, path, atimeSec, atimeNsec, mtimeSec, mtimeNsec);
    if (error < 0) throw new Error(`${path} cannot be touched: ${error}`);
  }
}

async function carryOut(sys, set, name, dir) {
  const i = ruleSets[set].findIndex((one) => one.name === name);
  process.umask(0o022);
  await ruleSets[set][i].run(contextFor(sys, `${dir}/r${i}`));
}

const sys = await loadSystem(process.argv[2]);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { call, set, rule, dir } = JSON.parse(line);
  let answer = {};
  try {
    if (call === 'populate') populate(sys, set, dir);
    else if (call === 'touchAll') touchAll(sys, dir);
    else await carryOut(sys, set, rule, dir);
  } catch (error) {
    answer = { error: `${error.message}\n${String(error.stack).split('\n').slice(1, 6).join('\n')}` };
  }
  fs.writeSync(1, `${JSON.stringify(answer)}\n`);
}
