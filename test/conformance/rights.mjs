// Rules of rights: modes, owners, set-id bits, sticky and set-gid directories, ACLs. See rules.mjs.

const USER = 1234;
const OTHER = 2345;
const GROUP = 3456;

const ACL_TAGS = { user: 0x01, namedUser: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 };

/** The value of system.posix_acl_*: entries are [tag, rights, id]. */
function acl(...entries) {
  const value = Buffer.alloc(4 + 8 * entries.length);
  value.writeUInt32LE(2, 0);
  for (const [i, [tag, rights, id]] of entries.entries()) {
    value.writeUInt16LE(ACL_TAGS[tag], 4 + 8 * i);
    value.writeUInt16LE(rights, 6 + 8 * i);
    value.writeUInt32LE(id ?? 0xffffffff, 8 + 8 * i);
  }
  return value;
}

const access = 'system.posix_acl_access';
const byDefault = 'system.posix_acl_default';
const sharedAcl = () => acl(['user', 7], ['namedUser', 7, USER], ['group', 5], ['mask', 7], ['other', 0]);

function chown(c, name, uid, gid) {
  c.did(c.sys.fchownat(c.sys.AT_FDCWD, c.at(name), uid, gid));
}

const modes = [
  {
    name: 'what is made has the mode less the umask, and the maker as owner',
    run(c) {
      c.fs.chmodSync(c.dir, 0o777);
      process.umask(0o027);
      c.as(USER, GROUP, [], () => {
        c.close(c.open('f', c.sys.O_WRONLY | c.sys.O_CREAT, 0o666));
        c.fs.mkdirSync(c.at('d'), 0o777);
        c.fs.symlinkSync('x', c.at('s'));
        c.did(c.sys.mknodat(c.sys.AT_FDCWD, c.at('p'), 0o010666, 0, 0));
      });
      process.umask(0o022);
      c.equal([c.mode('f'), c.mode('d'), c.mode('s'), c.mode('p')], ['640', '750', '777', '640']);
      for (const name of ['f', 'd', 's', 'p']) c.equal([c.stat(name).uid, c.stat(name).gid], [USER, GROUP]);
    },
  },
  {
    name: 'every mode can be set, and only by the owner',
    before(c) {
      c.put('f');
      chown(c, 'f', USER, GROUP);
    },
    run(c) {
      for (const mode of [0o000, 0o777, 0o7777, 0o4755, 0o2755, 0o1644, 0o640]) {
        c.fs.chmodSync(c.at('f'), mode);
        c.equal(c.mode('f'), mode.toString(8));
      }
      c.as(USER, GROUP, [], () => c.fs.chmodSync(c.at('f'), 0o600));
      c.as(OTHER, GROUP, [], () => c.fails('EPERM', () => c.fs.chmodSync(c.at('f'), 0o666)));
      c.equal(c.mode('f'), '600');
    },
  },
  {
    name: 'rights decide who reads, writes and searches',
    before(c) {
      c.put('owner');
      c.fs.chmodSync(c.at('owner'), 0o600);
      chown(c, 'owner', USER, GROUP);
      c.put('group');
      c.fs.chmodSync(c.at('group'), 0o060);
      chown(c, 'group', OTHER, GROUP);
      c.fs.mkdirSync(c.at('closed'), 0o700);
      c.put('closed/in');
    },
    run(c) {
      c.as(USER, 1, [], () => {
        c.equal(c.get('owner'), 'owner');
        c.fs.appendFileSync(c.at('owner'), '!');
        c.fails('EACCES', () => c.get('group'));
        c.fails('EACCES', () => c.get('closed/in'));
        c.fails('EACCES', () => c.list('closed'));
        c.fails('EACCES', () => c.put('new'));
        c.fails('EACCES', () => c.fs.unlinkSync(c.at('owner')));
      });
      c.as(USER, 1, [GROUP], () => {
        c.equal(c.get('group'), 'group');
        c.fs.appendFileSync(c.at('group'), '!');
      });
      c.as(OTHER, 1, [], () => c.fails('EACCES', () => c.get('group')));
      c.equal([c.get('owner'), c.get('group')], ['owner!', 'group!']);
    },
  },
  {
    name: 'owners are changed by root, groups by the owner among the own ones',
    before(c) {
      c.put('f');
      chown(c, 'f', USER, GROUP);
      c.fs.mkdirSync(c.at('d'));
    },
    run(c) {
      chown(c, 'd', 4, 5);
      c.equal([c.stat('d').uid, c.stat('d').gid], [4, 5]);
      c.as(USER, GROUP, [7], () => {
        c.fails('EPERM', () => c.sys.fchownat(c.sys.AT_FDCWD, c.at('f'), OTHER, -1));
        c.fails('EPERM', () => c.sys.fchownat(c.sys.AT_FDCWD, c.at('f'), -1, 99));
        chown(c, 'f', -1, 7);
      });
      c.equal([c.stat('f').uid, c.stat('f').gid], [USER, 7]);
      chown(c, 'f', 0xfffffffe, 0xfffffffe);
      c.equal([c.stat('f').uid, c.stat('f').gid], [0xfffffffe, 0xfffffffe]);
    },
  },
  {
    name: 'in a sticky directory only the owner of file or directory removes and renames',
    before(c) {
      c.fs.mkdirSync(c.at('t'));
      c.fs.chmodSync(c.at('t'), 0o1777);
      for (const name of ['t/a', 't/b', 't/c']) {
        c.put(name);
        chown(c, name, USER, USER);
      }
    },
    run(c) {
      c.as(OTHER, OTHER, [], () => {
        c.fails('EPERM', () => c.fs.unlinkSync(c.at('t/a')));
        c.fails('EPERM', () => c.fs.renameSync(c.at('t/a'), c.at('t/z')));
        c.put('t/own');
        c.fails('EPERM', () => c.fs.renameSync(c.at('t/own'), c.at('t/a')));
        c.fs.unlinkSync(c.at('t/own'));
      });
      c.as(USER, USER, [], () => {
        c.fs.renameSync(c.at('t/a'), c.at('t/z'));
        c.fs.unlinkSync(c.at('t/b'));
      });
      c.equal(c.list('t'), ['c', 'z']);
    },
  },
];

const setIds = [
  {
    name: 'what is made in a set-gid directory has its group, directories the bit, too',
    before(c) {
      c.fs.mkdirSync(c.at('g'));
      chown(c, 'g', 0, GROUP);
      c.fs.chmodSync(c.at('g'), 0o2777);
      c.put('g/again');
    },
    run(c) {
      c.fs.unlinkSync(c.at('g/again'));
      c.as(USER, USER, [], () => {
        c.put('g/f');
        c.put('g/again');
        c.fs.mkdirSync(c.at('g/d'));
        c.fs.symlinkSync('x', c.at('g/s'));
        c.close(c.open('g/x', c.sys.O_WRONLY | c.sys.O_CREAT, 0o2775));
      });
      for (const name of ['f', 'again', 'd', 's', 'x']) {
        c.equal([name, c.stat(`g/${name}`).uid, c.stat(`g/${name}`).gid], [name, USER, GROUP]);
      }
      c.equal([c.mode('g/f'), c.mode('g/d')], ['644', '2755']);
      // Who is not in the group may not make a program that runs with it.
      c.equal(c.mode('g/x'), '755');
      c.as(USER, USER, [GROUP], () => c.close(c.open('g/y', c.sys.O_WRONLY | c.sys.O_CREAT, 0o2775)));
      c.equal(c.mode('g/y'), '2755');
    },
  },
  {
    name: 'a chmod by who is not in the group takes set-gid away',
    before(c) {
      c.put('f');
      chown(c, 'f', USER, GROUP);
    },
    run(c) {
      c.as(USER, USER, [], () => c.fs.chmodSync(c.at('f'), 0o6755));
      c.equal(c.mode('f'), '4755');
      c.as(USER, USER, [GROUP], () => c.fs.chmodSync(c.at('f'), 0o6755));
      c.equal(c.mode('f'), '6755');
    },
  },
  {
    name: 'a write, a truncate and a chown take set-id bits away from who may not keep them',
    before(c) {
      for (const name of ['write', 'truncate', 'open', 'append', 'chown', 'plain', 'fallocate']) {
        c.put(name);
        chown(c, name, USER, GROUP);
        c.fs.chmodSync(c.at(name), name === 'plain' ? 0o2666 : 0o6777);
      }
      c.put('root');
      c.fs.chmodSync(c.at('root'), 0o6777);
    },
    run(c) {
      const { sys } = c;
      c.as(OTHER, OTHER, [], () => {
        const fd = c.open('write', sys.O_WRONLY);
        c.equal(sys.pwrite(fd, Buffer.from('x'), 0, 1, 0), 1);
        c.close(fd);
        c.fs.truncateSync(c.at('truncate'), 2);
        c.close(c.open('open', sys.O_WRONLY | sys.O_TRUNC));
        c.fs.appendFileSync(c.at('append'), 'x');
        const space = c.open('fallocate', sys.O_WRONLY);
        c.did(sys.fallocate(space, 0, 0, 100));
        c.close(space);
      });
      for (const name of ['write', 'truncate', 'open', 'append', 'fallocate']) {
        c.equal([name, c.mode(name)], [name, '777']);
      }
      // Without the group's right to execute set-gid is no such bit.
      c.as(OTHER, OTHER, [GROUP], () => c.fs.appendFileSync(c.at('plain'), 'x'));
      c.equal(c.mode('plain'), '2666');
      c.as(USER, GROUP, [], () => chown(c, 'chown', -1, GROUP));
      c.equal(c.mode('chown'), '777');
      c.fs.appendFileSync(c.at('root'), 'x');
      c.equal(c.mode('root'), '6777');
      chown(c, 'root', USER, GROUP);
      c.equal(c.mode('root'), '777');
    },
  },
  {
    name: 'set-id bits that a write takes away are gone at once for who asks for the mode alone',
    before(c) {
      for (const name of ['write', 'append', 'open', 'kept']) {
        c.put(name);
        chown(c, name, USER, GROUP);
        c.fs.chmodSync(c.at(name), name === 'kept' ? 0o6766 : 0o6777);
      }
    },
    run(c) {
      const { sys } = c;
      for (const name of ['write', 'append', 'open']) c.equal(modeAlone(c, name), '6777');
      c.equal(modeAlone(c, 'kept'), '6766');
      c.as(OTHER, OTHER, [GROUP], () => {
        const fd = c.open('write', sys.O_WRONLY);
        c.equal(sys.pwrite(fd, Buffer.from('x'), 0, 1, 0), 1);
        c.equal(modeAlone(c, 'write'), '777', 'while it is open');
        c.close(fd);
        c.fs.appendFileSync(c.at('append'), 'x');
        c.close(c.open('open', sys.O_WRONLY | sys.O_TRUNC));
        c.fs.appendFileSync(c.at('kept'), 'x');
      });
      for (const name of ['write', 'append', 'open']) {
        c.equal([name, modeAlone(c, name)], [name, '777']);
      }
      c.equal(modeAlone(c, 'kept'), '2766');
    },
  },
  {
    name: 'a write takes file capabilities away',
    before(c) {
      c.put('f');
      c.did(c.setxattr('f', 'security.capability', capability));
    },
    run(c) {
      c.equal(c.getxattr('f', 'security.capability'), capability.toString('latin1'));
      c.fs.chmodSync(c.at('f'), 0o755);
      c.equal(c.getxattr('f', 'security.capability'), capability.toString('latin1'));
      c.fs.appendFileSync(c.at('f'), 'x');
      c.fails('ENODATA', () => c.getxattr('f', 'security.capability'));
    },
  },
];

const STATX_MODE = 2;

/** The mode, asked for alone: a kernel may keep it when it no longer keeps the rest. */
function modeAlone(c, name) {
  const { sys } = c;
  const { address, view } = sys.pinned(256);
  const path = Buffer.from(`${c.at(name)}\0`, 'latin1');
  c.did(sys.statxOf(sys.AT_FDCWD, sys.addressOf(path), sys.AT_SYMLINK_NOFOLLOW, STATX_MODE, address));
  return (view.getUint16(28, true) & 0o7777).toString(8);
}

/** CAP_NET_RAW, permitted and effective. */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

const acls = [
  {
    name: 'an access ACL gives rights to whom it names, as far as its mask',
    before(c) {
      c.put('f');
      c.fs.chmodSync(c.at('f'), 0o600);
    },
    run(c) {
      const value = acl(['user', 6], ['namedUser', 6, USER], ['group', 0], ['mask', 4], ['other', 0]);
      c.did(c.setxattr('f', access, value));
      c.equal(c.getxattr('f', access), value.toString('latin1'));
      c.equal(c.mode('f'), '640');
      c.as(USER, USER, [], () => {
        c.equal(c.get('f'), 'f');
        c.fails('EACCES', () => c.fs.appendFileSync(c.at('f'), 'x'));
      });
      c.as(OTHER, OTHER, [], () => c.fails('EACCES', () => c.get('f')));
      c.fs.chmodSync(c.at('f'), 0o660);
      c.as(USER, USER, [], () => c.fs.appendFileSync(c.at('f'), 'x'));
      c.equal(c.get('f'), 'fx');
      c.did(c.sys.removexattr(c.sys.AT_FDCWD, c.at('f'), access));
      c.as(USER, USER, [], () => c.fails('EACCES', () => c.get('f')));
    },
  },
  {
    name: 'a minimal ACL is the mode, and leaves no attribute',
    before(c) {
      c.put('f');
    },
    run(c) {
      c.did(c.setxattr('f', access, acl(['user', 7], ['group', 5], ['other', 1])));
      c.equal(c.mode('f'), '751');
      c.fails('ENODATA', () => c.getxattr('f', access));
      c.equal(c.listxattr('f'), []);
    },
  },
  {
    name: 'a default ACL is inherited, and takes the place of the umask',
    before(c) {
      c.fs.mkdirSync(c.at('d'));
      c.did(c.setxattr('d', byDefault, sharedAcl()));
      c.put('d/again');
    },
    run(c) {
      c.fs.unlinkSync(c.at('d/again'));
      process.umask(0o077);
      c.put('d/f');
      c.put('d/again');
      c.fs.mkdirSync(c.at('d/e'), 0o755);
      process.umask(0o022);
      c.equal([c.mode('d/f'), c.mode('d/again'), c.mode('d/e')], ['660', '660', '750']);
      c.equal(c.getxattr('d/e', byDefault), sharedAcl().toString('latin1'));
      c.fails('ENODATA', () => c.getxattr('d/f', byDefault));
      for (const name of ['d/f', 'd/again']) {
        const wanted = acl(['user', 6], ['namedUser', 7, USER], ['group', 5], ['mask', 6], ['other', 0]);
        c.equal(c.getxattr(name, access), wanted.toString('latin1'));
      }
      c.as(USER, USER, [], () => c.fs.appendFileSync(c.at('d/f'), 'x'));
      c.as(OTHER, OTHER, [], () => c.fails('EACCES', () => c.get('d/f')));
    },
  },
  {
    name: 'ACLs that came from elsewhere hold, and survive a change of the file',
    before(c) {
      c.put('f');
      c.fs.chmodSync(c.at('f'), 0o600);
      c.did(c.setxattr('f', access, sharedAcl()));
    },
    run(c) {
      c.as(USER, USER, [], () => c.fs.appendFileSync(c.at('f'), 'x'));
      c.equal(c.getxattr('f', access), sharedAcl().toString('latin1'));
      c.as(OTHER, OTHER, [], () => c.fails('EACCES', () => c.get('f')));
      c.did(c.rename('f', 'g'));
      c.equal(c.getxattr('g', access), sharedAcl().toString('latin1'));
    },
  },
  {
    name: 'ACLs are refused where they make no sense, or to who is not the owner',
    before(c) {
      c.put('f');
      c.fs.symlinkSync('f', c.at('s'));
    },
    run(c) {
      c.fails('EACCES', () => c.setxattr('f', byDefault, sharedAcl()));
      c.fails('EOPNOTSUPP', () => c.setxattr('s', access, sharedAcl()));
      c.fails('EOPNOTSUPP', () => c.setxattr('f', access, Buffer.from('no acl at all')));
      c.fails('EINVAL', () => c.setxattr('f', access, acl(['user', 7])));
      c.as(USER, USER, [], () => c.fails('EPERM', () => c.setxattr('f', access, sharedAcl())));
    },
  },
];

export const rightsRules = [...modes, ...setIds, ...acls];
