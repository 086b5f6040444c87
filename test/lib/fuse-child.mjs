// Child of fuse-transport.test.ts: a small file system in memory behind the transport alone, from dist/. Takes
// its options as JSON; prints a line of JSON when it serves, and one when it has ended. Of the names at the
// root some are special: opening `never` waits until it is interrupted, reading `slow` until the timer wakes
// the server, looking up `throw` throws.
import * as fs from 'node:fs';
import { Worker } from 'node:worker_threads';
import { openBaseLayer, openBeneath } from '../../dist/branch/base.js';
import {
  writeAttrOut,
  writeCreateOut,
  writeEntryOut,
  writeNegativeEntry,
  writeOpenOut,
} from '../../dist/fuse/attr.js';
import { readers, writers } from '../../dist/fuse/codec.js';
import {
  FATTR_GID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FOPEN_PASSTHROUGH,
} from '../../dist/fuse/constants.js';
import { openMount } from '../../dist/fuse/device.js';
import { addDirent, addDirentPlus } from '../../dist/fuse/dirent.js';
import { defaultWishes } from '../../dist/fuse/init.js';
import { HEADER, PAYLOAD } from '../../dist/fuse/protocol.js';
import {
  forEachForget,
  NO_REPLY,
  PARK,
  readName,
  readSetxattr,
  supplementaryGroups,
} from '../../dist/fuse/request.js';
import { createServer } from '../../dist/fuse/server.js';
import { E } from '../../dist/lib/errno.js';
import { newStat } from '../../dist/lib/stat.js';
import { openBacking } from '../../dist/sys/backing.js';
import { eventfd } from '../../dist/sys/poll.js';

const options = { valid: 0, spin: undefined, trace: null, wishes: {}, ...JSON.parse(process.argv[2]) };
const VALID = options.valid;

const nodes = new Map();
let lastId = 0;

function addNode(mode, uid, gid, more = {}) {
  const now = Date.now();
  const stat = { ...newStat(), mode, nlink: 1, uid, gid, blksize: 4096 };
  stat.atimeSec = stat.mtimeSec = stat.ctimeSec = Math.floor(now / 1000);
  stat.mtimeNsec = (now % 1000) * 1_000_000 + 123;
  const node = { id: ++lastId, stat, data: Buffer.alloc(0), xattrs: new Map(), lookups: 0, ...more };
  nodes.set(node.id, node);
  return node;
}

function addDir(mode, uid, gid) {
  return addNode(0o040000 | (mode & 0o7777), uid, gid, { children: new Map() });
}

const root = addDir(0o755, process.getuid(), process.getgid());
for (const name of ['hello', 'slow', 'never']) {
  const file = addNode(0o100644, process.getuid(), process.getgid());
  file.data = Buffer.from(`${name} world\n`);
  file.stat.size = file.data.length;
  root.children.set(name, file);
}

function entry(r, node) {
  node.lookups += 1;
  return writeEntryOut(r, node.id, 1, VALID, VALID, node.stat, node.id);
}

function setSize(node, size) {
  const data = Buffer.alloc(size);
  node.data.copy(data, 0, 0, Math.min(size, node.data.length));
  node.data = data;
  node.stat.size = size;
}

function create(r, name, make) {
  const dir = nodes.get(r.nodeId);
  if (dir.children.has(name)) return null;
  const node = make();
  dir.children.set(name, node);
  return node;
}

const waiting = { slow: new Set(), never: new Set() };
const groups = [];

function wait(list) {
  list.add(server.park());
  return PARK;
}

function read(r) {
  const { offset, size } = readers.read_in(r.view, HEADER);
  const node = nodes.get(r.nodeId);
  if (node === root.children.get('slow')) return wait(waiting.slow);
  return node.data.copy(r.reply, PAYLOAD, offset, Math.min(offset + size, node.data.length));
}

function readdir(r, plus) {
  const { offset, size } = readers.read_in(r.view, HEADER);
  const list = [...nodes.get(r.nodeId).children];
  let at = 0;
  for (let i = offset; i < list.length; i++) {
    const [name, node] = list[i];
    const type = node.stat.mode >> 12;
    const next = plus
      ? addDirentPlus(r, at, size, i + 1, type, name, node.id, 1, VALID, VALID, node.stat, node.id)
      : addDirent(r, at, size, node.id, i + 1, type, name);
    if (next < 0) break;
    if (plus) node.lookups += 1;
    at = next;
  }
  return at;
}

function setattr(r) {
  const { valid, mode, uid, gid, size, mtime, mtimensec } = readers.setattr_in(r.view, HEADER);
  const node = nodes.get(r.nodeId);
  if (valid & FATTR_MODE) node.stat.mode = (node.stat.mode & 0o170000) | (mode & 0o7777);
  if (valid & FATTR_UID) node.stat.uid = uid;
  if (valid & FATTR_GID) node.stat.gid = gid;
  if (valid & FATTR_SIZE) setSize(node, size);
  if (valid & FATTR_MTIME && !(valid & FATTR_MTIME_NOW)) {
    node.stat.mtimeSec = mtime;
    node.stat.mtimeNsec = mtimensec;
  }
  return writeAttrOut(r, VALID, node.stat, node.id);
}

function remove(r) {
  return nodes.get(r.nodeId).children.delete(readName(r, HEADER)) ? 0 : -E.ENOENT;
}

function rename(r) {
  const { newdir } = readers.rename2_in(r.view, HEADER);
  const from = readName(r, HEADER + 16);
  const to = readName(r, HEADER + 16 + from.length + 1);
  const node = nodes.get(r.nodeId).children.get(from);
  nodes.get(r.nodeId).children.delete(from);
  nodes.get(newdir).children.set(to, node);
  return 0;
}

function getxattr(r) {
  const { size } = readers.getxattr_in(r.view, HEADER);
  const value = nodes.get(r.nodeId).xattrs.get(readName(r, HEADER + 8));
  if (value === undefined) return -E.ENODATA;
  if (size === 0) return writers.getxattr_out(r.replyView, PAYLOAD, { size: value.length });
  return value.length > size ? -E.ERANGE : value.copy(r.reply, PAYLOAD);
}

/** A mistake: a file of a base for every open, for writing too. */
function openThrough(r) {
  const { rootFd } = openBaseLayer(0, options.through, { actsForOthers: true, privileged: true }, null);
  const fd = openBeneath(rootFd, 'file', fs.constants.O_RDONLY);
  const id = openBacking(deviceFd, fd);
  return id < 0 ? id : writeOpenOut(r, r.nodeId, FOPEN_PASSTHROUGH, id);
}

const handlers = {
  LOOKUP: (r) => {
    const name = readName(r, HEADER);
    if (name === 'throw') throw new Error('asked for');
    const node = nodes.get(r.nodeId).children.get(name);
    return node === undefined ? writeNegativeEntry(r, VALID) : entry(r, node);
  },
  FORGET: (r) => {
    forEachForget(r, (id, count) => {
      nodes.get(id).lookups -= count;
    });
    return NO_REPLY;
  },
  GETATTR: (r) => writeAttrOut(r, VALID, nodes.get(r.nodeId).stat, r.nodeId),
  SETATTR: setattr,
  READLINK: (r) => nodes.get(r.nodeId).data.copy(r.reply, PAYLOAD),
  SYMLINK: (r) => {
    const name = readName(r, HEADER);
    const target = readName(r, HEADER + name.length + 1);
    const node = create(r, name, () =>
      addNode(0o120777, r.uid, r.gid, { data: Buffer.from(target, 'latin1') }),
    );
    if (node === null) return -E.EEXIST;
    node.stat.size = node.data.length;
    return entry(r, node);
  },
  MKDIR: (r) => {
    const { mode, umask } = readers.mkdir_in(r.view, HEADER);
    groups.push(supplementaryGroups(r));
    const node = create(r, readName(r, HEADER + 8), () => addDir(mode & ~umask, r.uid, r.gid));
    return node === null ? -E.EEXIST : entry(r, node);
  },
  CREATE: (r) => {
    const { mode, umask } = readers.create_in(r.view, HEADER);
    const node = create(r, readName(r, HEADER + 16), () =>
      addNode(0o100000 | (mode & 0o7777 & ~umask), r.uid, r.gid),
    );
    if (node === null) return -E.EEXIST;
    node.lookups += 1;
    return writeCreateOut(r, node.id, 1, VALID, VALID, node.stat, node.id, node.id, 0);
  },
  OPEN: (r) => {
    const { flags } = readers.open_in(r.view, HEADER);
    if (nodes.get(r.nodeId) === root.children.get('never')) return wait(waiting.never);
    if (flags & fs.constants.O_TRUNC) setSize(nodes.get(r.nodeId), 0);
    if (options.through && nodes.get(r.nodeId) === root.children.get('hello')) return openThrough(r);
    return writeOpenOut(r, r.nodeId, 0);
  },
  READ: read,
  WRITE: (r) => {
    const { offset, size } = readers.write_in(r.view, HEADER);
    const node = nodes.get(r.nodeId);
    if (offset + size > node.data.length) setSize(node, offset + size);
    r.buffer.copy(node.data, offset, HEADER + 40, HEADER + 40 + size);
    return writers.write_out(r.replyView, PAYLOAD, { size });
  },
  OPENDIR: (r) => writeOpenOut(r, r.nodeId, 0),
  READDIR: (r) => readdir(r, false),
  READDIRPLUS: (r) => readdir(r, true),
  UNLINK: remove,
  RMDIR: remove,
  RENAME2: rename,
  GETXATTR: getxattr,
  SETXATTR: (r) => {
    const { name, valueAt, size } = readSetxattr(r, server.negotiated.uses.SETXATTR_EXT);
    nodes.get(r.nodeId).xattrs.set(name, Buffer.from(r.buffer.subarray(valueAt, valueAt + size)));
    return 0;
  },
  STATFS: (r) => {
    const counts = { blocks: 1000, bfree: 500, bavail: 400, files: 100, ffree: 50 };
    return writers.statfs_out(r.replyView, PAYLOAD, { ...counts, bsize: 4096, namelen: 255, frsize: 4096 });
  },
  FLUSH: () => 0,
  RELEASE: () => 0,
  RELEASEDIR: () => 0,
};

function say(line) {
  fs.writeSync(1, `${JSON.stringify(line)}\n`);
}

const log = (message) => fs.writeSync(2, `${message}\n`);
const wakeFd = eventfd();
/** Another thread, for this one is in the loop: wakes it ten times per second. */
const timer = new Worker(
  `const fs = require('node:fs');
   const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
   setInterval(() => fs.writeSync(${wakeFd}, one), 100);`,
  { eval: true },
);
let wakes = 0;

const deviceFd = openMount({
  fsname: 'toy',
  readOnly: false,
  suid: false,
  dev: false,
  exec: true,
  atime: true,
  allowOther: process.getuid() === 0,
  mountPoint: options.mountPoint,
  ...options.mount,
});
const server = createServer({
  deviceFd,
  wakeFd,
  handlers,
  log: { debug: log, info: log, warn: log, error: log },
  trace: options.trace ? log : null,
  buckets: [0.0001, 0.001, 0.01, 0.1],
  wishes: { ...defaultWishes, ...options.wishes },
  ...(options.spin === undefined ? {} : { spinMicroseconds: options.spin }),
  onInit: (negotiated) => say({ negotiated }),
  onWake: () => {
    wakes += 1;
    for (const request of waiting.slow) server.answer(request, 0, Buffer.from('slow world\n'));
    waiting.slow.clear();
  },
  onInterrupt: (request) => {
    if (waiting.never.delete(request)) server.answer(request, -E.EINTR);
  },
  onDestroy: () => {},
});

const ending = server.run();
await timer.terminate();
say({
  ending,
  wakes,
  groups,
  lookups: [...nodes.values()].reduce((sum, node) => sum + node.lookups, 0),
  metrics: server.metrics(),
});
// Handles that were opened for the mount are none of Node's, and nothing else is left to do.
process.exit(0);
