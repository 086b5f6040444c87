// Random operations on one file, held against a model in memory. The seed is fixed: a failure comes again. See
// rules.mjs.

const MOST = 256 * 1024;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** The same numbers every time. */
function randomFrom(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** The file as it must be: bytes, grown and cut like it. */
class Model {
  bytes = Buffer.alloc(MOST);
  size = 0;

  put(at, data) {
    data.copy(this.bytes, at);
    this.size = Math.max(this.size, at + data.length);
  }

  resize(size) {
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }

  zero(at, length) {
    this.bytes.fill(0, at, Math.min(at + length, this.size));
  }
}

function filled(random, length) {
  return Buffer.alloc(length, 1 + random(255));
}

const operations = [
  function write({ c, fd, model, random }) {
    const at = random(MOST - 9000);
    const data = filled(random, 1 + random(9000));
    c.equal(c.sys.pwrite(fd, data, 0, data.length, at), data.length);
    model.put(at, data);
  },
  function append({ c, model, random }) {
    const data = filled(random, 1 + random(500));
    if (model.size + data.length > MOST) return;
    c.fs.appendFileSync(c.at('f'), data);
    model.put(model.size, data);
  },
  function truncate({ c, fd, model, random }) {
    const size = random(MOST);
    if (random(2) === 0) c.did(c.sys.ftruncate(fd, size));
    else c.fs.truncateSync(c.at('f'), size);
    model.resize(size);
  },
  function punch({ c, fd, model, random }) {
    const at = random(MOST - 20_000);
    const length = 1 + random(20_000);
    c.did(c.sys.fallocate(fd, c.sys.FALLOC_FL_PUNCH_HOLE | c.sys.FALLOC_FL_KEEP_SIZE, at, length));
    model.zero(at, length);
  },
  function zeroRange({ c, fd, model, random }) {
    const at = random(MOST - 20_000);
    const length = 1 + random(20_000);
    if (!c.zeroes) return;
    c.did(c.sys.fallocate(fd, c.sys.FALLOC_FL_ZERO_RANGE, at, length));
    model.size = Math.max(model.size, at + length);
    model.zero(at, length);
  },
  function copyWithin({ c, fd, model, random }) {
    const half = model.size >> 1;
    if (half < 2) return;
    const from = random(half);
    const length = 1 + random(half - from);
    const to = half + random(half);
    if (to + length > MOST || to < from + length) return;
    c.equal(c.sys.copyFileRange(fd, from, fd, to, length), length);
    model.put(to, Buffer.from(model.bytes.subarray(from, from + length)));
  },
  function storeThroughMap({ c, fd, model, random }) {
    const pages = model.size >> 12;
    if (pages === 0) return;
    const address = c.sys.mmap(0, pages << 12, PROT_READ_WRITE, MAP_SHARED, fd, 0);
    c.ok(address > 0);
    const memory = c.sys.viewAt(address, pages << 12);
    const at = random(memory.length);
    const data = filled(random, Math.min(300, memory.length - at));
    c.ok(memory.equals(model.bytes.subarray(0, memory.length)));
    data.copy(memory, at);
    model.put(at, data);
    c.sys.munmap(address, pages << 12);
  },
  function readSome({ c, fd, model, random }) {
    const at = random(MOST);
    const wanted = 1 + random(20_000);
    const bytes = Buffer.alloc(wanted);
    const got = c.did(c.sys.pread(fd, bytes, 0, wanted, at));
    c.equal(got, Math.max(0, Math.min(wanted, model.size - at)));
    c.ok(bytes.subarray(0, got).equals(model.bytes.subarray(at, at + got)));
  },
  function readAll({ c, model }) {
    c.equal(c.stat('f').size, model.size);
    c.ok(c.fs.readFileSync(c.at('f')).equals(model.bytes.subarray(0, model.size)));
  },
];

function reopen(world) {
  const { c, random } = world;
  c.close(world.fd);
  if (random(2) === 0) c.did(c.rename('f', 'g'));
  if (c.exists('g')) c.did(c.rename('g', 'f'));
  world.fd = c.open('f', c.sys.O_RDWR);
}

export const randomRules = [1, 2].map((seed) => ({
  name: `random writes, cuts, holes, copies and stores give what a model gives (seed ${seed})`,
  before(c) {
    c.put('f', 'p'.repeat(100_000));
  },
  run(c) {
    const random = randomFrom(seed);
    const model = new Model();
    model.put(0, Buffer.alloc(100_000, 'p'));
    const world = { c, random, model, fd: c.open('f', c.sys.O_RDWR) };
    for (let i = 0; i < 1200; i++) {
      const operation = operations[random(operations.length)];
      try {
        operation(world);
      } catch (error) {
        error.message = `step ${i}, ${operation.name}: ${error.message}`;
        throw error;
      }
      if (random(60) === 0) reopen(world);
    }
    c.close(world.fd);
  },
}));
