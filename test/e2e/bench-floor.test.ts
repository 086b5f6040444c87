// The floor of the benchmark is a file system, if a poor one: what it answers at once is also right.
import * as path from 'node:path';
import { expect } from 'vitest';
import { repository } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';
import { diffTrees, readTree } from '../lib/tree.ts';

const fill = `
cd "$1"; umask 022
mkdir -p some/deep old empty
printf small >small; seq 1 40000 >big; : >nothing; ln -s some/deep way; mkfifo pipe
for i in $(seq 1 60); do printf %s "$i" >"old/file with a longer name $i"; done
cp small some/deep/copy; ln some/deep/copy some/link; chmod 4711 small; chmod 750 some; chown 12:34 some/deep`;

/** By all the ways that rows write; at the end the kernel drops the bytes that it keeps. */
const change = `
cd "$1"; umask 022
cat small big >/dev/null
printf made >made; printf ' and more' >>made; printf ' and more' >>small
cp big larger; cat larger >>big; seq 1 9 >larger; printf 12345 | dd of=larger bs=1 seek=2 conv=notrunc status=none
exec 3<>both; printf written >&3; printf over >both; exec 3>&-; exec 4<made; printf late >>made; exec 4<&-
truncate -s 3 some/deep/copy; truncate -s 100000 grown; mkdir -p some/new; mv made some/new/moved; ln some/new/moved linked
mv some/new renamed; mv nothing big; ln -sf elsewhere symbolic; chmod 600 linked; chown -R 56:78 renamed; touch -d @99 linked
tar -cf old.tar old; rm -r old; mkdir out; tar -xf old.tar -C out; rm "out/old/file with a longer name 7"; rmdir empty
exec 5<>gone; rm gone; printf kept >&5; [ "$(cat /proc/self/fd/5)" = kept ]; exec 5>&-
find . -type f -exec dd if={} iflag=nocache count=0 status=none ';'`;

const floor = path.join(repository, 'bench', 'floor.c');

mountTest(
  'the floor of the benchmark gives back what it was loaded with and what is written to it',
  () =>
    withTemp('memory', async (dir) => {
      const [program, base, plain] = [`${dir}/floor`, `${dir}/base`, `${dir}/plain`];
      await sh('cc -O1 -o "$1" "$2"; mkdir "$3"', [program, floor, base]);
      await sh(fill, [base]);
      await sh('cp -a "$1" "$2"', [base, plain]);
      const before = await readTree(base);
      await sh(change, [plain]);
      const after = await readTree(plain);
      // As Kasane waits, and waiting for each request.
      for (const [spin, awake] of [
        ['30', '1'],
        ['0', '0'],
      ] as const) {
        const mnt = `${dir}/mnt${spin}`;
        await sh('mkdir "$5"; "$1" "$2" "$3" "$4" "$5"', [program, spin, awake, base, mnt]);
        try {
          expect(diffTrees(before, await readTree(mnt), { ino: true })).toEqual([]);
          await sh(change, [mnt]);
          const found = await readTree(mnt);
          expect(diffTrees(after, found, { mtime: false })).toEqual([]);
          expect(found.get('linked')?.mtime).toBe('99000000000');
        } finally {
          await takeDown(mnt);
        }
      }
      expect(diffTrees(before, await readTree(base), { ino: true })).toEqual([]);
    }),
  { commands: ['cc', 'tar'] },
);
