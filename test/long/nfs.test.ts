// The kernel's own NFS, both ways: a base that lies on a server, and a mount that is given out to clients. In a guest,
// whose kernel has both ends.
import { expect } from 'vitest';
import { testNeeding } from '../lib/needs.ts';
import { nfsGuestNeeds, withNfsGuest } from '../lib/nfs-guest.ts';
import { sh } from '../lib/run.ts';
import type { Shell } from '../lib/uml.ts';
import { BASE_LINE, GUEST_LINE, text } from '../lib/versioning.ts';

const MINUTE = 60_000;

/** One tree for each version of the protocol. */
const makeTrees = (tree: string) =>
  sh(
    `
    lines=$(cat)
    for v in v3 v4; do
      mkdir -p "$1/$v/dir/sub"; cd "$1/$v"
      for f in both same dir/both; do echo "$lines" > $f; done
      for f in plain replaced gone open dir/moved dir/mode dir/linked dir/sub/deep; do echo one > $f; done
      ln dir/linked dir/other; ln -s plain link; mkfifo fifo; chown 7:8 dir/mode; chmod 4750 dir/mode
      touch -d @1000000000.123456789 plain dir/sub
    done
    `,
    [tree],
    { input: text() },
  );

/** All that a client can see of a tree, and what a mount of it has to show. */
const SEEN = `seen() {
  (cd "$1"; find . -mindepth 1 -path ./.kasane -prune -o -printf '%P %y %m %U:%G %n %s %l' \\( -type d -printf '\\n' -o -printf ' %T@\\n' \\) | sort
    find . -path ./.kasane -prune -o -type f -print0 | sort -z | xargs -0 md5sum)
}
`;

interface Base {
  version: 3 | 4;
  options: string;
}

/** Mounts the tree by NFS as a base; the rest of the script is run in the mount. */
async function inMount({ sh: run }: Shell, { version, options }: Base, script: string): Promise<string> {
  const dir = `/run/k${version}`;
  return run(
    `
    ${SEEN}
    server=/run/disk/v$1 client=$2/base overlay=$2/overlay mnt=$2/mnt
    if ! [ -d "$mnt" ]; then
      mkdir -p "$overlay" "$mnt"
      nfs $1 /v$1 "$client" "$3"
      kasane mount --base "$client" --overlay "$overlay" --settle 0 --log $2/log "$mnt"
    fi
    cd "$mnt"
    ${script}
    `,
    [String(version), dir, options],
  );
}

const edits = `
  sed -i '${GUEST_LINE}s/.*/guest/' both dir/both
  sed -i '${BASE_LINE}s/.*/guest/' same
  echo two >> plain
  rm gone
  mv dir/moved dir/sub/moved
  chmod 600 dir/mode
  echo two >> dir/linked
  mkdir new; echo new > new/file
`;

/** What is done on the server, behind the client's back. */
const updates = `
  sed -i '${BASE_LINE}s/.*/server/' $server/both $server/dir/both $server/same
  echo two > $server/replaced.new; mv $server/replaced.new $server/replaced
  rm $server/open
  echo added > $server/dir/added
`;

const merged = text({ [BASE_LINE]: 'server', [GUEST_LINE]: 'guest' });

/** The client remembers for up to a minute, and waits for a server that is away. */
async function useAsBase(guest: Shell, base: Base): Promise<void> {
  const run = (script: string) => inMount(guest, base, script);
  const mounted = await run('seen $server > ../before; seen . | diff ../before - ; kasane status .');
  expect(mounted).toContain(
    'kasane: mount: coherence is check: the base lies on NFS, which tells of no changes',
  );
  expect(mounted).toMatch(/^coherence check$/m);
  expect(mounted).toMatch(/^note coherence is check: the base lies on NFS/m);

  expect(
    await run(`${edits} setfattr -n trusted.guest -v 1 dir/sub/deep; seen $server | diff ../before -`),
  ).toBe('');
  expect(await run('cat dir/other dir/sub/moved new/file')).toBe('one\ntwo\none\nnew\n');
  const changed = 'stat -c "%a %u:%g" dir/mode; getfattr --only-values -n trusted.guest dir/sub/deep';
  expect(await run(changed)).toBe('600 7:8\n1');
  // Whatever is copied up knows what it comes from.
  const copied = 'both dir/both same plain dir/sub/moved dir/mode dir/linked dir/sub/deep';
  await run(`for f in ${copied}; do getfattr -n trusted.kasane.origin $overlay/$f > /dev/null; done
    [ -c $overlay/gone ]; ! [ -e gone ]`);

  // Who opens a file sees what the server has by now, however long the client would remember.
  const open = await run(`exec 5< open; cat both replaced open > /dev/null; ls -lR > /dev/null; ${updates}
    for f in both dir/both replaced same; do cat $f > ../$(basename $f).$(dirname $f | wc -c); done
    cat <&5 || true; ! cat open 2> /dev/null; seen $server > ../updated`);
  expect(await run('cat ../both.2')).toBe(merged);
  expect(await run('cat ../both.4')).toBe(merged);
  expect(await run('cat ../replaced.2')).toBe('two\n');
  expect(await run('cat ../same.2')).toBe(text({ [BASE_LINE]: 'guest' }));
  expect(await run('cat .kasane/conflicts')).toContain('same');
  // What was open when the server removed it is what the client still has of it.
  expect(open).toMatch(/^one$|Stale file handle/m);

  const after =
    await run(`rpc.nfsd 0; cat dir/sub/deep & read=$!; (echo three >> replaced) & written=$!; sleep 1; rpc.nfsd 2
    wait $read; wait $written; cat replaced`);
  expect(after).toBe('one\ntwo\nthree\n');
  await run('seen $server | diff ../updated -; cd /; kasane umount $mnt; kasane check $overlay');
}

/** The client remembers nothing, and gives up where the server is away. */
async function useWithoutServer(guest: Shell, base: Base): Promise<void> {
  const run = (script: string) => inMount(guest, base, script);
  await run('seen $server > ../before; seen . | diff ../before -');
  await run(
    `sed -i '${GUEST_LINE}s/.*/guest/' both; sed -i '${BASE_LINE}s/.*/server/' $server/both; echo own > own`,
  );
  expect(await run('cat both')).toBe(merged);
  const away = await run(`
    seen $server > ../updated; exec 7>> own; rpc.nfsd 0
    (ls dir && echo listed) & (cat dir/sub/deep && echo read) & (echo three >> plain && echo written) &
    (rm gone && echo removed) & echo kept >&7
    wait; rpc.nfsd 2`);
  // An error, and neither a listing that lacks what the base has, nor a change that is not there afterwards.
  expect(away).toMatch(/dir\/sub\/deep: Input\/output error/);
  expect(away).not.toMatch(/^(listed|read|written|removed)$/m);
  await run('until cat gone; do sleep 0.1; done');
  expect(await run('cat own plain dir/sub/deep; cat both')).toBe(`own\nkept\none\none\n${merged}`);
  expect(await run('ls dir')).toBe('both\nlinked\nmode\nmoved\nother\nsub\n');
  await run('echo three >> plain; rm gone; [ "$(cat plain)" = "$(printf "one\\nthree")" ]');
  await run('seen $server | diff ../updated -; cd /; kasane umount $mnt; kasane check $overlay');
}

testNeeding(
  nfsGuestNeeds,
  'a base on NFS is followed and never written to, also when its server is away for a while',
  () =>
    withNfsGuest(makeTrees, async (guest) => {
      await useAsBase(guest, { version: 4, options: '' });
      await useWithoutServer(guest, { version: 3, options: ',noac,soft,timeo=10,retrans=0' });
    }),
  5 * MINUTE,
);

/** The mount is given out by the line that `kasane export` has for exports(5), and taken by clients that remember nothing. */
const giveOut = `
  client=/run/client mnt=/run/disk/mnt base=/run/disk/v4
  start() { kasane mount --base $base --overlay /run/overlay --settle 0 --export=nfs4 --log /run/log $mnt; }
`;

testNeeding(
  nfsGuestNeeds,
  "clients of the kernel's NFS server use a mount, and go on when its daemon has died and the mount is made anew",
  () =>
    withNfsGuest(makeTrees, async (guest) => {
      const run = (script: string) => guest.sh(`${giveOut}\n${script}`);
      await run(`
        mkdir -p $mnt /run/overlay; start
        read -r path options <<< "$(kasane export $mnt | sed -n 's/^#   \\(.*\\) CLIENT(\\(.*\\))$/\\1 \\2/p')"
        exportfs -o "$options" "127.0.0.1:$path"
        nfs 4 /mnt $client ,noac; nfs 3 /mnt $client.3 ,noac
      `);
      expect(
        await run('ls -A $client; cd $client; cat dir/sub/deep; readlink link; stat -c %a,%u dir/mode'),
      ).toBe('.kasane\nboth\ndir\nfifo\ngone\nlink\nopen\nplain\nreplaced\nsame\none\nplain\n4750,7\n');
      await run(`cd $client; ${edits} mv dir/sub sub; mv plain plain2`);
      const seen = `cat plain2 dir/other sub/moved new/file; [ -d sub ]; ! [ -e dir/sub ]; ! [ -e gone ]; stat -c %a dir/mode`;
      for (const at of ['$mnt', '$client', '$client.3'])
        expect(await run(`cd ${at}; ${seen}`)).toBe('one\ntwo\none\ntwo\none\nnew\n600\n');

      await run(`server=$base; ${updates}`);
      // The guest has saved it anew: a file of its own, that keeps its number when it is merged.
      expect(await run('cd $client; cat both')).toBe(merged);
      expect(await run('cd $client; cat dir/added replaced same .kasane/conflicts')).toContain(
        'added\ntwo\nline 1\n',
      );
      expect(await run('cat $client/.kasane/conflicts')).toContain('same');

      const after = await run(`
        exec 5< $client/sub/deep
        kill -9 $(kasane status $mnt | sed -n 's/^pid //p'); umount -l $mnt; start; exportfs -f
        cat $client/plain2 <&5; cd $client; echo three >> plain2; mv plain2 sub; cat $mnt/sub/plain2`);
      expect(after).toContain('one\ntwo\none\ntwo\nthree\n');
      await run('cd $client.3; echo four >> sub/plain2; mv sub/plain2 dir/plain3; rm new/file; rmdir new');
      expect(await run('cat $client/dir/plain3; ls $mnt')).toBe(
        'one\ntwo\nthree\nfour\nboth\ndir\nfifo\nlink\nreplaced\nsame\nsub\n',
      );
    }),
  5 * MINUTE,
);
