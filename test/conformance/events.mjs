// Rules of inotify(7): what a watch tells of what is done in the same place. See rules.mjs.

/** By the order of their bits. */
const NAMES = [
  'MODIFY',
  'ATTRIB',
  'CLOSE_WRITE',
  'MOVED_FROM',
  'MOVED_TO',
  'CREATE',
  'DELETE',
  'DELETE_SELF',
  'MOVE_SELF',
];

/**
 * Watches names. `told` gives the events since it was last asked, as `KIND NAME`, of a watched object itself as
 * `KIND`; those of several watches with the name that was watched before it. Two halves of a rename are one word.
 */
function watch(c, ...names) {
  const { sys } = c;
  const kinds = new Map(NAMES.map((name) => [sys[`IN_${name}`], name]));
  const mask = [...kinds.keys()].reduce((all, bit) => all | bit, 0);
  const fd = c.did(sys.inotifyInit());
  const watches = new Map();
  for (const name of names) {
    watches.set(c.did(sys.inotifyAdd(fd, sys.AT_FDCWD, c.at(name), mask | sys.IN_DONT_FOLLOW)), name);
  }
  const buffer = Buffer.alloc(65536);
  const told = () => {
    const found = [];
    const got = sys.read(fd, buffer, 0, buffer.length);
    const cookies = [];
    sys.parseInotify(buffer, Math.max(got, 0), (id, bits, cookie, name) => {
      const kind = (bits & sys.IN_IGNORED) !== 0 ? 'IGNORED' : kinds.get(bits & mask);
      const isDir = (bits & sys.IN_ISDIR) !== 0 ? '/' : '';
      if (cookie !== 0) cookies.push(cookie);
      found.push(
        [names.length > 1 ? `${watches.get(id)}:` : '', kind, name + isDir].filter(Boolean).join(' '),
      );
    });
    // What was moved from here to here is told twice, with the same number.
    c.equal(cookies.length === 2 ? cookies[0] : 0, cookies.length === 2 ? cookies[1] : 0);
    return found;
  };
  return { told, end: () => c.close(fd) };
}

const ofDirectories = [
  {
    name: 'a watch of a directory tells of files in it: made, written, changed, moved, linked, removed',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.put('d/old', 'old content');
      c.put('d/gone', 'gone');
      c.put('other', 'other');
    },
    run(c) {
      const { sys } = c;
      const { told, end } = watch(c, 'd');
      const does = (events, work) => {
        work();
        c.equal(told(), events);
      };
      does(['CREATE new', 'MODIFY new', 'CLOSE_WRITE new'], () => c.put('d/new', 'content'));
      does(['MODIFY old', 'CLOSE_WRITE old'], () => c.fs.appendFileSync(c.at('d/old'), '+'));
      does(['MODIFY old', 'CLOSE_WRITE old'], () => c.put('d/old', ''));
      does(['MODIFY old', 'CLOSE_WRITE old'], () => c.fs.truncateSync(c.at('d/old'), 5));
      for (const name of ['old', 'new']) {
        does([`ATTRIB ${name}`], () => c.fs.chmodSync(c.at(`d/${name}`), 0o600));
        does([`ATTRIB ${name}`], () => c.did(sys.fchownat(sys.AT_FDCWD, c.at(`d/${name}`), 5, 6)));
        does([`ATTRIB ${name}`], () => c.fs.utimesSync(c.at(`d/${name}`), 1, 2));
        does([`ATTRIB ${name}`], () => c.did(c.setxattr(`d/${name}`, 'user.x', 'y')));
        does([`MOVED_FROM ${name}`, `MOVED_TO ${name}2`], () => c.did(c.rename(`d/${name}`, `d/${name}2`)));
      }
      does(['MOVED_FROM new2', 'MOVED_TO old2'], () => c.did(c.rename('d/new2', 'd/old2')));
      does(['MOVED_TO other'], () => c.did(c.rename('other', 'd/other')));
      does(['MOVED_FROM other'], () => c.did(c.rename('d/other', 'elsewhere')));
      does(['CREATE link'], () => c.fs.linkSync(c.at('elsewhere'), c.at('d/link')));
      does(['CREATE sym'], () => c.fs.symlinkSync('link', c.at('d/sym')));
      does(['DELETE sym'], () => c.fs.unlinkSync(c.at('d/sym')));
      does(['DELETE gone'], () => c.fs.unlinkSync(c.at('d/gone')));
      does([], () => c.get('d/link'));
      does(['DELETE link'], () => c.fs.unlinkSync(c.at('d/link')));
      end();
    },
  },
  {
    name: 'a watch of a directory tells of directories in it, and of its own move and end',
    before(c) {
      c.fs.mkdirSync(c.at('d/sub/deep'), { recursive: true });
      c.fs.mkdirSync(c.at('d/full'));
      c.put('d/full/in');
    },
    run(c) {
      const { told, end } = watch(c, 'd');
      const does = (events, work) => {
        work();
        c.equal(told(), events);
      };
      does(['CREATE new/'], () => c.fs.mkdirSync(c.at('d/new')));
      does(['ATTRIB sub/'], () => c.fs.chmodSync(c.at('d/sub'), 0o700));
      does([], () => c.put('d/full/more'));
      does([], () => c.fs.rmdirSync(c.at('d/sub/deep')));
      does(['MOVED_FROM full/', 'MOVED_TO moved/'], () => c.did(c.rename('d/full', 'd/moved')));
      does(['DELETE sub/'], () => c.fs.rmdirSync(c.at('d/sub')));
      does(['DELETE new/'], () => c.fs.rmdirSync(c.at('d/new')));
      does(['ATTRIB /'], () => c.fs.chmodSync(c.at('d'), 0o700));
      does(['MOVE_SELF'], () => c.did(c.rename('d', 'e')));
      does(['CREATE late/'], () => c.fs.mkdirSync(c.at('e/late')));
      c.fs.rmSync(c.at('e/moved'), { recursive: true });
      c.fs.rmdirSync(c.at('e/late'));
      told();
      does(['DELETE_SELF', 'IGNORED'], () => c.fs.rmdirSync(c.at('e')));
      end();
    },
  },
];

const ofFiles = [
  {
    name: 'a watch of a file tells of its changes by any of its names, of its moves and of its end',
    before(c) {
      c.put('f', 'content');
      c.fs.linkSync(c.at('f'), c.at('g'));
    },
    run(c) {
      const { told, end } = watch(c, 'f');
      const does = (events, work) => {
        work();
        c.equal(told(), events);
      };
      does(['MODIFY', 'CLOSE_WRITE'], () => c.fs.appendFileSync(c.at('f'), '+'));
      does(['MODIFY', 'CLOSE_WRITE'], () => c.fs.appendFileSync(c.at('g'), '+'));
      does(['ATTRIB'], () => c.fs.chmodSync(c.at('g'), 0o600));
      does(['MODIFY', 'CLOSE_WRITE'], () => c.fs.truncateSync(c.at('f'), 3));
      does(['MOVE_SELF'], () => c.did(c.rename('f', 'h')));
      // The number of its names is an attribute.
      does(['ATTRIB'], () => c.fs.linkSync(c.at('h'), c.at('i')));
      does(['ATTRIB'], () => c.fs.unlinkSync(c.at('i')));
      does(['ATTRIB'], () => c.fs.unlinkSync(c.at('g')));
      does(['ATTRIB', 'DELETE_SELF', 'IGNORED'], () => c.fs.unlinkSync(c.at('h')));
      end();
    },
  },
  {
    name: 'who watches a file that is replaced is told of its end, and of the new one in the directory',
    before(c) {
      c.put('f', 'old');
      c.put('g', 'new');
    },
    run(c) {
      const { told, end } = watch(c, '.', 'f');
      c.did(c.rename('g', 'f'));
      c.equal(told(), ['.: MOVED_FROM g', '.: MOVED_TO f', 'f: ATTRIB', 'f: DELETE_SELF', 'f: IGNORED']);
      c.fs.appendFileSync(c.at('f'), '+');
      c.equal(told(), ['.: MODIFY f', '.: CLOSE_WRITE f']);
      end();
    },
  },
  {
    name: 'who reads a large file and watches it is told what others write',
    before(c) {
      c.put('log', 'x'.repeat(300_000));
    },
    run(c) {
      const fd = c.open('log', c.sys.O_RDONLY);
      const { told, end } = watch(c, 'log');
      c.fs.appendFileSync(c.at('log'), 'line');
      c.equal(told(), ['MODIFY', 'CLOSE_WRITE']);
      c.fs.chmodSync(c.at('log'), 0o600);
      c.equal(told(), ['ATTRIB']);
      c.close(fd);
      end();
    },
  },
];

export const eventRules = [...ofDirectories, ...ofFiles];
