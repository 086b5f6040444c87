// What two clients do in one directory at the same time. Each operation is such that the outcome of all together does
// not depend on their order, so that it can be told without a log of who came first: records are appended, each
// client has slots of its own, counters are raised under locks, of those who race for a name one wins. Each client
// counts what it has done (`tally`), by side; `verify` holds the sum of both against what is there.
const RECORD = 64;
const SLOT = 128;
const WHOLE = 5000;

export const newTally = () => ({
  appended: 0,
  slots: 0,
  counters: [0, 0, 0],
  tried: 0,
  claims: 0,
  dirs: 0,
  removed: 0,
  links: 0,
  moved: 0,
  problems: [],
});

/** The shell's part: what the base has of it. */
export const sharedBase = `
  mkdir -p shared/claim shared/dirs shared/pool shared/links shared/in
  head -c 64 /dev/zero | tr '\\0' b > shared/log; echo >> shared/log; truncate -s 64 shared/log
  head -c 20000 /dev/zero | tr '\\0' s > shared/slots
  for i in 0 1 2; do echo 0 > shared/counter$i; done
  for i in $(seq 0 299); do echo pool > shared/pool/$i; done
  echo target > shared/target; head -c 5000 /dev/zero | tr '\\0' c > shared/current
  echo 0 > shared/x0; echo 1 > shared/x1`;

function open(world, dir, name, flags, work) {
  const { sys } = world;
  const fd = sys.openat(dir, name, flags, 0o644);
  if (fd < 0) return fd;
  const r = work(fd);
  sys.close(fd);
  return r;
}

function writeNew(world, dir, name, bytes) {
  const { sys } = world;
  return open(world, dir, name, sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY, (fd) =>
    sys.write(fd, bytes, 0, bytes.length),
  );
}

const record = (world, n) => Buffer.from(`${`client ${world.client} record ${n}`.padEnd(RECORD - 1)}\n`);
const letters = (world, n, size) => Buffer.alloc(size, 'defghijklmnop'[(n * 2 + world.client) % 13]);

function append(world, { shared }, tally, n) {
  const { sys } = world;
  const bytes = record(world, n);
  const r = open(world, shared, 'log', sys.O_WRONLY | sys.O_APPEND, (fd) => sys.write(fd, bytes, 0, RECORD));
  if (r === RECORD) tally.appended += 1;
  return r;
}

function slot(world, { shared }, tally, n) {
  const { sys } = world;
  const at = (n * 2 + world.client) * SLOT;
  const r = open(world, shared, 'slots', sys.O_RDWR, (fd) =>
    sys.pwrite(fd, letters(world, n, SLOT), 0, SLOT, at),
  );
  if (r === SLOT) tally.slots += 1;
  return r;
}

/** Reads, adds one and writes, under a lock that waits: flock's, the process's, the open file's. */
function counter(world, { shared }, tally, n) {
  const { sys, libc } = world;
  const which = n % 3;
  return open(world, shared, `counter${which}`, sys.O_RDWR, (fd) => {
    const { bytes: lock, address } = libc.lock;
    lock.fill(0);
    lock.writeInt16LE(sys.F_WRLCK, 0);
    // F_SETLKW, F_OFD_SETLKW.
    const locked = which === 0 ? sys.flock(fd, sys.LOCK_EX) : libc.fcntl(fd, which === 1 ? 7 : 38, address);
    if (locked < 0) return locked;
    const bytes = Buffer.alloc(20);
    const r = sys.pread(fd, bytes, 0, 20, 0);
    if (r < 0) return r;
    const next = Buffer.from(`${Number(bytes.toString('latin1', 0, r)) + 1}\n`);
    const written = sys.pwrite(fd, next, 0, next.length, 0);
    if (written > 0) tally.counters[which] += 1;
    return written;
  });
}

/** Each client asks for each of the names once: who is second gets EEXIST, or ENOENT. */
function claim(world, { shared }, tally, n) {
  const { sys, E } = world;
  const file = writeNew(world, shared, `claim/${n}`, Buffer.from(`${n}\n`));
  if (file >= 0) tally.claims += 1;
  const dir = sys.mkdirat(shared, `dirs/${n}`, 0o755);
  if (dir === 0) tally.dirs += 1;
  const gone = n < 300 ? sys.unlinkat(shared, `pool/${n}`, 0) : -E.ENOENT;
  if (gone === 0) tally.removed += 1;
  tally.tried = Math.max(tally.tried, n + 1);
  const right = (file >= 0 || file === -E.EEXIST) && (dir === 0 || dir === -E.EEXIST);
  return right && (gone === 0 || gone === -E.ENOENT) ? 0 : Math.min(file, dir, gone);
}

function link(world, { shared }, tally, n) {
  const r = world.sys.linkat(shared, 'target', shared, `links/${world.client}-${n}`, 0);
  if (r === 0) tally.links += 1;
  return r;
}

/** What is made in a directory of one's own comes into the shared one whole. */
function moveIn(world, { shared }, tally, n) {
  const { sys } = world;
  const own = `own${world.client}`;
  sys.mkdirat(shared, own, 0o755);
  sys.mkdirat(shared, `${own}/d`, 0o755);
  const made = writeNew(world, shared, `${own}/d/f`, letters(world, n, 300));
  if (made < 0) return made;
  const r = sys.renameat2(shared, `${own}/d`, shared, `in/${world.client}-${n}`, 0);
  if (r === 0) tally.moved += 1;
  return r;
}

/** A file replaced by rename is there at all times, and whole. */
function replace(world, { shared }, tally, n) {
  const { sys } = world;
  const temporary = `new${world.client}`;
  const made = writeNew(world, shared, temporary, letters(world, n, WHOLE));
  if (made < 0) return made;
  const r = sys.renameat2(shared, temporary, shared, 'current', 0);
  if (r < 0) return r;
  return open(world, shared, 'current', sys.O_RDONLY, (fd) => {
    const bytes = Buffer.alloc(WHOLE + 1);
    const got = sys.pread(fd, bytes, 0, WHOLE + 1, 0);
    const whole = got === WHOLE && bytes.subarray(0, WHOLE).every((byte) => byte === bytes[0]);
    if (!whole) tally.problems.push(`current is torn: ${got} bytes, ${bytes.subarray(0, 20)}`);
    return got;
  });
}

function exchange(world, { shared }) {
  const { sys } = world;
  return sys.renameat2(shared, 'x0', shared, 'x1', sys.RENAME_EXCHANGE);
}

const kinds = { append, slot, counter, claim, link, moveIn, replace, exchange };

/** One operation on each side, which may not fail, whatever the other client does. */
export const shared = (world, random, tools) => {
  if (!world.shared) return { r: 0 };
  const kind = random.of(Object.keys(kinds));
  const n = world.sequence[kind] ?? 0;
  world.sequence[kind] = n + 1;
  const results = world.sides.map((side) => kinds[kind](world, side, world.tallies[side.index], n));
  tools.note(`shared ${kind} ${n}`);
  for (const [index, r] of results.entries()) {
    if (r < 0) world.tallies[index].problems.push(`${kind} ${n}: ${world.errno(r)}`);
  }
  return { r: results.at(-1) };
};

/** What of one side is not as the tallies of both clients say. */
export function verify(world, { shared: dir }, tallies) {
  const { sys } = world;
  const sum = (name) => tallies.reduce((total, tally) => total + tally[name], 0);
  const read = (name) => {
    const bytes = Buffer.alloc(1 << 22);
    const got = open(world, dir, name, sys.O_RDONLY, (fd) => sys.pread(fd, bytes, 0, bytes.length, 0));
    return got < 0 ? world.errno(got) : bytes.toString('latin1', 0, got);
  };
  const problems = tallies.flatMap((tally) => tally.problems);
  const equal = (what, is, wanted) => {
    if (is !== wanted) problems.push(`${what}: ${is} instead of ${wanted}`);
  };
  const lines = read('log').slice(RECORD).split('\n').slice(0, -1);
  const wanted = tallies.flatMap((tally, client) =>
    Array.from({ length: tally.appended }, (_, n) => record({ client }, n).toString().trimEnd()),
  );
  const had = lines.map((line) => line.trimEnd());
  equal('records', had.sort().join(), wanted.sort().join());
  const slots = read('slots');
  for (const [client, tally] of tallies.entries()) {
    for (let n = 0; n < tally.slots; n += 1) {
      const at = (n * 2 + client) * SLOT;
      equal(`slot ${n} of ${client}`, slots.slice(at, at + SLOT), letters({ client }, n, SLOT).toString());
    }
  }
  for (const which of [0, 1, 2]) {
    const raised = tallies.reduce((total, tally) => total + tally.counters[which], 0);
    equal(`counter ${which}`, Number(read(`counter${which}`)), raised);
  }
  const tried = Math.max(...tallies.map((tally) => tally.tried));
  equal('names that were claimed', sum('claims'), tried);
  equal('directories that were made', sum('dirs'), tried);
  equal('names that were removed', sum('removed'), Math.min(tried, 300));
  sys.statx(dir, 'target', sys.AT_SYMLINK_NOFOLLOW, world.stat);
  equal('links', world.stat.nlink, 1 + sum('links'));
  equal('x0 and x1', [read('x0'), read('x1')].sort().join(''), '0\n1\n');
  return problems;
}
