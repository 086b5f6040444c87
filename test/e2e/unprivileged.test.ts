// Mounts without the machine's privileges: as an ordinary user through fusermount3, and as root of a user namespace.
// What can work there does, what cannot is said, and origins that no attribute can hold are kept beside the overlay.
import { describe, expect } from 'vitest';
import { kasane, type Layers, withLayers } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';
import { giveToUser, type Standing, USER, type UsersMount, usersNeed, withUsersMount } from '../lib/users.ts';

const node = process.execPath;

async function populated(layers: Layers): Promise<void> {
  await sh(
    `cd "$1"; mkdir -p d/e shut; for f in a b d/c d/e/g shut/f; do echo base > $f; done
    ln -s a l; ln -s b l2; ln -s b l3; mkfifo p p2; chmod 555 shut`,
    [layers.base],
  );
  await giveToUser(layers);
}

const work = `
  cd "$1"
  echo guest >> a; rm b; mkdir new; echo x > new/f; mv d/c d/moved; chmod 700 d/e; ln -sfn b l
  rm -r d/e; mkdir d/e; echo y > d/e/only; echo more >> shut/f; chmod 600 p; mv p2 q; mv l2 l4; mv d dd
  mkfifo own; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
`;

/** One of two names of a file goes while somebody knows it, and by the other one the file is changed. */
const otherName = `
import os, sys
os.chdir(sys.argv[1])
known = os.open('y', os.O_PATH)
os.unlink('y')
os.stat('x')
os.chmod('x', 0o600)
with open('x', 'a') as file:
    file.write('guest')
print(open('x').read(), oct(os.stat('x').st_mode & 0o777), os.stat('x').st_ino == os.fstat(known).st_ino)
`;

const afterwards = `
  cd "$1"; find . -printf '%P %y %m %l\\n' | sort; cat a dd/moved dd/e/only new/f shut/f
`;

const expected = `    d 755 
a f 644 
dd d 755 
dd/e d 755 
dd/e/only f 644 
dd/moved f 644 
l l 777 b
l3 l 777 b
l4 l 777 b
new d 755 
new/f f 644 
own p 644 
p p 600 
q p 644 
shut d 555 
shut/f f 644 
sock s 755 
base
guest
base
y
x
base
more
`.replace(/^ +/, ' ');

for (const standing of ['user', 'namespace'] as const) {
  describe(standing === 'user' ? 'an ordinary user' : 'root of a user namespace', () => {
    mountTest(
      'changes everything that is its own, finds it again, and leaves the base alone',
      () =>
        withLayers(async (layers) => {
          await populated(layers);
          const { base, overlay } = layers;
          await withBaseUntouched(base, async () => {
            await withUsersMount(layers, standing, async (mount) => {
              await mount.sh(work);
              expect(await mount.sh(afterwards)).toBe(expected);
              expect(await mount.sh(`${node} "$2" status "$1"`)).toMatch(/^copies [1-9]/m);
              expect((await mount.as('mknod "$1/null" c 1 3')).stderr).toContain('Operation not permitted');
              expect((await mount.as('setfattr -n user.kasane.origin -v x "$1/a"')).code).not.toBe(0);
              expect(await mount.sh('cd "$1"; setfattr -n user.mine -v x a; getfattr -d a')).toContain(
                'user.mine',
              );
              expect(await mount.sh('stat -c "%u %a" "$1/.kasane/control"')).toBe(
                standing === 'user' ? '65534 600\n' : '0 600\n',
              );
              expect(await mount.sh('ls "$XDG_RUNTIME_DIR/kasane"')).toMatch(/\.sock\n/);
            });
            expect(await runOk('getfattr', ['-d', '-m', '-', `${overlay}/a`])).toContain(
              'user.kasane.origin=',
            );
            expect(await runOk('stat', ['-c', '%F %t:%T', `${overlay}/b`])).toBe(
              'character special file 0:0\n',
            );
            await withUsersMount(layers, standing, async (mount) => {
              expect(await mount.sh(afterwards)).toBe(expected);
            });
          });
        }),
      usersNeed,
    );

    mountTest(
      'a file of the base that has lost a name which somebody knows is changed by its other name, and in the overlay',
      () =>
        withLayers(async (layers) => {
          await sh('cd "$1"; echo base > x; ln x y', [layers.base]);
          await giveToUser(layers);
          await withBaseUntouched(layers.base, () =>
            withUsersMount(layers, standing, async (mount) => {
              expect(await mount.sh(`python3 -c "${otherName}" "$1"`)).toBe('base\nguest 0o600 True\n');
            }),
          );
        }),
      { commands: [...usersNeed.commands, 'python3'] },
    );
  });
}

mountTest(
  'a file that its owner could not read for a while is the same file after that, and keeps its origin',
  () =>
    withLayers(async (layers) => {
      await sh('cd "$1"; echo base > f; echo base > taken', [layers.base]);
      await giveToUser(layers);
      const number = 'stat -c %i f';
      const act = `cd "$1"; ${number}; chmod 000 f; ${number} > /dev/null; chmod 644 f; ${number}; rm taken; ln f taken; ${number}`;
      const numbers: string[] = [];
      await withBaseUntouched(layers.base, async () => {
        for (const script of [act, `cd "$1"; ${number}`]) {
          await withUsersMount(layers, 'user', async (mount) => {
            numbers.push(...(await mount.sh(script)).trim().split('\n'));
          });
        }
      });
      const [first] = numbers;
      expect(numbers).toEqual(Array.from({ length: 4 }, () => first));
    }),
  usersNeed,
);

mountTest(
  'directories that their owner may not list hide what they hide, and show what they show',
  () =>
    withLayers(async (layers) => {
      await sh('cd "$1"; mkdir d r; echo hidden > d/old; echo base > r/f', [layers.base]);
      await giveToUser(layers);
      const look = 'cd "$1"; cat d/own r2/f; test ! -e d/old; stat -c %a d r2';
      const looks = 'own\nbase\n300\n300\n';
      await withBaseUntouched(layers.base, async () => {
        await withUsersMount(layers, 'user', async (mount) => {
          await mount.sh('cd "$1"; rm -r d; mkdir d; echo own > d/own; mv r r2; chmod 300 d r2');
          expect(await mount.sh(look)).toBe(looks);
        });
        await withUsersMount(layers, 'user', async (mount) => {
          expect(await mount.sh(look)).toBe(looks);
          const before = await mount.sh('stat -c %z "$1/d" "$1/r2"');
          expect(await mount.sh('stat -c %z "$1/d" "$1/r2"')).toBe(before);
          expect(await mount.sh('cd "$1"; mv d d2; mv r2 r3; cat d2/own r3/f')).toBe('own\nbase\n');
          expect(await mount.sh('cd "$1"; chmod 700 d2 r3; ls d2 r3')).toBe('d2:\nown\n\nr3:\nf\n');
        });
      });
    }),
  usersNeed,
);

mountTest(
  'who only asks changes nothing of a directory in the overlay that its owner may not list',
  () =>
    withLayers(async (layers) => {
      const { base, overlay, dir } = layers;
      await sh('cd "$1"; mkdir d r; echo hidden > d/old; echo base > r/f', [base]);
      await giveToUser(layers);
      const look = () => sh('stat -c "%n %a %z" d r2', [], { cwd: overlay });
      let before = '';
      await withUsersMount(layers, 'user', async (mount) => {
        await mount.sh(
          'cd "$1"; rm -r d; mkdir d; mv r r2; chmod 300 d r2; echo own > d/own; echo guest > r2/f',
        );
        before = await look();
        for (const verb of ['status', 'diff', 'reconcile'])
          expect((await mount.as(`${node} "$2" ${verb} "$1"`)).code).toBeLessThan(2);
        await mount.sh('ls "$1"');
        expect(await look()).toBe(before);
      });
      const env = { HOME: `${dir}/home`, KASANE_RUNTIME_DIR: '', XDG_RUNTIME_DIR: `${dir}/run` };
      for (const verb of ['diff', 'check'])
        expect((await kasane([verb, overlay], { uid: USER, gid: USER, env })).code).toBeLessThan(2);
      const readOnly = async (mount: UsersMount) => {
        await mount.sh('ls "$1"; cat "$1/d/own"; stat "$1/r2"');
      };
      await withUsersMount(layers, 'user', readOnly, ['-o', 'ro']);
      expect(await look()).toBe(before);
    }),
  usersNeed,
);

mountTest(
  'in layers of the base made without privileges files have their content, and directories theirs, where user.* says',
  () =>
    withLayers(async (layers) => {
      const { base } = layers;
      await sh(
        `cd "$1"; mkdir -p a/dir b/far b/d; echo content > b/d/f; echo same > b/g; echo in > b/far/in; cd a
        truncate -s 8 f; truncate -s 5 g; chmod 640 f g; setfattr -n user.overlay.metacopy f g
        setfattr -n user.overlay.redirect -v /d/f f; setfattr -n user.overlay.redirect -v /far dir`,
        [base],
      );
      await giveToUser(layers);
      const both = { ...layers, base: `${base}/a:${base}/b` };
      await withUsersMount(both, 'user', async ({ sh }) => {
        expect(await sh('cd "$1"; cat f g; ls dir; stat -c %a f; echo more >> f; cat f')).toBe(
          'content\nsame\nin\n640\ncontent\nmore\n',
        );
      });
    }),
  { commands: [...usersNeed.commands, 'setfattr'] },
);

const reportOf = (out: string) => JSON.parse(out) as { notes: string[]; counts: Record<string, number> };

mountTest(
  'what is not possible without privileges is said, in a line each, at the mount and in status',
  () =>
    withLayers(async (layers) => {
      await populated(layers);
      const notes: Record<Standing, string[]> = { user: [], namespace: [], users: [] };
      for (const standing of ['user', 'namespace'] as const) {
        await withUsersMount(layers, standing, async (mount) => {
          notes[standing] = reportOf(await mount.sh(`${node} "$2" status --json "$1"`)).notes;
          for (const note of notes[standing]) expect(mount.said()).toContain(`kasane: mount: ${note}\n`);
          const outside = await mount.as('cat "$1/a"', 'root');
          if (standing === 'user') expect(outside.stderr).toContain('Permission denied');
          if (standing === 'user')
            expect((await mount.as('chown 0 "$1/a"')).stderr).toContain('not permitted');
          expect((await mount.as('setfattr -n trusted.x -v y "$1/a"')).stderr).toContain('not permitted');
        });
      }
      expect(notes.user.join('\n')).toMatch(
        /ordinary user.*\n.*allow_other.*\n.*device nodes.*\n.*userxattr/,
      );
      expect(notes.namespace.join('\n')).toMatch(
        /^as root of a user namespace.*\n.*device nodes.*\n.*userxattr/,
      );
    }),
  usersNeed,
);
