// Rules about much of something. See rules.mjs.

const ENTRIES = 100_000;
const nameOf = (i) => `entry-with-a-name-of-usual-length-${i}`;

/** Names that getdents gives, in their order, without the dots. */
function listed(c, name) {
  const { sys } = c;
  const fd = c.open(name, sys.O_RDONLY | sys.O_DIRECTORY);
  const buffer = Buffer.alloc(65536);
  const found = [];
  for (let got = 1; got > 0; ) {
    got = c.did(sys.getdents(fd, buffer));
    sys.parseDents(buffer, got, (one) => {
      if (one !== '.' && one !== '..') found.push(one);
    });
  }
  c.close(fd);
  return found;
}

function isWhole(c, names, wanted) {
  c.equal(names.length, wanted);
  c.equal(new Set(names).size, wanted);
}

export const longRules = [
  {
    name: 'a directory of 100,000 entries is listed whole, before and after changes in it',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      for (let i = 0; i < ENTRIES; i++) c.fs.closeSync(c.fs.openSync(c.at(`d/${nameOf(i)}`), 'w'));
    },
    run(c) {
      isWhole(c, listed(c, 'd'), ENTRIES);
      for (let i = 0; i < ENTRIES; i += 10) c.fs.unlinkSync(c.at(`d/${nameOf(i)}`));
      isWhole(c, listed(c, 'd'), ENTRIES * 0.9);
      for (let i = 0; i < ENTRIES; i += 20) c.put(`d/${nameOf(i)}`, 'again');
      for (let i = 1; i < ENTRIES; i += 100) c.fs.renameSync(c.at(`d/${nameOf(i)}`), c.at(`d/renamed-${i}`));
      const names = listed(c, 'd');
      isWhole(c, names, ENTRIES * 0.95);
      c.equal(names.filter((name) => name.startsWith('renamed-')).length, ENTRIES / 100);
      for (const name of names.slice(0, 1000)) c.ok(c.exists(`d/${name}`), name);
      c.ok(!c.exists(`d/${nameOf(10)}`));
    },
  },
  {
    name: 'a tree of 2,000 levels is made, walked and removed',
    run(c) {
      const { sys } = c;
      const path = sys.O_PATH | sys.O_DIRECTORY;
      let at = c.open('', path);
      for (let i = 0; i < 2000; i++) {
        c.did(sys.mkdirat(at, 'level', 0o755));
        const next = c.did(sys.openat(at, 'level', path));
        c.close(at);
        at = next;
      }
      const fd = c.did(sys.openat(at, 'bottom', sys.O_WRONLY | sys.O_CREAT, 0o644));
      c.equal(sys.write(fd, Buffer.from('here'), 0, 4), 4);
      c.close(fd);
      c.did(sys.unlinkat(at, 'bottom', 0));
      for (let i = 0; i < 2000; i++) {
        const up = c.did(sys.openat(at, '..', path));
        c.did(sys.unlinkat(up, 'level', sys.AT_REMOVEDIR));
        c.close(at);
        at = up;
      }
      c.close(at);
      c.equal(c.list(), []);
    },
  },
  {
    name: 'more directories than the daemon keeps open are all usable at once',
    before(c) {
      for (let i = 0; i < 3000; i++) {
        c.fs.mkdirSync(c.at(`d${i}`));
        c.put(`d${i}/f`, `${i}`);
      }
    },
    run(c) {
      const { sys } = c;
      const fds = Array.from({ length: 3000 }, (_, i) => c.open(`d${i}`, sys.O_RDONLY | sys.O_DIRECTORY));
      for (const [i, fd] of fds.entries()) {
        const file = c.did(sys.openat(fd, 'f', sys.O_RDWR));
        c.equal(sys.pwrite(file, Buffer.from('w'), 0, 1, 0), 1);
        c.close(file);
        if (i % 3 === 0) c.did(sys.renameat2(fd, 'f', fds[(i + 1500) % 3000], 'g', 0));
      }
      for (const [i, fd] of fds.entries()) {
        c.equal(sys.statx(fd, 'f', 0, sys.newStat()) === 0, i % 3 !== 0);
        c.equal(sys.statx(fd, 'g', 0, sys.newStat()) === 0, (i + 1500) % 3 === 0);
        c.close(fd);
      }
    },
  },
];
