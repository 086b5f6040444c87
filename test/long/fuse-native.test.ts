// The rules of conformance through libfuse 2, on what the base has. Those that do not hold are named with what they
// come to: native-notes/fuse-native.md says why. The base is the same afterwards.
import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { conformance, notByFuse, populate } from '../conformance/conformance.ts';
import { type Mount, startMount } from '../lib/kasane.ts';
import { missing, testNeeding } from '../lib/needs.ts';
import { makeTemp } from '../lib/temp.ts';
import { hashTree } from '../lib/tree.ts';

const needs = { root: true, fuse: true };

const broken: Record<string, RegExp> = {
  ...notByFuse,
  // Names and targets are decoded as UTF-8.
  'a name is up to 255 bytes, any but NUL and slash': /EILSEQ|deep-equal/,
  'a symlink holds up to 4095 bytes, and its size says so': /-84/,
  // libfuse 2 gives removed files that are open another name.
  'rename replaces a file, and who has the old one open keeps it': /\.fuse_hidden/,
  'a file that was removed lives on for who has it open': /\.fuse_hidden/,
  // It asks by path, and there is none.
  'a directory that was removed can be held open, lists nothing and takes nothing': /ENOENT/,
  'a removed file that only a path descriptor holds can still be asked and opened': /ENOENT|1 !== 0/,
  // What protocol 7.19 has no message for.
  'RENAME_EXCHANGE changes two of any type in one step': /EINVAL/,
  'RENAME_EXCHANGE of a directory for a file changes the counts of links of the directories that they are in':
    /EINVAL/,
  'RENAME_NOREPLACE moves to a free name, also one that was removed before': /EINVAL/,
  'SEEK_DATA and SEEK_HOLE find data and holes, also of what was copied': /0 !== 1048576/,
  'fallocate reserves, keeps the size, punches holes and zeroes': /EOPNOTSUPP/,
  'O_TMPFILE makes a file without a name, which may be given one': /EOPNOTSUPP/,
  'random writes, cuts, holes, copies and stores give what a model gives (seed 1)': /EOPNOTSUPP/,
  'random writes, cuts, holes, copies and stores give what a model gives (seed 2)': /EOPNOTSUPP/,
  // Offsets are positions in the listing of one open.
  'a place in a listing holds in another open, and after others were removed': /entry-/,
  // Who asks is not known.
  'what is made has the mode less the umask, and the maker as owner': /deep-equal/,
  'in a sticky directory only the owner of file or directory removes and renames': /EPERM/,
  'what is made in a set-gid directory has its group, directories the bit, too': /deep-equal/,
  'a write, a truncate and a chown take set-id bits away from who may not keep them': /EOPNOTSUPP/,
  'trusted.* is for root, and user.* needs the right to write': /trusted\.secret/,
  // ACLs are kept, and nobody asks them.
  'an access ACL gives rights to whom it names, as far as its mask': /EACCES/,
  'a default ACL is inherited, and takes the place of the umask': /deep-equal/,
  'ACLs that came from elsewhere hold, and survive a change of the file': /EACCES/,
  // A name is an object of its own to the kernel.
  'a watch of a file tells of its changes by any of its names, of its moves and of its end': /'MODIFY'/,
  'a birth time is told, of when the file was made, and nothing moves it': /no birth time/,
  // Milliseconds since 1970, and both times at once.
  'times have nanoseconds, from before 1970 until long after 2038': /deep-equal/,
  'UTIME_OMIT leaves a time, UTIME_NOW sets it to now, and ctime moves': /deep-equal/,
};

describe('through fuse-native', () => {
  let dir: string;
  let mount: Mount;
  let before: string;

  beforeAll(async () => {
    if (missing(needs) !== null) return;
    dir = (await makeTemp('disk')).dir;
    for (const name of ['base', 'overlay', 'mnt', 'base/born']) fs.mkdirSync(`${dir}/${name}`);
    await populate(`${dir}/base/born`);
    before = await hashTree(`${dir}/base`);
    const options = ['--transport', 'fuse-native', '-o', 'suid,dev'];
    mount = await startMount({
      base: `${dir}/base`,
      overlay: `${dir}/overlay`,
      mountPoint: `${dir}/mnt`,
      options,
    });
  });

  conformance('a directory of the base', () => `${dir}/mnt/born`, needs, 'short', broken);

  testNeeding(needs, 'the base is as it was, and the log has no error', async () => {
    expect(await hashTree(`${dir}/base`)).toBe(before);
    expect(mount.log()).not.toMatch(/ error /);
  });

  afterAll(() => mount?.umount());
});
